"""The doorbell with real processes: what is lost, comes twice or freezes costs a moment, no message and no order."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from botproject.local.valkey import Valkey
from conversations.waking import doorbell
from tests.kit.lanes import BOTS, Lanes
from tests.kit.platforms import GENERIC_SECRET, generic_text
from tests.kit.stack import Stack, state, wait_until

pytestmark = [pytest.mark.xdist_group("doorbell"), pytest.mark.timeout(400)]

# What a task does after it was taken: before it takes hints; hints taken; lanes held; the bot has run; committed;
# before the lanes are released.
STEPS = ("T0", "T1", "T2", "T4", "T6", "T7")

PAUSE = """INSERT INTO pause (scope, target, stops, reason, since, probe_at)
           VALUES ('channel', %s, 'handling', 'broken', now(), now() + interval '1 s')"""


@pytest.fixture(scope="module")
def lanes() -> Iterator[Lanes]:
    """A sweeper and two workers, under supervisors of their own."""
    with Stack(roles="sweep", env=BOTS) as stack:
        for _ in range(2):
            stack.start_workers("handle")
        wait_until(lambda: len(stack.pids("handle")) == 2 and bool(stack.pids("sweep")), 40, "workers")
        yield Lanes(stack)


def hold_back(lanes: Lanes, *held: int) -> None:
    """No sweeper finds these lanes due: only a hint brings them to a worker."""
    lanes.stack.query("UPDATE conversation SET due_at = now() + interval '1 h' WHERE id = ANY (%s)", list(held))


def unwoken(lanes: Lanes, channel: int, user: str, *texts: str) -> int:
    lane = lanes.say(channel, user, *(texts or ("hello",)), woken=False)
    hold_back(lanes, lane)
    return lane


def is_quiet(lanes: Lanes) -> bool:
    """Neither a hint, a bell nor a task, and no task that a worker took within a bell's life."""
    end = time.monotonic() + doorbell.BELL_MS / 1000
    while time.monotonic() < end:
        if lanes.hints.tasks() or lanes.hints.is_rung() or lanes.hints.left():
            return False
        time.sleep(0.05)
    return True


def in_one_step(lanes: Lanes, lane: int, then: Callable[[Any], object]) -> None:
    """Ring, and ``then`` before anybody gets the task."""
    with lanes.hints.client.pipeline() as pipeline:
        lanes.hints.ring([lane], via=pipeline)
        then(pipeline)
        pipeline.execute()


def test_hints_from_many_threads_are_all_handled_also_with_more_tasks_than_one(lanes: Lanes) -> None:
    """No sweeper helps."""
    filled = lanes.fill(lanes.channel("echo"), 400, "1 h")

    def leave(start: int) -> None:
        for lane in filled[start::4]:
            lanes.hints.ring([lane], tenant=lane % 3)
            lanes.hints.push(lane % 2)

    threads = [threading.Thread(target=leave, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lanes.settled(*filled, seconds=10)
    assert lanes.stack.value("SELECT count(*) FROM turn WHERE conversation_id = ANY (%s)", filled) == len(filled)


def test_a_lost_task_costs_a_bells_life_and_the_next_hint(lanes: Lanes) -> None:
    channel = lanes.channel("echo")
    lost, later = unwoken(lanes, channel, "lost"), unwoken(lanes, channel, "later")
    wait_until(lambda: is_quiet(lanes), 10, "no task of an earlier test is left, which would take the hint")
    in_one_step(lanes, lost, lambda redis: redis.delete("handle"))
    assert lanes.messages(lost) == ["pending"]

    def answered() -> bool:
        lanes.wake(later)
        return lanes.messages(lost) + lanes.messages(later) == ["handled", "handled"]

    wait_until(answered, 3 * doorbell.BELL_MS / 1000, "the task of a later hint takes both")


def test_hints_that_were_flushed_are_found_by_the_sweeper_and_the_next_one_rings(lanes: Lanes) -> None:
    channel = lanes.channel()
    flushed, next_one = lanes.say(channel, "flushed", "one", "two", woken=False), unwoken(lanes, channel, "next")
    in_one_step(lanes, flushed, lambda redis: redis.flushall())
    lanes.wake(next_one)
    lanes.settled(next_one, flushed)
    lanes.assert_in_order(flushed, next_one)


def test_frozen_and_flushed_at_each_step_of_a_task_others_go_on_in_order(lanes: Lanes) -> None:
    """A third worker stops at each step. Redis is flushed, more comes, others handle all of it; then it goes on."""
    channel, filled = lanes.channel(), set[int]()
    record = lanes.stack.folder / "failpoints.txt"
    record.unlink(missing_ok=True)

    def speak() -> None:
        filled.update(lanes.say(channel, user, "hello", "you") for user in ("ann", "ben", "eve"))

    def stopped() -> list[int]:
        return [pid for pid in worker.children("handle") if state(pid) == "T"]

    def stops() -> bool:
        speak()
        return bool(stopped())

    with lanes.workers(";".join(f"{step}=stop@1!" for step in STEPS)) as (worker,):
        for _ in STEPS:
            wait_until(stops, 20, "it takes a task and stops")
            lanes.stack.flush_redis()
            speak()
            lanes.settled(*filled)
            for pid in stopped():
                os.kill(pid, signal.SIGCONT)
        lanes.settled(*filled)
    lanes.assert_in_order(*filled)
    assert sorted(line.split()[0] for line in record.read_text().splitlines()) == sorted(STEPS)


def test_hints_that_are_full_and_without_a_task_are_rung_for_by_the_sweeper(lanes: Lanes) -> None:
    """Nobody writes: no other hint rings."""
    channel = lanes.channel("echo", tenant=lanes.tenant())
    lanes.hints.fill(lanes.tenant_of(channel))
    lane = lanes.say(channel, "u", "hello", woken=False)
    lanes.hints.client.delete("{lanes}:bell:handle")
    lanes.settled(lane, seconds=6)


def test_a_probe_goes_past_the_bell_and_hints_that_are_full(lanes: Lanes) -> None:
    channel = lanes.channel("echo", tenant=lanes.tenant())
    tenant = lanes.tenant_of(channel)
    lanes.stack.query(PAUSE, str(channel))
    lane = unwoken(lanes, channel, "u", "one", "two")
    lanes.hints.fill(tenant)
    paused = "SELECT count(*) FROM pause WHERE target = %s"
    wait_until(lambda: lanes.stack.value(paused, str(channel)) == 0, 8, "a probe succeeds")
    assert len(lanes.hints.left()[tenant]) == doorbell.HINTS, "nobody took a hint"
    lanes.hints.client.delete("{lanes}:bell:handle")
    lanes.settled(lane)


def test_tasks_of_the_release_before_are_handled(lanes: Lanes) -> None:
    """An old web process or sweeper beside new workers: ids in the task, one of its 16 queues."""
    filled = lanes.fill(lanes.channel("echo"), 3, "1 h")
    publish = f"publisher.publish('conversations.handle', 'handle-3', {filled}, most=9)"
    lanes.stack.manage("shell", "-c", f"from conversations.waking import publisher; {publish}")
    lanes.settled(*filled, seconds=5)


class OnTwo(Stack):
    """Its tasks go through a Redis of their own."""

    def _environment(self) -> dict[str, str]:
        self.broker = Valkey(self.folder)
        self.broker.start()
        self._stack.callback(self.broker.stop)
        return {**super()._environment(), "CELERY_BROKER_URL": self.broker.url}


@pytest.mark.slow
def test_with_another_redis_as_broker_hints_flow_and_bots_go_on_without_either() -> None:
    with OnTwo(roles="handle", env=BOTS) as stack:
        sweeper = stack.start_workers("sweep")
        stack.wait_for_workers("handle", "sweep")
        out = "http://127.0.0.1:9/"
        channel = stack.add_channel("generic", bot="obedient", secret=GENERIC_SECRET, outbound_url=out)
        count = itertools.count(1)

        def say() -> int:
            """One more message; how many are handled by now."""
            body, headers = generic_text(channel, "ann", f"m{next(count)}", "hello")
            assert stack.post(channel, body, headers) == 200
            return int(stack.value("SELECT count(*) FROM message WHERE status = 'handled'"))

        def is_settled() -> bool:
            return bool(stack.value("SELECT every(status = 'handled') FROM message"))

        def check_hints() -> None:
            """Without a sweeper; whoever rings leaves a server alone for a second after a failure."""
            sweeper.signal(signal.SIGSTOP)
            before = say()
            wait_until(lambda: say() > before, 10, "a hint brings a message to the worker")
            sweeper.signal(signal.SIGCONT)

        check_hints()
        for server in (stack.broker, stack.servers.valkey):
            wait_until(is_settled, 10, "all is handled")
            server.stop()
            before = say()
            wait_until(lambda before=before: say() > before + 1, 10, "bots go on")
            server.start()
            wait_until(lambda: is_served(stack), 10, "the worker is back at the broker")
            check_hints()
        wait_until(is_settled, 10, "all is handled")
        Lanes(stack).assert_in_order(stack.value("SELECT id FROM conversation"))


def is_served(stack: OnTwo) -> bool:
    """A worker waits at the broker."""
    with redis.Redis.from_url(stack.broker.url) as client:
        return any(line["cmd"] == "brpop" for line in client.client_list())
