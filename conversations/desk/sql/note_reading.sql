-- Audits that a person read a conversation, once an hour. conversation, staff: ids.
-- Indexes: audit_conversation_id, primary keys.
INSERT INTO audit (staff_id, verb, conversation_id, tenant_id)
SELECT %(staff)s, 'read', c.id, ch.tenant_id
  FROM conversation c JOIN channel ch ON ch.id = c.channel_id
 WHERE c.id = %(conversation)s
   AND NOT EXISTS (SELECT FROM audit WHERE conversation_id = %(conversation)s AND staff_id = %(staff)s AND verb = 'read'
                      AND at > now() - interval '1 hour')
