"""What the page shows: one indexed query per poll, and nothing to send when nothing is new.

A cursor is ``<newest message>.<newest reply>`` as numbers of the lane; replies are shown once they are
sent, and they are sent in the order of their numbers, so that a cursor misses none.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from conversations.contracts import ChannelConfig
from conversations.postgres import database

MOST = 200  # of each, in one answer; a page that opens gets the newest
CURSOR = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})")
OFFERED = """SELECT r.body FROM reply r WHERE r.channel_id = %s AND r.platform_id = %s AND r.platform_id <> ''
                AND (SELECT c.chat = %s AND c."user" = %s FROM conversation c WHERE c.id = r.conversation_id)"""


class Row(NamedTuple):
    """A row of ``read_timeline.sql``."""

    mode: str
    busy: bool
    type: str | None
    sequence: int
    id: str
    at: dt.datetime
    body: Any
    choice: str | None
    target: str | None
    author: str


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """``mode`` bot or human; ``busy``: something is on its way; ``items`` in the order of time."""

    cursor: str
    mode: str
    busy: bool
    items: list[dict[str, Any]]

    @property
    def etag(self) -> str:
        return f'"{self.cursor}.{self.mode}.{int(self.busy)}"'


def read(channel: ChannelConfig, visitor: str, after: str) -> Timeline:
    """What came after the cursor ``after``; anything else than a cursor means from the start."""
    match = CURSOR.fullmatch(after)
    message, reply = map(int, match.groups()) if match else (0, 0)
    rows = [Row(*row) for row in database.read(_query(), (message, reply, MOST, channel.id, visitor, visitor))]
    found = [row for row in rows if row.type is not None]
    return Timeline(
        cursor=f"{_newest(found, 'message', message)}.{_newest(found, 'reply', reply)}",
        mode=rows[0].mode if rows else "bot",
        busy=bool(rows and rows[0].busy),
        items=[_item(row) for row in found],
    )


def offered_title(channel: ChannelConfig, visitor: str, reply: str, choice: str) -> str | None:
    """The words of a button that this visitor was really shown; None: there was no such button."""
    for (body,) in database.read(OFFERED, (channel.id, reply, visitor, visitor)):
        for offered in body.get("choices", ()):
            if offered["id"] == choice:
                return str(offered["title"])
    return None


def _newest(rows: list[Row], type_: str, before: int) -> int:
    return max((row.sequence for row in rows if row.type == type_), default=before)


def _item(row: Row) -> dict[str, Any]:
    common = {"type": row.type, "sequence": row.sequence, "id": row.id, "at": row.at.isoformat()}
    if row.type == "message":
        return {**common, "text": row.body, "choice": row.choice or "", "reply": row.target or ""}
    return {
        **common,
        "author": "person" if row.author == "person" else "bot",
        "text": row.body.get("text", ""),
        "choices": row.body.get("choices", []),
        "media": _media(row.body.get("media") or {}),
    }


def _media(media: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a browser may be given; an address only when it is http or https."""
    if not media:
        return None
    shown = {name: media[name] for name in ("kind", "name", "latitude", "longitude", "phone") if media.get(name)}
    url = str(media.get("url", ""))
    return {**shown, "url": url} if urlsplit(url).scheme in ("http", "https") else shown


@functools.cache
def _query() -> str:
    return (Path(__file__).parent / "sql" / "read_timeline.sql").read_text()
