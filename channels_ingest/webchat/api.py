"""The API of the chat page and the widget: begin a session, post a message, poll. No cookies.

    POST /web/<channel>/session/    {} or {"id", "hash"}                     -> {"token", "identified"}
    POST /web/<channel>/messages/   {"client_id", "text", "files": [<id>]}   -> {} after the COMMIT
                                    {"client_id", "choice", "reply"}            a button of that reply
    GET  /web/<channel>/messages/?after=<cursor>                             -> a timeline, or 304

400, 409 and 413 refuse a message for good. 401 asks for a new session. After 429 and 503 the page
tries again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from channels_ingest.formats.strict_json import Unreadable, read_object
from channels_ingest.webchat import caps, files, timeline, tokens
from channels_ingest.webchat.endpoints import Refused, as_json, endpoint, refuse_if_early, visitor_of
from channels_ingest.webhooks import body
from conversations.contracts import ChannelConfig, Entry, Kind, Sender, WebhookRequest
from conversations.errors import Conflict
from conversations.storing import intake

# Most bytes of a request; a larger one is refused by 413. Larger: more memory. Smaller: texts that
# MAX_TEXT allows are refused (a code point takes up to 12 bytes in JSON).
BODY_CAP = 64 * 1024
# Most code points of a message; a longer one is refused by 413, and the page does not send it.
# Larger: longer texts for bots and platforms. Smaller: visitors must split their texts.
MAX_TEXT = 4000
# The page's id of a message: the same id again in a visitor's conversation is a duplicate.
CLIENT_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
REPLY = re.compile(r"[0-9a-f-]{32,36}")  # a reply's idempotency key
# A text that is a command: its name, then its arguments.
COMMAND = re.compile(r"/([A-Za-z0-9_]{1,32})(?:\s+(.*))?", re.DOTALL)
LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})?")
MAX_FILES = 10  # of a message; larger: one message fills more of the storage; smaller: visitors send more messages


# ---------------------------------------------------------------- the three endpoints


@endpoint("POST")
def session(request: HttpRequest, channel: ChannelConfig) -> HttpResponse:
    """Give a token to a new visitor, or to a customer that the site vouches for."""
    if not channel.active:
        raise Refused(404, "This chat is closed.")
    given = _read(_body(request))
    user_id, given_hash = _text(given, "id"), _text(given, "hash")
    visitor = tokens.identified_visitor(channel, user_id, given_hash) if user_id else None
    if visitor is None:
        refuse_if_early(caps.wait_to_begin(channel, request))
    if user_id and visitor is None:
        raise Refused(403, "The identity could not be verified.")
    token = tokens.issue(channel, visitor or tokens.new_visitor())
    return as_json({"token": token, "identified": visitor is not None})


@endpoint("GET", "POST")
def messages(request: HttpRequest, channel: ChannelConfig) -> HttpResponse:
    """Store a message (POST) or answer a poll (GET)."""
    visitor = visitor_of(request, channel)
    return _post(request, channel, visitor) if request.method == "POST" else _poll(request, channel, visitor)


def _post(request: HttpRequest, channel: ChannelConfig, visitor: str) -> HttpResponse:
    """Answer 200 only after the COMMIT: the page forgets the message then."""
    refuse_if_early(caps.wait_to_write(channel, visitor, request))
    raw = _body(request)
    entry = _entry(request, channel, visitor, _read(raw))
    try:
        intake.accept(channel, [entry], _webhook_request(request, raw), own_api=True)
    except Conflict:
        raise Refused(409, "Another message was sent under this id.") from None
    return as_json({})


def _poll(request: HttpRequest, channel: ChannelConfig, visitor: str) -> HttpResponse:
    """Return the timeline after the page's cursor, or 304 if nothing at all has changed."""
    refuse_if_early(caps.wait_to_poll(channel, visitor, request))
    found = timeline.read(channel, visitor, request.GET.get("after", ""))
    unchanged = not found.items and request.headers.get("If-None-Match") == found.etag
    caps.count_less(channel, visitor, request, unchanged=unchanged, busy=found.busy)
    if unchanged:
        return HttpResponse(status=304, headers={"ETag": found.etag})
    return as_json(found, {"ETag": found.etag})


# ---------------------------------------------------------------- reading a request


def _body(request: HttpRequest) -> bytes:
    """Return the body, under ``BODY_CAP``. Raises ``Refused``."""
    try:
        return body.read(request.META, BODY_CAP)
    except body.BodyError as error:
        words = "The message is too long." if error.status == 413 else "The message arrived incomplete."
        raise Refused(error.status, words) from None


def _read(raw: bytes) -> dict[str, Any]:
    """Return a body as a JSON object. Raises ``Refused``."""
    try:
        return read_object(raw)
    except Unreadable as error:
        raise Refused(400, str(error)) from None


def _text(given: Mapping[str, Any], name: str) -> str:
    """Return a member that must be text, '' if it is missing. Raises ``Refused``."""
    value = given.get(name, "")
    if not isinstance(value, str):
        raise Refused(400, f"{name} is not text")
    return value


def _entry(request: HttpRequest, channel: ChannelConfig, visitor: str, given: Mapping[str, Any]) -> Entry:
    """Return the entry to store.

    The page's ``client_id`` makes its key, so that a message that is posted twice is stored once.
    """
    client_id = _text(given, "client_id")
    if not CLIENT_ID.fullmatch(client_id):
        raise Refused(400, "client_id is not 8 to 64 letters, digits, - or _")
    common = {
        "chat": visitor,
        "sender": Sender(user=visitor, language=_language(request)),
        "starts_turn": True,
        "platform_id": client_id,
    }
    if "choice" in given:
        return _button(channel, given, client_id, common)
    named = given.get("files") or []
    if not isinstance(named, list) or len(named) > MAX_FILES or not all(isinstance(each, str) for each in named):
        raise Refused(400, f"files is not a list of {MAX_FILES} ids at most")
    return _message(_text(given, "text"), client_id, {**common, "attachments": files.own(channel, visitor, named)})


def _message(text: str, client_id: str, common: Mapping[str, Any]) -> Entry:
    """Read a written message. Raises ``Refused`` for an empty or a too long one."""
    if not text.strip() and not common["attachments"]:
        raise Refused(400, "The message is empty.")
    if len(text) > MAX_TEXT:
        raise Refused(413, "The message is too long.")
    match = COMMAND.fullmatch(text.strip())
    command, args = (match[1], match[2] or "") if match else ("", "")
    return Entry(kind=Kind.MESSAGE, key=f"m:{client_id}", text=text, command=command, args=args, **common)


def _button(channel: ChannelConfig, given: Mapping[str, Any], client_id: str, common: Mapping[str, Any]) -> Entry:
    """Read a pressed button. Raises ``Refused`` if this visitor was never offered it."""
    choice, reply = _text(given, "choice"), _text(given, "reply")
    title = timeline.offered_title(channel, common["chat"], reply, choice) if REPLY.fullmatch(reply) else None
    if title is None:
        raise Refused(400, "This button was not offered.")
    return Entry(kind=Kind.BUTTON, key=f"b:{client_id}", text=title, payload=choice, target=reply, **common)


def _language(request: HttpRequest) -> str:
    """Return the browser's first language; '' if it is not of the usual form."""
    first = request.headers.get("Accept-Language", "").split(",")[0].split(";")[0].strip()
    return first if LANGUAGE.fullmatch(first) else ""


def _webhook_request(request: HttpRequest, raw: bytes) -> WebhookRequest:
    """Return what is stored of the request. The token stays out of it."""
    return WebhookRequest(
        method="POST",
        url=settings.PUBLIC_URL + request.get_full_path(),
        headers={"content-type": "application/json", "user-agent": request.headers.get("User-Agent", "")},
        query={},
        body=raw,
    )
