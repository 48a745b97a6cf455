"""Wakes: they wait for no broker, few go where many wait, and those of one queue hold up no other."""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from celery import current_app
from kombu import Producer

from conversations.contracts import Work
from conversations.sweeping.sweeper import Sweeper
from conversations.waking import queues, wake
from tests.kit.stack import wait_until

pytestmark = pytest.mark.xdist_group("storing")

TENANT, OTHER = 16 + 5, 6
QUEUE, OTHER_QUEUE = "handle-5", "handle-6"
LONG = 60.0  # longer than any test waits


@pytest.fixture
def black_hole(settings: Any) -> Iterator[list[float]]:
    """A broker that takes connections and says nothing; when each came."""
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
    before = current_app.conf.broker_write_url
    current_app.conf.broker_write_url = f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
    yield came
    current_app.conf.broker_write_url = before
    listener.close()


class Recorder:
    """In place of a producer whose queues are empty: what it was asked to publish."""

    channel = SimpleNamespace(queue_declare=lambda **given: SimpleNamespace(message_count=0))

    def publish(self, body: str, **given: Any) -> None:
        self.body, self.given = body, given


@pytest.mark.parametrize(
    ("publish", "task", "args", "kwargs", "ignored"),
    [
        (lambda to: wake.publish(to, QUEUE, Work.HANDLE, [1, 2]), "handle", ([1, 2],), {}, True),
        (lambda to: wake.publish(to, QUEUE, Work.SEND, [3], probe=True), "send", ([3],), {"probe": True}, True),
        (lambda to: wake.maintain(to), "maintain", (), {}, False),
    ],
    ids=["handle", "send", "maintain"],
)
def test_a_wake_is_the_message_that_celery_would_make(
    publish: Callable[[Any], None], task: str, args: Any, kwargs: dict[str, Any], ignored: bool
) -> None:
    """Field by field, but for the words of arguments, which nobody reads and which could be long."""
    recorder = Recorder()
    publish(recorder)
    headers = recorder.given["headers"]
    celerys = current_app.amqp.as_task_v2(headers["id"], f"conversations.{task}", args, kwargs, ignore_result=ignored)
    unread = {"argsrepr": "...", "kwargsrepr": "..."}
    assert headers == {**celerys.headers, **unread}
    assert headers["expires"] is None, "it would be dropped where two clocks differ"
    assert {name: recorder.given.get(name) for name in celerys.properties} == celerys.properties
    assert json.loads(recorder.body) == json.loads(json.dumps(celerys.body))
    ours = {"exchange", "routing_key", "content_type", "content_encoding", "retry", "headers"}
    assert recorder.given.keys() == ours | celerys.properties.keys()


def test_a_wake_waits_for_no_broker_and_a_broken_one_is_left_alone_for_a_while(black_hole: list[float]) -> None:
    waker = wake.Waker()
    began = time.monotonic()
    waker.put(Work.HANDLE, [1], 3)
    assert time.monotonic() - began < wake.PUBLISH_SECONDS
    wait_until(lambda: waker._broken_until > 0, 2, "the broker is given up")
    assert time.monotonic() - began < 10 * wake.PUBLISH_SECONDS
    tried = len(black_hole)
    for lane_id in range(50):
        waker.put(Work.HANDLE, [lane_id], 3)
    time.sleep(0.3)
    assert len(black_hole) == tried  # nobody knocks while the breaker is open
    time.sleep(wake.BREAKER_SECONDS)
    waker.put(Work.HANDLE, [1], 3)
    wait_until(lambda: len(black_hole) > tried, 1, "the broker is tried again")


@pytest.fixture
def broker(own_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Producer]:
    """Queues in which nothing waits; nobody takes anything. A busy machine's pauses are no broken broker."""
    monkeypatch.setattr(wake, "PUBLISH_SECONDS", 5.0)
    producer = wake.open_producer()

    def purge() -> None:
        for name in (QUEUE, OTHER_QUEUE, queues.MAINTENANCE):
            producer.channel.queue_purge(name)

    purge()
    yield producer
    purge()


def length(broker: Producer, name: str = QUEUE) -> int:
    return wake.queue_length(broker, name)


def take(broker: Producer, name: str = QUEUE) -> list[int]:
    """The ids of the oldest wake."""
    channel: Any = broker.channel
    message = channel.basic_get(name, no_ack=True)
    (ids,) = json.loads(message.body)[0]
    return list(ids)


def test_wakes_go_to_their_tenants_queue_and_never_beyond_its_cap(broker: Producer) -> None:
    assert queues.queue_name(Work.HANDLE, TENANT) == QUEUE
    waker = wake.Waker()
    waker.put(Work.HANDLE, list(range(wake.IDS * 50)), TENANT)
    wait_until(lambda: length(broker) >= wake.WAITING, 3, "wakes are published")
    time.sleep(0.2)
    assert length(broker) == wake.WAITING


def test_where_no_worker_takes_anything_probes_and_upkeep_do_not_pile_up(broker: Producer) -> None:
    sweeper = Sweeper(cast(Any, None), cast(Any, None))
    sweeper._producer = broker
    for _ in range(3 * wake.WAITING):
        sweeper._publish(Work.HANDLE, [(1, TENANT)], {QUEUE: wake.WAITING - length(broker)}, probe=True)
        sweeper._ask_for_upkeep({})
    assert length(broker) == 2 * wake.WAITING
    assert length(broker, queues.MAINTENANCE) == 1


def test_while_a_queue_rests_its_wake_grows_and_other_queues_have_theirs(
    broker: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wake, "REST_PER_CPU", 1e9)
    monkeypatch.setattr(wake, "LONGEST_REST_SECONDS", LONG)
    waker = wake.Waker()
    waker.put(Work.HANDLE, [1], TENANT)
    wait_until(lambda: length(broker) == 1, 5, "the first one goes at once")
    for conversation in (2, 3, 4):
        waker.put(Work.HANDLE, [conversation], TENANT)
    waker.put(Work.HANDLE, [9], OTHER)
    wait_until(lambda: length(broker, OTHER_QUEUE) == 1, 5, "another queue's goes meanwhile")
    assert length(broker) == 1
    growing = waker._pending[QUEUE, Work.HANDLE]
    waker.put(Work.HANDLE, [5], TENANT)
    wait_until(lambda: 5 in growing.ids, 5, "it grows")
    growing.at = 0.0  # it has rested
    waker.put(Work.HANDLE, [5], TENANT)
    wait_until(lambda: length(broker) == 2, 5, "what has grown goes as one")
    assert [take(broker), take(broker), take(broker, OTHER_QUEUE)] == [[1], [2, 3, 4, 5], [9]]


def test_a_wake_that_waits_for_a_full_queue_is_published_once_the_queue_is_short(
    broker: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was counted since the line was measured says nothing of those that were taken."""
    monkeypatch.setattr(wake, "REST_PER_CPU", 0)
    monkeypatch.setattr(wake, "LENGTH_SECONDS", LONG)
    monkeypatch.setattr(wake, "GROWING_SECONDS", LONG)
    waker = wake.Waker()
    for conversation in range(wake.ENOUGH_WAITING):
        waker.put(Work.HANDLE, [conversation], TENANT)
        wait_until(lambda count=conversation: length(broker) == count + 1, 5, "it is published")  # type: ignore[misc]
    waker.put(Work.HANDLE, [7], TENANT)
    time.sleep(10 * wake.LOOK_SECONDS)
    assert length(broker) == wake.ENOUGH_WAITING, "the next one grows"
    for _ in range(wake.ENOUGH_WAITING):
        take(broker)
    wait_until(lambda: length(broker) == 1, 5, "the line has gone")
    assert take(broker) == [7]


def test_after_a_wake_its_queue_rests_for_a_moment(broker: Producer, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count()  # each look at the thread's clock: one more, which is a long time for a wake
    monkeypatch.setattr(time, "thread_time", lambda: float(next(seconds)))
    waker = wake.Waker()
    before = time.monotonic()
    waker.put(Work.HANDLE, [1], TENANT)
    wait_until(lambda: QUEUE in waker._next_at, 5, "it is published")
    longest = wake.LONGEST_REST_SECONDS
    assert before + longest <= waker._next_at[QUEUE] <= time.monotonic() + longest


def test_a_wake_that_has_grown_for_long_goes_however_many_stand_before_it(broker: Producer) -> None:
    waker = wake.Waker()
    for conversation in range(wake.ENOUGH_WAITING):
        waker.put(Work.HANDLE, [conversation], TENANT)
        wait_until(lambda count=conversation: length(broker) == count + 1, 5, "it is published")  # type: ignore[misc]
    waker.put(Work.HANDLE, [7], TENANT)
    wait_until(lambda: length(broker) == wake.ENOUGH_WAITING + 1, 5, "it is old")


def test_a_queue_that_is_full_is_not_asked_at_every_look(broker: Producer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wake, "LENGTH_SECONDS", LONG)
    waker = wake.Waker()
    waker.put(Work.HANDLE, list(range(wake.IDS * wake.WAITING)), TENANT)
    wait_until(lambda: length(broker) == wake.WAITING, 5, "it is full")
    measured = waker._lengths[QUEUE][0]
    waker.put(Work.HANDLE, [1], TENANT)
    time.sleep(3 * wake.GROWING_SECONDS)
    assert waker._lengths[QUEUE][0] == measured
    assert length(broker) == wake.WAITING


def test_a_look_that_takes_long_does_not_hold_up_its_wake_for_much_longer(
    broker: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy machine's look may take 30 ms: ten times as long as that would be more than the wake has to grow."""
    looks: list[tuple[float, float]] = []

    def look(*_: object) -> int:
        began = time.monotonic()
        time.sleep(0.5)
        looks.append((began, time.monotonic()))
        return wake.ENOUGH_WAITING

    monkeypatch.setattr(wake, "queue_length", look)
    waker = wake.Waker()
    waker.put(Work.HANDLE, [1], TENANT)
    wait_until(lambda: QUEUE in waker._next_at, 20, "it is published")
    (began, ended), (again, _), *_ = looks
    assert again - ended < 5 * (ended - began)
    assert take(broker) == [1]
