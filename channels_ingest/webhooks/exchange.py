"""What every webhook view shares: the request as our value, and the answers.

A stranger gets the same answer as any other stranger: an unknown channel, a wrong signature and a
missing secret cannot be told apart, neither by status nor by time.
"""

from __future__ import annotations

import functools
import logging
import secrets
from collections.abc import Callable, Mapping

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from channels_ingest.webhooks import body as raw_body
from channels_ingest.webhooks.client_address import client_address
from channels_ingest.webhooks.failed_attempts import FailedAttempts
from conversations import registry
from conversations.contracts import Adapter, Answer, ChannelConfig, WebhookRequest
from conversations.errors import Busy, CoreError, UnknownPlatform

log = logging.getLogger(__name__)
failed_attempts = FailedAttempts()

RETRY_AFTER_SECONDS = 2  # after a 503, for platforms that read the header


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


def respond(said: Answer) -> HttpResponse:
    response = HttpResponse(said.body, status=said.status, content_type=said.content_type)
    for name, value in said.headers.items():
        response[name] = value
    return response


def refuse(request: HttpRequest) -> HttpResponse:
    """Return the one answer for an unknown channel, a wrong signature and a missing secret."""
    if failed_attempts.count(client_address(request)):
        return come_again(429, failed_attempts.SECONDS)
    return HttpResponse(b"unauthorized\n", status=401, content_type="text/plain")


def not_allowed(methods: str = "POST") -> HttpResponse:
    return HttpResponse(status=405, headers={"Allow": methods})


def come_again(status: int = 503, seconds: int = RETRY_AFTER_SECONDS) -> HttpResponse:
    return HttpResponse(status=status, headers={"Retry-After": str(seconds)})


def find_adapter(platform: str) -> Adapter | None:
    try:
        return registry.adapter(platform)
    except UnknownPlatform:
        return None


@functools.cache
def decoy(platform: str) -> ChannelConfig:
    """Return a channel that nobody has: to verify a request against it takes as long as any."""
    secret = "whsec_" + secrets.token_urlsafe(24).replace("-", "A").replace("_", "B")
    names = [secret_.name for secret_ in getattr(find_adapter(platform), "secrets", ())]
    return ChannelConfig(id=0, public_id="", platform=platform, tenant_id=0, credentials=dict.fromkeys(names, secret))
