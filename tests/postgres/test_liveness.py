"""When other callers are refused because the database does not answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from conversations.postgres.liveness import SILENT_AFTER_FAILURE_SECONDS, SILENT_SECONDS, Liveness

STORE: Any = SimpleNamespace(patient=False)
TURNS: Any = SimpleNamespace(patient=True)
READS: Any = SimpleNamespace(patient=False)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def liveness(clock: Clock) -> Liveness:
    return Liveness(clock)


def is_silent_after(liveness: Liveness, clock: Clock, seconds: float) -> bool:
    liveness.begin()
    clock.now += seconds
    silent = liveness.silent()
    assert liveness.end() == pytest.approx(seconds)
    assert not liveness.silent()
    return silent


def test_a_batch_that_takes_long_is_silence(liveness: Liveness, clock: Clock) -> None:
    assert not is_silent_after(liveness, clock, SILENT_SECONDS - 0.5)
    assert is_silent_after(liveness, clock, SILENT_SECONDS + 0.5)


def test_after_a_lost_connection_silence_comes_sooner_until_a_batch_succeeds(liveness: Liveness, clock: Clock) -> None:
    soon = SILENT_AFTER_FAILURE_SECONDS + 0.5
    liveness.failed(TURNS, psycopg.OperationalError(), away=True)
    assert is_silent_after(liveness, clock, soon)
    liveness.succeeded(READS)
    assert not is_silent_after(liveness, clock, soon)


def test_a_stream_whose_table_is_locked_is_not_cleared_by_anothers_success(liveness: Liveness, clock: Clock) -> None:
    soon = SILENT_AFTER_FAILURE_SECONDS + 0.5
    liveness.begin()
    clock.now += SILENT_SECONDS + 1
    liveness.failed(STORE, psycopg.errors.QueryCanceled(), away=False)
    liveness.end()
    liveness.succeeded(READS)
    assert is_silent_after(liveness, clock, soon)
    liveness.succeeded(STORE)
    assert not is_silent_after(liveness, clock, soon)


def test_a_patient_streams_long_batch_says_nothing_of_the_next(liveness: Liveness, clock: Clock) -> None:
    liveness.begin()
    clock.now += SILENT_SECONDS + 1
    liveness.failed(TURNS, psycopg.errors.QueryCanceled(), away=False)
    liveness.end()
    assert not is_silent_after(liveness, clock, SILENT_AFTER_FAILURE_SECONDS + 0.5)


def test_lock_waits_are_counted_until_a_success(liveness: Liveness) -> None:
    liveness.failed(TURNS, psycopg.errors.LockNotAvailable(), away=False)
    liveness.failed(TURNS, psycopg.errors.QueryCanceled(), away=False)
    liveness.failed(TURNS, psycopg.errors.LockNotAvailable(), away=False)
    assert liveness.lock_waits == 2
    liveness.succeeded(TURNS)
    assert liveness.lock_waits == 0
