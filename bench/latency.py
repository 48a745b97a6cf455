"""The cases about latency: at a given rate, and while another conversation, channel or tenant causes trouble."""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Callable

import urllib3

from bench.measures import Cost, Snapshot
from bench.runs import CONNECTIONS, SHORT, Done, Result, Scale, all_done, by_turns, flood, milliseconds, paced, times
from bench.stack import Ours
from bench.world import Request, Stream, StreamFailed, World

QUIET_RATE = 100.0  # messages a second, under light load
HANGS = b"2:hangs"  # the token of the channel whose platform hangs
HANG_SECONDS = 30.0
HANG_EVERY = 20
SLEEP_SECONDS = 30
WEB_THREADS = 64  # the Procfile's


def webhook(world: World, scale: Scale) -> Result:
    """How long a webhook waits for its answer at half of the maximum rate, while no worker runs."""
    result = Result(name="webhook")
    with Ours() as ours:
        stream = half_rate(world, scale, ours)()
        paced(world, scale, stream)
        result.figures["rate"] = stream.rate
        note_answers(result, stream.measured, "")
    return result


def half_rate(world: World, scale: Scale, ours: Ours) -> Callable[[], Stream]:
    """Makes streams of webhooks at half of the maximum rate, which it measures first."""
    channel = ours.add_channel(world.api)
    rates = flood(world, scale, lambda: iter(ours.people(channel, scale.users)), ours.port, "the maximum")
    world.expected.clear()
    return lambda: Stream("half of it", ours.port, iter(ours.people(channel, scale.users)), connections=CONNECTIONS,
                          rate=max(rates) / 2)  # fmt: skip


def note_answers(result: Result, seconds: list[float], prefix: str) -> None:
    result.figures[f"{prefix}p50_ms"] = milliseconds(seconds, 0.5)
    result.figures[f"{prefix}p99_ms"] = milliseconds(seconds, 0.99)


def note_replies(result: Result, stream: Stream, prefix: str) -> None:
    note_answers(result, stream.measured_replies, prefix)


def delivery(world: World, scale: Scale) -> Result:
    """From webhook to platform at 100 messages a second."""
    result = Result(name="delivery")
    with Ours() as ours:
        ours.start_workers()
        stream = others(world, scale, ours, "quiet", QUIET_RATE)
        before = Snapshot(ours)
        paced(world, scale, stream, until=all_done(world, ours))
        result.costs["quiet"] = Cost(before, Snapshot(ours), stream.replied).as_dict()
        note_replies(result, stream, "")
        result.faults = [*world.faults(), *ours.faults()]
    return result


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
    """Tenant A has 100,000 messages pending; by turns, tenant B's people write 10 a second or nothing."""
    result = Result(name="fairness")
    rate = 10.0
    with Ours() as ours:
        ours.start_workers()
        alone = others(world, scale, ours, "B alone", rate, tenant="B")
        paced(world, scale, alone, until=all_done(world, ours), seconds=3 * scale.seconds)
        note_replies(result, alone, "alone_")
        ours.stop_workers()
        channel = ours.add_channel(world.api, tenant="B")
        many = ours.people(ours.add_channel(world.api, tenant="A"), scale.users)
        backlog = Stream("A's backlog", ours.port, itertools.islice(many, scale.backlog), connections=CONNECTIONS)
        world.run(backlog, say=backlog.name)
        ours.start_workers()
        wait(world, scale.warm)
        waited: list[float] = []

        def b_writes() -> None:
            people = iter(ours.people(channel, scale.users))
            stream = Stream("B beside A", ours.port, people, rate=rate, seconds=2 * scale.seconds)
            world.run(stream, until=replied_to(stream), say=stream.name)
            waited.extend(stream.replies)

        a_alone, a_beside = by_turns(
            scale.runs,
            lambda: drained(backlog, lambda: wait(world, scale.seconds)),
            lambda: drained(backlog, b_writes),
        )
        result.faults = world.faults(unanswered=False)
        result.figures["a_left"] = backlog.sent - backlog.replied
        if result.figures["a_left"]:
            note_answers(result, waited, "")
            result.figures["a_alone_per_second"] = statistics.median(a_alone)
            result.figures["a_per_second"] = statistics.median(a_beside)
            result.figures["a_loses"] = 1 - times(a_alone, a_beside)
        elif scale is not SHORT:
            result.faults.append("A's backlog ran out: B was compared with nobody")
        result.samples = {"A alone, a second": a_alone, "A beside B, a second": a_beside}
    return result


def drained(backlog: Stream, meanwhile: Callable[[], object]) -> float:
    """Replies a second to earlier messages."""
    began, before = time.monotonic(), backlog.replied
    meanwhile()
    return (backlog.replied - before) / (time.monotonic() - began)


def wait(world: World, seconds: float) -> None:
    """Let the platform answer for this many seconds."""
    end = time.monotonic() + seconds
    world.run(until=lambda: time.monotonic() >= end)


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
