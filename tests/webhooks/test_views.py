"""What the webhook answers, with storing and the channel table replaced by stand-ins."""

from __future__ import annotations

import io
import json
import time
from typing import Any

import pytest
import time_machine
from django.test import Client

from channels_ingest.webhooks import body, body_limits, exchange, views
from channels_ingest.webhooks.failed_attempts import FailedAttempts
from conversations.contracts import ChannelConfig, Entry, Unusable
from conversations.errors import Busy, NotStored
from tests.kit.fixtures import ADAPTERS, CREDENTIALS, FIXTURES

TOKEN = {"X-Telegram-Bot-Api-Secret-Token": CREDENTIALS["secret_token"]}
TEXT = json.dumps(json.loads((FIXTURES / "telegram" / "text.json").read_text())["body"]).encode()
URL = "/webhooks/telegram/known/"


class Stored:
    """Stands for ``intake.accept``: keeps what it was given, or raises."""

    def __init__(self) -> None:
        self.parsed: list[Any] = []
        self.error: Exception | None = None

    def __call__(self, channel: ChannelConfig, parsed: list[Any], request: Any, *, spent: float) -> None:
        if self.error:
            raise self.error
        self.parsed += parsed


@pytest.fixture(autouse=True)
def stored(monkeypatch: pytest.MonkeyPatch) -> Stored:
    stand_in = Stored()
    known = {("telegram", "known"): CREDENTIALS,
             ("telegram", "other"): {**CREDENTIALS, "secret_token": "another-tenants"},
             ("telegram", "bare"): {"token": "1:x"}, ("generic", "known"): CREDENTIALS}  # fmt: skip

    def channel(platform: str, public_id: str) -> ChannelConfig | None:
        credentials = known.get((platform, public_id))
        if credentials is None:
            return None
        return ChannelConfig(id=1, public_id=public_id, platform=platform, tenant_id=1, credentials=credentials)

    monkeypatch.setattr(views.registry, "channel_by_public_id", channel)
    monkeypatch.setattr(views.intake, "accept", stand_in)
    monkeypatch.setattr(exchange, "failed_attempts", FailedAttempts())
    return stand_in


def post(url: str = URL, content: bytes = TEXT, headers: dict[str, str] | None = None, **more: Any) -> Any:
    headers = TOKEN if headers is None else headers
    return Client().post(url, content, content_type="application/json", headers=headers, **more)


@pytest.mark.parametrize("url", [URL, URL.rstrip("/")])
def test_an_authentic_update_is_stored_and_answered_200(url: str, stored: Stored) -> None:
    answer = post(url)
    assert (answer.status_code, answer.content) == (200, b"")
    (entry,) = stored.parsed
    assert isinstance(entry, Entry)
    assert entry.text == "Where is my order?"


def test_a_signed_event_is_stored(stored: Stored) -> None:
    content = json.dumps(json.loads((FIXTURES / "generic" / "text.json").read_text())["body"]).encode()
    ours = ChannelConfig(id=1, public_id="known", platform="generic", tenant_id=1, credentials=CREDENTIALS)
    assert post("/webhooks/generic/known/", content, ADAPTERS["generic"].sign(ours, content)).status_code == 200
    assert len(stored.parsed) == 1


STRANGERS = {
    "unknown channel": ("/webhooks/telegram/unknown/", TOKEN),
    "unknown platform": ("/webhooks/carrier_pigeon/known/", TOKEN),
    "channel of another platform": ("/webhooks/generic/other/", TOKEN),
    "another tenant's secret": ("/webhooks/telegram/other/", TOKEN),
    "no secret set": ("/webhooks/telegram/bare/", TOKEN),
    "no secret set, none sent": ("/webhooks/telegram/bare/", {}),
    "no header": (URL, {}),
    "empty header": (URL, {"X-Telegram-Bot-Api-Secret-Token": ""}),
    "wrong header": (URL, {"X-Telegram-Bot-Api-Secret-Token": "wrong"}),
    "non-ASCII header": (URL, {"X-Telegram-Bot-Api-Secret-Token": "é"}),
    "header twice": (URL, {"X-Telegram-Bot-Api-Secret-Token": f"{CREDENTIALS['secret_token']},wrong"}),
    "unsigned event": ("/webhooks/generic/known/", {}),
}


@pytest.mark.parametrize(("url", "headers"), STRANGERS.values(), ids=STRANGERS.keys())
def test_every_stranger_gets_the_same_401(url: str, headers: dict[str, str], stored: Stored) -> None:
    answer = post(url, headers=headers)
    assert (answer.status_code, answer.content, answer["Content-Type"]) == (401, b"unauthorized\n", "text/plain")
    assert stored.parsed == []


def test_a_stranger_who_keeps_on_is_told_to_wait_and_signed_requests_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FailedAttempts, "FAILURES", 3)
    statuses = [post(headers={}).status_code for _ in range(5)]
    assert statuses == [401, 401, 401, 429, 429]
    assert post(headers={})["Retry-After"] == str(FailedAttempts.SECONDS)
    assert post().status_code == 200


def test_strangers_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = FailedAttempts()
    for number in range(3 * FailedAttempts.ADDRESSES):
        attempts.count(str(number))
    assert len(attempts._failures) <= FailedAttempts.ADDRESSES


@pytest.mark.parametrize("method", ["get", "head", "options", "put", "patch", "delete", "trace"])
@pytest.mark.parametrize("url", [URL, "/webhooks/telegram/unknown/", "/webhooks/carrier_pigeon/x/"])
def test_other_methods_are_not_allowed(method: str, url: str) -> None:
    answer = getattr(Client(), method)(url, headers={**TOKEN, "X-HTTP-Method-Override": "POST"})
    assert (answer.status_code, answer["Allow"]) == (405, "POST")


NOWHERE = [
    "/webhooks/telegram/known//",
    "/webhooks//telegram/known/",
    "/WEBHOOKS/telegram/known/",
    "/webhooks/Telegram/known/",
    "/webhooks/telegram/%2e%2e/",
    "/webhooks/telegram/a%00b/",
    "/webhooks/telegram/a'b/",
    "/webhooks/telegram/%D9%A3/",
    "/webhooks/telegram/known/%0A",
    "/webhooks/telegram/",
    "/webhooks/telegram/" + "x" * 10_000 + "/",
]


@pytest.mark.parametrize("url", NOWHERE, ids=lambda url: url[:40])
def test_other_paths_are_not_there_and_never_redirect(url: str) -> None:
    assert post(url).status_code == 404


def test_what_cannot_be_read_is_stored_as_unusable(stored: Stored) -> None:
    assert post(content=b"{").status_code == 200
    (unusable,) = stored.parsed
    assert isinstance(unusable, Unusable)
    assert unusable.raw == b"{"


def test_an_adapter_that_fails_keeps_the_bytes(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise KeyError("x")

    monkeypatch.setattr(type(ADAPTERS["telegram"]), "parse", broken)
    assert post().status_code == 200
    assert stored.parsed == [Unusable(reason="the adapter failed: KeyError", raw=TEXT)]


@pytest.mark.parametrize("error", [Busy(), NotStored(), RuntimeError("ours"), MemoryError()])
def test_a_fault_of_ours_asks_the_platform_to_come_again(error: Exception, stored: Stored) -> None:
    stored.error = error
    answer = post()
    assert (answer.status_code, answer["Retry-After"], answer.content) == (503, str(exchange.RETRY_AFTER_SECONDS), b"")


def test_a_registry_that_fails_asks_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views.registry, "channel_by_public_id", lambda *_: 1 / 0)
    stream = io.BytesIO(TEXT)
    answer = post(**{"wsgi.input": stream})
    assert answer.status_code == 503
    assert not stream.read(), "with a body left, the server closes the connection, perhaps before its answer is read"


def test_a_body_over_the_cap_is_413_whoever_sends_it(settings: Any) -> None:
    settings.WEBHOOK_BODY_CAP = 100
    assert post(content=b"x" * 101).status_code == 413
    assert post(content=b"x" * 101, headers={}).status_code == 413
    assert post(content=b"x" * 100).status_code == 200


def test_a_session_cookie_changes_nothing(stored: Stored) -> None:
    client = Client(enforce_csrf_checks=True)
    client.cookies["sessionid"] = "anything"
    answer = client.post(URL, TEXT, content_type="application/json", headers=TOKEN)
    assert (answer.status_code, dict(answer.cookies)) == (200, {})
    assert "Vary" not in answer


# ---------------------------------------------------------------- the body


def environ(content: bytes, **more: Any) -> dict[str, Any]:
    return {"wsgi.input": io.BytesIO(content), **more}


def test_a_stated_body_is_read_whole_and_no_further() -> None:
    assert body.read(environ(b"abcdef", CONTENT_LENGTH="4"), 10) == b"abcd"


def test_a_chunked_body_is_read_to_its_end() -> None:
    assert body.read(environ(b"x" * 200_000, **{"wsgi.input_terminated": True}), 200_000) == b"x" * 200_000


def test_without_length_and_end_there_is_no_body() -> None:
    assert body.read(environ(b"left over", CONTENT_LENGTH=""), 10) == b""


@pytest.mark.parametrize("length", ["+5", "0x10", "-1", "５", "1e1"])
def test_a_length_is_digits(length: str) -> None:
    with pytest.raises(body.BodyError):
        body.read(environ(b"abcde", CONTENT_LENGTH=length), 10)


def test_at_most_the_cap_is_read() -> None:
    stream = environ(b"x" * 1000, **{"wsgi.input_terminated": True})
    with pytest.raises(body.TooLarge):
        body.read(stream, 99)
    assert stream["wsgi.input"].tell() == 100
    stated = environ(b"x" * 1000, CONTENT_LENGTH="9" * 5000)
    with pytest.raises(body.TooLarge):
        body.read(stated, 99)
    assert stated["wsgi.input"].tell() == 0


def test_a_body_that_ends_early_is_cut_and_nothing_is_stored(stored: Stored) -> None:
    with pytest.raises(body.Cut):
        body.read(environ(b"abc", CONTENT_LENGTH="4"), 10)


def test_a_body_that_drips_is_given_up() -> None:
    dripping = environ(b"abcdef", CONTENT_LENGTH="6")
    body_limits.LimitedBody(dripping, seconds=-1.0)
    with pytest.raises(body.TooSlow):
        body.read(dripping, 10)


def test_a_query_of_any_size_is_no_fault_of_ours(stored: Stored) -> None:
    """A stranger gets his 401, and what is signed is stored."""
    query = "&".join(f"a{number}=1" for number in range(1001))
    assert post(f"{URL}?{query}", headers={}).status_code == 401
    assert post(f"{URL}?{query}").status_code == 200
    assert len(stored.parsed) == 1


def test_an_address_that_failed_too_often_may_send_small_signed_bodies(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FailedAttempts, "FAILURES", 1)
    monkeypatch.setattr(body_limits, "SUSPECT_SHARE", 99)
    large = TEXT + b" " * (body.CHUNK + 100 - len(TEXT))
    assert post(content=large).status_code == 200
    assert [post(headers={}).status_code for _ in range(2)] == [401, 429]
    refused = post(content=large)
    assert (refused.status_code, refused["Retry-After"]) == (503, str(exchange.RETRY_AFTER_SECONDS))
    assert post().status_code == 200


# ---------------------------------------------------------------- what an operator should hear of


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    calls: list[tuple[int, str]] = []
    monkeypatch.setattr(exchange.webhook_counts, "count", lambda channel, what: calls.append((channel, what)))
    return calls


def signed(moment: float, **credentials: str) -> tuple[bytes, dict[str, str]]:
    """An event and its headers, signed at ``moment`` with these credentials instead of the channel's."""
    content = json.dumps(json.loads((FIXTURES / "generic" / "text.json").read_text())["body"]).encode()
    ours = ChannelConfig(id=1, public_id="known", platform="generic", tenant_id=1, credentials=credentials)
    with time_machine.travel(moment):
        return content, ADAPTERS["generic"].sign(ours, content)


@pytest.mark.parametrize(
    ("late", "secret", "what"),
    [(0, "secret", []), (400, "secret", ["stale"]), (-400, "secret", ["stale"]), (0, "", ["refused"]),
     (400, "", ["stale"]), (0, "secret_previous", ["previous_secret"])],
)  # fmt: skip
def test_refused_stale_and_previous_are_counted(
    counted: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch, late: float, secret: str, what: list[str]
) -> None:
    old = "whsec_" + "b2xk" * 8
    credentials = {**CREDENTIALS, "secret_previous": old}
    ours = ChannelConfig(id=1, public_id="known", platform="generic", tenant_id=1, credentials=credentials)
    monkeypatch.setattr(views.registry, "channel_by_public_id", lambda *_: ours)
    used = credentials[secret] if secret else "whsec_" + "b3Ro" * 8
    content, headers = signed(time.time() - late, secret=used)
    answer = post("/webhooks/generic/known/", content, headers)
    assert answer.status_code == (401 if "stale" in what or "refused" in what else 200)
    assert counted == [(1, each) for each in what]


def test_a_stranger_at_an_unknown_channel_is_not_counted(counted: list[tuple[int, str]]) -> None:
    assert post("/webhooks/telegram/unknown/").status_code == 401
    assert counted == []
