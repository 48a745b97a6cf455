"""The webhook: verify, parse, store, answer.

No session, no cookie, no user; nothing that a stranger sends is answered otherwise than the next
stranger. What is authentic is answered with success once it is stored, or with 503 when the fault is
ours: never 4xx, never 500.
"""

from __future__ import annotations

import functools
import logging
import secrets
import time
from collections.abc import Callable, Mapping

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from channels_ingest.formats.strict_json import Unreadable
from channels_ingest.http_bots import protocol
from channels_ingest.webhooks import body as raw_body
from channels_ingest.webhooks.failed_attempts import Strangers
from conversations import registry
from conversations.contracts import Adapter, Answer, ChannelConfig, Parsed, Unusable, WebhookRequest
from conversations.errors import Busy, CoreError, UnknownPlatform
from conversations.storing import intake, late_replies

log = logging.getLogger(__name__)
strangers = Strangers()

RETRY_AFTER_SECONDS = 2


@csrf_exempt
def webhook(request: HttpRequest, platform: str, public_id: str) -> HttpResponse:
    """One request of a platform, from its first byte to the answer."""
    return _answered(platform, lambda: _receive(request, platform, public_id))


@csrf_exempt
def late_reply(request: HttpRequest, public_id: str) -> HttpResponse:
    """One reply that an http bot posts after its turn. Answered as webhooks are."""
    return _answered("http bot", lambda: _receive_late(request, public_id))


def _answered(platform: str, receive: Callable[[], HttpResponse]) -> HttpResponse:
    try:
        return receive()
    except raw_body.BodyError as error:
        return HttpResponse(status=error.status)
    except Busy:
        return _come_again()
    except CoreError as error:
        log.error("webhook not stored", extra={"platform": platform, "error": type(error).__name__})
        return _come_again()
    except Exception as error:  # whatever it is, it is ours: the platform must come again
        log.exception("webhook failed", extra={"platform": platform, "error": type(error).__name__})
        return _come_again()


def _receive(request: HttpRequest, platform: str, public_id: str) -> HttpResponse:
    adapter = _adapter(platform)
    if request.method != "POST":
        return _shake_hands(request, adapter, platform, public_id)
    began = time.monotonic()
    channel = registry.channel_by_public_id(platform, public_id)
    spent = time.monotonic() - began
    if adapter is None:
        return _refuse(request)
    incoming = _incoming(request, raw_body.read(request.META, settings.WEBHOOK_BODY_CAP))
    if not adapter.verify(channel or _decoy(platform), incoming) or channel is None:
        return _refuse(request)
    intake.accept(channel, _parse(adapter, channel, incoming), incoming, spent=spent)
    return _respond(adapter.answer(channel, incoming))


def _receive_late(request: HttpRequest, public_id: str) -> HttpResponse:
    if request.method != "POST":
        return _not_allowed(None)
    channel = registry.channel_by_public_id(None, public_id)
    incoming = _incoming(request, raw_body.read(request.META, settings.WEBHOOK_BODY_CAP))
    if not protocol.verify(channel or _decoy("generic"), incoming) or channel is None:
        return _refuse(request)
    unusable = _store_late(channel, incoming.body)
    if unusable:
        intake.accept(channel, [Unusable(reason=f"a late reply: {unusable}", raw=incoming.body)], incoming)
    return HttpResponse()


def _store_late(channel: ChannelConfig, body: bytes) -> str:
    """Why it cannot be stored; '' when it is, or was before."""
    if channel.bot != "http":
        return "this channel's bot is not of kind http"
    try:
        late = protocol.read_late(body)
    except Unreadable as error:
        return str(error)
    return "" if late_replies.store(channel, late) else "its turn is none of this channel's"


def _shake_hands(request: HttpRequest, adapter: Adapter | None, platform: str, public_id: str) -> HttpResponse:
    """A GET that proves that the URL is ours, where the platform has such a thing."""
    if request.method != "GET" or not getattr(adapter, "shakes_hands", False):
        return _not_allowed(adapter)
    channel = registry.channel_by_public_id(platform, public_id)
    if channel is None or adapter is None:
        return _refuse(request)
    answer = adapter.handshake(channel, _incoming(request, b""))
    return _respond(answer) if answer else _not_allowed(adapter)


def _adapter(platform: str) -> Adapter | None:
    try:
        return registry.adapter(platform)
    except UnknownPlatform:
        return None


def _parse(adapter: Adapter, channel: ChannelConfig, incoming: WebhookRequest) -> list[Parsed]:
    """An adapter that fails on these bytes fails on them each time: kept for after its repair, not sent back."""
    try:
        return adapter.parse(channel, incoming)
    except Exception as error:
        log.exception("adapter failed", extra={"platform": adapter.platform})
        return [Unusable(reason=f"the adapter failed: {type(error).__name__}", raw=incoming.body)]


def _incoming(request: HttpRequest, raw: bytes) -> WebhookRequest:
    return WebhookRequest(
        method=request.method or "",
        url=settings.PUBLIC_URL + request.get_full_path(),
        headers=_headers(request.META),
        query=request.GET.dict() if request.META.get("QUERY_STRING") else {},
        body=raw,
    )


def _headers(environ: Mapping[str, str]) -> dict[str, str]:
    """Header names in lower case. ``Content-Type`` is one too, though WSGI keeps it elsewhere."""
    headers = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name[:5] == "HTTP_"}
    headers["content-type"] = environ.get("CONTENT_TYPE", "")
    return headers


def _respond(answer: Answer) -> HttpResponse:
    response = HttpResponse(answer.body, status=answer.status, content_type=answer.content_type)
    for name, value in answer.headers.items():
        response[name] = value
    return response


def _refuse(request: HttpRequest) -> HttpResponse:
    """One answer for an unknown channel, a wrong signature and a missing secret."""
    if strangers.too_many(_client(request)):
        return _come_again(429, strangers.SECONDS)
    return HttpResponse(b"unauthorized\n", status=401, content_type="text/plain")


def _client(request: HttpRequest) -> str:
    """The address that our router saw; without a router, the socket's."""
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "")
    if settings.SECURE_PROXY_SSL_HEADER and forwarded:
        return forwarded.rpartition(",")[2].strip()
    return request.META.get("REMOTE_ADDR", "")


def _not_allowed(adapter: Adapter | None) -> HttpResponse:
    allowed = "GET, POST" if getattr(adapter, "shakes_hands", False) else "POST"
    return HttpResponse(status=405, headers={"Allow": allowed})


def _come_again(status: int = 503, seconds: int = RETRY_AFTER_SECONDS) -> HttpResponse:
    return HttpResponse(status=status, headers={"Retry-After": str(seconds)})


@functools.cache
def _decoy(platform: str) -> ChannelConfig:
    """A channel that nobody has: an unknown one costs the same work as a known one."""
    secret = "whsec_" + secrets.token_urlsafe(24).replace("-", "A").replace("_", "B")
    names = [secret_.name for secret_ in getattr(_adapter(platform), "secrets", ())]
    return ChannelConfig(id=0, public_id="", platform=platform, tenant_id=0, credentials=dict.fromkeys(names, secret))
