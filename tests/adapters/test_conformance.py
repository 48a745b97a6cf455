"""What every registered adapter must be: fails until all of ``docs/adding-a-platform.md`` is done."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

import pytest
from django.conf import settings
from hypothesis import given
from hypothesis import strategies as st

from channels_ingest.adapters import base
from channels_ingest.adapters.generic import Generic
from channels_ingest.formats import text as cut
from conversations import registry
from conversations.contracts import (
    Answer,
    ChannelConfig,
    Entry,
    Note,
    ReplyBody,
    StatusUpdate,
    Unusable,
    WebhookRequest,
)
from tests.kit.fixtures import FIXTURES, channel, incoming, names, request

PLATFORMS = sorted(settings.ADAPTERS)
POSTING = [platform for platform in PLATFORMS if (FIXTURES / platform).is_dir()]
SPLICES = [b"", b"null", b'"', b"{}", b"[]", b"1.5", b"true", b"\xff", b"-", b"0", b"\\u0000", b"\\ud800"]
VERBS = ["handshake", "precheck", "verify", "parse", "answer", "fetch", "split", "key_life", "send", "acknowledge"]


def adapter(platform: str) -> Any:
    return registry.adapter(platform)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_it_is_registered_under_its_name_and_its_facts_are_data(platform: str) -> None:
    ours = adapter(platform)
    assert isinstance(ours, base.Adapter)
    assert ours.platform == platform
    assert re.fullmatch("[a-z_]{1,20}", platform)
    assert all(limit.bucket in ("channel", "chat", "group") and limit.count and limit.seconds for limit in ours.limits)
    assert 0 <= ours.settle_ms <= 2000
    names = {secret.name for secret in ours.secrets} | {option.name for option in ours.options}
    assert len(names) == len(ours.secrets) + len(ours.options)
    assert all(re.compile(fact.pattern) and fact.help for fact in (*ours.secrets, *ours.options))
    assert {ours.channel_ref_option, ours.template_option} <= {"", *(option.name for option in ours.options)}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_its_verbs_stand_in_flow_order_and_it_imports_no_models_celery_or_redis(platform: str) -> None:
    ours = type(adapter(platform))
    own = [name for name in vars(ours) if name in VERBS]
    assert own == sorted(own, key=VERBS.index)
    source = inspect.getsource(inspect.getmodule(ours))  # type: ignore[arg-type]
    assert not re.search(r"import.*(celery|redis|models|django\.db)|from (celery|redis)", source)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_it_refuses_what_is_not_signed_and_a_channel_without_its_secrets(platform: str) -> None:
    bare = ChannelConfig(id=1, public_id="p", platform=platform, tenant_id=1)
    for ours in (bare, channel(platform)):
        assert adapter(platform).verify(ours, incoming(b"{}")) is False
        assert adapter(platform).verify(ours, incoming(b"", **{"webhook-signature": "é", "webhook-id": "\0"})) is False


@pytest.mark.parametrize(("platform", "name"), [(platform, name) for platform in POSTING for name in names(platform)])
def test_it_verifies_reads_and_answers_each_fixture(platform: str, name: str) -> None:
    ours, config, sent = adapter(platform), channel(platform), request(platform, name)
    signed = incoming(sent.body, **ours.sign(config, sent.body))
    assert ours.precheck(config, signed.headers)
    assert ours.verify(config, signed)
    parsed = ours.parse(config, sent)
    assert parsed == ours.parse(config, sent)
    assert all(isinstance(each, Entry | StatusUpdate | Note | Unusable) for each in parsed)
    entries = [each for each in parsed if isinstance(each, Entry)]
    assert all(":" in each.key and each.chat and each.sender.user for each in entries)
    assert not ours.channel_ref_option or all(each.raw for each in entries)
    assert isinstance(ours.answer(config, sent), Answer)


@pytest.mark.parametrize("platform", POSTING)
def test_its_facts_are_what_it_does(platform: str) -> None:
    ours = adapter(platform)
    found = [each for name in names(platform) for each in ours.parse(channel(platform), request(platform, name))]
    assert {each.status for each in found if isinstance(each, StatusUpdate)} == set(ours.statuses)
    assert (type(ours).show_typing is not base.Adapter.show_typing) == ours.shows_typing


@pytest.mark.parametrize("platform", POSTING)
def test_its_fixtures_have_all_that_matters(platform: str) -> None:
    ours, config = adapter(platform), channel(platform)
    found = [each for name in names(platform) for each in ours.parse(config, request(platform, name))]
    kinds = {str(each.kind) for each in found if isinstance(each, Entry)}
    assert {"message", "button", "edit", "delete"} <= kinds
    assert {type(each).__name__ for each in found} >= {"Entry", "Note", "Unusable"}
    keys = [(each.chat, each.kind, each.key) for each in found if isinstance(each, Entry) and each.kind == "message"]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("platform", POSTING)
@given(data=st.data())
def test_no_bytes_make_it_raise_and_what_is_unusable_keeps_bytes(platform: str, data: st.DataObject) -> None:
    body = bytearray(request(platform, data.draw(st.sampled_from(names(platform)))).body)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place : place + data.draw(st.integers(0, 3))] = data.draw(st.sampled_from(SPLICES))
    parsed = adapter(platform).parse(channel(platform), incoming(bytes(body)))
    assert all(each.raw for each in parsed if isinstance(each, Unusable)) or not body


@pytest.mark.parametrize("platform", PLATFORMS)
@given(text=st.text(max_size=300))
def test_split_is_idempotent(platform: str, text: str) -> None:
    for part in adapter(platform).split(ReplyBody(text=text * 40)):
        assert adapter(platform).split(part) == [part]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_long_markdown_is_split_into_markdown_that_fits_and_has_plain_text_beside_it(platform: str) -> None:
    ours = adapter(platform)
    parts = ours.split(ReplyBody(markdown="**bold** [link](https://e.org/a) _it_\n\n> quoted\n\n" * 300))
    assert len(parts) > 1 or not ours.text_size
    for part in parts:
        assert "link" in part.text
        assert part.markdown
        assert "**" not in part.text
        assert not ours.text_size or cut.fits(ours.rendered(part), ours.text_size, ours.text_unit)
        assert ours.split(part) == [part]


@pytest.mark.parametrize("platform", POSTING)
def test_renewed_bodies_are_other_messages(platform: str) -> None:
    body: dict[str, Any] = {}
    keys = set()
    for _ in range(3):
        body = body or json.loads(request(platform, "text").body)
        adapter(platform).renew(body)
        (entry,) = adapter(platform).parse(channel(platform), incoming(json.dumps(body).encode()))
        keys.add(entry.key)
    assert len(keys) == 3


def test_an_adapter_with_a_verify_of_its_own_does_not_inherit_the_precheck_of_another() -> None:
    """Otherwise the authentic requests of a team's adapter that extends ours would be answered 401 unread."""

    class Own(Generic):
        def verify(self, channel: ChannelConfig, request: WebhookRequest) -> bool:
            return request.headers.get("x-own") == "right"

    class Further(Own):
        """Inherits both."""

    assert [kind().precheck(channel("generic"), {"x-own": "right"}) for kind in (Own, Further)] == [True, True]
    assert not Generic().precheck(channel("generic"), {"x-own": "right"})
