"""Wakes through RabbitMQ's quorum queues in place of Redis. Locks and limits stay in Redis."""

from __future__ import annotations

import collections
import sys
import time
from collections.abc import Iterator
from subprocess import run

import pytest

from tests.kit import rabbitmq
from tests.kit.doubles import Double
from tests.kit.lanes import BOTS, Lanes
from tests.kit.people import Crowd, open_channel
from tests.kit.stack import ROOT, Channel, Stack, wait_until

pytestmark = [
    pytest.mark.skipif(rabbitmq.find() is None, reason=rabbitmq.MISSING),
    pytest.mark.xdist_group("rabbitmq"),
    pytest.mark.timeout(400),
    pytest.mark.slow,
]

AWAY_SECONDS = 5.0
WAKES = """
import django; django.setup()
import time
from celery import current_app
from kombu import Exchange, Queue
from conversations.contracts import Work
from conversations.waking.wake import open_producer, publish, queue_length
producer = open_producer()
name = f"served-by-nobody-{time.time_ns()}"
current_app.amqp.queues.add(Queue(name, Exchange(name), queue_arguments={"x-queue-type": "quorum"}))
lengths = [queue_length(producer, name)]
for _ in range(3):
    publish(producer, name, Work.HANDLE, [1, 2])
end = time.monotonic() + 5
while len(lengths) < 2 and time.monotonic() < end:
    lengths += {queue_length(producer, name)} & {3}
print(*lengths)
"""


class OnRabbitMQ(Stack):
    """Its wakes go through a node of its own."""

    def __init__(self) -> None:
        super().__init__(webs=2, env=BOTS)

    def _environment(self) -> dict[str, str]:
        self.broker = self._stack.enter_context(rabbitmq.running(self.folder))
        return {**super()._environment(), "CELERY_BROKER_URL": self.broker.url}


@pytest.fixture(scope="module")
def stack() -> Iterator[OnRabbitMQ]:
    stack = OnRabbitMQ()
    with stack:
        stack.wait_for_workers("handle", "send", "sweep")
        yield stack


@pytest.fixture
def channel(stack: OnRabbitMQ, double: Double) -> Channel:
    return open_channel(stack, double)


def test_a_quorum_queue_is_made_and_its_length_is_known(stack: OnRabbitMQ) -> None:
    """Of a queue that nobody serves."""
    talked = run([sys.executable, "-c", WAKES], cwd=ROOT, env=stack.env, capture_output=True, text=True, timeout=60)
    assert talked.stdout == "0 3\n", talked.stderr


def test_wakes_reach_the_workers(stack: OnRabbitMQ, channel: Channel, double: Double) -> None:
    with Crowd(stack, channel, range(1, 9)).writing() as crowd:
        wait_until(lambda: crowd.total() > 100, 30, "the crowd is heard")
    crowd.check_order(double)
    handled_by = collections.Counter(line.pid for line in Lanes(stack).done(word="begun"))
    assert set(handled_by) == set(stack.pids("handle")), "the sweeper had to help"


@pytest.mark.parametrize(("hurt", "mend"), [("kill", "start"), ("stop", "start"), ("freeze", "thaw")])
def test_with_rabbitmq_away_bots_go_on_and_with_it_back_workers_do(
    stack: OnRabbitMQ, channel: Channel, double: Double, hurt: str, mend: str
) -> None:
    lanes = Lanes(stack)
    crowd = Crowd(stack, channel, range(1, 9), again=False)
    with crowd.writing():
        wait_until(lambda: crowd.total() > 50, 30, "the crowd is heard")
        getattr(stack.broker, hurt)()
        before = len(double.accepted())
        wait_until(lambda: len(double.accepted()) > before + 50, 30, "bots go on without a broker")
        time.sleep(AWAY_SECONDS)
        getattr(stack.broker, mend)()
        before = begun_by(lanes, stack.pids("handle"))
        wait_until(lambda: begun_by(lanes, stack.pids("handle")) > before + 50, 60, "workers are woken again")
    print(hurt, dict(crowd.answers), {code: round(at, 2) for code, at in crowd.slowest.items()})
    assert set(crowd.answers) == {200}, "storing depends on the broker"
    crowd.check_order(double)


def begun_by(lanes: Lanes, pids: list[int]) -> int:
    return sum(line.pid in pids for line in lanes.done(word="begun"))
