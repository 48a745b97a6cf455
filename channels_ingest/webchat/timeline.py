"""Reads what the page shows: one indexed query a poll, and a 304 when nothing is new.

A cursor is ``<newest message>.<newest reply>``, both as sequence numbers of the conversation. A
reply is shown once it is sent. Replies are sent in the order of their numbers, so a cursor misses
none.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from channels_ingest import file_links
from channels_ingest.formats.markdown import safe_html
from channels_ingest.formats.markdown.reading import read as read_markdown
from conversations import runtime
from conversations.contracts import ChannelConfig, Work
from conversations.lanes import pauses

# Messages, and replies, in one answer at most. Larger: a page that opens shows more of a long
# conversation, from a slower query and a larger answer. Smaller: a page that was away polls more
# often.
MOST = 200
# Bytes of messages, and of replies, in one answer, as JSON; the item that crosses the border is
# still part of it, so an answer has about 256 kB at most. Larger and smaller: as MOST.
BYTES = 112 * 1024
# Rendered replies that a process keeps. Larger: more memory, about 5 kB each. Smaller: pages that
# open take more CPU, about a millisecond for a long reply.
KEPT = 512
CURSOR = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})")
# Finds the reply of this id in this visitor's conversation.
OFFERED = """SELECT r.body FROM reply r WHERE r.channel_id = %s AND r.platform_id = %s AND r.platform_id <> ''
                AND (SELECT c.chat = %s AND c."user" = %s FROM conversation c WHERE c.id = r.conversation_id)"""


class Row(NamedTuple):
    """A row of ``read_timeline.sql``."""

    mode: str
    busy: bool
    halted: bool
    colleague: str | None
    type: str | None
    sequence: int
    id: str
    at: dt.datetime
    body: Any
    choice: str | None
    target: str | None
    files: Any
    author: str


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """One answer to a poll.

    ``mode``: bot or human. ``busy``: an answer is on its way. ``answering``: nothing is stopped.
    ``colleague``: in mode human, the first name of whoever took the conversation ('' if the account
    has no first name); None while nobody has. ``items``: oldest first.
    """

    cursor: str
    mode: str
    busy: bool
    answering: bool
    colleague: str | None
    items: list[dict[str, Any]]

    @property
    def etag(self) -> str:
        """Return a tag that changes with the cursor and with the state that the page shows."""
        state = f"{self.mode}.{self.busy}.{self.answering}.{self.colleague}"
        return f'"{self.cursor}.{zlib.crc32(state.encode()):08x}"'


def read(channel: ChannelConfig, visitor: str, after: str) -> Timeline:
    """Return what came after the cursor ``after``; from the start if it is no cursor."""
    match = CURSOR.fullmatch(after)
    message, reply = map(int, match.groups()) if match else (0, 0)
    rows = [Row(*row) for row in runtime.read(_query(), (message, reply, MOST, BYTES, channel.id, visitor, visitor))]
    found = [row for row in rows if row.type is not None]
    answering = answers(channel) and not (rows and rows[0].halted)
    return Timeline(
        cursor=f"{_newest(found, 'message', message)}.{_newest(found, 'reply', reply)}",
        mode=rows[0].mode if rows else "bot",
        busy=bool(rows and rows[0].busy) and answering,
        answering=answering,
        colleague=rows[0].colleague if rows else None,
        items=[_item(channel, row) for row in found],
    )


def answers(channel: ChannelConfig) -> bool:
    """Return True if the channel is on and neither it, its bot nor its tenant is paused."""
    about = channel.bot, channel.id, channel.tenant_id
    keys = pauses.keys_of(Work.HANDLE.activity, *about) + pauses.keys_of(Work.SEND.activity, *about)
    return channel.active and not pauses.is_stopped(*keys)


def offered_title(channel: ChannelConfig, visitor: str, reply: str, choice: str) -> str | None:
    """Return the words of a button that this visitor was shown; None if there is none."""
    for (body,) in runtime.read(OFFERED, (channel.id, reply, visitor, visitor)):
        for offered in body.get("choices", ()):
            if offered["id"] == choice:
                return str(offered["title"])
    return None


def _newest(rows: list[Row], type_: str, before: int) -> int:
    """Return the newest sequence number of a type; ``before`` if it has no row."""
    return max((row.sequence for row in rows if row.type == type_), default=before)


def _item(channel: ChannelConfig, row: Row) -> dict[str, Any]:
    """Return a row as the page reads it."""
    common = {"type": row.type, "sequence": row.sequence, "id": row.id, "at": row.at.isoformat()}
    if row.type == "message":
        files = [_media(channel, file) for file in row.files or ()]
        return {**common, "text": row.body, "choice": row.choice or "", "reply": row.target or "", "files": files}
    return {
        **common,
        "author": "person" if row.author == "person" else "bot",
        "text": row.body.get("text", ""),
        "choices": row.body.get("choices", []),
        "media": _media(channel, row.body.get("media") or {}),
        **({"html": _html(row.body["markdown"])} if row.body.get("markdown") else {}),
    }


@functools.lru_cache(maxsize=KEPT)
def _html(markdown: str) -> str:
    """Return a reply's Markdown as safe HTML, which the page inserts."""
    return safe_html.render(read_markdown(markdown))


def _media(channel: ChannelConfig, media: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a browser may see of an attachment. Its URL only if it is http or https, or ours."""
    if not media:
        return None
    shown = {name: media[name] for name in ("kind", "name", "latitude", "longitude", "phone") if media.get(name)}
    if media.get("media"):
        return {**shown, "url": file_links.address(channel, str(media["media"]))}
    url = str(media.get("url", ""))
    return {**shown, "url": url} if _is_web_url(url) else shown


def _is_web_url(url: str) -> bool:
    """Return True for http and https with a host. A bot may send on any text as a URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


@functools.cache
def _query() -> str:
    return (Path(__file__).parent / "sql" / "read_timeline.sql").read_text()
