-- Keeps the whole list of a channel's templates, and deletes those that are no longer in it. A status or
-- quality that was reported after the list was read stays. Rows are locked in key order.
-- channel, account, began (unix seconds), items: json list of template_shapes.ListedTemplate.
-- Rows: how many are kept, how many are deleted.
-- Index: template_once.
WITH items AS MATERIALIZED (
  SELECT i.*, to_timestamp(%(began)s::float) AS began FROM json_to_recordset(%(items)s::json)
         AS i(name text, language text, status text, category text, quality text, shape jsonb)),
held AS MATERIALIZED (
  SELECT id, name, language FROM template WHERE channel_id = %(channel)s::bigint
   ORDER BY name COLLATE "C", language COLLATE "C" FOR UPDATE),
gone AS (
  DELETE FROM template t USING held h
   WHERE t.id = h.id AND NOT EXISTS (SELECT FROM items i WHERE i.name = h.name AND i.language = h.language)
  RETURNING 1),
kept AS (
  INSERT INTO template AS t (channel_id, account, name, language, status, category, quality, shape,
                             fetched_at, status_at, quality_at)
  SELECT %(channel)s::bigint, %(account)s::text, name, language, status, coalesce(category, ''), coalesce(quality, ''),
         coalesce(shape, '{}'), began, began, began FROM items
   WHERE (SELECT count(*) FROM held) >= 0  -- all of them are locked before the first is written
   ORDER BY name COLLATE "C", language COLLATE "C"
  ON CONFLICT (channel_id, name, language) DO UPDATE
     SET account = excluded.account, category = excluded.category, shape = excluded.shape, fetched_at = excluded.fetched_at,
         status = CASE WHEN t.status_at > excluded.status_at THEN t.status ELSE excluded.status END,
         status_at = greatest(t.status_at, excluded.status_at),
         quality = CASE WHEN t.quality_at > excluded.quality_at THEN t.quality ELSE excluded.quality END,
         quality_at = greatest(t.quality_at, excluded.quality_at)
  RETURNING 1)
SELECT (SELECT count(*) FROM kept), (SELECT count(*) FROM gone)
