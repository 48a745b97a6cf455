-- Claims under which replies are being sent although no living process bears that name: it ended, or died before its last
-- intent was written. Ten seconds are a process's time to write its first beat. Rows: claim. Index: reply_claimed.
SELECT DISTINCT r.claimed_by FROM reply r
 WHERE r.status = 'sending' AND r.claimed_by IS NOT NULL AND r.intent_at < now() - interval '10 s'
   AND NOT EXISTS (SELECT FROM worker w WHERE w.incarnation = r.claimed_by AND NOT w.dead)
