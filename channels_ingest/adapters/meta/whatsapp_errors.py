"""WhatsApp's error codes, ``whatsapp_errors.csv``: words for staff, and what each means for a send.

Source: https://developers.facebook.com/documentation/business-messaging/whatsapp/support/error-codes.
The same codes come in the answer to a send and, later, in a status ``failed``.

A row: ``code`` (``200-299``: all of them; ``100/33``: a code with its subcode), and how the send
ends, see ``graph.Meaning``. With a ``scope`` it is refused, as the same request would be again.
With a ``wait`` (seconds; Meta states none) it met a limit of the ``bucket``. With neither, the
reason passes. The gate's words (``conversations.delivering.decision``) are those of 131047 and
131050.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from channels_ingest.adapters.meta.graph import Meaning, Meanings
from channels_ingest.adapters.tables import read_table
from conversations.contracts import Scope


def _read() -> Iterator[tuple[Any, Meaning]]:
    for row in read_table(Path(__file__).with_suffix(".csv")):
        scope = Scope(row["scope"]) if row["scope"] else None
        wait, bucket = float(row["wait"] or 0), row["bucket"] or "channel"
        meaning = Meaning(words=row["words"], scope=scope, wait=wait, bucket=bucket)
        yield from ((code, meaning) for code in _codes(row["code"]))


def _codes(text: str) -> list[Any]:
    """Return the keys of ``Meanings`` for which a row stands."""
    first, _, last = text.partition("-")
    code, _, subcode = first.partition("/")
    if subcode:
        return [(int(code), int(subcode))]
    return list(range(int(first), int(last or first) + 1))


MEANINGS: Meanings = dict(_read())
