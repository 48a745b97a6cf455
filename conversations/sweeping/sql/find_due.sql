-- Finds for each active channel whether a lane is due for handling, and whether one is due for
-- sending. No arguments.
-- Rows: channel id, tenant id, bot, due, due for sending.
-- Indexes: conversation_due, conversation_send_due (one probe each per channel).
SELECT ch.id, ch.tenant_id, ch.bot,
       EXISTS (SELECT FROM conversation c WHERE c.channel_id = ch.id AND c.due_at <= now() ORDER BY c.due_at OFFSET 0),
       EXISTS (SELECT FROM conversation c WHERE c.channel_id = ch.id AND c.send_due_at <= now() ORDER BY c.send_due_at OFFSET 0)
  FROM channel ch WHERE ch.active
