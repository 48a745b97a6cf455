"""The benchmark's world: what it counts, and that it sees what is wrong."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from bench.runs import Result, Scale, undisturbed
from bench.trouble import spread
from bench.world import People, Stream, StreamFailed, World, has_body

Bot = Callable[[str], list[str]]  # what a backend replies to a text


@contextlib.contextmanager
def backend(world: World, bot: Bot, *, pause: float = 0.0, refuse: int = 0) -> Iterator[int]:
    """A chatbot backend of few words; its port. ``refuse``: so many webhooks are answered 503 first."""
    said: queue.SimpleQueue[str] = queue.SimpleQueue()
    refusals = iter(range(refuse))
    busy = threading.Lock()

    class Webhook(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            update = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with busy:
                time.sleep(pause)
            refused = next(refusals, None) is not None
            if not refused:
                said.put(update["message"]["text"])
            self.send_response(503 if refused else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    def deliver() -> None:
        platform = http.client.HTTPConnection(urlsplit(world.api).netloc)
        while text := said.get():
            for reply in bot(text):
                platform.request("POST", "/bot1:x/sendMessage", json.dumps({"chat_id": 1, "text": reply}))
                platform.getresponse().read()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    for work in (server.serve_forever, deliver):
        threading.Thread(target=work, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        said.put("")
        server.shutdown()
        server.server_close()


def talk(world: World, port: int, messages: int, **options: Any) -> Stream:
    people = iter(People(path="/", secret="s", first=10, count=5))
    requests = (request for request, _ in zip(people, range(messages), strict=False))
    stream = Stream("talk", port, requests, **{"connections": 2, **options})
    world.run(stream, seconds=20)
    return stream


def test_every_reply_is_counted_once_and_nothing_is_wrong() -> None:
    world = World()
    with backend(world, lambda text: [text]) as port:
        stream = talk(world, port, 50)
        world.run(until=lambda: not world.expected, seconds=10)
    assert (stream.sent, stream.replied, len(stream.answers), len(stream.replies)) == (50, 50, 50, 50)
    assert world.faults() == []


@pytest.mark.parametrize(("bot", "fault"), [
    (lambda text: [text, text], "came again"),
    (lambda text: [] if text == "12:2" else [text], "out of order"),
    (lambda text: [] if text.endswith(":4") else [text], "5 messages were not answered"),
])  # fmt: skip
def test_a_reply_that_is_lost_repeated_or_out_of_order_is_seen(bot: Bot, fault: str) -> None:
    world = World()
    with backend(world, bot) as port:
        talk(world, port, 20)
        world.run(until=lambda: bool(world.faults(unanswered=False)) or len(world.expected) == 5, seconds=10)
    assert any(fault in each for each in world.faults())


def test_a_refused_webhook_is_sent_again_until_it_is_taken() -> None:
    world = World()
    with backend(world, lambda text: [text], refuse=7) as port:
        stream = talk(world, port, 20)
        world.run(until=lambda: not world.expected, seconds=10)
    assert stream.statuses == {503: 7, 200: 20}
    assert world.faults() == []


def test_a_latency_counts_from_when_the_request_was_due() -> None:
    """Ten at 1,000 a second to a server that takes 20 ms each: the last one waited for all the others."""
    world = World()
    with backend(world, lambda text: [text], pause=0.02) as port:
        stream = talk(world, port, 10, connections=1, rate=1000.0)
    assert stream.answers[-1] > 0.15


def test_a_window_bounds_what_is_on_its_way() -> None:
    world = World()
    stream = Stream("window", 0, iter(People(path="/", secret="s", first=1, count=9)), connections=4, window=3)
    with backend(world, lambda text: []) as stream.port, pytest.raises(StreamFailed, match="longer than"):
        world.run(stream, seconds=0.5)
    assert stream.sent == 3


def test_an_answer_in_chunks_is_whole_at_its_last_chunk() -> None:
    head = b"HTTP/1.1 500 Error\r\ntransfer-encoding: chunked"
    data = head + b"\r\n\r\n5\r\nhello\r\n"
    assert not has_body(data, len(head))
    assert has_body(data + b"0\r\n\r\n", len(head))


def test_pages_of_two_kinds_ask_by_turns_not_one_kind_after_the_other() -> None:
    chats = [("", b"chat %d" % number) for number in range(6)]
    timelines = [("", b"timeline %d" % number) for number in range(2)]
    asked = [request.decode() for _, request in spread(chats, timelines)]
    assert [place for place, request in enumerate(asked) if "timeline" in request] == [1, 5]
    assert sorted(asked) == sorted(request.decode() for _, request in (*chats, *timelines))


def test_how_late_each_request_left_is_known() -> None:
    """The load generator's own error: here it works for 50 ms while a request is due."""
    world = World()
    with backend(world, lambda text: [text]) as port:
        world.after(0.1, lambda: time.sleep(0.05))
        stream = talk(world, port, 40, rate=200.0)
    assert len(stream.late) == 40
    assert max(stream.late) > 0.03
    stream.begin_measuring()
    assert stream.measured_late == []


def test_requests_at_a_rate_go_ahead_of_other_processes_and_only_these() -> None:
    world = World()
    seen: list[int] = []
    world.after(0.0, lambda: seen.append(os.sched_getscheduler(0)))
    world.run(even=True)
    world.after(0.0, lambda: seen.append(os.sched_getscheduler(0)))
    world.run()
    even, plain = (policy & ~os.SCHED_RESET_ON_FORK for policy in seen)
    assert plain == os.SCHED_OTHER
    assert even in (os.SCHED_FIFO, os.SCHED_OTHER)  # without the right to: as before


def test_a_run_beside_other_work_is_thrown_away_and_repeated_and_noted() -> None:
    others = iter([0.9, 0.1, 0.8, 0.8, 0.8])
    result = Result(name="r")
    runs = itertools.count(1)
    scale = Scale(tries=3)
    assert undisturbed(scale, result, "first", lambda: (next(runs), next(others))) == 2
    assert undisturbed(scale, result, "second", lambda: (next(runs), next(others))) == 5
    assert [note.rpartition("; ")[2] for note in result.notes] == [
        "thrown away, measured again", "thrown away, measured again", "thrown away, measured again",
        "kept, the last of 3 tries"]  # fmt: skip
