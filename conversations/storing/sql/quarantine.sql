-- Quarantines one entry with its own copy of the bytes. If the same entry with the same bytes is
-- there already, only its counter (seen) grows.
-- channel_id, receipt_id, entry, reason, body, fingerprint. Returns no rows. Index:
-- quarantine_once.
INSERT INTO quarantine AS q (channel_id, receipt_id, entry, reason, body, fingerprint)
VALUES (%(channel_id)s, %(receipt_id)s, %(entry)s, %(reason)s, %(body)s, %(fingerprint)s)
ON CONFLICT (channel_id, fingerprint) DO UPDATE SET seen = q.seen + 1
