-- Reads all facts for "why does this conversation not move?", one lookup per lane and fact.
-- ids: bigint[].
-- Row comparisons and max(id + 0) leave the planner no other index, whatever the statistics say.
-- passed is the message with which the bot handed over: the newest one that no person skipped or
-- parked since.
-- Rows: see facts.Facts. Indexes: primary keys, message_sequence_once, turn_of_conversation,
-- reply_sequence_once, message_parked, reply_for_staff, audit_conversation_id.
SELECT c.id, c.channel_id, ch.name AS channel_name, ch.bot, ch.tenant_id, ch.active,
       c.mode, c.paused_at, c.blocked, c.suspect, c.attempts, c.not_before, c.next_sequence, c.last_sequence, c.last_key,
       c.gap_since, c.wait_until, c.due_at, c.send_due_at, c.unreachable_since, c.opted_out_at, c.phone_until,
       head.status AS head_status, head.received_at AS head_received_at, head.note AS head_note,
       turn.error_type, turn.error_place,
       reply.sequence AS reply_sequence, reply.status AS reply_status, reply.attempts AS reply_attempts,
       reply.not_before AS reply_not_before, reply.error AS reply_error, reply.created_at AS reply_created_at,
       awaited.kind AS awaited_kind, bucket.blocked_until AS bucket_until, bucket.words AS bucket_words,
       person.username AS assignee, newest.received_at AS newest_at, passed.note AS passed_note, answer.created_at AS answered_at,
       waiting.number AS waiting, parked.sequence AS parked_sequence, parked.note AS parked_note,
       refused.sequence AS refused_sequence, refused.status AS refused_status, refused.error AS refused_error,
       act.username AS paused_by, act.reason AS pause_reason, wish.cause AS opted_out_by,
       EXISTS (SELECT FROM worker w WHERE NOT w.dead AND w.kind = 'handle' AND w.running @> to_jsonb(c.id)) AS in_hand
  FROM unnest(%(ids)s::bigint[]) AS i(id)
 CROSS JOIN LATERAL (SELECT * FROM conversation WHERE id = i.id LIMIT 1) c
 CROSS JOIN LATERAL (SELECT * FROM channel WHERE id = c.channel_id LIMIT 1) ch
  LEFT JOIN LATERAL (SELECT m.* FROM message m WHERE m.conversation_id = c.id AND m.sequence = c.next_sequence LIMIT 1) head ON true
  LEFT JOIN LATERAL (SELECT t.* FROM turn t WHERE (t.conversation_id, t.id) >= (c.id, 0) AND (t.conversation_id, t.id) < (c.id + 1, 0)
                      ORDER BY t.conversation_id DESC, t.id DESC LIMIT 1) turn
         ON turn.message_id = head.id AND turn.outcome <> 'committed'
  LEFT JOIN LATERAL (SELECT r.* FROM reply r WHERE r.conversation_id = c.id AND r.sequence = c.next_reply_sequence LIMIT 1) reply ON true
  LEFT JOIN LATERAL (SELECT r.body #>> '{media,kind}' AS kind FROM reply r WHERE r.conversation_id = c.id
                        AND r.sequence <= c.next_reply_sequence AND r.status = 'sent' ORDER BY r.sequence DESC LIMIT 1) awaited
         ON c.phone_until > now()
  LEFT JOIN LATERAL (SELECT b.* FROM bucket b WHERE b.channel_id = c.channel_id
                        AND b.key IN ('channel', 'chat:' || c.chat, 'group:' || c.chat)
                        AND b.blocked_until > now() ORDER BY b.blocked_until DESC LIMIT 1) bucket ON reply.status = 'pending'
  LEFT JOIN LATERAL (SELECT u.username FROM desk d JOIN auth_user u ON u.id = d.assignee_id
                      WHERE d.conversation_id = c.id LIMIT 1) person ON true
  LEFT JOIN LATERAL (SELECT m.received_at FROM message m WHERE m.conversation_id = c.id AND m.sequence = c.last_sequence LIMIT 1) newest
         ON true
  LEFT JOIN LATERAL (SELECT p.note FROM (SELECT m.sequence, m.note FROM message m WHERE m.conversation_id = c.id
                                           AND m.sequence < c.next_sequence ORDER BY m.sequence DESC LIMIT 50) p
                      WHERE p.note !~ '(^|; )(skipped|parked) by \S+: ' ORDER BY p.sequence DESC LIMIT 1) passed
         ON c.mode = 'human'
  LEFT JOIN LATERAL (SELECT r.created_at, r.author FROM reply r WHERE r.conversation_id = c.id AND r.sequence = c.last_reply_sequence
                      LIMIT 1) answer ON answer.author = 'person'
  LEFT JOIN LATERAL (SELECT count(*) AS number FROM (SELECT FROM message m WHERE m.conversation_id = c.id AND m.sequence IS NULL
                      LIMIT 100) w) waiting ON true
  LEFT JOIN LATERAL (SELECT m.sequence, m.note FROM message m WHERE m.conversation_id = c.id AND m.parked
                      LIMIT 1) parked ON true
  LEFT JOIN LATERAL (SELECT r.sequence, r.status, r.error FROM reply r WHERE r.conversation_id = c.id
                        AND r.status IN ('parked', 'unknown', 'failed') AND (r.status <> 'unknown' OR r.not_before IS NULL)
                      LIMIT 1) refused ON true
  LEFT JOIN LATERAL (SELECT u.username, a.reason FROM audit a LEFT JOIN auth_user u ON u.id = a.staff_id
                      WHERE a.id = (SELECT max(p.id + 0) FROM audit p WHERE p.conversation_id = c.id AND p.verb = 'pause')) act
         ON c.paused_at IS NOT NULL
  LEFT JOIN LATERAL (SELECT coalesce(u.username, a.subject) AS cause FROM audit a LEFT JOIN auth_user u ON u.id = a.staff_id
                      WHERE a.id = (SELECT max(p.id + 0) FROM audit p WHERE p.conversation_id = c.id
                                       AND p.verb IN ('opted_out', 'opt_out'))) wish
         ON c.opted_out_at IS NOT NULL
