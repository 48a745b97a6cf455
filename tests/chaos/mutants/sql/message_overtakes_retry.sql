-- A message that failed changes places with the one behind it.
  UPDATE message m SET sequence = 2 * o.sequence + 1 - m.sequence
    FROM ours o WHERE m.conversation_id = o.id AND o.expect = 'pending' AND o.status = 'pending'
     AND m.sequence IN (o.sequence, o.sequence + 1)
     AND EXISTS (SELECT FROM message x WHERE x.conversation_id = o.id AND x.sequence = o.sequence + 1
                    AND x.status = 'pending')
