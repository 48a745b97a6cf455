"""The cases about waiting: how long, at a given rate, and whether somebody else's trouble makes it longer."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable

import urllib3

from bench.measures import Cost, Snapshot
from bench.runs import CONNECTIONS, Done, Result, Scale, all_done, flood, milliseconds, paced
from bench.stack import Ours
from bench.world import Request, Stream, StreamFailed, World

QUIET_RATE = 100.0  # messages a second, where little is going on
HANGS = b"2:hangs"  # the token of the channel whose platform hangs
HANG_SECONDS = 30.0
HANG_EVERY = 20
SLEEP_SECONDS = 30
WEB_THREADS = 64  # the Procfile's


def webhook(world: World, scale: Scale) -> Result:
    """How long a webhook waits for its answer at half of the maximum rate; no worker runs."""
    result = Result(name="webhook")
    with Ours() as ours:
        stream = half_rate(world, scale, ours, result)
        paced(world, scale, stream)
        note_answers(result, stream, "")
    return result


def half_rate(world: World, scale: Scale, ours: Ours, result: Result) -> Stream:
    """A stream of webhooks at half of what is possible."""
    channel = ours.add_channel(world.api)
    rates = flood(world, scale, lambda: iter(ours.people(channel, scale.users)), ours.port, "the maximum")
    world.expected.clear()
    result.figures["rate"] = max(rates) / 2
    requests = iter(ours.people(channel, scale.users))
    return Stream("half of it", ours.port, requests, connections=CONNECTIONS, rate=result.figures["rate"])


def note_answers(result: Result, stream: Stream, prefix: str) -> None:
    result.figures[f"{prefix}p50_ms"] = milliseconds(stream.measured, 0.5)
    result.figures[f"{prefix}p99_ms"] = milliseconds(stream.measured, 0.99)


def note_replies(result: Result, stream: Stream, prefix: str) -> None:
    result.figures[f"{prefix}p50_ms"] = milliseconds(stream.measured_replies, 0.5)
    result.figures[f"{prefix}p99_ms"] = milliseconds(stream.measured_replies, 0.99)


def delivery(world: World, scale: Scale) -> Result:
    """Webhook to platform at 100 messages a second."""
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


# ---------------------------------------------------------------- the trouble of others


def slow_bots(world: World, scale: Scale) -> Result:
    """1 % of the turns take 5 s: what the other conversations notice."""
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
    """One channel's platform hangs for 30 s on 5 % of its sends: what another channel notices."""
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
    """One person has 10,000 messages queued: how fast they drain, in order, and what others notice."""
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
        drained_at.append(time.monotonic())  # where all was done before the last look
        result.figures["drained_per_second"] = stored.sent / (drained_at[0] - began)
        result.faults = [*world.faults(), *ours.faults()]
    return result


def replied_to(stream: Stream) -> Done:
    return lambda: stream.replied == stream.awaited


def watch(world: World, condition: Done, act: Callable[[], None]) -> None:
    """``act`` once, when ``condition`` is true; asked ten times a second."""

    def look() -> None:
        if condition():
            act()
        else:
            world.after(0.1, look)

    world.after(0.1, look)


def fairness(world: World, scale: Scale) -> Result:
    """Tenant A has 100,000 pending, tenant B's people write 10 a second."""
    result = Result(name="fairness")
    rate = 10.0
    with Ours() as ours:
        ours.start_workers()
        alone = others(world, scale, ours, "B alone", rate, tenant="B")
        paced(world, scale, alone, until=all_done(world, ours), seconds=3 * scale.seconds)
        note_replies(result, alone, "alone_")
        ours.stop_workers()
        many = ours.people(ours.add_channel(world.api, tenant="A"), scale.users)
        backlog = Stream("A's backlog", ours.port, itertools.islice(many, scale.backlog), connections=CONNECTIONS)
        world.run(backlog, say=backlog.name)
        ours.start_workers()
        result.figures["a_alone_per_second"] = replied_in(world, backlog, scale)
        beside = others(world, scale, ours, "B beside A", rate, tenant="B")
        began, before = time.monotonic(), backlog.replied
        paced(world, scale, beside, until=replied_to(beside), seconds=3 * scale.seconds)
        result.figures["a_per_second"] = (backlog.replied - before) / (time.monotonic() - began)
        result.figures["a_left"] = backlog.sent - backlog.replied
        note_replies(result, beside, "")
        result.faults = world.faults(unanswered=False)
    return result


def replied_in(world: World, stream: Stream, scale: Scale) -> float:
    """Replies a second to what was sent before, after a warm-up."""
    wait(world, scale.warm)
    began, before = time.monotonic(), stream.replied
    wait(world, 2 * scale.seconds)
    return (stream.replied - before) / (time.monotonic() - began)


def wait(world: World, seconds: float) -> None:
    """Let the platform answer for so long."""
    end = time.monotonic() + seconds
    world.run(until=lambda: time.monotonic() >= end)


# ---------------------------------------------------------------- open pages


def pages(world: World, scale: Scale) -> Result:
    """200 chat pages and 20 timelines poll; then a page that sleeps in every thread that it may have."""
    result = Result(name="pages")
    with Ours(env={"DJANGO_SETTINGS_MODULE": "bench.settings"}) as ours:
        alone = half_rate(world, scale, ours, result)
        paced(world, scale, alone)
        note_answers(result, alone, "alone_")
        polls = open_pages(ours, scale)
        beside = half_rate(world, scale, ours, result)
        beside.rate = alone.rate
        polling = Stream("pages", ours.port, itertools.cycle(polls), connections=len(polls), rate=len(polls))
        paced(world, scale, beside, polling)
        note_answers(result, beside, "")
        result.figures["polls_not_answered"] = sum(polling.statuses.values()) - len(polling.answers)
        sleeping_page(world, scale, ours, result)
        result.faults = world.faults(unanswered=False)
    return result


def open_pages(ours: Ours, scale: Scale) -> list[Request]:
    """The request that each open page sends once a second: visitors who have said something, staff who look at them."""
    said = json.loads(ours.run("-m", "bench.pages", str(scale.pages)))
    site = urllib3.connection_from_url(f"http://127.0.0.1:{ours.port}")
    requests: list[Request] = []
    for number, token in enumerate(said["tokens"]):
        headers = {"Authorization": f"Bearer {token}", "Origin": ours.env["PUBLIC_URL"]}
        message = {"client_id": f"bench-{number:08}", "text": "hello"}
        require(site.request("POST", said["messages"], json=message, headers=headers))
        first = require(site.request("GET", said["messages"], headers=headers))
        cursor = f"{said['messages']}?after={first.json()['cursor']}"
        etag = require(site.request("GET", cursor, headers=headers)).headers["ETag"]
        requests.append(("", get(cursor, {**headers, "If-None-Match": etag})))
    lanes = ours.query("SELECT id FROM conversation WHERE channel_id = %s LIMIT %s", said["channel"], scale.timelines)
    for (lane,) in lanes:
        headers = {"Cookie": said["cookie"]}
        live = said["live"] % lane
        cursor = require(site.request("GET", live, headers=headers)).json()["cursor"]
        requests.append(("", get(f"{live}?cursor={cursor}", headers)))
    return requests


def require(answer: urllib3.BaseHTTPResponse) -> urllib3.BaseHTTPResponse:
    if answer.status != 200:
        raise StreamFailed(f"a page was answered {answer.status}: {answer.data[:200]!r}")
    return answer


def get(path: str, headers: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n".encode()


def sleeping_page(world: World, scale: Scale, ours: Ours, result: Result) -> None:
    """Twice as many requests for it as there are threads; webhooks meanwhile."""
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
