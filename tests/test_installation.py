"""A copy of production writes to nobody until it is adopted."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.management import CommandError, call_command

from conversations import installation
from conversations.errors import WrongKeys
from conversations.models import Audit, Channel, Installation, Tenant


@pytest.fixture(autouse=True)
def _database(own_database: str) -> None:
    return None


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
    assert installation.may_send_to("anybody", "anywhere")


def test_another_public_url_holds(settings: Any) -> None:
    settings.PUBLIC_URL = "https://staging.example"
    assert "https://staging.example" in installation.held()
    assert not installation.may_send_to("anybody", "anywhere")


def test_another_credentials_key_holds(settings: Any) -> None:
    settings.CREDENTIALS_KEYS = [Fernet.generate_key().decode()]
    assert "credentials key" in installation.held()


def test_only_those_named_are_written_to(settings: Any) -> None:
    settings.SEND_ONLY_TO = ["me"]
    settings.PUBLIC_URL = "https://staging.example"
    assert installation.may_send_to("me", "x")
    assert installation.may_send_to("x", "me")
    assert not installation.may_send_to("you", "you")
    settings.PUBLIC_URL = Installation.objects.get().public_url
    installation.forget()
    assert not installation.may_send_to("you", "you"), "also where nothing is held"


def test_with_the_database_away_it_stays_as_it_was(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert installation.held() == ""
    settings.DATABASE_URL = "postgresql://nobody@127.0.0.1:1/none"
    installation.database._reader.close()
    monkeypatch.setattr(installation, "HELD_SECONDS", 0.0)
    assert installation.held() == ""
    installation.forget()
    assert installation.held() == installation.UNKNOWN


def test_identity_key_needs_the_right_keys(settings: Any) -> None:
    key = installation.identity_key()
    assert len(key) == 32
    installation.forget()
    settings.CREDENTIALS_KEYS = [Fernet.generate_key().decode()]
    with pytest.raises(WrongKeys):
        installation.identity_key()


def test_adopting_says_what_was_and_is(settings: Any) -> None:
    before, key = settings.PUBLIC_URL, installation.identity_key()
    settings.PUBLIC_URL = "https://staging.example"
    installation.forget()
    said = run("adopt_database", "--yes")
    assert before in said
    assert "https://staging.example" in said
    assert installation.held() == ""
    assert installation.identity_key() == key, "de-duplication goes on"
    assert Audit.objects.get().verb == "adopt_database"


def test_adopting_without_the_old_key_needs_a_decision(settings: Any) -> None:
    channel = make_channel(token="t0ken")
    settings.CREDENTIALS_KEYS = [Fernet.generate_key().decode()]
    installation.forget()
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
    installation.forget()
    assert installation.held() == "", "a rotation is not another installation"
    assert "channels: 1 of 1" in run("rotate_credentials")
    settings.CREDENTIALS_KEYS = [new]
    installation.forget()
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
    one, other = make_channel(token="t0ken"), Channel(tenant=Tenant.objects.get(), platform="telegram", name="two")
    other.sealed = one.sealed
    with pytest.raises(Exception, match=r"^$"):
        other.open_credentials()
