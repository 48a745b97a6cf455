-- Notes which person answers in the lane. assignee: a user's id or null. Index: desk primary key.
INSERT INTO desk (conversation_id, assignee_id)
SELECT id, %(assignee)s FROM (SELECT nullif(current_setting('app.locked', true), '')::bigint AS id) lane WHERE id IS NOT NULL
    ON CONFLICT (conversation_id) DO UPDATE SET assignee_id = excluded.assignee_id
