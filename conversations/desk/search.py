"""Finding a conversation by what a person of staff has at hand: a name, phone, username, chat, message id or trace.

Every way is one index lookup; see ``sql/search.sql``. Nothing is filled beside the rows, so what is
erased from a contact cannot be found any more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from django.db import connection

from conversations.postgres.sql_files import sql
from conversations.postgres.storable_text import clean_text

LIMIT = 200
WORDS = 5
WHOLE_WORD_CHARACTERS = 2  # shorter words are found whole: half the world begins with "a"
TRACE = re.compile("[0-9a-f]{16}")
PHONE = re.compile(r"[+0-9][0-9 ()./-]{5,30}")


def find(text: str, channels: Sequence[int]) -> list[int]:
    """Ids of conversations in ``channels``, newest first, ``LIMIT`` at most."""
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
    """All words, each by its beginning; a phone by its digits, without the zeros that stand for a country."""
    if PHONE.fullmatch(text):
        return _term(re.sub("[^0-9]", "", text).lstrip("0") or "0")
    return " & ".join(_term(word) for word in text.lower().split()[:WORDS])


def _term(word: str) -> str:
    quoted = word[:60].replace("\\", "\\\\").replace("'", "''")
    return f"'{quoted}'" if len(word) <= WHOLE_WORD_CHARACTERS else f"'{quoted}':*"
