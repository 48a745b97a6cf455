"""Files of a visitor: sent before the message that names them, and shown to nobody else.

POST /web/<channel>/files/?name=<name>    the bytes    -> {"file": <id>, "kind", "name", "size"}
"""

from __future__ import annotations

import contextlib
import logging
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from channels_ingest.webchat import caps
from channels_ingest.webchat.endpoints import RETRY_SECONDS, Refused, as_json, endpoint, refuse_if_early, visitor_of
from channels_ingest.webhooks import body, body_limits, fast_path
from conversations import runtime
from conversations.contracts import Attachment, ChannelConfig
from conversations.errors import WrongFile
from conversations.media import adding, files

log = logging.getLogger(__name__)

# Largest file of a visitor, in bytes, unless ``MEDIA_MAX_BYTES`` is less. Larger: strangers can fill
# the storage sooner. Smaller: pictures of phones are refused.
MOST_BYTES = 16 << 20
NO_ROOM_SECONDS = 3600  # in ``Retry-After``. Larger: people wait longer. Smaller: more requests in vain
# Takes them for a message that is stored next: what nobody sent is deleted a day later.
OWN = """UPDATE media SET created_at = CASE WHEN conversation_id IS NULL THEN now() ELSE created_at END
          WHERE id = ANY (%s) AND channel_id = %s AND reference ->> 'visitor' = %s AND status = 'stored'
         RETURNING id, content_type, size, reference"""


@endpoint("POST")
def upload(request: HttpRequest, channel: ChannelConfig) -> HttpResponse:
    """Keep a file. Nothing is read of a body before the token has told whose it is."""
    visitor = visitor_of(request, channel)
    refuse_if_early(caps.wait_to_upload(channel, visitor, request))
    with _room(request, channel), body_limits.upload(request.META), tempfile.TemporaryFile() as file:
        _read(request, file)
        try:
            told = adding.add(file, channel.id, request.GET.get("name", ""), visitor=visitor)
        except WrongFile as error:
            raise Refused(415, f"This file cannot be sent: {error}.") from None
    return as_json({"file": told.media, "kind": told.kind, "name": told.name, "size": told.size})


@contextlib.contextmanager
def _room(request: HttpRequest, channel: ChannelConfig) -> Iterator[None]:
    """Count the file by its stated size, unless the block fails.

    Raises ``Refused`` if the channel, the address or the disk has no room for it.
    """
    stated = request.META.get("CONTENT_LENGTH") or ""
    size = min(int(stated) if re.fullmatch("[0-9]{1,12}", stated) else most_bytes(), most_bytes())
    if words := caps.no_room(channel, request, size):
        log.warning("no room for a visitor's file", extra={"channel": channel.id})
        raise Refused(429, words, NO_ROOM_SECONDS)
    try:
        yield
    except BaseException:
        caps.give_room_back(channel, request, size)
        raise


def most_bytes() -> int:
    """Return the size of the largest file that a visitor may send."""
    return min(MOST_BYTES, settings.MEDIA_MAX_BYTES)


def _read(request: HttpRequest, into: BinaryIO) -> None:
    """Write the body into a file, without a slot of the pages: clients may send slowly. Raises ``Refused``."""
    most = most_bytes()
    try:
        with fast_path.given_back(fast_path.page_threads()):
            body.copy(request.META, most, into)
    except body.TooLarge:
        raise Refused(413, f"The file is larger than {most >> 20} MB.") from None
    except body_limits.Full:
        raise Refused(503, "Too many files are on their way.", RETRY_SECONDS) from None
    except body.BodyError as error:
        raise Refused(error.status, "The file arrived incomplete.") from None


def own(channel: ChannelConfig, visitor: str, named: Iterable[str]) -> tuple[Attachment, ...]:
    """Return the files that a visitor's message names, in its order, each once.

    Raises ``Refused`` if one is not theirs.
    """
    named = tuple(dict.fromkeys(named))
    ids = [id for text in named if (id := files.read_id(text))]
    rows: dict[str, Mapping[str, Any]] = {}
    for id, content_type, size, told in runtime.execute(OWN, (ids, channel.id, visitor)) if ids else ():
        rows[str(id)] = {"mime_type": content_type, "size": size, "kind": told["kind"], "name": told.get("name", "")}
    try:
        return tuple(Attachment(file_id=text, media=text, **rows[text]) for text in named)
    except KeyError:
        raise Refused(400, "A file is not there any more. Please add it again.") from None
