"""The API of the chat page and the widget: begin a session, post a message, poll. No cookies.

    POST /web/<channel>/session/    {} or {"id", "hash"}                     -> {"token", "identified"}
    POST /web/<channel>/messages/   {"client_id", "text"}                    -> {} after the COMMIT
                                    {"client_id", "choice", "reply"}            a button of that reply
    GET  /web/<channel>/messages/?after=<cursor>                             -> a timeline, or 304

400, 409 and 413 refuse a message for good. 401 asks for a new session. After 429 and 503 the page
tries again.
"""

from __future__ import annotations

import functools
import logging
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import psycopg
from django.conf import settings
from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from channels_ingest.formats.strict_json import Unreadable, read_object
from channels_ingest.webchat import caps, origins, timeline, tokens
from channels_ingest.webhooks import body
from conversations import registry
from conversations.contracts import ChannelConfig, Entry, Kind, Sender, WebhookRequest
from conversations.errors import Conflict, CoreError
from conversations.storing import intake

log = logging.getLogger(__name__)

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
# Seconds in ``Retry-After`` of a 503. Larger: pages wait longer after a short fault. Smaller: more
# requests while it lasts.
RETRY_SECONDS = 2

View = Callable[[HttpRequest, ChannelConfig], HttpResponse]


class Refused(Exception):
    """Ends the request with this status and these words."""

    def __init__(self, status: int, words: str, retry_after: float = 0.0) -> None:
        super().__init__(words)
        self.status, self.words, self.retry_after = status, words, retry_after


def endpoint(*methods: str) -> Callable[[View], Callable[..., HttpResponse]]:
    """Make a view an endpoint for these methods.

    An unknown channel is answered 404, a foreign origin 403, a fault of our own 503.
    """

    def wrap(view: View) -> Callable[..., HttpResponse]:
        @csrf_exempt  # no cookies are read: there is nothing to forge
        @functools.wraps(view)
        def guarded(request: HttpRequest, public_id: str) -> HttpResponse:
            try:
                request.get_host()  # raises DisallowedHost; origins.py trusts the host after that
                channel = registry.channel_by_public_id("web", public_id)
                return _with_cors(channel, request, functools.partial(_answer, view, methods))
            except SuspiciousOperation:  # a wrong host, too many fields: no fault of ours
                return HttpResponse(status=400)
            except Exception:  # a fault of ours, whatever it is: the page tries again
                log.exception("web chat failed")
                return _unavailable()

        return guarded

    return wrap


def _with_cors(
    channel: ChannelConfig | None, request: HttpRequest, answer: Callable[[HttpRequest, ChannelConfig], HttpResponse]
) -> HttpResponse:
    """Add the CORS headers to every answer: without them a page cannot read even a refusal."""
    if channel is None:
        return _problem(Refused(404, "There is no such chat."))
    response = answer(request, channel)
    origins.add_cors(channel, request, response)
    response.headers["Cache-Control"] = "no-store"
    return response


def _answer(view: View, methods: tuple[str, ...], request: HttpRequest, channel: ChannelConfig) -> HttpResponse:
    """Check origin and method, then call the view. What it raises becomes an answer."""
    if not origins.may_write(channel, request):
        return _problem(Refused(403, "This web page may not use this chat."))
    if request.method == "OPTIONS":
        return HttpResponse(status=204)
    if request.method not in methods:
        return HttpResponse(status=405, headers={"Allow": ", ".join(methods)})
    try:
        return view(request, channel)
    except Refused as refused:
        return _problem(refused)
    except (CoreError, psycopg.OperationalError) as error:
        log.warning("web chat not available", extra={"error": type(error).__name__})
        return _unavailable()


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
        _refuse_if_early(caps.wait_to_begin(channel, request))
    if user_id and visitor is None:
        raise Refused(403, "The identity could not be verified.")
    token = tokens.issue(channel, visitor or tokens.new_visitor())
    return _json({"token": token, "identified": visitor is not None})


@endpoint("GET", "POST")
def messages(request: HttpRequest, channel: ChannelConfig) -> HttpResponse:
    """Store a message (POST) or answer a poll (GET)."""
    visitor = _visitor(request, channel)
    return _post(request, channel, visitor) if request.method == "POST" else _poll(request, channel, visitor)


def _post(request: HttpRequest, channel: ChannelConfig, visitor: str) -> HttpResponse:
    """Answer 200 only after the COMMIT: the page forgets the message then."""
    _refuse_if_early(caps.wait_to_write(channel, visitor, request))
    raw = _body(request)
    entry = _entry(request, channel, visitor, _read(raw))
    try:
        intake.accept(channel, [entry], _webhook_request(request, raw), own_api=True)
    except Conflict:
        raise Refused(409, "Another message was sent under this id.") from None
    return _json({})


def _poll(request: HttpRequest, channel: ChannelConfig, visitor: str) -> HttpResponse:
    """Return the timeline after the page's cursor, or 304 if nothing at all has changed."""
    _refuse_if_early(caps.wait_to_poll(channel, visitor, request))
    found = timeline.read(channel, visitor, request.GET.get("after", ""))
    unchanged = not found.items and request.headers.get("If-None-Match") == found.etag
    caps.count_less(channel, visitor, request, unchanged=unchanged, busy=found.busy)
    if unchanged:
        return HttpResponse(status=304, headers={"ETag": found.etag})
    return _json(found, {"ETag": found.etag})


# ---------------------------------------------------------------- reading a request


def _visitor(request: HttpRequest, channel: ChannelConfig) -> str:
    """Return the visitor whom the token in the header names. Raises ``Refused``."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    visitor = tokens.read(channel, token.strip()) if scheme.lower() == "bearer" else None
    if visitor is None:
        raise Refused(401, "The session is not valid.")
    return visitor


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
    return _message(_text(given, "text"), client_id, common)


def _message(text: str, client_id: str, common: Mapping[str, Any]) -> Entry:
    """Read a written message. Raises ``Refused`` for an empty or a too long one."""
    if not text.strip():
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


# ---------------------------------------------------------------- answering


def _refuse_if_early(seconds: float) -> None:
    """Raise ``Refused`` (429) if a cap says to wait ``seconds``; 0 passes."""
    if seconds:
        raise Refused(429, "Too many at once. Please wait a moment.", seconds)


def _json(value: Any, headers: Mapping[str, str] | None = None) -> HttpResponse:
    return HttpResponse(msgspec.json.encode(value), content_type="application/json", headers=headers)


def _problem(refused: Refused) -> HttpResponse:
    """Return a refusal as JSON; the page shows its words."""
    headers = {"Retry-After": str(math.ceil(refused.retry_after))} if refused.retry_after else {}
    response = _json({"error": refused.words}, headers)
    response.status_code = refused.status
    return response


def _unavailable() -> HttpResponse:
    return _problem(Refused(503, "The chat is not available for a moment.", RETRY_SECONDS))
