"""TCP proxies between processes: they pass, refuse, hold, drop, slow down, cut, and swallow one chosen answer.

    link = Link("127.0.0.1", 5432)              # clients connect to link.port
    link.hold()                                  # a black hole: connections are accepted, nothing passes
    link.drop(DOWN)                              # half-open: what the server says is lost
    trigger = link.arm("commit_answer", times=3) # the server commits, the client never hears it
    trigger.hits
    link.heal()
    link.close()

All links of a process live on one event loop in a thread of its own; every method may be called from any thread.
``link.counts`` says what really happened: connections accepted and reset, chunks held, dropped, delayed.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import re
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

UP, DOWN = "up", "down"  # what the client says; what the server says
CHUNK = 256 * 1024

T = TypeVar("T")


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="proxy", daemon=True).start()
    return loop


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run_coroutine_threadsafe(work, _loop()).result(10)


# ---------------------------------------------------------------- what is on the wire

# The committers send BEGIN .. COMMIT as one pipeline: COMMIT is a Parse, later a Bind of the statement it was prepared
# as. The ORM sends it as a simple query. The server's word is the same for all.
COMMIT_QUERY = b"Q\0\0\0\x0bCOMMIT\0"
COMMIT_PARSE = re.compile(rb"P\0\0..([^\0]*)\0COMMIT\0\0\0", re.DOTALL)
COMMIT_DONE = b"C\0\0\0\x0bCOMMIT\0"
APPLICATION = re.compile(rb"\0application_name\0([^\0]*)\0")
COMMAND = re.compile(rb"\*\d+\r\n\$\d+\r\n([A-Za-z]+)\r\n")
SCRIPT = re.compile(rb"EVALSHA\r\n\$40\r\n([0-9a-f]{40})\r\n")
REQUEST = re.compile(rb"(?:GET|POST) (\S+) HTTP/1")


class Wire:
    """What is known of one connection: who the client is, what it asked for last."""

    def __init__(self) -> None:
        self.application = ""
        self.asked = ""  # the last command of Redis, or path of HTTP
        self.script = ""  # the sha of the last script
        self.commits: set[bytes] = set()  # names as which COMMIT was prepared
        self.tail = b""  # of what the server said: its word for COMMIT may lie across two chunks

    def hear(self, data: bytes) -> None:
        """What the client says."""
        if not self.application and (name := APPLICATION.search(data)):
            self.application = name[1].decode().partition("@")[0]  # what it does, without its host
        if b"\0COMMIT\0" in data:
            self.commits.update(match[1] for match in COMMIT_PARSE.finditer(data) if match[1])
        if command := REQUEST.findall(data) or COMMAND.findall(data):
            self.asked = command[-1].decode()
            self.script = (SCRIPT.findall(data) or [b""])[-1].decode()


def commit_request(wire: Wire, data: bytes, only: str) -> bool:
    """The client asks to commit; the server never hears it."""
    binds = (b"\0" + name + b"\0" for name in wire.commits)
    return COMMIT_QUERY in data or bool(COMMIT_PARSE.search(data)) or any(bind in data for bind in binds)


def commit_answer(wire: Wire, data: bytes, only: str) -> bool:
    """The server committed; the client never hears it."""
    return COMMIT_DONE in wire.tail + data


def brpop_answer(wire: Wire, data: bytes, only: str) -> bool:
    """A task that Redis has given away and nobody gets."""
    return wire.asked == "BRPOP" and data.startswith(b"*2\r\n$")


def script_answer(wire: Wire, data: bytes, only: str) -> bool:
    """A script ran (``only``: its sha), its caller does not know."""
    return bool(wire.script) and only in ("", wire.script)


def http_answer(wire: Wire, data: bytes, only: str) -> bool:
    """The request was served, its answer is lost (``only``: a part of the path)."""
    return only in wire.asked and data.startswith(b"HTTP/1")


def no_script(wire: Wire, data: bytes, only: str) -> bool:
    """The server does not know the script: the client asks for one that is nobody's."""
    return bool(SCRIPT.search(data))


Find = Callable[[Wire, bytes, str], bool]
TRIGGERS: dict[str, tuple[str, Find]] = {
    "commit_request": (UP, commit_request),
    "commit_answer": (DOWN, commit_answer),
    "brpop_answer": (DOWN, brpop_answer),
    "script_answer": (DOWN, script_answer),
    "http_answer": (DOWN, http_answer),
    "no_script": (UP, no_script),
}


@dataclass(eq=False, kw_only=True)
class Trigger:
    """Armed on a link: at every ``every``-th place that fits the chunk is swallowed and the connection reset."""

    name: str
    times: int = 0  # 0: until it is disarmed
    every: int = 1
    application: str = ""  # Postgres: only connections with this application_name
    only: str = ""
    seen: int = 0
    hits: int = 0

    def fires(self, direction: str, wire: Wire, data: bytes) -> bool:
        where, find = TRIGGERS[self.name]
        if direction != where or (self.times and self.hits >= self.times):
            return False
        if (self.application and wire.application != self.application) or not find(wire, data, self.only):
            return False
        self.seen += 1
        if self.seen % self.every:
            return False
        self.hits += 1
        return True


# ---------------------------------------------------------------- links


@dataclass(eq=False)
class Flow:
    """How one direction is treated."""

    free: asyncio.Event
    drop: bool = False
    delay: float = 0.0
    bytes_per_second: float = 0.0
    cut_after: int = -1  # bytes that still pass, then every connection is reset; -1: no cut


def at(url: str, port: int, host: str = "127.0.0.1") -> str:
    """The same URL at another place."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@{host}:{port}").geturl()


class Link:
    """A port of our own (``port``) that leads to ``target_host:target_port``."""

    @classmethod
    def to(cls, url: str) -> Link:
        parts = urlsplit(url)
        return cls(parts.hostname or "127.0.0.1", parts.port or 0)

    def __init__(self, target_host: str, target_port: int) -> None:
        self.target = (target_host, target_port)
        self.counts: collections.Counter[str] = collections.Counter()
        self.flows: dict[str, Flow] = {}
        self.triggers: list[Trigger] = []
        self._connections: set[Connection] = set()
        self._listener: asyncio.Task[None] | None = None
        # Bound and silent for as long as the link lives: while it refuses, nobody else can take the port.
        self._place = _socket_at(0)
        self.port: int = self._place.getsockname()[1]
        self._do(self._open)

    def _do(self, act: Callable[[], T]) -> T:
        async def work() -> T:
            return act()

        return _run(work())

    def _open(self) -> None:
        self.flows = {UP: Flow(asyncio.Event()), DOWN: Flow(asyncio.Event())}
        for flow in self.flows.values():
            flow.free.set()
        self._listen()

    def _listen(self) -> None:
        if self._listener is None:
            sock = _socket_at(self.port)
            sock.listen(512)
            self._listener = asyncio.create_task(self._accept(sock))

    async def _accept(self, sock: socket.socket) -> None:
        try:
            while True:
                client, _ = await asyncio.get_running_loop().sock_accept(sock)
                self.counts["accepted"] += 1
                connection = Connection(self, client)
                self._connections.add(connection)
                connection.task.add_done_callback(functools.partial(self._gone, connection))
        finally:
            sock.close()

    def _gone(self, connection: Connection, task: asyncio.Task[None]) -> None:
        self._connections.discard(connection)
        if not task.cancelled():
            task.exception()  # broken connections are what this file is for

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._connections)

    # ------------------------------------------------------------ modes

    def refuse(self) -> None:
        """Nobody listens here, and who was connected is reset."""
        self._do(self._refuse)

    def _refuse(self) -> None:
        if self._listener is not None:
            self._listener.cancel()
            self._listener = None
        self._reset()

    def hold(self, *directions: str) -> None:
        """A black hole: accepts, reads nothing. What is on its way passes after ``heal``."""
        self._change(directions, lambda flow: flow.free.clear())

    def drop(self, *directions: str) -> None:
        """Read and forget. Connections that lost something are reset by ``heal``, as they would be in the end."""
        self._change(directions, lambda flow: setattr(flow, "drop", True))

    def delay(self, seconds: float, *directions: str) -> None:
        self._change(directions, lambda flow: setattr(flow, "delay", seconds))

    def throttle(self, bytes_per_second: float, *directions: str) -> None:
        self._change(directions, lambda flow: setattr(flow, "bytes_per_second", bytes_per_second))

    def cut_after(self, size: int, *directions: str) -> None:
        """``size`` more bytes pass, then the connection that carries the next one is reset, once."""
        self._change(directions, lambda flow: setattr(flow, "cut_after", size))

    def _change(self, directions: tuple[str, ...], act: Callable[[Flow], None]) -> None:
        def change() -> None:
            for name in directions or (UP, DOWN):
                act(self.flows[name])

        self._do(change)

    def reset(self) -> int:
        """RST to both sides of every connection; how many."""
        return self._do(self._reset)

    def _reset(self) -> int:
        for connection in list(self._connections):
            connection.task.cancel()
        self.counts["reset"] += len(self._connections)
        return len(self._connections)

    def arm(self, name: str, *, times: int = 0, every: int = 1, application: str = "", only: str = "") -> Trigger:
        trigger = Trigger(name=name, times=times, every=every, application=application, only=only)
        self._do(lambda: self.triggers.append(trigger))
        return trigger

    def heal(self) -> None:
        """Pass everything again; triggers are disarmed."""
        self._do(self._heal)

    def _heal(self) -> None:
        self.triggers.clear()
        for flow in self.flows.values():
            flow.drop, flow.delay, flow.bytes_per_second, flow.cut_after = False, 0.0, 0.0, -1
            flow.free.set()
        for connection in list(self._connections):
            if connection.lost_something:
                connection.task.cancel()
                self.counts["reset"] += 1
        self._listen()

    def close(self) -> None:
        """Reset what is connected and give the port back."""
        self._do(self._refuse)
        self._place.close()


@dataclass(eq=False)
class Connection:
    """One client and its connection to the target, until one side ends it or it is reset."""

    link: Link
    client: socket.socket
    server: socket.socket | None = None
    wire: Wire = field(default_factory=Wire)
    lost_something: bool = False

    def __post_init__(self) -> None:
        self.task = asyncio.create_task(self._serve())

    async def _serve(self) -> None:
        clean = False
        try:
            self.server = await self._reach()
            pumps = [
                asyncio.create_task(self._pump(UP, self.client, self.server)),
                asyncio.create_task(self._pump(DOWN, self.server, self.client)),
            ]
            try:
                await asyncio.gather(*pumps)
                clean = True
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.wait(pumps)
        finally:
            for sock in filter(None, (self.client, self.server)):
                if not clean:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()

    async def _reach(self) -> socket.socket:
        """The target, once nothing holds us up."""
        free = self.link.flows[UP].free
        self.link.counts["held"] += not free.is_set()
        await free.wait()
        server = socket.socket()
        server.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(server, self.link.target)
        except BaseException:
            server.close()
            raise
        for sock in (self.client, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return server

    async def _pump(self, direction: str, source: socket.socket, sink: socket.socket) -> None:
        loop, flow = asyncio.get_running_loop(), self.link.flows[direction]
        while True:
            await flow.free.wait()
            data = await loop.sock_recv(source, CHUNK)
            if not flow.free.is_set():
                self.link.counts["held"] += 1
                await flow.free.wait()
            if not data:
                break
            await self._pass_on(direction, flow, data, sink)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    async def _pass_on(self, direction: str, flow: Flow, data: bytes, sink: socket.socket) -> None:
        data = self._after_triggers(direction, data)
        if flow.delay:
            self.link.counts["delayed"] += 1
            await asyncio.sleep(flow.delay)
        if flow.drop:
            self.link.counts["dropped"] += 1
            self.lost_something = True
            return
        if flow.cut_after >= 0:
            data = await self._cut(flow, data, sink)
        if not flow.bytes_per_second:
            await asyncio.get_running_loop().sock_sendall(sink, data)
            return
        self.link.counts["delayed"] += 1
        await self._trickle(flow, data, sink)

    def _after_triggers(self, direction: str, data: bytes) -> bytes:
        """The chunk to pass on. Raises ``ConnectionResetError`` when it is swallowed."""
        if direction == UP:
            self.wire.hear(data)
        for trigger in self.link.triggers:
            if not trigger.fires(direction, self.wire, data):
                continue
            self.link.counts[trigger.name] += 1
            if trigger.name == "no_script":
                return SCRIPT.sub(lambda match: match[0].replace(match[1], b"0" * 40), data)
            raise ConnectionResetError(trigger.name)
        if direction == DOWN:
            self.wire.tail = data[1 - len(COMMIT_DONE) :]
        return data

    async def _cut(self, flow: Flow, data: bytes, sink: socket.socket) -> bytes:
        if len(data) <= flow.cut_after:
            flow.cut_after -= len(data)
            return data
        await asyncio.get_running_loop().sock_sendall(sink, data[: flow.cut_after])
        flow.cut_after = -1
        self.link.counts["cut"] += 1
        raise ConnectionResetError("cut")

    async def _trickle(self, flow: Flow, data: bytes, sink: socket.socket) -> None:
        """A tenth of a second's worth at a time; what is left when it is healed passes at once."""
        while data:
            rate = flow.bytes_per_second
            size = max(1, int(rate / 10)) if rate else len(data)
            await asyncio.get_running_loop().sock_sendall(sink, data[:size])
            data = data[size:]
            if rate:
                await asyncio.sleep(size / rate)


def _socket_at(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    sock.setblocking(False)
    return sock
