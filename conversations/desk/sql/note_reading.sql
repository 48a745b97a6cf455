-- Writes down that a person read a conversation, once an hour. conversation, staff: ids. Index: audit_conversation_id.
INSERT INTO audit (staff_id, verb, conversation_id)
SELECT %(staff)s, 'read', %(conversation)s
 WHERE NOT EXISTS (SELECT FROM audit WHERE conversation_id = %(conversation)s AND staff_id = %(staff)s AND verb = 'read'
                      AND at > now() - interval '1 hour')
