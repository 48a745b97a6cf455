"""The doorbell: hints in the order they came, tenants in turn, at most two tasks, nothing left without a task."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from conversations import tasks
from conversations.contracts import Work
from conversations.waking import doorbell, publisher, queues
from tests.conftest import Addresses
from tests.kit.hints import Hints

pytestmark = pytest.mark.xdist_group("storing")

MANY = 10 * doorbell.BATCH


@pytest.fixture
def hints(servers: Addresses) -> Iterator[Hints]:
    """Nobody takes anything."""
    hints = Hints(servers.redis_url)

    def empty() -> None:
        for key in hints.client.keys("{lanes}:*"):
            hints.client.delete(key)
        for kind in Work:
            hints.client.delete(*queues.queue_names(kind))

    empty()
    yield hints
    empty()


OWN = {"headers": ("id", "root_id", "origin"), "properties": ("correlation_id", "delivery_tag", "reply_to")}


def without_own(task: str) -> dict[str, Any]:
    """What all tasks of a kind share."""
    read: dict[str, Any] = json.loads(task)
    for part, names in OWN.items():
        read[part] = {name: value for name, value in read[part].items() if name not in names}
    return {**read, "body": json.loads(base64.b64decode(read["body"]))}


@pytest.mark.parametrize("kind", [Work.HANDLE, Work.SEND])
def test_the_task_that_a_script_pushes_is_the_one_that_celery_would_publish(hints: Hints, kind: Work) -> None:
    ours = Hints(hints.url, kind)
    ours.ring([1])
    publisher.publish(doorbell.task_name(kind), str(kind), most=2)
    published, pushed = hints.client.lrange(str(kind), 0, -1)
    assert without_own(pushed) == without_own(published)
    read = json.loads(pushed)
    ids = [read[part][name] for part, names in OWN.items() for name in names if name.endswith(("id", "tag"))]
    assert len(set(ids)) == 1
    assert doorbell._ID not in ids
    assert read["headers"]["expires"] is None, "it would be dropped where two clocks differ"
    assert doorbell.task_name(kind) == getattr(tasks, f"answer_{kind}").name


def test_hints_come_out_once_and_in_the_order_they_came(hints: Hints) -> None:
    hints.ring([3, 1])
    hints.ring([2, 3])
    assert hints.take() == [3, 1, 2]
    assert hints.take() == []


def test_a_bell_is_rung_once_until_it_is_answered_and_silent_when_nothing_is_left(hints: Hints) -> None:
    for lane in range(5):
        hints.ring([lane])
    assert hints.tasks() == 1
    hints.client.rpop("handle")
    assert len(hints.take()) == 5
    assert not hints.is_rung()
    hints.ring([9])
    assert hints.tasks() == 1


def test_while_hints_are_left_the_next_task_is_on_its_way(hints: Hints) -> None:
    hints.ring(range(MANY))
    seen: list[int] = []
    while hints.client.rpop("handle"):
        seen += hints.take()
        assert hints.is_rung() == hints.tasks() == bool(hints.left())
    assert seen == list(range(MANY))


def test_a_task_without_room_passes_itself_on_and_takes_nothing(hints: Hints) -> None:
    hints.ring([1, 2])
    hints.client.rpop("handle")
    assert hints.take(most=0) == []
    assert (hints.tasks(), hints.left()) == (1, {1: [1, 2]})


def test_two_tasks_wait_at_most_however_often_bells_expire(hints: Hints) -> None:
    for lane in range(20):
        hints.ring([lane])
        hints.client.delete("{lanes}:bell:handle")
    assert hints.tasks() == 2
    hints.take(most=0)
    assert hints.tasks() == 2


def test_over_the_bound_no_hint_is_added_and_the_bell_is_rung_all_the_same(hints: Hints) -> None:
    hints.ring(range(2 * doorbell.HINTS))
    hints.client.delete("{lanes}:bell:handle", "handle")
    hints.ring([99_999])
    assert hints.left() == {1: list(range(doorbell.HINTS))}
    assert (hints.tasks(), hints.is_rung()) == (1, True)


def test_a_tenant_with_a_backlog_takes_turns_with_the_others(hints: Hints) -> None:
    hints.ring(range(500), tenant=1)
    hints.ring([1001, 1002], tenant=2)
    hints.ring([2001], tenant=3)
    share = list(range(doorbell.SHARE))
    assert hints.take() == [*share, 1001, 1002, 2001]
    assert len(hints.take()) == doorbell.SHARE, "others wrote a moment ago, and may again"
    hints.ring([1003], tenant=2)
    taken = hints.take(most=doorbell.SHARE)
    assert 1003 not in taken
    assert hints.take(most=doorbell.SHARE)[0] == 1003, "who was served goes behind those who wait"


def test_alone_a_tenant_fills_the_batches(hints: Hints) -> None:
    hints.ring(range(500), tenant=1)
    assert len(hints.take()) == doorbell.BATCH


def test_a_hint_that_comes_while_the_last_ones_are_taken_is_never_left_without_a_task(hints: Hints) -> None:
    """Real connections: whoever leaves a hint finds a bell that is silent, or a task that will take it."""
    other = Hints(hints.url)
    with ThreadPoolExecutor(2) as threads:
        for lane in range(0, 200, 2):
            hints.ring([lane])
            hints.client.delete("handle")
            leaving, taking = threads.submit(hints.ring, [lane + 1]), threads.submit(other.take)
            leaving.result()
            taken = taking.result() + (hints.take() if hints.client.rpop("handle") else [])
            assert sorted(taken) == [lane, lane + 1]


def test_rooms_are_what_tenants_may_still_leave_and_hints_without_a_task_are_rung_for(hints: Hints) -> None:
    assert doorbell.rooms(Work.HANDLE, []) == {}
    assert not hints.tasks(), "nothing is left"
    hints.ring(range(10), tenant=5)
    hints.client.delete("{lanes}:bell:handle", "handle")
    assert doorbell.rooms(Work.HANDLE, [5, 6]) == {5: doorbell.HINTS - 10, 6: doorbell.HINTS}
    assert hints.tasks() == 1


def test_a_tenant_whose_turn_was_lost_with_its_hints_full_gets_it_again(hints: Hints) -> None:
    hints.fill(7)
    hints.client.delete("{lanes}:bell:handle", "handle", hints.tenants)
    assert doorbell.rooms(Work.HANDLE, [6, 7]) == {6: doorbell.HINTS, 7: 0}
    assert hints.tasks() == 1
    assert len(hints.take()) == doorbell.BATCH


@pytest.mark.parametrize("broker", ["this Redis", "another"])
def test_while_no_worker_runs_nothing_grows(hints: Hints, broker: str, settings: Any) -> None:
    """As much as comes in minutes: in each round the bell has expired, and sweepers look, too."""
    if broker == "another":
        settings.CELERY_BROKER_URL = "redis://127.0.0.1:1/0"  # tasks are published, where Celery publishes them

    def minutes(first: int) -> int:
        for number in range(first, first + 40):
            hints.client.delete("{lanes}:bell:handle")
            doorbell.ring(Work.HANDLE, {tenant: range(30 * number, 30 * number + 60) for tenant in (1, 2)})
            doorbell.rooms(Work.HANDLE, [1, 2])
            publisher.probe(Work.HANDLE, [number])
            for each in range(6):
                publisher.checkout(f"{number:06}{each}", 1)
            publisher.maintain()
        return sum(hints.client.memory_usage(key, samples=0) for key in hints.client.keys("*"))

    held = minutes(0)
    assert minutes(1000) == held
    assert {len(left) for left in hints.left().values()} == {doorbell.HINTS}
    bounds = {"handle": 2, "handle-probes": publisher.PROBES, queues.CHECKOUTS: publisher.WAITING_CHECKOUTS,
              queues.MAINTENANCE: 1}  # fmt: skip
    assert {name: publisher.queue_length(name) for name in bounds} == bounds


def test_what_was_taken_is_in_hand_also_when_the_broker_goes_away_just_then(
    hints: Hints, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise ConnectionError

    hints.ring(range(MANY))
    settings.CELERY_BROKER_URL = "redis://127.0.0.1:1/0"
    monkeypatch.setattr(publisher, "publish", fail)
    taken: list[int] = []
    with pytest.raises(ConnectionError):
        doorbell.answer(Work.HANDLE, lambda: True, taken.extend)
    assert taken == list(range(doorbell.BATCH))
