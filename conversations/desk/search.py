"""Finds a conversation by a name, phone, username, chat, message id or trace.

Each way is one index lookup, see ``sql/search.sql``. There is no search table beside the rows, so
an erased contact cannot be found any more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from django.db import connection

from conversations.postgres.sql_files import sql
from conversations.postgres.storable_text import clean_text

# Most conversations found; the newest are kept. Larger: slower searches for common names.
LIMIT = 200
# Words of the search text that are looked up in contacts: the first ones, and all must match.
# Larger: a pasted sentence finds nobody if one word differs. Smaller: it finds more people.
WORDS = 5
# Characters: a search word of up to this length must match a whole word; of a longer one the
# beginning is enough. Larger: "ann" no longer finds Anna. Smaller: "an" finds all names that begin
# with it, slowly.
WHOLE_WORD_CHARACTERS = 2
# The trace of a log line: the first 8 bytes of a message's identity, in hex.
TRACE = re.compile("[0-9a-f]{16}")
# A phone number as people write it: digits, and the signs between them.
PHONE = re.compile(r"[+0-9][0-9 ()./-]{5,30}")


def find(text: str, channels: Sequence[int]) -> list[int]:
    """Return ids of conversations in ``channels``, newest first, at most ``LIMIT``."""
    exact = clean_text(text.strip(), 256)
    if not exact:
        return []
    values = {
        "channels": list(channels),
        "exact": exact,
        "words": tsquery(exact),
        "trace": bytes.fromhex(exact) if TRACE.fullmatch(exact) else None,
        "number": int(exact) if re.fullmatch("[0-9]{1,18}", exact) else None,
        "limit": LIMIT,
    }
    with connection.cursor() as cursor:
        cursor.execute(sql("search"), values)
        return [row[0] for row in cursor.fetchall()]


def tsquery(text: str) -> str:
    """Return a tsquery for all words by their beginnings.

    A phone is sought by its digits without leading zeros.
    """
    if PHONE.fullmatch(text):
        return _term(re.sub("[^0-9]", "", text).lstrip("0") or "0")
    return " & ".join(_term(word) for word in text.lower().split()[:WORDS])


def _term(word: str) -> str:
    """Return a word as a term of a tsquery; unless it is short, its beginning is enough (``:*``).

    Quotes keep signs such as & and | from being read as operators.
    """
    quoted = word[:60].replace("\\", "\\\\").replace("'", "''")
    return f"'{quoted}'" if len(word) <= WHOLE_WORD_CHARACTERS else f"'{quoted}':*"
