-- Turns a due timer into the newest message of its lane, once.
-- id: of the timer. Rows: conversation id.
-- Indexes: primary keys, message_identity_once.
WITH lane AS MATERIALIZED (
  SELECT c.id FROM conversation c JOIN timer t ON t.conversation_id = c.id WHERE t.id = %(id)s FOR NO KEY UPDATE OF c),
fired AS (DELETE FROM timer t USING lane l WHERE t.id = %(id)s AND t.due_at <= now() RETURNING t.*),
stored AS (
  INSERT INTO message (conversation_id, sequence, identity, content_hash, kind, starts_turn, text, payload)
  SELECT f.conversation_id, c.last_sequence + 1, decode(md5('timer:' || f.id || ':' || f.due_at), 'hex'), '', 'timer', true, f.name,
         jsonb_build_object('data', f.data)
    FROM fired f JOIN conversation c ON c.id = f.conversation_id)
UPDATE conversation c
   SET last_sequence = c.last_sequence + 1,
       due_at = CASE WHEN c.next_sequence <= c.last_sequence THEN c.due_at
                ELSE lane_due_at(c.mode, c.paused_at, c.blocked, c.next_sequence, c.last_sequence + 1, c.not_before, c.wait_until, now()) END
  FROM fired f WHERE c.id = f.conversation_id
RETURNING c.id
