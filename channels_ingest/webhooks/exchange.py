"""What every webhook view shares: the request as our value, and the answers.

A stranger gets the same answer as any other stranger: an unknown channel, a wrong signature and a
missing secret cannot be told apart, neither by status nor by time.
"""

from __future__ import annotations

import functools
import logging
import secrets
from collections.abc import Callable, Collection, Mapping

import msgspec
from django.conf import settings
from django.http import HttpRequest, HttpResponse

from channels_ingest.formats.signatures import was_stale
from channels_ingest.webhooks import body as raw_body
from channels_ingest.webhooks.client_address import client_address
from channels_ingest.webhooks.failed_attempts import FailedAttempts
from conversations import registry
from conversations.contracts import Adapter, Answer, ChannelConfig, WebhookRequest
from conversations.errors import Busy, CoreError, UnknownPlatform
from conversations.operating import webhook_counts
from conversations.operating.webhook_counts import Counted

log = logging.getLogger(__name__)
failed_attempts = FailedAttempts()

Verify = Callable[[ChannelConfig, WebhookRequest], bool]

# Seconds in the header ``Retry-After`` of a 503. Larger: messages come later after a short fault of
# ours. Smaller: more requests while it lasts.
RETRY_AFTER_SECONDS = 2


def answer(platform: str, receive: Callable[[], HttpResponse]) -> HttpResponse:
    """Return what ``receive`` returns, or an answer to what it raises: 503 for a fault of ours."""
    try:
        return receive()
    except raw_body.BodyError as error:
        return HttpResponse(status=error.status)
    except Busy:
        return come_again()
    except CoreError as error:
        log.error("webhook not stored", extra={"platform": platform, "error": type(error).__name__})
        return come_again()
    except Exception as error:  # a fault of ours, whatever it is: the platform must come again
        log.exception("webhook failed", extra={"platform": platform, "error": type(error).__name__})
        return come_again()


def read(request: HttpRequest) -> WebhookRequest:
    """Read the body, then return the request as our value. Raises ``BodyError``."""
    return as_value(request, raw_body.read(request.META, settings.WEBHOOK_BODY_CAP))


def as_value(request: HttpRequest, body: bytes) -> WebhookRequest:
    """Return the request as our value: adapters do not know Django."""
    return WebhookRequest(
        method=request.method or "",
        url=settings.PUBLIC_URL + request.get_full_path(),
        headers=_headers(request.META),
        query=request.GET.dict() if request.META.get("QUERY_STRING") else {},
        body=body,
    )


def _headers(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the headers by their names in lower case; WSGI keeps ``Content-Type`` apart."""
    headers = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name[:5] == "HTTP_"}
    headers["content-type"] = environ.get("CONTENT_TYPE", "")
    return headers


def respond(given: Answer) -> HttpResponse:
    """Return an adapter's answer as Django's response."""
    response = HttpResponse(given.body, status=given.status, content_type=given.content_type)
    for name, value in given.headers.items():
        response[name] = value
    return response


def is_authentic(verify: Verify, channel: ChannelConfig | None, platform: str, incoming: WebhookRequest) -> bool:
    """Return True if the request is its channel's; count what the operator should hear of."""
    if channel is None:
        verify(decoy(platform), incoming)
        return False
    was_stale.set(False)
    if not verify(channel, incoming):
        webhook_counts.count(channel.id, Counted.STALE if was_stale.get() else Counted.REFUSED)
        return False
    previous = {name for name, value in channel.credentials.items() if value and name.endswith("_previous")}
    if previous and not verify(msgspec.structs.replace(channel, credentials=_without(previous, channel)), incoming):
        webhook_counts.count(channel.id, Counted.PREVIOUS)
    return True


def _without(names: Collection[str], channel: ChannelConfig) -> dict[str, str]:
    return {name: value for name, value in channel.credentials.items() if name not in names}


def refuse(request: HttpRequest) -> HttpResponse:
    """Return the one answer for an unknown channel, a wrong signature and a missing secret.

    An address that failed too often is told to wait instead.
    """
    if failed_attempts.count(client_address(request)):
        return come_again(429, failed_attempts.SECONDS)
    return HttpResponse(b"unauthorized\n", status=401, content_type="text/plain")


def not_allowed(methods: str = "POST") -> HttpResponse:
    """Answer 405: only ``methods`` are allowed here."""
    return HttpResponse(status=405, headers={"Allow": methods})


def come_again(status: int = 503, seconds: int = RETRY_AFTER_SECONDS) -> HttpResponse:
    """Answer with ``Retry-After``, so that the platform sends the request again."""
    return HttpResponse(status=status, headers={"Retry-After": str(seconds)})


def find_adapter(platform: str) -> Adapter | None:
    """Return the platform's adapter, or None if there is no such platform."""
    try:
        return registry.adapter(platform)
    except UnknownPlatform:
        return None


@functools.cache
def decoy(platform: str) -> ChannelConfig:
    """Return a channel that does not exist, with a random secret in base64.

    A request for an unknown channel is verified against it. The refusal then takes as long as for a
    known channel, so that nobody can find out by time which channels exist.
    """
    secret = "whsec_" + secrets.token_urlsafe(24).replace("-", "A").replace("_", "B")
    names = [secret_.name for secret_ in getattr(find_adapter(platform), "secrets", ())]
    return ChannelConfig(id=0, public_id="", platform=platform, tenant_id=0, credentials=dict.fromkeys(names, secret))
