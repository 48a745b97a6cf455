"""A visitor's token: unguessable, bound to its channel, and an identity that only the site can vouch for."""

from __future__ import annotations

import datetime as dt

import pytest
import time_machine

from channels_ingest.webchat import tokens
from conversations.contracts import ChannelConfig

CHANNEL = ChannelConfig(id=1, public_id="one", platform="web", tenant_id=1, credentials={"identify_secret": "new"})
OTHER = ChannelConfig(id=2, public_id="two", platform="web", tenant_id=1, credentials={"identify_secret": "new"})
ROTATING = ChannelConfig(id=1, public_id="one", platform="web", tenant_id=1,
                         credentials={"identify_secret": "new", "identify_secret_previous": "old"})  # fmt: skip


def test_a_token_names_its_visitor_and_no_two_are_alike() -> None:
    visitor = tokens.new_visitor()
    assert tokens.read(CHANNEL, tokens.issue(CHANNEL, visitor)) == visitor
    assert len({tokens.new_visitor() for _ in range(1000)}) == 1000
    assert len(visitor.removeprefix("v:")) * 6 >= 128  # random bits


def test_a_token_opens_no_other_channel() -> None:
    assert tokens.read(OTHER, tokens.issue(CHANNEL, tokens.new_visitor())) is None


@pytest.mark.parametrize("forged", ["", "x", "é", "a:b:c", "\x00", "v:guess", "x" * 100_000])
def test_a_forged_token_belongs_to_no_visitor(forged: str) -> None:
    assert tokens.read(CHANNEL, forged) is None


def test_a_token_that_is_too_long_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    visitor = tokens.new_visitor()
    token = tokens.issue(CHANNEL, visitor)
    monkeypatch.setattr(tokens, "MAX_TOKEN", len(token))
    assert tokens.read(CHANNEL, token) == visitor
    monkeypatch.setattr(tokens, "MAX_TOKEN", len(token) - 1)
    assert tokens.read(CHANNEL, token) is None


def test_every_changed_character_is_noticed() -> None:
    token = tokens.issue(CHANNEL, tokens.new_visitor())
    for place, character in enumerate(token[:-1]):  # the last one carries bits that base64 ignores
        changed = token[:place] + ("A" if character != "A" else "B") + token[place + 1 :]
        assert tokens.read(CHANNEL, changed) is None


def test_an_identified_token_lasts_a_day_and_an_anonymous_one_a_year() -> None:
    with time_machine.travel(dt.datetime(2026, 1, 1, tzinfo=dt.UTC)) as clock:
        anonymous = tokens.issue(CHANNEL, tokens.new_visitor())
        identified = tokens.issue(CHANNEL, "i:7")
        clock.shift(dt.timedelta(days=2))
        assert tokens.read(CHANNEL, identified) is None
        clock.shift(dt.timedelta(days=370))
        assert tokens.read(CHANNEL, anonymous)
        clock.shift(dt.timedelta(days=40))
        assert tokens.read(CHANNEL, anonymous) is None


def test_the_hash_is_hmac_sha256_in_hex() -> None:
    """As ``printf %s customer-7 | openssl dgst -sha256 -hmac key`` prints it."""
    digest = "e18432b33fd7334d618492e534ee129de6b2aa25fc0d174d08c67715d42428c9"
    assert tokens.identity_hash("key", "customer-7") == digest


def test_the_site_vouches_for_its_customer() -> None:
    assert tokens.identified_visitor(CHANNEL, "7", tokens.identity_hash("new", "7")) == "i:7"
    assert tokens.identified_visitor(CHANNEL, "7", tokens.identity_hash("new", "7").upper()) == "i:7"


def test_the_previous_secret_vouches_while_secrets_are_exchanged() -> None:
    assert tokens.identified_visitor(ROTATING, "7", tokens.identity_hash("old", "7")) == "i:7"
    assert tokens.identified_visitor(CHANNEL, "7", tokens.identity_hash("old", "7")) is None


@pytest.mark.parametrize(("user_id", "given"), [
    ("7", ""),
    ("7", "é"),
    ("7", tokens.identity_hash("new", "8")),
    ("7", tokens.identity_hash("", "7")),
    ("", tokens.identity_hash("new", "")),
    ("7\x00", tokens.identity_hash("new", "7\x00")),
    ("\ud800", tokens.identity_hash("new", "\ud800")),
    ("7" * 201, tokens.identity_hash("new", "7" * 201)),
])  # fmt: skip
def test_anybody_else_is_not_believed(user_id: str, given: str) -> None:
    assert tokens.identified_visitor(CHANNEL, user_id, given) is None


def test_without_a_secret_nobody_is_believed() -> None:
    bare = ChannelConfig(id=1, public_id="one", platform="web", tenant_id=1)
    assert tokens.identified_visitor(bare, "7", tokens.identity_hash("", "7")) is None
