"""HTTP/1.1 to one server, over connections that are kept: written in one go, read by a parser in C.

What an ending means for a send is decided in ``http.py``. No redirects, no repeats, no decompression.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import socket
import ssl
import time
from collections.abc import Callable
from typing import NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from channels_ingest.outbound.deadlines import Handle, Watch

IDLE_SECONDS = 5.0  # a connection that rested longer may be dead at the other end: not used again
POOL_CONNECTIONS = 64  # kept for one server
HEAD_CAP = 64 * 1024  # bytes, with the heads of interim answers
ANSWER_CAP = 1024 * 1024  # bytes of a body
READ_CAP = HEAD_CAP + 2 * ANSWER_CAP  # bytes of everything: a body comes in chunks, each with words of its own
READ_BYTES = 64 * 1024
LOOK = socket.MSG_PEEK | socket.MSG_DONTWAIT


class NotConnected(Exception):
    """The connection never stood: nothing was written."""


class ProtocolError(Exception):
    """No answer came back, or something that is none."""


class Answer(NamedTuple):
    """``complete``: the body arrived whole and under the cap. Header names in lower case; of equal ones the last."""

    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool


class Pool:
    """The kept connections of this process to one server. When the pool is forgotten, each is closed as it gets free.

    ``find_address(host, port)`` says which host or address to connect to; what it raises of its own passes through.
    """

    def __init__(self, secure: bool, host: str, port: int, find_address: Callable[[str, int], str]) -> None:
        self._secure, self._host, self._port = secure, host, port
        self._find_address = find_address
        self._resting: collections.deque[_Connection] = collections.deque(maxlen=POOL_CONNECTIONS)  # the newest last

    def ask(self, request: bytes, watch: Watch, connect_seconds: float) -> Answer:
        """Write ``request`` once and read its answer, until ``watch`` cuts.

        Connecting, and then the TLS handshake, may each be silent for ``connect_seconds``. Raises ``NotConnected``
        where nothing was written; ``ProtocolError``, or ``TimeoutError`` from the watch, where that is not known.
        """
        connection = self._rested() or self._connect(watch, connect_seconds)
        again = False
        try:
            answer, again = connection.ask(request, watch)
        finally:
            if not again:
                connection.close()
        if again:
            self._resting.append(connection)  # another thread's from here on; the oldest falls out of a full one
        return answer

    def _rested(self) -> _Connection | None:
        """The newest that still stands; the others on the way there are closed."""
        while self._resting:
            try:
                connection = self._resting.pop()
            except IndexError:  # another thread took it
                return None
            if connection.stands():
                return connection
            connection.close()
        return None

    def _connect(self, watch: Watch, seconds: float) -> _Connection:
        try:
            address = self._find_address(self._host, self._port)
            connection = _Connection(socket.create_connection((address, self._port), seconds))
            try:
                connection.prepare(self._host if self._secure else "", watch)
            except BaseException:
                connection.close()
                raise
        except (OSError, ValueError) as error:  # a name that cannot be one is a ValueError
            raise NotConnected from error
        return connection


@functools.cache
def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class _Connection:
    """One call at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._handle: Handle | None = Handle(sock)  # by which the watch of a call cuts it
        self._rests_since = 0.0  # on the monotonic clock

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        self._handle = None  # a descriptor too: while one is left, the other side sees no end
        self._socket.close()

    def prepare(self, tls_name: str, watch: Watch) -> None:
        """From a new socket to one that can be written to."""
        self._hold(watch)  # also a handshake is cut
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls_name:
            name = tls_name.partition("%")[0].rstrip(".")  # a certificate knows no zones
            self._socket = _tls().wrap_socket(self._socket, server_hostname=name)
        self._socket.settimeout(None)  # from here on the watch cuts, without a system call for each read

    def _hold(self, watch: Watch) -> None:
        if self._handle is not None:
            watch.hold(self._handle)

    def stands(self) -> bool:
        """Rested briefly, and there is nothing to read, below TLS: no end, and no byte that nobody asked for."""
        if time.monotonic() - self._rests_since > IDLE_SECONDS:
            return False
        try:
            socket.socket.recv(self._socket, 1, LOOK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def ask(self, request: bytes, watch: Watch) -> tuple[Answer, bool]:
        """The answer, and whether another call may follow. Raises ``ProtocolError``, ``TimeoutError``."""
        self._hold(watch)
        reader = _Reader()
        clean = at_end = False
        try:
            with contextlib.suppress(BrokenPipeError):  # whoever refuses before it read everything may have answered
                self._socket.sendall(request)
            at_end = self._read(reader)
            clean = True
        except (OSError, HttpParserError, HttpParserUpgrade, ProtocolError):
            pass  # what was read so far decides
        finally:
            del reader.parser  # they hold each other
        in_time = watch.end()  # before the connection can serve another call
        if reader.status < 200:
            raise ProtocolError if in_time else TimeoutError
        whole = reader.whole or (at_end and reader.until_the_end)
        complete = whole and in_time and len(reader.body) <= ANSWER_CAP
        self._rests_since = time.monotonic()
        answer = Answer(reader.status, reader.headers, bytes(reader.body[:ANSWER_CAP]), complete)
        return answer, complete and clean and reader.keep_alive

    def _read(self, reader: _Reader) -> bool:
        """Read one answer, or as much of it as comes. True: up to the end of the stream."""
        room, most = HEAD_CAP, READ_CAP
        while not reader.whole and len(reader.body) <= ANSWER_CAP and most > 0:
            data = self._socket.recv(READ_BYTES if reader.head else room)
            if not data:
                return True
            reader.parser.feed_data(data)
            room, most = room - len(data), most - len(data)
            if room <= 0 and not reader.head:
                raise ProtocolError("a head over the cap")
        return False


class _Reader:
    """What the parser finds. Interim answers (1xx) are passed over; bytes after the answer raise."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.head = self.whole = False  # read to its end
        self.keep_alive = False
        self.parser = HttpResponseParser(self)
        self.parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True)  # as written by hand in many a bot

    @property
    def until_the_end(self) -> bool:
        """The body goes on until the stream ends: nothing says how long it is."""
        encodings = self.headers.get("transfer-encoding", "")
        chunked = encodings.rpartition(",")[2].strip().lower() == "chunked"
        return self.head and not chunked and "content-length" not in self.headers

    def on_message_begin(self) -> None:
        if self.whole:
            raise ProtocolError("more than an answer")

    def on_status(self, _: bytes) -> None:
        self.status = self.parser.get_status_code()  # stands from here on, whatever comes of the rest

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head:  # else a trailer
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1").strip()

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()
        self.head = self.status >= 200
        if self.head:
            return
        if self.status < 100 or self.status == 101:  # nobody asked for another protocol
            raise ProtocolError("no status of an answer")
        self.headers.clear()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.whole = self.head
        self.keep_alive = self.parser.should_keep_alive()
