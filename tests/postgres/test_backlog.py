"""Which tickets make the next batch: properties of any sequence of calls, without a database.

Nothing is lost and nothing is given twice; a lane keeps its order, and an item that waits holds back the later ones;
a large backlog never stands before another owner's item twice in a row, and is never left out twice in a row; short
streams and others alternate.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from conversations.errors import NotStored
from conversations.postgres import backlog
from conversations.postgres.backlog import AnyTicket, Backlog
from conversations.postgres.stream import LANE_LOCKED, Stream, Ticket

Note = tuple[str, int, str]  # lane, number, owner
BATCH, LARGE_BACKLOG = 5, 3  # small, so that short sequences of calls reach them


class Notes(Stream[Note, str]):
    patient = False

    def __init__(self, name: str, short: bool = False) -> None:
        self.name, self.short = name, short

    def lane(self, item: Note) -> str:
        return item[0]

    def owner(self, item: Note) -> str:
        return item[2]

    def write(self, connection: Any, items: Sequence[Note]) -> Sequence[str]:
        raise AssertionError("a backlog writes nothing")


STREAMS = (Notes("one"), Notes("other"), Notes("short", short=True))
LANES, OWNERS = "abcdef", "ABC"


def ticket(
    stream: Notes, note: Note, deadline: float = float("inf"), failed_lanes: set[Any] | None = None
) -> AnyTicket:
    failed = set() if failed_lanes is None else failed_lanes
    return Ticket(stream, note, lambda tickets: None, deadline, 0, failed, None)


class Calls(RuleBasedStateMachine):
    """Puts, takes and requeues in any order. ``waiting``: the tickets that must be in the backlog, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = mock.patch.multiple(backlog, BATCH=BATCH, LARGE_BACKLOG=LARGE_BACKLOG)
        self.patch.start()
        self.backlog = Backlog()
        self.now = 0.0
        self.number = 0
        self.waiting: dict[Notes, list[AnyTicket]] = {stream: [] for stream in STREAMS}
        self.in_hand: list[AnyTicket] = []
        self.answered: set[int] = set()
        # Per stream: the owners whose large backlog stood before other owners' free tickets in the last batch.
        self.stood_before: dict[Notes, set[str]] = collections.defaultdict(set)
        self.front_left_out: set[Notes] = set()  # streams whose first ticket was not in their last batch
        self.last: Notes | None = None

    def teardown(self) -> None:
        """Nothing is lost: at the end, whatever waits is given out, once, in the order of each lane."""
        self._answer(self.in_hand)
        self.in_hand = []
        for _ in range(2 * self.number + 2 * len(STREAMS)):
            self.take(0.0)
            self._answer(self.in_hand)
            self.in_hand = []
        self.patch.stop()
        assert not self.backlog
        assert self.answered == set(range(self.number))

    # ------------------------------------------------------------ calls

    @precondition(lambda self: not self.in_hand)
    @rule(stream=st.sampled_from(STREAMS),
          notes=st.lists(st.tuples(st.sampled_from(LANES), st.sampled_from(OWNERS)), min_size=1, max_size=8),
          seconds=st.sampled_from([1.0, 3.0, float("inf")]))  # fmt: skip
    def put(self, stream: Notes, notes: list[tuple[str, str]], seconds: float) -> None:
        """One request."""
        failed_lanes: set[Any] = set()
        for lane, owner in notes:
            made = ticket(stream, (lane, self.number, owner), self.now + seconds, failed_lanes)
            self.number += 1
            self.backlog.put(made)
            self.waiting[stream].append(made)

    @precondition(lambda self: not self.in_hand)
    @rule(passed=st.sampled_from([0.0, 0.5, 2.0]))
    def take(self, passed: float) -> None:
        self.now += passed
        before = {stream: list(tickets) for stream, tickets in self.waiting.items()}
        batch, failed = self.backlog.take(self.now)
        for one in failed:
            assert isinstance(one.error, NotStored)
            assert self.now >= one.deadline or one.lane in one.failed_lanes
        self._remove(failed)
        self._answer(failed)
        if not batch and not failed:  # the rest is behind a large backlog in its own lanes: not twice in a row
            self.stood_before.clear()
            self.front_left_out.clear()
            self.last = None
            return
        (stream,) = {one.stream for one in [*batch, *failed]}
        self._check_lanes(batch)
        self._check_turn(stream, before)
        self._check_fairness(stream, batch, before[stream], failed)
        self._remove(batch)
        self.in_hand = batch

    @precondition(lambda self: self.in_hand)
    @rule(locked=st.sets(st.sampled_from(LANES)), refused=st.sets(st.sampled_from(LANES)))
    def write(self, locked: set[str], refused: set[str]) -> None:
        """The batch is written: locked lanes go back, in refused ones the first item fails, the rest waits."""
        back: list[AnyTicket] = []
        done: list[AnyTicket] = []
        for one in self.in_hand:
            if one.lane in locked:
                one.takes(LANE_LOCKED)
                back.append(one)
            elif one.lane in refused:
                one.fail(NotStored("refused"))
                done.append(one)
                locked = locked | {one.lane}
            else:
                assert one.takes("written")
                done.append(one)
        self.backlog.requeue(back)
        if back:
            self.waiting[back[0].stream][:0] = back
        self._answer(done)
        self.in_hand = []

    # ------------------------------------------------------------ what must hold

    def _remove(self, tickets: list[AnyTicket]) -> None:
        for one in tickets:
            assert one in self.waiting[one.stream], "given twice, or never put"
            self.waiting[one.stream].remove(one)

    def _answer(self, tickets: list[AnyTicket]) -> None:
        for one in tickets:
            assert one.item[1] not in self.answered
            self.answered.add(one.item[1])

    def _check_lanes(self, batch: list[AnyTicket]) -> None:
        """What the batch holds of a lane is the first that waits, the second, ...: nothing overtakes."""
        for lane in {one.lane for one in batch}:
            of_lane = [one for one in batch if one.lane == lane]
            waiting = [one for one in self.waiting[batch[0].stream] if one.lane == lane]
            assert of_lane == waiting[: len(of_lane)]
        assert sum(not one.waits_for_lane for one in batch) <= BATCH
        assert sum(one.waits_for_lane for one in batch) <= BATCH + len({one.lane for one in batch})

    def _check_turn(self, stream: Notes, before: dict[Notes, list[AnyTicket]]) -> None:
        others = [each for each, tickets in before.items() if tickets and each.short != stream.short]
        if others and self.last is not None:
            assert self.last.short != stream.short, "short streams and others alternate while both wait"
        self.last = stream

    def _check_fairness(
        self, stream: Notes, batch: list[AnyTicket], before: list[AnyTicket], failed: list[AnyTicket]
    ) -> None:
        counts = collections.Counter(one.owner for one in before)
        large = {owner for owner, count in counts.items() if count > LARGE_BACKLOG}
        if len(large) == len(counts):
            large = set()  # nobody else waits
        taken = {one.owner for one in batch} & large
        firsts: dict[str, AnyTicket] = {}
        for one in before:
            if one not in failed:
                firsts.setdefault(one.lane, one)
        left = {one.owner for one in firsts.values() if one not in batch} - large
        assert not (taken and self.stood_before[stream] & left), "stood before another owner twice in a row"
        self.stood_before[stream] = left if taken else set()
        front = next((one for one in before if one not in failed), None)
        if front is None or front in batch:
            self.front_left_out.discard(stream)
        else:
            assert stream not in self.front_left_out, "a large backlog was left out twice in a row"
            self.front_left_out.add(stream)

    @invariant()
    def it_says_whether_anything_waits(self) -> None:
        assert bool(self.backlog) == any(self.waiting.values())


Calls.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestCalls = Calls.TestCase


@pytest.fixture
def small() -> Iterator[Backlog]:
    with mock.patch.multiple(backlog, BATCH=BATCH, LARGE_BACKLOG=LARGE_BACKLOG):
        yield Backlog()


def test_locked_lanes_do_not_keep_others_out_of_a_batch(small: Backlog) -> None:
    stream = STREAMS[0]
    locked = [ticket(stream, (f"locked {n}", n, "A")) for n in range(2 * BATCH)]
    for one in locked:
        one.takes(LANE_LOCKED)
    small.requeue(locked)
    free = [ticket(stream, (f"free {n}", n, "A")) for n in range(BATCH)]
    for one in free:
        small.put(one)
    assert small.take(0.0) == ([*locked, *free], [])


def test_of_a_person_who_looks_like_two_lanes_nothing_overtakes(small: Backlog) -> None:
    """Whoever looks at the ids alone does not see that both lead to one locked lane: all are tried in their order."""
    locked = [ticket(STREAMS[0], (lane, n, "A")) for n, lane in enumerate("aab")]
    for one in locked:
        one.takes(LANE_LOCKED)
    small.requeue(locked)
    assert small.take(0.0) == (locked, [])


def test_many_of_a_locked_lane_do_not_fill_the_batch(small: Backlog) -> None:
    locked = [ticket(STREAMS[0], ("a", n, "A")) for n in range(2 * BATCH)]
    for one in locked:
        one.takes(LANE_LOCKED)
    small.requeue(locked)
    free = [ticket(STREAMS[0], (f"free {n}", n, "A")) for n in range(BATCH)]
    for one in free:
        small.put(one)
    assert small.take(0.0) == ([*locked[: BATCH + 1], *free], [])


def test_after_a_failed_item_the_later_ones_of_its_request_and_lane_fail(small: Backlog) -> None:
    stream, failed_lanes = STREAMS[0], set[Any]()
    first, later, beside = (ticket(stream, (lane, 1, "A"), failed_lanes=failed_lanes) for lane in "aab")
    another = ticket(stream, ("a", 2, "A"))
    first.fail(NotStored("refused"))
    for one in (later, beside, another):
        small.put(one)
    assert small.take(0.0) == ([beside, another], [later])


def test_a_short_stream_gets_every_second_batch_and_no_more(small: Backlog) -> None:
    one, other, short = STREAMS
    for number in range(4 * BATCH):
        small.put(ticket(short, (f"lane {number}", number, "A")))
    taken = [small.take(0.0)[0][0].stream]
    for stream in (one, other):
        for number in range(2 * BATCH):
            small.put(ticket(stream, (f"lane {number}", number, "A")))
    taken += [small.take(0.0)[0][0].stream for _ in range(7)]
    assert taken == [short, one, short, other, short, one, short, other]
