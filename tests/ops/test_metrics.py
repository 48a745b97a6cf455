"""/metrics/ is for those with the token, and says how far behind we are."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from tests.conftest import forget
from tests.desk import scenes


@pytest.fixture(autouse=True)
def _token(settings: Any) -> None:
    settings.METRICS_TOKEN = "t0ken"


def get(authorization: str = "Bearer t0ken") -> Any:
    return Client().get("/metrics/", headers={"Authorization": authorization})


def test_without_a_token_there_is_no_page(settings: Any) -> None:
    settings.METRICS_TOKEN = ""
    assert get("Bearer ").status_code == 404


@pytest.mark.parametrize("wrong", ["", "Bearer x", "Bearer é", "t0ken"])
def test_with_a_wrong_token_it_is_401(wrong: str) -> None:
    assert get(wrong).status_code == 401


def test_says_how_far_behind_we_are(own_database: str) -> None:
    scenes.make_lane(messages="pending", due_at=timezone.now() - dt.timedelta(seconds=90))
    text = get().content.decode()
    assert "conversations_database_up 1.0" in text
    assert 'conversations_workers{kind="handle"} 0.0' in text
    (line,) = [line for line in text.splitlines() if line.startswith("conversations_oldest_due_seconds")]
    assert 85 < float(line.split()[1]) < 120


def test_with_the_database_away_it_says_so(own_database: str, settings: Any) -> None:
    settings.DATABASE_URL = "postgresql://nobody@127.0.0.1:1/none"
    forget()
    assert "conversations_database_up 0.0" in get().content.decode()
