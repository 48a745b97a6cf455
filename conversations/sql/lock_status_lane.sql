-- Locks the lane of the reply that a status names, if there is one.
-- channel_id, platform_id, key (uuid or null). Rows: conversation id. Index: reply_platform_id.
SELECT c.id FROM conversation c
 WHERE c.id = ANY (ARRAY(
       SELECT r.conversation_id FROM reply r
        WHERE r.channel_id = %(channel_id)s AND r.platform_id = %(platform_id)s AND r.platform_id <> ''))
 ORDER BY c.id FOR NO KEY UPDATE
