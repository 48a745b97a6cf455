"""Wakes wait for no Redis, and a broken one is left alone for a while."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from conversations import runtime
from conversations.contracts import Work
from conversations.waking import doorbell, wake
from tests.kit.entries import accept, entry, make_channel, new_user, texts
from tests.kit.stack import wait_until

pytestmark = pytest.mark.xdist_group("storing")


@pytest.fixture
def black_hole(settings: Any) -> Iterator[list[float]]:
    """A Redis that takes connections and says nothing; when each came."""
    listener = socket.create_server(("127.0.0.1", 0))
    came: list[float] = []
    open_ones: list[socket.socket] = []

    def take() -> None:
        while True:
            try:
                open_ones.append(listener.accept()[0])
            except OSError:
                return
            came.append(time.monotonic())

    threading.Thread(target=take, daemon=True).start()
    settings.REDIS_URL = f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
    runtime.begin()
    yield came
    runtime.begin()
    listener.close()


def test_a_wake_waits_for_no_redis_and_a_broken_one_is_left_alone_for_a_while(black_hole: list[float]) -> None:
    waker = wake.Waker()
    waker.put(Work.HANDLE, [1], 3)
    assert not waker._broken_until, "it came back before anybody answered"
    wait_until(lambda: waker._broken_until > 0, 5, "Redis is given up")
    tried = len(black_hole)
    for lane_id in range(50):
        waker.put(Work.HANDLE, [lane_id], 3)
    time.sleep(0.3)
    assert len(black_hole) == tried  # nobody knocks while the breaker is open
    time.sleep(wake.BREAKER_SECONDS)
    waker.put(Work.HANDLE, [1], 3)
    wait_until(lambda: len(black_hole) > tried, 2, "Redis is tried again")


def test_hints_beyond_the_bound_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wake.Waker, "_run", lambda self: None)
    waker = wake.Waker()
    for lane_id in range(wake.HINTS + 5):
        waker.put(Work.HANDLE, [lane_id], 3)
    assert waker._hints.qsize() == wake.HINTS


def test_webhooks_are_stored_while_a_ring_waits_for_redis(own_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    began, answered, threads = threading.Event(), threading.Event(), set[str]()

    def ring(kind: Work, hints: object) -> None:
        threads.add(threading.current_thread().name)
        began.set()
        answered.wait()

    monkeypatch.setattr(doorbell, "ring", ring)
    channel, user = make_channel(), new_user()
    try:
        accept(channel, entry(user, "first"))
        assert began.wait(5)
        for number in range(50):
            accept(channel, entry(user, str(number)))
    finally:
        answered.set()
    assert len(texts(user)) == 51
    assert threads == {"wake"}
