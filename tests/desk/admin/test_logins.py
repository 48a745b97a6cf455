"""Logins that fail: who is refused, and for how long."""

from __future__ import annotations

from typing import Any

import pytest
from axes.models import AccessAttempt
from django.contrib.auth.hashers import Argon2PasswordHasher, check_password, identify_hasher, make_password
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from botproject import logins, passwords
from botproject import settings as project

ROUTER = "10.0.0.1"
ATTACKER, OFFICE = "203.0.113.66", "198.51.100.1"


@pytest.fixture(autouse=True)
def _behind_a_router(transactional_db: None, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small limits and a cheap hash: the numbers themselves are constants."""
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.AXES_FAILURE_LIMIT = 3
    monkeypatch.setattr(logins, "NAMES", 2)
    for name in ("chris", "bob"):
        User.objects.create_superuser(name, password="right")


def log_in(name: str, password: str, address: str) -> int:
    headers = {"X-Forwarded-For": address}
    body = {"username": name, "password": password}
    return Client(REMOTE_ADDR=ROUTER).post(reverse("admin:login"), body, headers=headers).status_code


def test_an_attacker_behind_the_same_router_locks_nobody_else_out() -> None:
    assert [log_in("chris", "wrong", ATTACKER) for _ in range(4)] == [200, 200, 429, 429]
    assert log_in("chris", "right", ATTACKER) == 429
    assert log_in("chris", "right", OFFICE) == 302


def test_an_address_that_tries_many_names_is_refused_whatever_the_name() -> None:
    assert [log_in(f"guess{number}", "wrong", "2001:db8:1:2::1") for number in range(6)] == [200] * 5 + [429]
    assert log_in("bob", "right", "2001:db8:1:2:ffff::9") == 429  # the same customer's network
    assert log_in("bob", "right", OFFICE) == 302


def test_a_try_during_the_lock_does_not_make_it_longer() -> None:
    for _ in range(3):
        log_in("chris", "wrong", ATTACKER)
    began = AccessAttempt.objects.get().attempt_time
    assert log_in("chris", "wrong", ATTACKER) == 429
    assert AccessAttempt.objects.get().attempt_time == began


def test_a_guess_is_hashed_by_one_thread_in_46_mb(settings: Any) -> None:
    settings.PASSWORD_HASHERS = project.PASSWORD_HASHERS
    assert make_password("guess").startswith("argon2$argon2id$v=19$m=47104,t=1,p=1$")
    before = Argon2PasswordHasher().encode("right", "some-salt-of-old")
    assert check_password("right", before)
    assert identify_hasher(before).must_update(before), "a hash of before is replaced at the next login"


def test_passwords_are_hashed_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[bool] = []
    for name in ("encode", "verify"):
        monkeypatch.setattr(Argon2PasswordHasher, name, lambda *_: held.append(passwords.one_at_once.locked()))
    passwords.Argon2().encode("a", "salt")
    passwords.Argon2().verify("a", "hash")
    assert held == [True, True]
    assert not passwords.one_at_once.locked()
