-- Writes down who did what, when and why; a row exactly when every statement before found its lane.
-- staff, verb, subject, reason. Rows: the entry's id.
INSERT INTO audit (staff_id, verb, conversation_id, subject, reason)
SELECT %(staff)s, %(verb)s, id, %(subject)s, %(reason)s
  FROM (SELECT nullif(current_setting('app.locked', true), '')::bigint AS id) lane WHERE id IS NOT NULL
RETURNING id
