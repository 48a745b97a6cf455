-- What only staff need, kept out of the hot tables. Run once by migration 0003.

-- What a person may be searched by, in lower case: words of the name, username, e-mail, the phone's digits and their ends
-- (people leave out country codes). Bounded, because an index must never refuse a contact; one expression, because a new
-- contact waits for it.
CREATE FUNCTION contact_terms(name text, username text, phone text, email text) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT array_to_tsvector(array_remove(string_to_array(
           translate(lower(left(name, 200) || ' ' || left(username, 100) || ' ' || left(email, 100)), E'\t\n\r', '   ')
           || ' ' || translate(left(phone, 40), ' +-()./', '')
           || ' ' || right(translate(left(phone, 40), ' +-()./', ''), 10)
           || ' ' || right(translate(left(phone, 40), ' +-()./', ''), 7), ' '), ''))
$$;
-- Serves desk/sql/search.sql. Written when a contact is new or has changed, never by a message.
CREATE INDEX contact_search ON contact USING gin (contact_terms(name, username, phone, email));

-- Serves the lists of conversations that a person has to do with, and "stuck". Lanes that flow are not in it.
CREATE INDEX conversation_for_staff ON conversation (id)
 WHERE blocked OR mode = 'human' OR paused_at IS NOT NULL OR attempts > 0;

-- Serves the counts of what is open.
CREATE INDEX quarantine_open ON quarantine (id) WHERE settled_at IS NULL;

-- Serves the search by a platform's message id. The one index that every message pays for: 2.5 us of 34 when it is stored.
CREATE INDEX message_platform_id ON message (platform_id) WHERE platform_id <> '';
