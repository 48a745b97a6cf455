"""How long bodies may take, and how much memory they may take before they are verified."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from channels_ingest.webhooks import body, body_limits
from channels_ingest.webhooks.body_limits import HURRY_SECONDS, READS_OF_ADDRESS, Budget, LimitedBody
from tests.kit.stack import wait_until

A, B, C = "192.0.2.1", "192.0.2.2", "192.0.2.3"


def environ_of(address: str, stream: Any, length: int, cut: Any = None) -> dict[str, Any]:
    environ = {"REMOTE_ADDR": address, "wsgi.input": stream, "CONTENT_LENGTH": str(length)}
    return {**environ, body_limits.CUT: cut} if cut else environ


class Stalled:
    """A stream whose client sends nothing until its connection is cut."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def read(self, size: int) -> bytes:
        self.over.wait(30)
        return b""


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Starts threads that read from clients that send nothing: ``reading(address, ...)``; returns their bodies."""
    monkeypatch.setattr(body_limits, "start_watch", lambda: None)
    streams: list[Stalled] = []
    threads: list[threading.Thread] = []

    def start(*addresses: str, seconds: float = 20.0) -> list[LimitedBody]:
        bodies = []
        for address in addresses:
            streams.append(Stalled())
            environ = environ_of(address, streams[-1], 5, streams[-1].over.set)
            bodies.append(LimitedBody(environ, seconds))
            threads.append(threading.Thread(target=read, args=(environ,)))
            threads[-1].start()
        wait_until(lambda: all(limited in body_limits._waiting for limited in bodies), 5, "all wait")
        return bodies

    def read(environ: dict[str, Any]) -> None:
        with pytest.raises(body.BodyError):
            body.read(environ, 100)

    yield start
    for stream in streams:
        stream.over.set()
    for thread in threads:
        thread.join()


def left(bodies: list[LimitedBody]) -> list[LimitedBody]:
    return [limited for limited in bodies if limited in body_limits._waiting]


def test_a_body_is_cut_once_its_time_is_over(reading: Any) -> None:
    slow, fast = reading(A), reading(B, seconds=2.0)
    body_limits.cut_slow(slow[0].begun + 3)
    assert (left(slow), left(fast)) == (slow, [])
    body_limits.cut_slow(slow[0].begun + 21)
    assert left(slow) == []


def test_an_address_with_many_slow_bodies_loses_the_oldest(reading: Any) -> None:
    many, others = reading(*[A] * (READS_OF_ADDRESS + 3)), reading(B, C)
    body_limits.cut_slow(many[0].begun + HURRY_SECONDS / 2)
    assert left(many) == many
    body_limits.cut_slow(others[-1].begun + HURRY_SECONDS + 0.1)
    assert left(many) == many[3:]
    assert left(others) == others


def test_when_half_of_the_connections_wait_the_oldest_are_cut(reading: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limits, "MOST_READS", 3)
    bodies = reading(A, B, C, "192.0.2.4", "192.0.2.5")
    body_limits.cut_slow(bodies[-1].begun + HURRY_SECONDS + 0.1)
    assert left(bodies) == bodies[2:]


def test_when_half_of_the_memory_is_taken_slow_bodies_are_cut(reading: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limits.budget, "taken", body_limits.BUDGET // 2 + 1)
    bodies = reading(A, B)
    body_limits.cut_slow(bodies[-1].begun + HURRY_SECONDS + 0.1)
    assert left(bodies) == []


def test_a_body_that_came_in_time_is_never_cut() -> None:
    """Also while its request waits for anything else: nobody looks at it any more."""
    cut = threading.Event()
    environ = environ_of(A, io.BytesIO(b"hello"), 5, cut.set)
    with LimitedBody(environ, 20.0) as limited:
        assert body.read(environ, 100) == b"hello"
        body_limits.cut_slow(limited.begun + 100)
    assert not cut.is_set()


def test_a_body_that_was_cut_is_not_taken_for_whole() -> None:
    """The watch cuts at the moment at which the last byte comes: the client sees a 408, so nothing may be stored."""

    class CutMeanwhile(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            body_limits.cut_slow(limited.begun + 100)
            return super().read(size)

    environ = environ_of(A, CutMeanwhile(b"hello"), 5, lambda: None)
    limited = LimitedBody(environ, 20.0)
    with pytest.raises(body.TooSlow):
        body.read(environ, 100)


@pytest.fixture
def budget(monkeypatch: pytest.MonkeyPatch) -> Budget:
    monkeypatch.setattr(body_limits, "budget", Budget())
    monkeypatch.setattr(body_limits, "BUDGET", 1000)
    return body_limits.budget


def held(size: int, address: str) -> LimitedBody:
    """A body of ``size`` bytes after its first chunk."""
    limited = LimitedBody(environ_of(address, io.BytesIO(b"x" * (size + 1)), size + 1), 20.0, lambda _: 500)
    assert limited.read(1) == b"x"
    return limited


def test_one_address_takes_at_most_its_share_of_the_memory(budget: Budget) -> None:
    with held(400, A) as first:
        first.read(400)
        with held(400, A) as more, pytest.raises(body_limits.Full):
            more.read(400)
        with held(400, B) as honest:
            assert len(honest.read(400)) == 400
    assert (budget.taken, dict(budget._of)) == (0, {})


def test_bodies_beyond_the_budget_are_told_to_come_again(budget: Budget) -> None:
    with held(500, A) as one, held(500, B) as other:
        one.read(500)
        other.read(500)
        with held(1, C) as third, pytest.raises(body_limits.Full) as refused:
            third.read(1)
    assert refused.value.status == 503
    with held(1, C) as third:
        assert third.read(1) == b"x"


def test_a_body_that_stalls_takes_no_memory_for_what_it_announced(budget: Budget) -> None:
    content = io.BytesIO(b"x" * (body.CHUNK + 100))
    environ = environ_of(A, content, 10 * body.CHUNK)
    with LimitedBody(environ, 20.0):
        with pytest.raises(body.Cut):
            body.read(environ, 20 * body.CHUNK)
        assert budget.taken == 100
    assert budget.taken == 0
