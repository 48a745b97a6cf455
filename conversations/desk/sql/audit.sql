-- Writes the audit entry of an act: who did what, when and why. Inserts nothing if an earlier
-- statement of the act found nothing to do (it emptied app.locked), so that the caller sees that
-- nothing was done.
-- staff, verb, subject, reason (app.skipped follows it, see skip_answered.sql). Rows: the entry's id.
-- Indexes: primary keys of conversation and channel.
INSERT INTO audit (staff_id, verb, conversation_id, tenant_id, subject, reason)
SELECT %(staff)s, %(verb)s, c.id, ch.tenant_id, %(subject)s,
       concat_ws(' ', %(reason)s::text, nullif(current_setting('app.skipped', true), ''))
  FROM conversation c JOIN channel ch ON ch.id = c.channel_id
 WHERE c.id = nullif(current_setting('app.locked', true), '')::bigint
RETURNING id
