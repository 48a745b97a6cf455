"""Files in replies: uploaded to a platform once, and named by the platform's id while it keeps them.

A bot or a person of staff names a file of ours in ``Attachment.media``. Platforms that fetch files by
themselves (the generic channel, the chat page) get its address from their adapter instead.
"""

from __future__ import annotations

import contextlib
import mimetypes
from collections.abc import Iterator
from typing import Any

import msgspec
import structlog

from conversations import runtime
from conversations.concurrency import Shares
from conversations.contracts import (
    Adapter,
    Attachment,
    ChannelConfig,
    Deferred,
    Failed,
    OutboundReply,
    Outcome,
    Rejected,
    Scope,
    Sent,
    Unknown,
    Uploaded,
)
from conversations.media import files, types
from conversations.media.files import Kept
from conversations.telemetry import error_places

log = structlog.get_logger(__name__)

# Bytes of files that a process brings to platforms at once; half of them of one channel. Larger: more
# memory, where the storage holds a file in memory. Smaller: replies wait longer for each other's files.
BYTES_AT_ONCE = 128 << 20
# Seconds for which a call waits for room, and for another call that brings the same file. Larger: calls
# that wait keep their channel's slots from other replies. Smaller: more attempts that begin in vain.
WAIT_SECONDS = 3.0
# Such a call begins again after a second, without an attempt spent.
BUSY = Deferred(seconds=1.0, bucket="", reason="files are on their way to the platform, perhaps this one")

_bytes = runtime.kept(lambda: Shares(BYTES_AT_ONCE))
_files = runtime.kept(lambda: Shares(BYTES_AT_ONCE, each=1))  # one call for a channel and a file

# ``sent_id``: the id under which this channel's platform has the file; ``lives``: the id under which it
# brought the file is still good. WhatsApp keeps those for 7 days.
FIND = """SELECT m.id, m.channel_id, m.attempts, m.status, m.content_type, coalesce(m.size, 0), m.reference ->> 'name',
                 c.tenant_id, m.created_at > now() - interval '6 days' AS lives,
                 CASE WHEN (m.uploads -> %(key)s ->> 'until')::float > extract(epoch FROM now())
                      THEN m.uploads -> %(key)s ->> 'id' END AS sent_id
            FROM media m JOIN channel c ON c.id = m.channel_id WHERE m.id = %(id)s"""
REMEMBER = """UPDATE media SET uploads = uploads || jsonb_build_object(%(key)s::text, jsonb_build_object(
                     'id', %(file_id)s::text, 'until', extract(epoch FROM now()) + %(seconds)s::float))
               WHERE id = %(id)s"""
FORGET = """UPDATE media SET uploads = uploads - %(key)s::text
             WHERE id = %(id)s AND uploads -> %(key)s ->> 'id' = %(file_id)s"""


class Found(msgspec.Struct, frozen=True, array_like=True):
    """A row of ``FIND``."""

    id: Any
    channel_id: int
    attempts: int
    status: str
    content_type: str
    size: int
    name: str | None
    tenant_id: int
    lives: bool
    sent_id: str | None


def send(adapter: Adapter, channel: ChannelConfig, reply: OutboundReply) -> object:
    """Send a reply by its adapter, which gets the file first if the reply has one of ours."""
    media = reply.body.template.media if reply.body.template else reply.body.media
    if media is None or not media.media:
        return adapter.send(channel, reply)
    found = _find(media, channel)
    ready = _ready(adapter, channel, reply, media, found)
    if not isinstance(ready, OutboundReply):
        return ready
    outcome = adapter.send(channel, ready)
    if isinstance(outcome, Rejected) and outcome.scope is Scope.REPLY and found and found.sent_id:
        # Perhaps the platform forgot the file: the next attempt brings it again
        runtime.execute(FORGET, {"key": str(channel.id), "id": found.id, "file_id": found.sent_id})
        return Failed(reason=outcome.reason)
    return outcome


def _find(media: Attachment, channel: ChannelConfig) -> Found | None:
    """Return the file that an attachment names, if it is one of the channel's tenant."""
    id = files.read_id(media.media)
    rows = runtime.read(FIND, {"key": str(channel.id), "id": id}) if id else []
    found = Found(*rows[0]) if rows else None
    return found if found and found.tenant_id == channel.tenant_id else None


def _ready(
    adapter: Adapter, channel: ChannelConfig, reply: OutboundReply, media: Attachment, found: Found | None
) -> OutboundReply | Outcome:
    """Return the reply as the adapter can send it, or how the attempt has ended."""
    if found is None:
        return Rejected(reason="its file is not there")
    if media.file_id and found.channel_id == channel.id and found.lives:
        return reply  # it came by this channel: its platform has it
    if found.status == "waiting":
        return Failed(reason="its file has not come yet")
    if found.status != "stored":
        return Rejected(reason=f"its file was {found.status}")
    if not adapter.keeps_files_seconds:
        return reply
    if found.sent_id:
        return _named(reply, media, found.sent_id)
    with _alone(channel, found) as alone:
        if not alone:
            return BUSY
        found = _find(media, channel) or found  # another call may have brought it meanwhile
        return _named(reply, media, found.sent_id) if found.sent_id else _brought(adapter, channel, reply, media, found)


@contextlib.contextmanager
def _alone(channel: ChannelConfig, found: Found) -> Iterator[bool]:
    """Wait until no other call of this process brings the file to this channel, and its bytes have room."""
    with (
        _files().take((channel.id, found.id), seconds=WAIT_SECONDS) as first,
        _bytes().take(channel.id, found.size if first else 0, seconds=WAIT_SECONDS) as room,
    ):
        yield first and room


def _brought(
    adapter: Adapter, channel: ChannelConfig, reply: OutboundReply, media: Attachment, found: Found
) -> OutboundReply | Outcome:
    """Upload the file, and name it by its id; or send it with the reply, where the send itself takes it."""
    name = media.name or found.name or media.kind
    guessed = mimetypes.guess_type(name)[0] or found.content_type
    mime_type = found.content_type if found.content_type in types.SHOWN else guessed
    media = msgspec.structs.replace(media, name=name, mime_type=mime_type or types.UNKNOWN, file_id="", url="")
    try:
        file: Any = files.open_kept(Kept(found.id, found.channel_id, found.attempts))
        file.seek(0)  # here a storage elsewhere fetches it
    except Exception as error:  # whatever a storage raises
        log.warning("file not read", channel=channel.id, error=error_places.kind(error))
        return Failed(reason=f"the storage did not give its file: {error_places.kind(error)}")
    with file:
        ending = adapter.upload(channel, media, file)
        if ending is None:
            outcome = adapter.send(channel, msgspec.structs.replace(_with(reply, media), content=file))
            if isinstance(outcome, Sent) and outcome.file_id:
                _remember(adapter, channel, media, outcome.file_id)
            return outcome
    if isinstance(ending, Uploaded):
        _remember(adapter, channel, media, ending.file_id)
        return _named(reply, media, ending.file_id)
    return Failed(reason=ending.reason) if isinstance(ending, Unknown) else ending


def _named(reply: OutboundReply, media: Attachment, file_id: str) -> OutboundReply:
    """Return the reply with its file named by the platform's id."""
    return _with(reply, msgspec.structs.replace(media, file_id=file_id, url=""))


def _with(reply: OutboundReply, media: Attachment) -> OutboundReply:
    """Return the reply with this file in the place of its own, which a template has in its header."""
    body = reply.body
    if body.template:
        body = msgspec.structs.replace(body, template=msgspec.structs.replace(body.template, media=media))
    else:
        body = msgspec.structs.replace(body, media=media)
    return msgspec.structs.replace(reply, body=body)


def _remember(adapter: Adapter, channel: ChannelConfig, media: Attachment, file_id: str) -> None:
    """Keep the platform's id of a file. What fails here costs an upload, not the reply."""
    values = {"key": str(channel.id), "id": media.media, "file_id": file_id, "seconds": adapter.keeps_files_seconds}
    try:
        runtime.execute(REMEMBER, values)
    except Exception as error:
        log.warning("file's id not kept", channel=channel.id, error=error_places.kind(error))
