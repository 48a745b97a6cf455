"""What every webhook view shares: the request as our value, and the answers.

A stranger gets the same answer as any other stranger, whether the channel is unknown, the signature
wrong or the secret missing. A request that cannot be authentic by its address and headers is
refused before its body is read. So a stranger can find out whether a channel exists only by its
public id, which has 192 random bits.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping

import msgspec
from django.conf import settings
from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, HttpResponse

from channels_ingest.formats.signatures import was_stale
from channels_ingest.webhooks import body as raw_body
from channels_ingest.webhooks import body_limits, fast_path
from channels_ingest.webhooks.client_address import client_address
from channels_ingest.webhooks.failed_attempts import FailedAttempts
from conversations import registry
from conversations.contracts import Adapter, Answer, ChannelConfig, WebhookRequest
from conversations.errors import Busy, CoreError, UnknownPlatform
from conversations.operating import webhook_counts
from conversations.operating.webhook_counts import Counted

log = logging.getLogger(__name__)
failed_attempts = FailedAttempts()

Precheck = Callable[[ChannelConfig, Mapping[str, str]], bool]
Verify = Callable[[ChannelConfig, WebhookRequest], bool]

# Seconds in the header ``Retry-After`` of a 503. Larger: messages come later after a short fault of
# ours. Smaller: more requests while it lasts.
RETRY_AFTER_SECONDS = 2


def answer(platform: str, request: HttpRequest, receive: Callable[[], HttpResponse]) -> HttpResponse:
    """Return what ``receive`` returns, or an answer to what it raises: 503 for a fault of ours.

    ``receive`` holds one of the slots for webhooks, except while it reads the body.
    """
    try:
        with fast_path.webhook_slots():
            return receive()
    except raw_body.BodyError as error:
        return come_again() if error.status == 503 else HttpResponse(status=error.status)
    except Busy:
        pass
    except CoreError as error:
        log.error("webhook not stored", extra={"platform": platform, "error": type(error).__name__})
    except Exception as error:  # a fault of ours, whatever it is: the platform must come again
        log.exception("webhook failed", extra={"platform": platform, "error": type(error).__name__})
    _read_unread(request)
    return come_again()


def _read_unread(request: HttpRequest) -> None:
    """Read a small body that nobody has read.

    A server that answers first closes the connection, and a client that is still sending may be
    told of a broken connection instead of the answer.
    """
    if not isinstance(request.META["wsgi.input"], body_limits.LimitedBody):
        with contextlib.suppress(raw_body.BodyError), body_limits.LimitedBody(request.META, body_limits.PAGE_SECONDS):
            raw_body.read(request.META, raw_body.CHUNK)


def before_body(request: HttpRequest) -> dict[str, str]:
    """Return the headers. Raises ``TooLarge`` if they state a body over the cap."""
    raw_body.refuse_too_large(request.META, settings.WEBHOOK_BODY_CAP)
    return headers(request.META)


@contextlib.contextmanager
def unverified(request: HttpRequest, headers: Mapping[str, str]) -> Iterator[WebhookRequest]:
    """Read the body and yield the request as our value. Raises ``BodyError``.

    Until the block ends, the body counts as unverified. Clients may send slowly, so the slot is
    given back while the body is read.
    """
    with body_limits.LimitedBody(request.META, body_limits.WEBHOOK_SECONDS, _share_of):
        with fast_path.given_back(fast_path.webhook_slots()):
            body = raw_body.read(request.META, settings.WEBHOOK_BODY_CAP)
        yield as_value(request, headers, body)


def _share_of(address: str) -> int:
    """Return how many bytes of unverified bodies an address may have in memory."""
    return body_limits.SUSPECT_SHARE if failed_attempts.is_over(address) else body_limits.SHARE


def as_value(request: HttpRequest, headers: Mapping[str, str], body: bytes = b"") -> WebhookRequest:
    """Return the request as our value: adapters do not know Django."""
    return WebhookRequest(
        method=request.method or "",
        url=settings.PUBLIC_URL + request.get_full_path(),
        headers=headers,
        query=_query(request),
        body=body,
    )


def _query(request: HttpRequest) -> dict[str, str]:
    """Return the fields of a handshake. An adapter finds those of a POST in ``url``.

    Django reads at most 1,000 fields: a request with more has none.
    """
    try:
        return request.GET.dict() if request.method == "GET" else {}
    except SuspiciousOperation:
        return {}


def headers(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the headers by their names in lower case; WSGI keeps ``Content-Type`` apart."""
    found = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name[:5] == "HTTP_"}
    found["content-type"] = environ.get("CONTENT_TYPE", "")
    return found


def respond(given: Answer) -> HttpResponse:
    """Return an adapter's answer as Django's response."""
    response = HttpResponse(given.body, status=given.status, content_type=given.content_type)
    for name, value in given.headers.items():
        response[name] = value
    return response


def may_be_authentic(
    precheck: Precheck, channel: ChannelConfig | None, platform: str, headers: Mapping[str, str]
) -> bool:
    """Return False if the headers show that the request is not its channel's; count it."""
    was_stale.set(False)
    passed = precheck(channel or decoy(platform), headers)
    if not passed and channel is not None:
        webhook_counts.count(channel.id, Counted.STALE if was_stale.get() else Counted.REFUSED)
    return passed and channel is not None


def is_authentic(verify: Verify, channel: ChannelConfig, incoming: WebhookRequest) -> bool:
    """Return True if the request is its channel's; count what the operator should hear of."""
    was_stale.set(False)
    if not verify(channel, incoming):
        webhook_counts.count(channel.id, Counted.STALE if was_stale.get() else Counted.REFUSED)
        return False
    previous = {name for name, value in channel.credentials.items() if value and name.endswith("_previous")}
    if previous and not verify(msgspec.structs.replace(channel, credentials=_without(previous, channel)), incoming):
        webhook_counts.count(channel.id, Counted.PREVIOUS)
    return True


def within_app(verify: Verify, channel: ChannelConfig, incoming: WebhookRequest) -> ChannelConfig:
    """Return the channel, and without its app unless the app's own secrets prove the request.

    Otherwise whoever knows a secret of this channel alone could write to the app's other channels.
    """
    if not channel.app_id or verify(channel.with_secrets_of_app(), incoming):
        return channel
    return msgspec.structs.replace(channel, app_id=0)


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

    The headers of a request for an unknown channel are checked against it, so that this refusal
    takes as long as that of a wrong token.
    """
    secret = "whsec_" + secrets.token_urlsafe(24).replace("-", "A").replace("_", "B")
    names = [secret_.name for secret_ in getattr(find_adapter(platform), "secrets", ())]
    return ChannelConfig(id=0, public_id="", platform=platform, tenant_id=0, credentials=dict.fromkeys(names, secret))
