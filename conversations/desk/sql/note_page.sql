-- Audits that a person read or searched a page of no conversation, once an hour for the same words.
-- staff, tenant: ids; verb, subject, reason. Index: audit_staff_id.
INSERT INTO audit (staff_id, verb, tenant_id, subject, reason)
SELECT n.* FROM (SELECT %(staff)s::int, %(verb)s::text AS verb, %(tenant)s::bigint, %(subject)s::text AS subject,
                        %(reason)s::text AS reason) n
 WHERE NOT EXISTS (SELECT FROM audit a WHERE a.staff_id = %(staff)s AND a.conversation_id IS NULL AND a.verb = n.verb
                      AND a.subject = n.subject AND a.reason = n.reason AND a.at > now() - interval '1 hour')
