"""Threads of the core: what the death of one means, what they do together or later, and answers kept for a while."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from conversations import concurrency
from conversations.concurrency import Fresh, Shares, Stage, Timer
from tests.kit.stack import ROOT, wait_until

# ---------------------------------------------------------------- vital threads


@pytest.mark.parametrize(("target", "code"), [
    pytest.param("lambda: 1 / 0", 70, id="an error"),
    pytest.param("sys.exit", 70, id="an exit"),
    pytest.param("lambda: None", 0, id="its end"),
])  # fmt: skip
def test_only_a_vital_thread_that_fails_ends_its_process(target: str, code: int) -> None:
    """The main thread waits for ever where the process should end, and ends well where it should not."""
    program = f"""
import sys, threading
from conversations.concurrency import vital_thread
thread = vital_thread("test", {target})
thread.join() if {code} == 0 else threading.Event().wait()
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert ("vital thread died" in done.stdout + done.stderr) == bool(code)


# ---------------------------------------------------------------- stages


def test_items_that_arrive_during_a_trip_share_the_next_one_in_order() -> None:
    trips: list[list[int]] = []
    free = threading.Semaphore(0)

    def work(loads: list[int]) -> None:
        trips.append(loads)
        assert free.acquire(timeout=20)

    stage = Stage("test", work, 4)
    stage.put([1])
    wait_until(lambda: trips == [[1]], 5, "it is on its way")
    stage.put([2, 3])
    stage.put(iter([4, 5, 6]))
    free.release(10)
    wait_until(lambda: len(trips) == 3, 5, "all went")
    assert trips == [[1], [2, 3, 4, 5], [6]]


def test_an_idle_stage_works_in_its_callers_thread_and_one_batch_at_a_time() -> None:
    trips: list[tuple[list[int], int]] = []
    free, begun = threading.Semaphore(0), threading.Event()

    def work(loads: list[int]) -> None:
        trips.append((loads, threading.get_ident()))
        begun.set()
        assert free.acquire(timeout=20)

    stage = Stage("test", work, 2)
    first = threading.Thread(target=stage.run, args=([1],), daemon=True)
    first.start()
    assert begun.wait(5)
    stage.run([2])  # the first still works: this one is queued
    stage.put([3])
    assert len(trips) == 1
    free.release(10)
    wait_until(lambda: len(trips) == 2, 5, "what gathered meanwhile")
    first.join(5)
    wait_until(lambda: not stage._working.locked(), 5, "the stage is idle")
    stage.run([4, 5])
    stage.run([6, 7, 8])  # too many for one batch
    wait_until(lambda: len(trips) == 5, 5, "all went")
    batches, threads = [loads for loads, _ in trips], [thread for _, thread in trips]
    assert batches == [[1], [2, 3], [4, 5], [6, 7], [8]]
    assert threads[0] == first.ident
    assert threads[2] == threading.get_ident()
    assert threads[1] == threads[3] == threads[4] not in (threads[0], threads[2])


@pytest.mark.parametrize("enter", [Stage.put, Stage.run])
def test_a_stage_that_fails_ends_its_process(monkeypatch: pytest.MonkeyPatch, enter: Any) -> None:
    """Its lanes would stay in hand for ever."""
    ended = threading.Event()
    monkeypatch.setattr(concurrency, "end_process", ended.set)

    def work(loads: list[int]) -> None:
        raise RuntimeError("no")

    enter(Stage("test", work, 4), [1])
    assert ended.wait(5)


# ---------------------------------------------------------------- timers


def test_calls_come_in_the_order_of_their_times_and_of_their_requests() -> None:
    timer, called, done = Timer("test"), [], threading.Event()
    hold = threading.Event()
    timer.call_later(0.0, hold.wait)  # all others are requested before the next is looked for
    wait_until(lambda: len(timer) == 0, 5, "the first is called")
    for word in "abc":
        timer.call_later(0.01, lambda word=word: called.append(word))  # type: ignore[misc]
    timer.call_later(0.01, done.set)
    timer.call_later(-1.0, lambda: called.append("over already"))
    assert len(timer) == 5
    hold.set()
    assert done.wait(5)
    assert called == ["over already", "a", "b", "c"]


def test_an_earlier_call_does_not_wait_for_a_later_one() -> None:
    timer, called = Timer("test"), threading.Event()
    timer.call_later(3600.0, lambda: None)
    timer.call_later(0.0, called.set)
    assert called.wait(5)
    assert len(timer) == 1


def test_a_call_that_fails_keeps_no_other_from_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[bool] = []
    monkeypatch.setattr(concurrency, "end_process", lambda: ended.append(True))
    timer, called = Timer("test"), threading.Event()
    timer.call_later(0.0, lambda: 1 / 0)
    timer.call_later(0.0, called.set)
    assert called.wait(5)
    assert not ended


# ---------------------------------------------------------------- answers that are kept


class Asked:
    """An ``ask`` that waits until it is allowed to answer, and says with what it was asked."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.lasts: list[object] = []
        self.may = threading.Semaphore(0)

    def __call__(self, last: object) -> object:
        self.lasts.append(last)
        assert self.may.acquire(timeout=20)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def in_background(function: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()
    return thread, results


def test_an_answer_is_kept_until_it_is_old() -> None:
    ask = Asked(1)
    ask.may.release()
    fresh = Fresh(ask, 3600.0, first=0)
    assert [fresh(), fresh()] == [1, 1]
    assert ask.lasts == [0]


def test_one_asks_again_and_the_others_go_on_with_the_last_answer() -> None:
    ask = Asked(1, 2)
    ask.may.release()
    fresh = Fresh(ask, 0.0, first=0)
    assert fresh() == 1
    thread, results = in_background(fresh)
    wait_until(lambda: len(ask.lasts) == 2, 5, "it asks")
    assert fresh() == 1
    ask.may.release()
    thread.join(5)
    assert results == [2]
    assert ask.lasts == [0, 1]


def test_all_wait_for_the_first_answer() -> None:
    ask = Asked(1)
    fresh = Fresh(ask, 3600.0, first=0)
    callers = [in_background(fresh) for _ in range(3)]
    wait_until(lambda: len(ask.lasts) == 1, 5, "one asks")
    ask.may.release()
    for thread, _ in callers:
        thread.join(5)
    assert [results for _, results in callers] == [[1], [1], [1]]


def test_an_error_goes_to_who_asked_and_the_next_asks_again() -> None:
    ask = Asked(OSError("away"), 1)
    ask.may.release(2)
    fresh = Fresh(ask, 3600.0, first=0)
    with pytest.raises(OSError, match="away"):
        fresh()
    assert fresh() == 1


def test_a_change_comes_after_an_answer_that_is_on_its_way() -> None:
    ask = Asked(["read"])
    fresh = Fresh(ask, 3600.0, first=[])
    asking, _ = in_background(fresh)
    wait_until(lambda: len(ask.lasts) == 1, 5, "it asks")
    changing, _ = in_background(lambda: fresh.change(lambda last: [*last, "changed"]))  # type: ignore[misc]
    ask.may.release()
    asking.join(5)
    changing.join(5)
    assert fresh() == ["read", "changed"]


# ---------------------------------------------------------------- shared slots


def test_an_owner_gets_no_more_than_it_leaves_free_and_waits_for_the_rest() -> None:
    shares, got = Shares(8), threading.Event()

    def wait() -> None:
        with shares.take("a", seconds=20) as taken:
            assert taken
            got.set()

    with contextlib.ExitStack() as stack:
        for owner, most in (("a", 4), ("b", 2), ("c", 1), ("d", 1)):
            assert [stack.enter_context(shares.take(owner)) for _ in range(most + 1)] == [True] * most + [False]
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert not got.is_set()
    waiting.join(20)
    assert got.is_set()
    with shares.take("a", 100) as all_of_them, shares.take("b", 1) as more:
        assert (all_of_them, more) == (True, False)


def test_an_owner_may_be_limited_by_a_number_of_its_own() -> None:
    shares = Shares(8, each=1)
    with shares.take("a") as first, shares.take("a") as second, shares.take("b") as others:
        assert (first, second, others) == (True, False, True)
