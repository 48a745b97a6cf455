-- What only staff need, kept out of the hot tables. Run once by migration 0003.

-- What a person may be searched by, in lower case: words of the name, username, e-mail, the phone's digits and their ends
-- (people leave out country codes). Bounded: an index never refuses a contact.
CREATE FUNCTION contact_terms(name text, username text, phone text, email text) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT array_to_tsvector(coalesce(array_agg(DISTINCT left(word, 60)), '{}'))
    FROM (SELECT regexp_replace(left(phone, 60), '[^0-9]', '', 'g') AS digits) p
   CROSS JOIN LATERAL regexp_split_to_table(concat_ws(' ', left(lower(name), 300), left(lower(username), 100), left(lower(email), 200),
                                            digits, right(digits, 10), right(digits, 7)), '\s+') AS word
   WHERE word <> ''
$$;
-- Serves sql/desk_search.sql. Written when a contact is new or has changed, never by a message.
CREATE INDEX contact_search ON contact USING gin (contact_terms(name, username, phone, email));

-- Serves the lists of conversations that a person has to do with, and "stuck". Lanes that flow are not in it.
CREATE INDEX conversation_for_staff ON conversation (id)
 WHERE blocked OR mode = 'human' OR paused_at IS NOT NULL OR attempts > 0;

-- Serves the counts of what is open.
CREATE INDEX quarantine_open ON quarantine (id) WHERE settled_at IS NULL;
