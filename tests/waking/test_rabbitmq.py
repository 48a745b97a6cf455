"""Tasks through RabbitMQ's quorum queues in place of Redis. Hints, locks and limits stay in Redis."""

from __future__ import annotations

import collections
import sys
import time
from subprocess import run

import pytest

from tests.kit import rabbitmq
from tests.kit.doubles import Double
from tests.kit.lanes import BOTS, Lanes
from tests.kit.people import Crowd, open_channel
from tests.kit.shared import shared
from tests.kit.stack import ROOT, Channel, Stack, wait_until

pytestmark = [
    pytest.mark.skipif(rabbitmq.find() is None, reason=rabbitmq.MISSING),
    pytest.mark.xdist_group("rabbitmq"),
    pytest.mark.timeout(400),
    pytest.mark.slow,
]

AWAY_SECONDS = 5.0
TASKS = """
import django; django.setup()
import time
from celery import current_app
from kombu import Exchange, Queue
from conversations.waking import publisher

def lengths(like):
    name = f"served-by-nobody-{like}"
    arguments = current_app.amqp.queues[like].queue_arguments
    current_app.amqp.queues.add(Queue(name, Exchange(name), queue_arguments=arguments))
    yield publisher.queue_length(name)
    for _ in range(5):
        publisher.publish("conversations.handle", name, [1, 2], most=9)
    seen = [publisher.queue_length(name)]
    end = time.monotonic() + 5
    while time.monotonic() < end and seen[-1] != (2 if like == "handle" else 5):
        seen.append(publisher.queue_length(name))
    yield seen[-1]

print(*lengths("handle"), *lengths("handle-probes"))
"""


class OnRabbitMQ(Stack):
    """Its tasks go through a node of its own."""

    def _environment(self) -> dict[str, str]:
        self.broker = self._stack.enter_context(rabbitmq.running(self.folder))
        return {**super()._environment(), "CELERY_BROKER_URL": self.broker.url}


stack = shared(of=OnRabbitMQ, webs=2, env=BOTS)


@pytest.fixture
def channel(stack: OnRabbitMQ, double: Double) -> Channel:
    return open_channel(stack, double)


def test_quorum_queues_are_made_their_length_is_known_and_two_tasks_of_a_bell_wait_at_most(stack: OnRabbitMQ) -> None:
    """Of queues that nobody serves, with the arguments of a bell's and of another one."""
    talked = run([sys.executable, "-c", TASKS], cwd=ROOT, env=stack.env, capture_output=True, text=True, timeout=60)
    assert talked.stdout == "0 2 0 5\n", talked.stderr


def test_tasks_reach_the_workers(stack: OnRabbitMQ, channel: Channel, double: Double) -> None:
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
