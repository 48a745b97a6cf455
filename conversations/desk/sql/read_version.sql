-- Computes the cursor of a live timeline: a value that changes whenever the page of the
-- conversation does. xmin, the transaction that wrote a row last, shows that the row changed; that
-- the window closed, no row shows.
-- conversation: id. One row: text. Indexes: primary keys, reply_sequence_once,
-- turn_of_conversation, audit_conversation_id, media_of_conversation.
SELECT md5(concat_ws(':', c.xmin, c.window_until <= now(), (SELECT xmin FROM desk WHERE conversation_id = c.id),
       (SELECT id FROM turn t WHERE (t.conversation_id, t.id) >= (c.id, 0) AND (t.conversation_id, t.id) < (c.id + 1, 0)
         ORDER BY t.conversation_id DESC, t.id DESC LIMIT 1),
       (SELECT string_agg(r.xmin::text, ',') FROM (SELECT xmin FROM reply WHERE conversation_id = c.id ORDER BY sequence DESC LIMIT 60) r),
       (SELECT string_agg(f.xmin::text, ',') FROM (SELECT xmin FROM media WHERE conversation_id = c.id
                                                    ORDER BY conversation_id DESC, created_at DESC LIMIT 60) f),
       (SELECT max(id + 0) FROM audit WHERE conversation_id = c.id AND verb <> 'read'),
       (SELECT string_agg(p.xmin::text, ',') FROM (SELECT xmin FROM pause ORDER BY id LIMIT 100) p)))
  FROM conversation c WHERE c.id = %(conversation)s
