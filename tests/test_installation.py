"""A copy of production writes to nobody until it is adopted."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from cryptography.fernet import Fernet, InvalidToken
from django.core.management import CommandError, call_command

from conversations import crypto, installation, registry, runtime
from conversations.contracts import ChannelConfig
from conversations.errors import WrongKeys
from conversations.models import Audit, Channel, Tenant

NAMES = enumerate(("shop", "bank"))
SHOP, BANK = (ChannelConfig(id=n, public_id=name, platform="telegram", tenant_id=n) for n, name in NAMES)
pytestmark = pytest.mark.usefixtures("own_database")


def run(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out, skip_checks=True)
    return out.getvalue()


def make_channel(**credentials: str) -> Channel:
    tenant, _ = Tenant.objects.get_or_create(name="T")
    channel = Channel(tenant=tenant, platform="telegram", name="one")
    channel.set_credentials(credentials)
    channel.save()
    return channel


def test_its_own_database_is_not_held() -> None:
    assert installation.held() == ""
    assert installation.may_send_to(SHOP, "anybody", "anywhere", False)


def test_another_public_url_holds(settings: Any) -> None:
    settings.PUBLIC_URL = "https://staging.example"
    assert "https://staging.example" in installation.held()
    assert not installation.may_send_to(SHOP, "anybody", "anywhere", False)


def test_another_credentials_key_holds(settings: Any) -> None:
    settings.CREDENTIALS_KEYS = [Fernet.generate_key().decode()]
    assert "credentials key" in installation.held()


@pytest.mark.parametrize("url", ["https://staging.example", ""])
def test_only_those_named_are_written_to(settings: Any, url: str) -> None:
    """Also where nothing is held: the empty ``url`` leaves this installation its own."""
    settings.SEND_ONLY_TO = ["shop:me", "shop:-100"]
    settings.PUBLIC_URL = url or settings.PUBLIC_URL
    may = installation.may_send_to
    assert may(SHOP, "me", "me", False)
    assert may(SHOP, "me", "c-9", False), "a chat of its own name with one person"
    assert not may(SHOP, "me", "-200", True), "everybody in a group reads it"
    assert may(SHOP, "somebody", "-100", True)
    assert not may(BANK, "me", "me", False), "the same id is another person elsewhere"
    assert not may(SHOP, "you", "you", False)
    settings.SEND_ONLY_TO = ["me"]
    assert not may(SHOP, "me", "me", False), "the old form names no channel"


def test_bots_that_call_out_wait_on_a_copy_and_others_do_not(settings: Any) -> None:
    assert registry.why_bot_waits("http") == ""
    settings.PUBLIC_URL = "https://staging.example"
    runtime.begin()
    assert "https://staging.example" in registry.why_bot_waits("http")
    assert registry.why_bot_waits("echo") == ""


def test_with_the_database_away_it_stays_as_it_was(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert installation.held() == ""
    settings.DATABASE_URL = "postgresql://nobody@127.0.0.1:1/none"
    runtime.current().reader.close()
    monkeypatch.setattr(installation, "HELD_SECONDS", 0.0)
    assert installation.held() == ""
    runtime.begin()
    assert installation.held() == installation.UNKNOWN


def test_identity_key_needs_the_right_keys(settings: Any) -> None:
    key = installation.identity_key()
    assert len(key) == 32
    runtime.begin()
    settings.CREDENTIALS_KEYS = [Fernet.generate_key().decode()]
    with pytest.raises(WrongKeys):
        installation.identity_key()


def test_adopting_says_what_was_and_is(settings: Any) -> None:
    before, key = settings.PUBLIC_URL, installation.identity_key()
    settings.PUBLIC_URL = "https://staging.example"
    runtime.begin()
    said = run("adopt_database", "--yes")
    assert before in said
    assert "https://staging.example" in said
    assert installation.held() == ""
    assert installation.identity_key() == key, "de-duplication goes on"
    assert Audit.objects.get().verb == "adopt_database"


def test_adopting_without_the_old_key_needs_a_decision(settings: Any) -> None:
    channel = make_channel(token="t0ken")
    settings.CREDENTIALS_KEYS = [Fernet.generate_key().decode()]
    runtime.begin()
    with pytest.raises(CommandError, match="--new-keys"):
        run("adopt_database", "--yes")
    run("adopt_database", "--yes", "--new-keys")
    channel.refresh_from_db()
    assert channel.sealed == {}
    assert installation.held() == ""
    assert len(installation.identity_key()) == 32


def test_rotation_lets_the_old_key_go(settings: Any) -> None:
    channel, key = make_channel(token="t0ken"), installation.identity_key()
    (old,) = settings.CREDENTIALS_KEYS
    new = Fernet.generate_key().decode()
    settings.CREDENTIALS_KEYS = [new, old]
    runtime.begin()
    assert installation.held() == "", "a rotation is not another installation"
    assert "channels: 1 of 1" in run("rotate_credentials")
    settings.CREDENTIALS_KEYS = [new]
    runtime.begin()
    channel.refresh_from_db()
    assert channel.open_credentials() == {"token": "t0ken"}
    assert installation.identity_key() == key
    assert installation.held() == ""


def test_rotation_names_what_it_cannot_open(settings: Any) -> None:
    channel = make_channel(token="t0ken")
    Channel.objects.filter(pk=channel.pk).update(sealed={"token": Fernet(Fernet.generate_key()).encrypt(b"x").decode()})
    with pytest.raises(CommandError, match=channel.place()):
        run("rotate_credentials")


def test_a_sealed_value_opens_only_at_its_place() -> None:
    one, tenant = make_channel(token="t0ken"), Tenant.objects.create(name="another")
    other_row = Channel(tenant=one.tenant, platform="telegram", name="two", sealed=one.sealed)
    other_field = Channel(tenant=one.tenant, public_id=one.public_id, sealed={"outbound_url": one.sealed["token"]})
    other_tenant = Channel(tenant=tenant, public_id=one.public_id, sealed=one.sealed)
    for moved in (other_row, other_field, other_tenant):
        with pytest.raises(InvalidToken):
            moved.open_credentials()
    assert one.open_credentials() == {"token": "t0ken"}


def test_credentials_of_before_still_open_and_a_rotation_binds_them_to_their_field() -> None:
    channel = make_channel()
    Channel.objects.filter(pk=channel.pk).update(sealed={"token": crypto.seal("t0ken", channel.place())})
    for _ in range(2):
        runtime.begin()
        config = registry.channel(channel.pk)
        assert config is not None
        assert config.credentials == {"token": "t0ken"}
        run("rotate_credentials")
    channel.refresh_from_db()
    assert channel.sealed["token"].startswith(crypto.WITH_FIELD)
    sealed = {"x": channel.sealed["token"]}
    with pytest.raises(InvalidToken):
        Channel(tenant=channel.tenant, public_id=channel.public_id, sealed=sealed).open_credentials()
