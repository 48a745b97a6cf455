"""The world around a chatbot backend, in one thread on one epoll: people who write, the platform that takes replies.

Raw sockets, kept-alive connections, prepared bytes: a message costs 30 to 40 us of CPU for both sides, a fraction
of an HTTP library's, so that what is measured is the server. It checks while it measures: each text is
``user:number``, and every user's replies must come as 1, 2, 3, ..., once.

A latency counts from when a request was due, not from when it could be sent: a server that stalls cannot hide it.
Requests at a rate leave at even intervals. On a busy machine that needs priority over what is measured (``ahead``);
``Stream.late`` says how well it worked.
"""

from __future__ import annotations

import collections
import contextlib
import heapq
import itertools
import json
import os
import select
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Request = tuple[str, bytes]  # its text ('' when no reply is expected) and its bytes
CONNECTED_SECONDS = 10.0
MOST_CONNECTIONS = 1_000  # of a stream at a rate, which opens one where all wait for answers
RETRY_SECONDS = 0.05
ASK_SECONDS = 0.05
NOT_MODIFIED = 304  # has no body, even with a Content-Length
IS_TERMINAL = sys.stdout.isatty()


class StreamFailed(RuntimeError):
    """The measured system does not work."""


class Handler(Protocol):
    def ready(self) -> None: ...


@dataclass
class Stream:
    """Requests to one port: ``rate`` per second (0: as fast as answers come), at most ``window`` without a reply."""

    name: str
    port: int
    requests: Iterator[Request]
    connections: int = 64  # at first
    rate: float = 0.0
    seconds: float = 0.0  # 0: until the requests end
    window: int = 0
    answers: list[float] = field(default_factory=list)  # seconds from due to the answer
    replies: list[float] = field(default_factory=list)  # seconds from due to the platform
    late: list[float] = field(default_factory=list)  # seconds from due to leaving: the load generator's own error
    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    again: bool = True  # refused requests are sent again, as platforms do
    sent: int = 0
    awaited: int = 0  # how many of the sent requests will get a reply
    replied: int = 0
    skip: int = 0  # answers of the warm-up
    skip_replies: int = 0
    skip_late: int = 0

    def begin_measuring(self) -> None:
        """Discard the figures so far: they were the warm-up."""
        self.skip, self.skip_replies, self.skip_late = len(self.answers), len(self.replies), len(self.late)

    @property
    def measured(self) -> list[float]:
        return self.answers[self.skip :]

    @property
    def measured_replies(self) -> list[float]:
        return self.replies[self.skip_replies :]

    @property
    def measured_late(self) -> list[float]:
        return self.late[self.skip_late :]


def quantile(values: Iterable[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


class Client:
    """One kept-alive connection with at most one request in flight."""

    __slots__ = ("buffer", "due", "request", "sender", "socket")

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        self.socket = connect(sender.stream.port)
        self.buffer = b""
        self.due = 0.0
        self.request: Request = ("", b"")

    def send(self, request: Request, due: float) -> None:
        self.request, self.due = request, due
        self.sender.stream.late.append(time.monotonic() - due)
        self.socket.sendall(request[1])

    def ready(self) -> None:
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            self.sender.lost(self)
            return
        if self.buffer:
            data = self.buffer + data
        end = data.find(b"\r\n\r\n")
        if not data.startswith(b"HTTP/1"[: len(data)]):
            raise StreamFailed(f"{self.sender.stream.name}: no answer of HTTP: {data[:200]!r}")
        status = int(data[9:12]) if end >= 0 else 0
        if end < 0 or (status != NOT_MODIFIED and not has_body(data, end)):
            self.buffer = data
            return
        self.buffer = b""
        self.sender.answered(self, status)


def connect(port: int) -> socket.socket:
    end = time.monotonic() + CONNECTED_SECONDS
    while True:
        try:
            made = socket.create_connection(("127.0.0.1", port))
            break
        except ConnectionError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setblocking(False)
    return made


def has_body(data: bytes, end: int) -> bool:
    """Return True if the whole answer is there. Webhooks are answered with a length; pages may come in chunks."""
    if data.find(b"chunked", 0, end) >= 0:
        return data.endswith(b"0\r\n\r\n")
    return len(data) >= end + 4 + content_length(data, end)


def content_length(data: bytes, end: int) -> int:
    start = data.find(b"ontent-length:", 0, end)
    if start < 0:
        start = data.find(b"ontent-Length:", 0, end)
    return int(data[start + 14 : data.find(b"\r", start)]) if start >= 0 else 0


class Sender:
    """One stream while it runs."""

    def __init__(self, world: World, stream: Stream) -> None:
        self.world, self.stream = world, stream
        self.flying = 0
        self.over = False
        self._again: list[tuple[float, Request, float]] = []  # refused: when to repeat, what, when it was due
        self._busy: set[str] = set()  # people whose last message is not accepted yet: their next one waits
        self._held: collections.defaultdict[str, collections.deque[tuple[Request, float]]]
        self._held = collections.defaultdict(collections.deque)
        self._holding = 0
        self._clients: set[Client] = set()
        self._free: list[Client] = []
        for _ in range(stream.connections):
            self._connect()
        self.began = time.monotonic()  # after connecting: or the first requests would leave together

    def next_at(self) -> float:
        """When the next request is due; infinity while only an answer can change that."""
        if not self._can_send() or (self.over and not self._again):
            return float("inf")
        again = self._again[0][0] if self._again else float("inf")
        if self.over or self._window_is_full() or self._holding > self.stream.connections:
            return again
        stream = self.stream
        return min(again, self.began + stream.sent / stream.rate if stream.rate else 0.0)

    def pump(self, now: float) -> None:
        """Send the requests that are due."""
        stream = self.stream
        if stream.seconds and now - self.began >= stream.seconds:
            self.over = True
        while self._again and self._can_send() and self._again[0][0] <= now:
            _, request, due = heapq.heappop(self._again)
            self._send(request, due)
        while self._can_send() and not self.over and not self._window_is_full() and self._holding <= stream.connections:
            due = self.began + stream.sent / stream.rate if stream.rate else now
            if due > now:
                return
            try:
                request = next(stream.requests)
            except StopIteration:
                self.over = True
                return
            stream.sent += 1
            if request[0]:
                stream.awaited += 1
                self.world.expected[request[0]] = (stream, due)
                if not self._takes_turn(request, due):
                    continue
            self._send(request, due)

    def answered(self, client: Client, status: int) -> None:
        now = time.monotonic()
        stream = self.stream
        stream.statuses[status] += 1
        self.flying -= 1
        self._free.append(client)
        if status < 400:
            stream.answers.append(now - client.due)
            self._next_of(client.request)
        elif stream.again:
            heapq.heappush(self._again, (now + RETRY_SECONDS, client.request, client.due))
        if not stream.rate:
            self.pump(now)

    def lost(self, client: Client) -> None:
        """The server closed the connection: open it again, and send a request in flight again."""
        self.world.forget(client.socket)
        self._clients.discard(client)
        if client in self._free:
            self._free.remove(client)
        else:
            self.stream.statuses[0] += 1
            self.flying -= 1
            heapq.heappush(self._again, (time.monotonic() + RETRY_SECONDS, client.request, client.due))
        self._connect()

    def done(self) -> bool:
        return self.over and not (self.flying or self._again or self._holding)

    def close(self) -> None:
        for client in self._clients:
            self.world.forget(client.socket)

    def _connect(self) -> None:
        client = Client(self)
        self._clients.add(client)
        self.world.watch(client.socket, client)
        self._free.append(client)

    def _can_send(self) -> bool:
        return bool(self._free) or (self.stream.rate > 0 and len(self._clients) < MOST_CONNECTIONS)

    def _send(self, request: Request, due: float) -> None:
        if not self._free:
            self._connect()
        self.flying += 1
        self._free.pop().send(request, due)

    def _takes_turn(self, request: Request, due: float) -> bool:
        """Return True if the request may be sent now; otherwise it waits for the person's previous one."""
        user = request[0].partition(":")[0]
        if user in self._busy:
            self._held[user].append((request, due))
            self._holding += 1
            return False
        self._busy.add(user)
        return True

    def _next_of(self, request: Request) -> None:
        """A message was accepted: the person's next one may be sent."""
        user = request[0].partition(":")[0]
        if user in self._held:
            waiting = self._held[user]
            self._holding -= 1
            self._send(*waiting.popleft())
            if not waiting:
                del self._held[user]
        else:
            self._busy.discard(user)

    def _window_is_full(self) -> bool:
        return bool(self.stream.window) and self.stream.awaited - self.stream.replied >= self.stream.window


class Caller:
    """A connection on which replies arrive."""

    __slots__ = ("buffer", "socket", "world")

    def __init__(self, world: World, accepted: socket.socket) -> None:
        self.world, self.socket, self.buffer = world, accepted, b""
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        accepted.setblocking(False)

    def ready(self) -> None:
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            self.world.forget(self.socket)
            return
        self.buffer = data = self.buffer + data if self.buffer else data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            whole = end + 4 + content_length(data, end)
            if len(data) < whole:
                break
            self._take(data[: data.find(b" ", 5)], data[end + 4 : whole])
            data = data[whole:]
        self.buffer = data

    def _take(self, line: bytes, body: bytes) -> None:
        seconds = self.world.taken(line, body)
        if seconds:
            self.world.after(seconds, self.answer)
        else:
            self.answer()

    def answer(self) -> None:
        self.world.given += 1
        body = b'{"ok":true,"result":{"message_id":%d}}' % self.world.given
        try:
            self.socket.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )
        except OSError:
            self.world.forget(self.socket)


class Listener:
    """The platform's server, which takes replies."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.socket.setblocking(False)
        self.port: int = self.socket.getsockname()[1]

    def ready(self) -> None:
        while True:
            try:
                accepted, _ = self.socket.accept()
            except BlockingIOError:
                return
            caller = Caller(self.world, accepted)
            self.world.watch(accepted, caller)


@contextlib.contextmanager
def ahead() -> Iterator[None]:
    """Let this process run as soon as it wants to, as if it had a machine of its own; without the right to, as before.

    Otherwise it waits for a core behind what it measures: at 800 requests a second on two busy cores, 1 % left
    more than 30 ms late, and then several together. It uses a small share of a core (``share_of_a_core``).
    """
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    try:
        yield
    finally:
        if os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO:
            os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))


class World:
    """People and platform. They act only during ``run``; between runs nothing answers."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._tie = itertools.count()
        listener = Listener(self)
        self.watch(listener.socket, listener)
        self.api = f"http://127.0.0.1:{listener.port}"
        self.expected: dict[str, tuple[Stream, float]] = {}
        self.hang: Callable[[bytes], float] = lambda line: 0.0  # seconds, from the request line
        self.given = 0  # the last message id that the platform gave
        self.replies = self.repeats = self.disorder = self.strangers = 0
        self._next: dict[str, int] = {}

    # ------------------------------------------------------------ what happens

    def run(
        self,
        *streams: Stream,
        background: Sequence[Stream] = (),
        until: Callable[[], bool] = lambda: True,
        seconds: float = 300.0,
        say: str = "",
        even: bool = False,
    ) -> float:
        """Run until every stream is done and ``until`` is true (asked every 50 ms); return the seconds that it took.

        Streams in the ``background`` are not waited for. ``even``: go ahead of other processes, also without a rate.
        """
        senders = [Sender(self, stream) for stream in (*streams, *background)]
        try:
            with ahead() if even or any(stream.rate for stream in streams) else contextlib.nullcontext():
                return self._run(senders, senders[: len(streams)], until, seconds, say)
        finally:
            for sender in senders:
                sender.close()
            if say and IS_TERMINAL:
                print("\r\x1b[K", end="", flush=True)

    def _run(
        self, senders: list[Sender], awaited: list[Sender], until: Callable[[], bool], seconds: float, say: str
    ) -> float:
        asked = told = began = time.monotonic()
        while True:
            now = time.monotonic()
            for sender in senders:
                sender.pump(now)
            if now - asked >= ASK_SECONDS and all(sender.done() for sender in awaited):
                asked = now
                if until():
                    return now - began
            if now - began > seconds:
                raise StreamFailed(f"{say or 'a run'} took longer than {seconds:g} s")
            if say and IS_TERMINAL and now - told >= 1:
                told = now
                self._tell(say, now - began, senders)
            self._turn(min([now + ASK_SECONDS, *(sender.next_at() for sender in senders)]))

    def _turn(self, until: float) -> None:
        """What is ready by ``until``. epoll takes whole milliseconds only; select takes fractions."""
        if self._timers:
            until = min(until, self._timers[0][0])
        wait = until - time.monotonic()
        if wait > 0:
            select.select([self._epoll], [], [], wait)
        for descriptor, _ in self._epoll.poll(0, 1024):
            handler = self._handlers.get(descriptor)
            if handler is not None:
                handler.ready()
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()

    def _tell(self, say: str, seconds: float, senders: list[Sender]) -> None:
        answered = sum(len(sender.stream.answers) for sender in senders)
        print(f"\r\x1b[K  {say}: {seconds:.0f} s, {answered:,} answered, {self.replies:,} replies", end="", flush=True)

    # ------------------------------------------------------------ replies

    def taken(self, line: bytes, body: bytes) -> float:
        """Note a reply that arrived; return the seconds for which to hold back its answer."""
        now = time.monotonic()
        text = json.loads(body)["text"]
        user, _, rest = text.partition(":")
        number = int(rest.partition(" ")[0])
        self.replies += 1
        stream, due = self.expected.pop(text, (None, 0.0))
        if stream is not None:
            stream.replied += 1
            stream.replies.append(now - due)
        self.note(user, number)
        return self.hang(line)

    def note(self, user: str, number: int) -> None:
        """Count the reply to this person's message: is it the next one, a repeated one, or too early?"""
        expected = self._next.get(user, 1)
        if number == expected:
            self._next[user] = expected + 1
        elif number < expected:
            self.repeats += 1
        else:
            self.disorder += 1
            self._next[user] = number + 1

    def faults(self, *, unanswered: bool = True) -> list[str]:
        """Broken promises, in words; empty when every reply arrived once and in order."""
        found = []
        if self.repeats:
            found.append(f"{self.repeats} replies came again")
        if self.disorder:
            found.append(f"{self.disorder} replies came out of order")
        if unanswered and self.expected:
            found.append(f"{len(self.expected)} messages were not answered")
        return found

    # ------------------------------------------------------------ plumbing

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._tie), act))

    def watch(self, watched: socket.socket, handler: Handler) -> None:
        self._handlers[watched.fileno()] = handler
        self._epoll.register(watched, select.EPOLLIN)

    def forget(self, watched: socket.socket) -> None:
        if watched.fileno() >= 0:
            del self._handlers[watched.fileno()]
            self._epoll.unregister(watched)
            watched.close()


# ---------------------------------------------------------------- messages


def post(path: str, body: bytes, headers: str = "") -> bytes:
    """A prepared request."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{headers}"
    return head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


@dataclass(kw_only=True)
class People:
    """``count`` users of a channel, ids from ``first`` on, who write 1, 2, 3, ... in turn, as Telegram's updates."""

    path: str
    secret: str
    first: int
    count: int
    step: int = 1
    copies: int = 1
    slow: bool = False  # their messages ask for slow turns

    def __iter__(self) -> Iterator[Request]:
        headers = f"X-Telegram-Bot-Api-Secret-Token: {self.secret}\r\n"
        base = time.time_ns() // 1_000_000_000  # ids that no run used before, also in a database that was kept
        for number in itertools.count(1):
            for user in range(self.first, self.first + self.count * self.step, self.step):
                text = f"{user}:{number} slow" if self.slow else f"{user}:{number}"
                request = (text, post(self.path, telegram(user, base + number, text), headers))
                yield request
                for _ in range(1, self.copies):
                    yield ("", request[1])


def telegram(user: int, number: int, text: str) -> bytes:
    """A private text message as the Bot API sends it."""
    person = f'"id":{user},"first_name":"User {user}"'
    return (
        f'{{"update_id":{number},"message":{{"message_id":{number},"date":1790000000,"text":"{text}",'
        f'"from":{{{person},"is_bot":false,"language_code":"en"}},"chat":{{{person},"type":"private"}}}}}}'
    ).encode()
