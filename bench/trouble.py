"""The cases where another conversation, channel, tenant or page causes trouble: how much slower the others get."""

from __future__ import annotations

import contextlib
import itertools
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import urllib3

from bench.measures import Cost, Snapshot
from bench.runs import (
    CONNECTIONS,
    SHORT,
    Done,
    Result,
    Scale,
    all_done,
    by_turns,
    half_rate,
    milliseconds,
    note_answers,
    note_replies,
    paced,
    times,
    undisturbed,
    wait,
)
from bench.stack import Ours
from bench.world import Request, Stream, StreamFailed, World

QUIET_RATE = 100.0  # messages a second, under light load
HANGS = b"2:hangs"  # the token of the channel whose platform hangs
HANG_SECONDS = 30.0
HANG_EVERY = 20
B_RATE, B_PEOPLE = 10.0, 30  # tenant B's messages a second, and who writes them
SLEEP_SECONDS = 30
WEB_THREADS = 64  # the Procfile's


def others(world: World, scale: Scale, ours: Ours, name: str, rate: float, **channel: str) -> Stream:
    """People on a channel of their own."""
    made = ours.add_channel(world.api, **channel)
    return Stream(name, ours.port, iter(ours.people(made, scale.users)), connections=CONNECTIONS // 2, rate=rate)


# ---------------------------------------------------------------- other people's trouble


def slow_bots(world: World, scale: Scale) -> Result:
    """1 % of the turns take 5 s: how much slower the other conversations get."""
    result = Result(name="slow_bots", figures={"rate": scale.rate})
    with Ours() as ours:
        ours.start_workers()
        channel = ours.add_channel(world.api, bot="bench")
        for prefix, slow_share in (("alone_", 0.0), ("", 0.01)):
            people, slow = ours.people(channel, scale.users), ours.people(channel, scale.users, slow=True)
            normal = Stream("the others", ours.port, iter(people), rate=scale.rate * (1 - slow_share))
            streams = [normal]
            if slow_share:
                streams.append(Stream("slow turns", ours.port, iter(slow), rate=scale.rate * slow_share))
            paced(world, scale, *streams, until=all_done(world, ours))
            note_replies(result, normal, prefix)
        result.faults = [*world.faults(), *ours.faults()]
    return result


def hanging(world: World, scale: Scale) -> Result:
    """One channel's platform hangs for 30 s on 5 % of its sends: how much slower another channel gets."""
    result = Result(name="hanging", figures={"rate": scale.rate})
    calls = itertools.count(1)
    with Ours() as ours:
        ours.start_workers()
        for prefix, token in (("alone_", "2:fine"), ("", HANGS.decode())):
            world.hang = lambda line: HANG_SECONDS if HANGS in line and not next(calls) % HANG_EVERY else 0.0
            troubled = others(world, scale, ours, "a platform that hangs", scale.rate / 2, token=token)
            healthy = others(world, scale, ours, "the other channel", scale.rate / 2)
            paced(world, scale, healthy, troubled, until=replied_to(healthy))
            note_replies(result, healthy, prefix)
        result.faults = world.faults(unanswered=False)
    return result


def one_user(world: World, scale: Scale) -> Result:
    """One person has 10,000 messages queued: how fast they drain, in order, and how much slower others get."""
    result = Result(name="one_user")
    with Ours() as ours:
        ours.start_workers()
        alone = others(world, scale, ours, "the others alone", QUIET_RATE)
        paced(world, scale, alone, until=all_done(world, ours))
        note_replies(result, alone, "alone_")
        ours.stop_workers()
        one = iter(ours.people(ours.add_channel(world.api), 1))
        stored = Stream("one user", ours.port, itertools.islice(one, scale.one_user), connections=1)
        world.run(stored, say=stored.name)
        beside = others(world, scale, ours, "the others", QUIET_RATE)
        ours.start_workers()
        began = time.monotonic()
        drained_at: list[float] = []
        watch(world, replied_to(stored), lambda: drained_at.append(time.monotonic()))
        paced(world, scale, beside, until=all_done(world, ours))
        note_replies(result, beside, "")
        drained_at.append(time.monotonic())  # for when all were done before the last look
        result.figures["drained_per_second"] = stored.sent / (drained_at[0] - began)
        result.faults = [*world.faults(), *ours.faults()]
    return result


def replied_to(stream: Stream) -> Done:
    return lambda: stream.replied == stream.awaited


def watch(world: World, condition: Done, act: Callable[[], None]) -> None:
    """Call ``act`` once, when ``condition`` is true; it is asked ten times a second."""

    def look() -> None:
        if condition():
            act()
        else:
            world.after(0.1, look)

    world.after(0.1, look)


def fairness(world: World, scale: Scale) -> Result:
    """Tenant A has 100,000 messages pending while tenant B's people write 10 a second; by turns, B alone."""
    result = Result(name="fairness")
    with Ours("alone") as quiet, Ours() as busy:
        backlog = Backlog(world, scale, busy)
        b_alone, b_beside = b_who_writes(world, quiet), b_who_writes(world, busy)

        def turn() -> tuple[Turn, float]:
            with working(world, quiet):
                before = Snapshot(quiet)
                alone = b_alone(scale)
                others_then = Cost(before, Snapshot(quiet), len(alone)).others
            backlog.fill()
            with working(world, busy):
                wait(world, scale.warm)
                before = Snapshot(busy)
                rates = [backlog.drained(lambda: wait(world, scale.seconds))]
                beside: list[float] = []
                rate = backlog.drained(lambda: beside.extend(b_beside(scale)))
                rates.append(backlog.drained(lambda: wait(world, scale.seconds)))
                others = max(others_then, Cost(before, Snapshot(busy), len(beside)).others)
            if not backlog.left() and scale is not SHORT:
                raise StreamFailed("A's backlog ran out: B was compared with nobody")
            return Turn(alone=alone, beside=beside, a_alone=statistics.mean(rates), a_beside=rate), others

        turns = [undisturbed(scale, result, f"turn {number + 1}", turn) for number in range(scale.runs)]
        result.faults = world.faults(unanswered=False)
    for prefix, waits in (("alone_", [each.alone for each in turns]), ("", [each.beside for each in turns])):
        note_answers(result, list(itertools.chain(*waits)), prefix)
        result.samples[f"B's {prefix}p99 of each turn, ms"] = [milliseconds(each, 0.99) for each in waits]
    result.figures["b_messages"] = sum(len(each.beside) for each in turns)
    result.figures["a_alone_per_second"] = statistics.median(each.a_alone for each in turns)
    result.figures["a_per_second"] = statistics.median(each.a_beside for each in turns)
    result.figures["a_loses"] = 1 - statistics.median(each.a_beside / max(1.0, each.a_alone) for each in turns)
    return result


@dataclass(frozen=True, kw_only=True)
class Turn:
    """B alone, then B beside A. Seconds that B's messages took, and A's replies a second."""

    alone: list[float]
    beside: list[float]
    a_alone: float
    a_beside: float


def b_who_writes(world: World, ours: Ours) -> Callable[[Scale], list[float]]:
    """Tenant B. Its few people write their first messages during each run's warm-up."""
    people = iter(ours.people(ours.add_channel(world.api, tenant="B"), B_PEOPLE))

    def write(scale: Scale) -> list[float]:
        stream = Stream("B", ours.port, people, rate=B_RATE)
        paced(world, scale, stream, until=replied_to(stream), seconds=scale.b_writes / B_RATE)
        return stream.measured_replies

    return write


class Backlog:
    """Tenant A's pending messages."""

    def __init__(self, world: World, scale: Scale, ours: Ours) -> None:
        self._world, self._size, self._port = world, scale.backlog, ours.port
        self._people = iter(ours.people(ours.add_channel(world.api, tenant="A"), scale.users))
        self._streams: list[Stream] = []

    def fill(self) -> None:
        """Store as many as are missing; no worker runs."""
        missing = itertools.islice(self._people, self._size - self.left())
        self._streams.append(Stream("A's backlog", self._port, missing, connections=CONNECTIONS))
        self._world.run(self._streams[-1], say=self._streams[-1].name)

    def left(self) -> int:
        return sum(stream.awaited - stream.replied for stream in self._streams)

    def drained(self, meanwhile: Callable[[], object]) -> float:
        """A's replies a second meanwhile."""
        began, before = time.monotonic(), self.left()
        meanwhile()
        return (before - self.left()) / (time.monotonic() - began)


@contextlib.contextmanager
def working(world: World, ours: Ours) -> Iterator[None]:
    """Run the workers meanwhile. The platform answers until they have ended: their calls are over."""
    ours.start_workers()
    try:
        yield
    finally:
        ending = threading.Thread(target=ours.stop_workers)
        ending.start()
        world.run(until=lambda: not ending.is_alive())


# ---------------------------------------------------------------- open pages


def pages(world: World, scale: Scale) -> Result:
    """200 chat pages and 20 timelines poll, by turns; then a sleeping page occupies every thread that it may have."""
    result = Result(name="pages")
    not_answered = 0
    with Ours(env={"DJANGO_SETTINGS_MODULE": "bench.settings"}) as ours:
        polls = open_pages(ours, scale)
        webhooks = half_rate(world, scale, ours)

        def answers(*others: Stream) -> list[float]:
            stream = webhooks()
            result.figures["rate"] = stream.rate
            paced(world, scale, stream, *others, seconds=scale.seconds)
            return stream.measured

        def answers_beside_pages() -> list[float]:
            nonlocal not_answered
            polling = Stream("pages", ours.port, itertools.cycle(polls), connections=len(polls), rate=len(polls))
            measured = answers(polling)
            not_answered += sum(polling.statuses.values()) - len(polling.answers)
            return measured

        alone, beside = by_turns(scale.runs, answers, answers_beside_pages)
        note_answers(result, list(itertools.chain(*alone)), "alone_")
        note_answers(result, list(itertools.chain(*beside)), "")
        p99s = [[milliseconds(each, 0.99) for each in its] for its in (alone, beside)]
        result.figures["times_as_long"] = times(*p99s)
        result.figures["polls_not_answered"] = not_answered
        sleeping_page(world, scale, ours, result)
        result.faults = world.faults(unanswered=False)
    return result


def open_pages(ours: Ours, scale: Scale) -> list[Request]:
    """The request that each open page sends once a second: visitors who have written, staff who look at them."""
    said = json.loads(ours.run("-m", "bench.pages", str(scale.pages)))
    site = urllib3.connection_from_url(f"http://127.0.0.1:{ours.port}")
    chats: list[Request] = []
    for number, token in enumerate(said["tokens"]):
        headers = {"Authorization": f"Bearer {token}", "Origin": ours.env["PUBLIC_URL"]}
        message = {"client_id": f"bench-{number:08}", "text": "hello"}
        require(site.request("POST", said["messages"], json=message, headers=headers))
        first = require(site.request("GET", said["messages"], headers=headers))
        cursor = f"{said['messages']}?after={first.json()['cursor']}"
        etag = require(site.request("GET", cursor, headers=headers)).headers["ETag"]
        chats.append(("", get(cursor, {**headers, "If-None-Match": etag})))
    timelines: list[Request] = []
    lanes = ours.query("SELECT id FROM conversation WHERE channel_id = %s LIMIT %s", said["channel"], scale.timelines)
    for (lane,) in lanes:
        headers = {"Cookie": said["cookie"]}
        live = said["live"] % lane
        cursor = require(site.request("GET", live, headers=headers)).json()["cursor"]
        timelines.append(("", get(f"{live}?cursor={cursor}", headers)))
    return spread(chats, timelines)


def spread(many: list[Request], few: list[Request]) -> list[Request]:
    """All requests, the few spread evenly among the many: people open their pages at any moment."""
    placed = [(place / len(kind), request) for kind in (many, few) for place, request in enumerate(kind)]
    return [request for _, request in sorted(placed, key=lambda pair: pair[0])]


def require(answer: urllib3.BaseHTTPResponse) -> urllib3.BaseHTTPResponse:
    if answer.status != 200:
        raise StreamFailed(f"a page was answered {answer.status}: {answer.data[:200]!r}")
    return answer


def get(path: str, headers: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n".encode()


def sleeping_page(world: World, scale: Scale, ours: Ours, result: Result) -> None:
    """Request the sleeping page twice as often as there are threads, and send webhooks meanwhile."""
    threads = WEB_THREADS * int(ours.env["WEB_CONCURRENCY"])
    asleep = itertools.repeat(("", get(f"/sleep/?seconds={SLEEP_SECONDS}", {})), 2 * threads)
    sleepers = Stream("a page that sleeps", ours.port, asleep, connections=2 * threads, again=False)
    channel = ours.add_channel(world.api)
    webhooks = Stream("webhooks", ours.port, iter(ours.people(channel, scale.users)), rate=QUIET_RATE)
    webhooks.seconds = min(SLEEP_SECONDS / 3, scale.warm + 2 * scale.seconds)
    world.after(scale.warm, webhooks.begin_measuring)
    world.run(webhooks, background=[sleepers], say="webhooks beside a page that sleeps")
    result.figures["sleeping_p99_ms"] = milliseconds(webhooks.measured, 0.99)
    result.figures["sleeping_refused"] = sum(webhooks.statuses.values()) - len(webhooks.answers)
