"""The committer: what it must never do to the items that are given to it."""

from __future__ import annotations

import contextlib
import gc
import itertools
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from conversations import concurrency, runtime
from conversations.errors import Busy, CoreError, NotStored
from conversations.postgres import backlog, committer, database, reads, room
from conversations.postgres.committer import Committer
from conversations.postgres.stream import LANE_LOCKED, Stream, Ticket
from tests.kit.stack import wait_until

pytestmark = pytest.mark.xdist_group("order")


class Notes(Stream[tuple[str, int], str]):
    """A stream into a table ``note(lane, number UNIQUE, CHECK (number < 1000))``.

    ``fault`` is asked first; a batch with an item of ``broken`` raises its error.
    """

    def __init__(self, patient: bool = False) -> None:
        self.patient = patient
        self.name = "patient notes" if patient else "notes"
        self.fault: Callable[[Sequence[tuple[str, int]]], None] = lambda items: None
        self.broken: dict[tuple[str, int], type[Exception] | Exception] = {}
        self.held: set[str] = set()
        self.batches: list[int] = []

    def lane(self, item: tuple[str, int]) -> Hashable:
        return item[0]

    def mend(self, item: tuple[str, int], error: psycopg.Error) -> Any:
        return (item[0], -item[1]) if item[1] > 0 else None

    def write(self, connection: psycopg.Connection[Any], items: Sequence[tuple[str, int]]) -> Sequence[Any]:
        self.batches.append(len(items))
        self.fault(items)
        for error in (self.broken[item] for item in self.broken if item in items):
            raise error
        held = self.held
        free = [item for item in items if item[0] not in held]
        insert = "INSERT INTO note (lane, number) VALUES (%(lane)s, %(number)s)"
        rows = enumerate({"lane": lane, "number": number} for lane, number in free)
        database.transaction(connection, {str(place): (insert, row) for place, row in rows})
        return [LANE_LOCKED if item[0] in held else "written" for item in items]


@pytest.fixture
def notes(own_database: str) -> Iterator[None]:
    """The table, empty."""
    with psycopg.connect(own_database, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS note")
        connection.execute("""CREATE TABLE note (id bigint GENERATED ALWAYS AS IDENTITY, lane text,
                                                 number int UNIQUE CHECK (number < 1000))""")
        yield
        connection.execute("DROP TABLE note")


@pytest.fixture
def writer(notes: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Committer]:
    """A committer whose death is a failed test instead of the end of the process."""
    died: list[bool] = []
    monkeypatch.setattr(concurrency, "end_process", lambda: died.append(True))
    made = Committer("notes", after_batch=lambda tickets: [ticket.stream for ticket in tickets])
    yield made
    made.stop()
    assert not died, "the committer's thread died"


def written(lane: str = "") -> list[int]:
    rows = runtime.read("SELECT number FROM note WHERE lane LIKE %s ORDER BY id", (lane + "%",))
    return [number for (number,) in rows]


def submit(writer: Committer, stream: Notes, *items: tuple[str, int], seconds: float = 2.5) -> Callable[[], list[Any]]:
    """Queue items as one request each time it is called; ask for their results later."""
    tickets: list[Ticket[Any, Any]] = []
    finished = threading.Event()

    def done(together: list[Ticket[Any, Any]]) -> None:
        tickets.extend(together)
        if len(tickets) == len(items):
            finished.set()

    mine = writer.submit(stream, items, done, deadline=time.monotonic() + seconds)

    def results() -> list[Any]:
        assert finished.wait(seconds + 3), "not answered"
        return [ticket.error or ticket.result for ticket in mine]

    return results


def test_a_bad_item_is_mended_and_the_others_are_written_in_order(writer: Committer) -> None:
    stream = Notes()
    items = [("a", 1), ("b", 2), ("a", 2000), ("a", 3), ("b", 4)]
    assert submit(writer, stream, *items)() == ["written"] * 5
    assert written("a") == [1, -2000, 3]
    assert written("b") == [2, 4]


def test_after_a_failed_item_nothing_later_of_its_request_and_lane_is_written(writer: Committer) -> None:
    """The request is answered 503 and comes again as a whole: what was later must not be there first."""
    stream = Notes()
    stream.broken = {("a", 2): psycopg.errors.QueryCanceled}
    results = submit(writer, stream, *[("a", n) for n in range(1, 301)], ("b", 500))()
    assert results[0] == results[-1] == "written"
    assert all(isinstance(result, NotStored) for result in results[1:300])
    assert written("a") == [1]
    stream.broken = {}
    submit(writer, stream, ("a", 301))()
    assert written("a") == [1, 301]  # another request is not concerned


@pytest.mark.parametrize("interruption", [None, psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected])
def test_an_item_that_takes_too_long_alone_three_times_is_mended_and_holds_up_nobody(
    writer: Committer, monkeypatch: pytest.MonkeyPatch, interruption: type[psycopg.Error] | None
) -> None:
    """Whatever else came in between: that is not the item's fault."""
    monkeypatch.setattr(committer, "RECONNECT_SECONDS", 0.01)
    stream = Notes(patient=True)
    before = [interruption] * 5 if interruption else []
    refusals = itertools.chain(before, itertools.repeat(psycopg.errors.QueryCanceled))
    alone: list[type[psycopg.Error]] = []

    def fault(items: Sequence[tuple[str, int]]) -> None:
        if ("a", 1) in items:
            error = next(refusals) if len(items) == 1 else psycopg.errors.QueryCanceled
            alone.extend([error] if len(items) == 1 else [])
            raise error

    stream.fault = fault
    assert submit(writer, stream, ("a", 1), ("b", 2), ("a", 3), seconds=10)() == ["written"] * 3
    assert written("a") == [-1, 3]
    assert written("b") == [2]
    assert alone.count(psycopg.errors.QueryCanceled) == 3


def test_an_item_that_waits_holds_back_the_later_ones_of_its_lane_in_the_fallback(writer: Committer) -> None:
    stream = Notes()
    stream.held = {"a"}
    results = submit(writer, stream, ("a", 1), ("b", 2000), ("a", 3), ("b", 4), seconds=15)
    wait_until(lambda: written() == [-2000, 4], 5, "the other lane's items")
    stream.held = set()
    assert results() == ["written"] * 4
    assert written("a") == [1, 3]


def test_many_items_of_a_held_lane_do_not_stand_before_others(writer: Committer) -> None:
    stream = Notes()
    stream.held = {"a"}
    stuck = submit(writer, stream, *[("a", n) for n in range(1, 601)], seconds=4)
    time.sleep(0.05)
    began = time.monotonic()
    assert submit(writer, stream, ("b", 700))() == ["written"]
    assert time.monotonic() - began < 3
    assert {type(result) for result in stuck()} == {NotStored}
    assert written("a") == []


def test_an_error_of_our_own_code_does_not_end_the_process(writer: Committer) -> None:
    stream = Notes()
    stream.broken = {("a", 2): KeyError("a bug"),
                     ("a", 3): UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")}  # fmt: skip
    results = submit(writer, stream, ("a", 1), ("b", 5), ("a", 3), ("a", 2))()
    assert results[:3] == ["written"] * 3
    assert isinstance(results[3], NotStored)  # ours: the platform comes again
    assert written("a") == [1, -3]  # the item's: set aside


def test_an_item_of_a_patient_stream_that_cannot_be_written_is_mended_and_holds_up_nobody(writer: Committer) -> None:
    stream = Notes(patient=True)
    stream.broken = {("a", 2): TypeError("a bug")}
    assert submit(writer, stream, ("a", 1), ("a", 2), ("b", 3))() == ["written"] * 3
    assert written() == [1, -2, 3]


def test_a_request_is_queued_whole_or_not_at_all(writer: Committer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request with more items than the queue takes would else never be stored, however often it comes."""
    monkeypatch.setattr(room, "QUEUED_ITEMS", 10)
    stream = Notes()
    gate = threading.Event()
    stream.fault = lambda items: gate.wait(3) and None
    large = submit(writer, stream, *[("a", n) for n in range(1, 31)])
    with pytest.raises(Busy):
        submit(writer, stream, ("b", 100), ("b", 101))
    gate.set()
    assert large() == ["written"] * 30
    assert submit(writer, stream, ("b", 100))() == ["written"]
    assert written("b") == [100]


def test_a_queue_that_holds_too_many_bytes_refuses(writer: Committer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "QUEUED_BYTES", 1_000)
    stream = Notes()
    gate = threading.Event()
    stream.fault = lambda items: gate.wait(3) and None
    thread = threading.Thread(target=writer.write_all, args=(stream, [("a", 1)]), kwargs={"size": 2_000})
    thread.start()
    time.sleep(0.05)
    with pytest.raises(Busy):
        writer.write(stream, ("b", 2))
    gate.set()
    thread.join()
    assert writer.write(stream, ("b", 2)) == "written"


def test_only_while_the_processor_is_short_a_batch_waits_for_more_as_long_as_the_last_one_took(
    notes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        time.sleep(seconds)

    monkeypatch.setattr(committer, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    stream, longest, numbers = Notes(), 0.3, itertools.count(1)

    def batch(seconds: float) -> None:
        stream.fault = lambda items: time.sleep(seconds)
        items = [(f"lane {n}", next(numbers)) for n in range(20)]
        assert submit(made, stream, *items)() == ["written"] * 20

    monkeypatch.setattr(committer.processor, "is_short", lambda: False)
    made = Committer("lingering", linger=longest)
    try:
        for _ in range(3):
            batch(0.02)
        assert waits == []
        monkeypatch.setattr(committer.processor, "is_short", lambda: True)
        batch(0.02)
        wait_until(lambda: bool(waits), 5, "it waits")
        assert 0.02 <= min(waits) < longest
        batch(2 * longest)
        wait_until(lambda: waits[-1] == longest, 5, "it waits as long as it may")
    finally:
        made.stop()


def test_a_read_in_the_committers_own_thread_is_answered(writer: Committer) -> None:
    """Callbacks look up channels; where reads go through the committer, nobody else would serve them."""
    answers: list[Any] = []
    finished = threading.Event()

    def done(tickets: list[Ticket[Any, Any]]) -> None:
        answers.extend(reads.read(writer, [("SELECT 7", ()), ("SELECT %(n)s::int", {"n": 8})]))
        finished.set()

    writer.submit(Notes(), [("a", 1)], done)
    assert finished.wait(2)
    assert answers == [[(7,)], [(8,)]]


def test_a_locked_lane_is_no_result_in_the_committers_own_thread(writer: Committer) -> None:
    """That thread cannot wait for the lane: nobody else would write the batch that unlocks it."""
    stream, outcomes, finished = Notes(), [], threading.Event()
    stream.held = {"a"}

    def done(tickets: list[Ticket[Any, Any]]) -> None:
        try:
            outcomes.append(writer.write(stream, ("a", 1)))
        except NotStored as error:
            outcomes.append(error)
        finished.set()

    writer.submit(Notes(), [("b", 2)], done)
    assert finished.wait(5)
    assert [type(outcome) for outcome in outcomes] == [NotStored]


class Lines(Notes):
    """Notes whose line is their lane's first letter. A batch waits until it is let through; what each held is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[list[tuple[str, int]]] = []
        self.through = threading.Semaphore(0)
        self.fault = self._wait

    def owner(self, item: tuple[str, int]) -> Hashable:
        return item[0][0]

    def _wait(self, items: Sequence[tuple[str, int]]) -> None:
        self.taken.append(list(items))
        assert self.through.acquire(timeout=20)


def test_a_tenant_with_a_large_backlog_delays_no_other_tenant_and_is_served_too(writer: Committer) -> None:
    stream = Lines()
    crowd = [(f"a{n % 7}", n) for n in range(1, backlog.LARGE_BACKLOG + 20)]
    others = [("b", 101), ("c", 102), ("b", 103)]
    results = [submit(writer, stream, ("x", 100), seconds=20)]
    wait_until(lambda: len(stream.taken) == 1, 5, "a batch is being written")
    results.append(submit(writer, stream, *crowd, seconds=20))
    results.append(submit(writer, stream, *others, seconds=20))
    stream.through.release()
    wait_until(lambda: len(stream.taken) == 2, 5, "the next batch")
    results.append(submit(writer, stream, ("b", 104), seconds=20))
    stream.through.release(10)
    assert all(set(each()) == {"written"} for each in results)
    assert stream.taken == [[("x", 100)], others, [*crowd, ("b", 104)]]


def test_one_tenant_gets_half_of_the_queue_and_another_finds_room(
    writer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "QUEUED_ITEMS", 100)
    stream = Lines()
    requests = [submit(writer, stream, *[("a", 10 * n + m) for m in range(10)], seconds=20) for n in range(5)]
    with pytest.raises(Busy):
        submit(writer, stream, ("a", 200))
    requests += [submit(writer, stream, *[("b", 10 * n + m) for m in range(10)], seconds=20) for n in range(20, 22)]
    with pytest.raises(Busy):
        submit(writer, stream, *[("b", 220 + m) for m in range(10)])
    requests.append(submit(writer, stream, ("c", 301), seconds=20))
    read = threading.Thread(target=writer.write, args=(reads.STATEMENTS, ("SELECT 1", ())))
    monkeypatch.setattr(room, "QUEUED_ITEMS", 0)
    read.start()  # reads are never refused
    stream.through.release(20)
    read.join()
    assert all(set(each()) == {"written"} for each in requests)
    monkeypatch.setattr(room, "QUEUED_ITEMS", 1)
    assert submit(writer, stream, ("a", 302))() == ["written"], "what was answered takes no room"


def test_large_requests_of_many_tenants_leave_room_for_a_small_one() -> None:
    place, refused = room.Room(), 0
    for n in range(100):
        large = [Ticket(Lines(), (chr(1000 + n), m), print, 0.0, 0, set(), None) for m in range(backlog.BATCH)]
        try:
            place.enter(large, may_refuse=True)
        except Busy:
            refused += 1
    assert refused > 50
    for n in range(64):
        place.enter([Ticket(Lines(), ("a", n), print, 0.0, 0, set(), None)], may_refuse=True)


def test_a_large_request_is_written_by_slices_in_order_and_ends_at_its_first_failure(
    writer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer, "SLICE", 10)
    stream = Notes()
    assert writer.write_all(stream, [("a", n) for n in range(1, 36)]) == ["written"] * 35
    assert (stream.batches, written()) == ([10, 10, 10, 5], list(range(1, 36)))

    stream.broken = {("a", 55): psycopg.errors.QueryCanceled}
    with pytest.raises(NotStored):
        writer.write_all(stream, [("a" if n % 2 else "b", n) for n in range(41, 81)])
    assert written("a")[35:] == [41, 43, 45, 47, 49, 51, 53]
    assert max(written()) == 60, "the slice of the failed item is the last"


class Moved(Lines):
    """Lanes whose line is another one from some item on: their channel was moved to another tenant."""

    def owner(self, item: tuple[str, int]) -> str:
        return "before" if item[1] < 100 else "after"


def test_a_lane_that_changes_its_tenant_meanwhile_keeps_its_order(writer: Committer) -> None:
    stream = Moved()
    first = submit(writer, stream, ("x", 99), seconds=20)
    wait_until(lambda: len(stream.taken) == 1, 5, "a batch is being written")
    crowd = [("a", n) for n in range(1, backlog.LARGE_BACKLOG + 5)]
    results = submit(writer, stream, *crowd, ("a", 100), ("b", 101), seconds=20)
    stream.through.release(3)
    assert set(first() + results()) == {"written"}
    assert stream.taken[1:] == [[("b", 101)], [*crowd, ("a", 100)]]


FEW = [(f"{line}{n}", 10 * n + place) for n in range(1, backlog.LARGE_BACKLOG) for place, line in enumerate("abcde")]
ONE_LINE = [("a", n) for n in range(1, backlog.LARGE_BACKLOG + 2)]


@pytest.mark.parametrize("batch", [FEW, ONE_LINE], ids=["few of each", "one line"])
def test_a_large_backlog_without_other_tenants_is_written_in_one_batch(writer: Committer, batch: Any) -> None:
    stream = Lines()
    submit(writer, stream, ("x", 999), seconds=20)
    wait_until(lambda: len(stream.taken) == 1, 5, "a batch is being written")
    results = submit(writer, stream, *batch, seconds=20)
    stream.through.release(2)
    assert set(results()) == {"written"}
    assert stream.taken[1:] == [batch]


def test_what_is_read_goes_before_what_waits_to_be_written_and_both_go_on(writer: Committer) -> None:
    stream, order = Lines(), []
    first = submit(writer, stream, ("x", 1), seconds=20)
    wait_until(lambda: len(stream.taken) == 1, 5, "a batch is being written")

    def note(word: str) -> Callable[[list[Ticket[Any, Any]]], None]:
        return lambda tickets: order.extend([word] * len(tickets))

    for n in (2, 3):
        writer.submit(stream, [("x", n)], note("written"))
    for _ in range(2):
        writer.submit(reads.STATEMENTS, [("SELECT 1", ())], note("read"))
    stream.through.release(2)
    assert first() == ["written"]
    wait_until(lambda: len(order) == 4, 5, "all are answered")
    assert order == ["read", "read", "written", "written"]


class Bytes(bytearray):
    """Whose end can be seen."""


class Refusing(Notes):
    def write(self, connection: Any, items: Any) -> Any:
        raise NotStored("not today")


def test_an_item_that_failed_is_freed_without_the_garbage_collector(writer: Committer) -> None:
    """Requests of megabytes, each answered 503 while the database is away."""
    body = Bytes(b"x")
    gone = weakref.ref(body)
    gc.disable()
    try:
        with contextlib.suppress(NotStored):
            writer.write(Refusing(patient=False), body)
        del body
        writer.write(Notes(), ("a", 1))  # the thread has another batch in its hands
        assert gone() is None
    finally:
        gc.enable()


def test_without_a_database_impatient_items_are_refused_and_patient_ones_wait(writer: Committer, settings: Any) -> None:
    writer.write(Notes(), ("a", 1))
    there = settings.DATABASE_URL
    with psycopg.connect(there, autocommit=True) as connection:
        settings.DATABASE_URL = "postgresql://nobody@127.0.0.1:1/none"
        notes = "application_name LIKE 'notes%'"
        connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {notes}")
    waiting = submit(writer, Notes(patient=True), ("a", 2), ("a", 3), seconds=20)
    with pytest.raises((NotStored, CoreError)):
        writer.write(Notes(), ("b", 9))
    settings.DATABASE_URL = there
    assert waiting() == ["written"] * 2
    assert written() == [1, 2, 3]
