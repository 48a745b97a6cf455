-- Audits that a person read conversations, each once an hour. conversations: ids; staff: id.
-- Indexes: audit_conversation_id, primary keys.
INSERT INTO audit (staff_id, verb, conversation_id, tenant_id)
SELECT %(staff)s, 'read', c.id, ch.tenant_id
  FROM conversation c JOIN channel ch ON ch.id = c.channel_id
 WHERE c.id = ANY (%(conversations)s::bigint[])
   AND NOT EXISTS (SELECT FROM audit a WHERE a.conversation_id = c.id AND a.staff_id = %(staff)s AND a.verb = 'read'
                      AND a.at > now() - interval '1 hour')
