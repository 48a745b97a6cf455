"""`setup_demo` makes what `make run` shows, once, and only on one's own machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from conversations import installation
from conversations.models import Channel, Installation


@pytest.fixture(autouse=True)
def _demo(own_database: str, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.DATA_DIR = tmp_path
    monkeypatch.delenv("ADMIN_PASSWORD", raising=False)


def run() -> None:
    call_command("setup_demo", skip_checks=True)


def test_twice_is_once(settings: Any) -> None:
    run()
    password = (settings.DATA_DIR / "admin_password").read_text().strip()
    run()
    assert (settings.DATA_DIR / "admin_password").stat().st_mode & 0o777 == 0o600
    assert User.objects.get().check_password(password)
    channel = Channel.objects.get()
    assert (channel.platform, channel.name, channel.bot) == ("web", "Demo", "demo")


def test_a_given_password_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    monkeypatch.setenv("ADMIN_PASSWORD", "given-later")
    run()
    assert User.objects.get().check_password("given-later")


def test_refused_in_production(settings: Any) -> None:
    settings.LOCAL = False
    with pytest.raises(CommandError, match="LOCAL"):
        run()


@pytest.mark.parametrize(
    ("was", "held"), [("http://127.0.0.1:8000", False), ("https://production.example", True)], ids=["port", "copy"]
)
def test_another_port_is_the_same_installation(settings: Any, was: str, held: bool) -> None:
    Installation.objects.update(public_url=was)
    settings.PUBLIC_URL = "http://127.0.0.1:8001"
    run()
    assert bool(installation.held()) is held
