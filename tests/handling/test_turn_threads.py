"""Few threads for short turns, many for turns that wait."""

from __future__ import annotations

import threading
import time

import pytest

from conversations import concurrency
from conversations.handling import turn_threads
from conversations.handling.turn_threads import TurnThreads
from tests.kit.stack import wait_until


def test_short_work_is_done_in_its_order_by_few_threads() -> None:
    done: list[int] = []
    names: set[str] = set()
    finished = threading.Event()

    def work(number: int) -> None:
        names.add(threading.current_thread().name)
        done.append(number)
        if number == 999:
            finished.set()

    pool = TurnThreads(256, "short")
    for number in range(1000):
        pool.submit(work, number)
    assert finished.wait(10)
    time.sleep(0.05)
    assert sorted(done) == list(range(1000))
    assert len(names) <= 2 * turn_threads.EAGER_THREADS


def test_work_that_waits_holds_up_nobody() -> None:
    gate, begun, quick = threading.Event(), threading.Semaphore(0), threading.Event()

    def wait() -> None:
        begun.release()
        gate.wait(20)

    pool = TurnThreads(128, "slow")
    for _ in range(100):
        pool.submit(wait)
    pool.submit(quick.set)
    assert quick.wait(10), "all hundred wait, and the next one has its thread"
    assert all(begun.acquire(timeout=5) for _ in range(100))
    gate.set()


def test_work_that_comes_alone_wakes_one_thread() -> None:
    """The watcher sleeps: there is nothing that could wait."""
    pool, done = TurnThreads(8, "alone"), threading.Semaphore(0)
    for _ in range(3):
        pool.submit(done.release)
        assert done.acquire(timeout=5)
        wait_until(lambda: not pool._awake, 5, "it sleeps again")
        assert not pool._has_queued.is_set()


def test_there_are_never_more_at_once_than_agreed() -> None:
    lock, most, now, left = threading.Lock(), 0, 0, threading.Semaphore(0)

    def work() -> None:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.01)
        with lock:
            now -= 1
        left.release()

    pool = TurnThreads(5, "bounded")
    for _ in range(60):
        pool.submit(work)
    assert all(left.acquire(timeout=10) for _ in range(60))
    assert 1 < most <= 5


def test_work_that_fails_leaves_its_thread_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[bool] = []
    monkeypatch.setattr(concurrency, "end_process", lambda: ended.append(True))
    done = threading.Event()
    pool = TurnThreads(1, "failing")
    pool.submit(lambda: 1 / 0)
    pool.submit(done.set)
    assert done.wait(5)
    assert not ended


def test_where_no_thread_can_be_started_the_running_ones_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's limit of threads is no reason to end the process with all its turns."""
    first, gate, last, tried, ended = (threading.Event() for _ in range(5))

    def refuse(thread: threading.Thread) -> None:
        tried.set()
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(concurrency, "end_process", ended.set)
    pool = TurnThreads(8, "limited")
    pool.submit(first.set)
    assert first.wait(10)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    pool.submit(gate.wait)
    pool.submit(last.set)
    assert tried.wait(10)
    gate.set()
    assert last.wait(10)
    assert not ended.is_set()
