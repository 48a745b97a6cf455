"""Adds to granian: a time limit for request bodies, and processes that start and end together.

Granian has no time limit for bodies, so a client that stops sending would hold a WSGI thread for
ever. A thread of ours notices reads that take too long and shuts their connections down; the read
then ends early. Granian does not say which connection a request uses, but the kernel does: nothing
was sent back on it since the body stalled. Idle connections match too; granian closes those at the
same age anyway.

The limit works on Linux only. On macOS (development) no connection is cut.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from conversations.workers.supervisor import die_with_parent

# Seconds from a request's begin until a read of its body is cut off. Larger: clients that stopped
# sending hold threads longer. Smaller: slow clients that still send are cut off.
BODY_SECONDS = 20.0
# Seconds between two looks for reads that take too long. Larger: they are cut later.
LOOK_SECONDS = 1.0
# struct tcp_info, linux/tcp.h: 8 bytes, 9 times u32, then tcpi_last_data_sent in milliseconds.
TCP_INFO_BYTES = 48
LAST_DATA_SENT_OFFSET = 44

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class TimedBody:
    """The server's body stream.

    While a read runs, ``reads`` holds its thread and when the request began.
    """

    def __init__(self, stream: Any, reads: dict[int, float], begun: float) -> None:
        self._stream = stream
        self._reads = reads
        self._begun = begun

    def read(self, size: int = -1) -> bytes:
        thread = threading.get_ident()
        self._reads[thread] = self._begun
        try:
            return bytes(self._stream.read(size))
        finally:
            del self._reads[thread]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def guarded(application: Application) -> Application:
    """Wrap a WSGI application served by granian."""
    die_with_main_process()
    return cut_stalled_bodies(application) if sys.platform == "linux" else application


def die_with_main_process() -> None:
    """End this worker if granian's main process is killed.

    Otherwise it would keep the port, and nobody would stop it.
    """
    parent = multiprocessing.parent_process()
    bind = die_with_parent(parent.pid) if parent and parent.pid else None
    if bind:
        bind()


@contextlib.contextmanager
def refusing_for_good() -> Iterator[None]:
    """End granian's main process if this worker refuses to start.

    Otherwise it would start the worker again for ever.
    """
    try:
        yield
    except SystemExit as refused:
        sys.stderr.write(f"the web server cannot start, see docs/deploy.md:\n{refused}\n")
        sys.stderr.flush()
        parent = multiprocessing.parent_process()
        if parent and parent.pid:
            # After SIGTERM granian would end with exit code 0, and the platform would see no
            # failure.
            os.kill(parent.pid, signal.SIGKILL)
        raise SystemExit(1) from None


def cut_stalled_bodies(application: Application) -> Application:
    """Wrap the application so that reads of bodies have a time limit.

    The thread that watches them starts with the first request, which names the port.
    """
    reads: dict[int, float] = {}
    watching = threading.Event()

    def wrapped(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not watching.is_set():
            watching.set()
            start_watch(reads, int(environ["SERVER_PORT"]))
        environ["wsgi.input"] = TimedBody(environ["wsgi.input"], reads, time.monotonic())
        return application(environ, start_response)

    return wrapped


def start_watch(reads: dict[int, float], port: int) -> None:
    threading.Thread(target=watch, args=(reads, port), name="stalled-bodies", daemon=True).start()


def watch(reads: dict[int, float], port: int) -> None:
    """Look for reads that take too long, for as long as the process lives."""
    while True:
        time.sleep(LOOK_SECONDS)
        oldest = min(list(reads.values()), default=None)
        if oldest is not None and time.monotonic() - oldest > BODY_SECONDS:
            cut_silent_connections(port)


def cut_silent_connections(port: int) -> None:
    """Shut down the connections on which nothing was sent back since a body stalled.

    The waiting read then ends early, and its thread is free.
    """
    for connection in connections_to(port):
        with connection, contextlib.suppress(OSError):
            if seconds_since_we_sent(connection) > BODY_SECONDS:
                connection.shutdown(socket.SHUT_RDWR)


def connections_to(port: int) -> Iterator[socket.socket]:
    """Yield copies of the descriptors of connections to our port.

    Copies, because a number may be closed and used again for another connection meanwhile.
    """
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            connection = socket.socket(fileno=os.dup(int(name)))
            if is_connection_to(connection, port):
                yield connection
            else:
                connection.close()


def is_connection_to(connection: socket.socket, port: int) -> bool:
    """Return True if the socket is a client's connection to ``port``, and not the listener."""
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    try:
        connection.getpeername()
    except OSError:
        return False
    return bool(connection.getsockname()[1] == port)


def seconds_since_we_sent(connection: socket.socket) -> float:
    """Return how long ago we sent anything on this connection, or when it opened if we never did."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
    milliseconds: int = struct.unpack_from("=I", info, LAST_DATA_SENT_OFFSET)[0]
    return milliseconds / 1000
