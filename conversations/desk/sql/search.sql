-- Finds conversations by a name, phone, chat, message id, trace or number; newest first.
-- channels: bigint[]; exact: a chat, user or message id as the platform writes it; words: tsquery
-- as text, or null; trace: the first bytes of an identity, or null; number: a conversation's id, or
-- null; limit. Rows: id.
-- Indexes: conversation_once, contact_once, alias_once, conversation_contact, reply_platform_id,
-- message_platform_id, message_identity_once, contact_search.
WITH mine AS MATERIALIZED (SELECT unnest(%(channels)s::bigint[]) AS id),
ids AS (
  SELECT %(exact)s::text COLLATE "C" AS value
  UNION SELECT a.known_as FROM mine JOIN alias a ON a.channel_id = mine.id AND a.of IN ('user', 'chat') AND a.value = %(exact)s),
people AS (
  (SELECT k.id, k.channel_id, k."user" FROM mine CROSS JOIN ids JOIN contact k ON k.channel_id = mine.id AND k."user" = ids.value LIMIT %(limit)s)
  UNION ALL
  (SELECT k.id, k.channel_id, k."user" FROM contact k
    WHERE contact_terms(k.name, k.username, k.phone, k.email) @@ %(words)s::tsquery
      AND k.channel_id = ANY (%(channels)s::bigint[]) LIMIT %(limit)s)),
found AS (
  (SELECT c.id FROM mine CROSS JOIN ids JOIN conversation c ON c.channel_id = mine.id AND c.chat = ids.value LIMIT %(limit)s)
  UNION ALL
  (SELECT c.id FROM people p JOIN conversation c ON c.channel_id = p.channel_id AND c.chat = p."user" AND c."user" = p."user")
  UNION ALL
  (SELECT c.id FROM people p JOIN conversation c ON c.contact_id = p.id AND c.chat <> c."user")
  UNION ALL
  (SELECT r.conversation_id FROM mine JOIN reply r ON r.channel_id = mine.id AND r.platform_id = %(exact)s AND r.platform_id <> ''
    LIMIT %(limit)s)
  UNION ALL
  (SELECT m.conversation_id FROM message m JOIN conversation c ON c.id = m.conversation_id
    WHERE m.platform_id = %(exact)s AND m.platform_id <> '' AND c.channel_id = ANY (%(channels)s::bigint[]) LIMIT %(limit)s)
  UNION ALL
  (SELECT m.conversation_id FROM message m JOIN conversation c ON c.id = m.conversation_id
    WHERE m.identity >= %(trace)s::bytea AND m.identity <= %(trace)s::bytea || '\xffffffffffffffff'::bytea
      AND c.channel_id = ANY (%(channels)s::bigint[]) LIMIT %(limit)s)
  UNION ALL
  (SELECT c.id FROM conversation c WHERE c.id = %(number)s::bigint AND c.channel_id = ANY (%(channels)s::bigint[])))
SELECT DISTINCT id FROM found ORDER BY id DESC LIMIT %(limit)s
