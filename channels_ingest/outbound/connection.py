"""An HTTP/1.1 client for one server over kept connections; the parser, httptools, is written in C.

Why not a library: urllib3 takes 600 to 735 us of CPU a call, this takes 125 us. End to end, one
machine sends 695 messages/s with it and 560 with urllib3 (decision 15). Libraries also have no
total deadline, see ``deadlines.py``. The price is a client of our own: it has no proxy, no HTTP/2
and no reload of CA certificates. ``tests/outbound/test_outbound_against_urllib3.py`` runs the same
broken servers against both clients, so that a library can replace this file once it is fast enough.

What the end of a call means for a send is decided in ``http.py``. No redirects, no retries, no
decompression.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from typing import BinaryIO, NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from channels_ingest.outbound.deadlines import Handle, Watch

# Longest idle time, in seconds, after which a connection is used again. Larger: more calls end as
# unknown, because the server had closed the connection. Smaller: more calls connect.
IDLE_SECONDS = 5.0
# Idle connections that a process keeps to each remote server; beyond that the one that has been
# idle for longest is closed. Larger: more open sockets. Smaller: more calls connect.
POOL_CONNECTIONS = 64
# Most bytes of the heads, interim answers included; over it the call has no answer. Larger: a
# faulty server costs more memory. Smaller: platforms with many headers cannot be called.
HEAD_CAP = 64 * 1024
# Most bytes of a body; the rest is not read and the answer is not complete. Larger: a faulty server
# costs more memory. Smaller: long answers of http bots fail their turns.
ANSWER_CAP = 1024 * 1024
# Most bytes of an answer in all. Twice the body's, because the heads of chunks count too.
READ_CAP = HEAD_CAP + 2 * ANSWER_CAP
# Most bytes of one read. Larger: more memory for each call. Smaller: more reads.
READ_BYTES = 64 * 1024
PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT  # read without taking and without waiting


FindAddresses = Callable[[str, int, float], list[str]]


class NotConnected(Exception):
    """No connection was made: nothing was written."""


class ProtocolError(Exception):
    """No answer came, or bytes that are not an answer."""


class Answered(NamedTuple):
    """An answer. ``complete``: the whole body arrived and is not over the cap.

    Header names are in lower case; of headers with the same name the last one counts.
    """

    status: int
    headers: Mapping[str, str] = {}
    body: bytes = b""
    complete: bool = True

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class File(NamedTuple):
    """Where the body of a success goes in place of memory: ``most`` bytes of it, and what was read beyond."""

    file: BinaryIO
    most: int


class Pool:
    """The idle connections of this process to one server.

    ``find_addresses(host, port, seconds)`` returns the addresses to try, within ``seconds``; its own
    exceptions pass through. Connections close themselves when nothing refers to them, so a dropped pool needs no
    closing.
    """

    def __init__(self, secure: bool, host: str, port: int, find_addresses: FindAddresses) -> None:
        self._secure, self._host, self._port = secure, host, port
        self._find_addresses = find_addresses
        # The newest last; a full deque drops the oldest, which closes itself.
        self._idle: collections.deque[_Connection] = collections.deque(maxlen=POOL_CONNECTIONS)

    def ask(
        self,
        request: bytes,
        watch: Watch,
        connect_seconds: float,
        into: File | None = None,
        rest: Iterable[bytes] = (),
    ) -> Answered:
        """Write ``request`` and then ``rest`` once, and read the answer, until ``watch`` cuts the connection.

        ``into`` takes the body of a success. What ``rest`` raises passes through.
        The look-up of the name, to connect, and the TLS handshake may take ``connect_seconds``
        each, and no longer than ``watch``. Raises ``NotConnected``
        if nothing was written; ``ProtocolError``, or ``TimeoutError`` after a cut, if the request
        may have been written.
        """
        connection = self._reusable() or self._connect(watch, connect_seconds)
        keep = False
        try:
            answered, keep = connection.ask(request, watch, into, rest)
        finally:
            if not keep:
                connection.close()
        if keep:
            self._idle.append(connection)  # from here on another thread may use it
        return answered

    def _reusable(self) -> _Connection | None:
        """Take the newest idle connection that is alive; close the dead ones before it."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread took the last one
                return None
            if connection.is_alive():
                return connection
            connection.close()
        return None

    def _connect(self, watch: Watch, seconds: float) -> _Connection:
        """Connect, with the TLS handshake. Raises ``NotConnected``, or the guard's refusal."""
        try:
            addresses = self._find_addresses(self._host, self._port, watch.seconds_left(seconds))
            connection = _Connection(self._open(addresses, watch, seconds))
            try:
                connection.prepare(self._host if self._secure else "", watch)
            except BaseException:
                connection.close()
                raise
        except (OSError, ValueError) as error:  # ValueError: a name that no host can have
            raise NotConnected from error
        return connection

    def _open(self, addresses: list[str], watch: Watch, seconds: float) -> socket.socket:
        """Connect to the first address that answers. Raises ``OSError``."""
        for address in addresses[:-1]:
            with contextlib.suppress(OSError):
                return socket.create_connection((address, self._port), watch.seconds_left(seconds))
        return socket.create_connection((addresses[-1], self._port), watch.seconds_left(seconds))


@functools.cache
def _tls() -> ssl.SSLContext:
    """Return the TLS settings: one for the process, since it holds all CA certificates."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class _Connection:
    """One connection. It belongs to one call at a time, and between calls to its pool."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._handle: Handle | None = Handle(sock)  # the watch of a call cuts the connection by it
        self._idle_since = 0.0  # monotonic clock

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        self._handle = None  # it holds a descriptor: the server sees the end once both are closed
        self._socket.close()

    def prepare(self, tls_name: str, watch: Watch) -> None:
        """Set the socket up and, if ``tls_name`` is given, make the TLS handshake."""
        self._hold(watch)  # before the handshake, so that it can be cut as well
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls_name:
            name = tls_name.partition("%")[0].rstrip(".")  # certificates do not name IPv6 zones
            self._socket = _tls().wrap_socket(self._socket, server_hostname=name)
        self._socket.settimeout(None)  # the watch limits the time; a timeout costs a poll() a read

    def _hold(self, watch: Watch) -> None:
        """Let ``watch`` cut this connection at the deadline of its call."""
        if self._handle is not None:
            watch.hold(self._handle)

    def is_alive(self) -> bool:
        """Return True if it was idle only briefly and, below TLS, has nothing to read.

        Something to read is the server's close, or bytes that would be taken for the next answer.
        """
        if time.monotonic() - self._idle_since > IDLE_SECONDS:
            return False
        try:
            socket.socket.recv(self._socket, 1, PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def ask(
        self, request: bytes, watch: Watch, into: File | None = None, rest: Iterable[bytes] = ()
    ) -> tuple[Answered, bool]:
        """Return the answer, and whether the connection can serve another call.

        A status that was read is an answer, even if reading failed later. Raises ``ProtocolError``
        or ``TimeoutError`` if there is none.
        """
        self._hold(watch)
        reader = _Reader(into)
        no_error = stream_ended = False
        try:
            with contextlib.suppress(BrokenPipeError):  # a server may refuse before it read it all
                self._socket.sendall(request)
                for piece in rest:
                    self._socket.sendall(piece)
            stream_ended = self._read(reader, watch)
            no_error = True
        except (OSError, HttpParserError, HttpParserUpgrade, ProtocolError):
            pass  # what was read until then decides
        finally:
            del reader.parser  # breaks the reference cycle between reader and parser
        in_time = watch.end()  # must come before the connection can serve another call
        if reader.status < 200:
            raise ProtocolError if in_time else TimeoutError
        whole = reader.whole or (stream_ended and reader.ends_with_stream)
        complete = whole and in_time and not reader.is_over
        self._idle_since = time.monotonic()
        answered = Answered(reader.status, reader.headers, bytes(reader.body[:ANSWER_CAP]), complete)
        return answered, complete and no_error and reader.keep_alive

    def _read(self, reader: _Reader, watch: Watch) -> bool:
        """Read up to the end of the answer or a cap. Return True if the stream ended."""
        head_left, left = HEAD_CAP, READ_CAP + 2 * max(0, reader.most - ANSWER_CAP)
        while not reader.whole and not reader.is_over and left > 0:
            data = self._socket.recv(READ_BYTES if reader.head else head_left)
            if not data:
                return True
            watch.received(len(data))
            reader.parser.feed_data(data)
            head_left, left = head_left - len(data), left - len(data)
            if head_left <= 0 and not reader.head:
                raise ProtocolError("a head over the cap")
        return False


class _Reader:
    """Collects what the parser finds. It skips interim answers; bytes after the answer raise."""

    def __init__(self, into: File | None = None) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.received = 0  # bytes of the body
        self.most = into.most if into else ANSWER_CAP
        self._into = into
        self.head = self.whole = False  # whether the head, or the whole answer, has been read
        self.keep_alive = False
        self.parser = HttpResponseParser(self)
        # A line may end in LF alone: some bots write their answers by hand.
        self.parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True)

    @property
    def is_over(self) -> bool:
        """Return True if the body is over its cap. That of an error stays in memory."""
        return self.received > self.most or len(self.body) > ANSWER_CAP

    @property
    def ends_with_stream(self) -> bool:
        """Return True if no header says how long the body is: it ends with the stream."""
        encodings = self.headers.get("transfer-encoding", "")
        chunked = encodings.rpartition(",")[2].strip().lower() == "chunked"
        return self.head and not chunked and "content-length" not in self.headers

    def on_message_begin(self) -> None:
        """Refuse a second answer: we sent one request."""
        if self.whole:
            raise ProtocolError("a second answer")

    def on_status(self, _: bytes) -> None:
        self.status = self.parser.get_status_code()  # it stands even if the rest cannot be read

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head:  # else it is a trailer
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1").strip()

    def on_headers_complete(self) -> None:
        """Take the head of the answer; drop the headers of an interim answer (1xx)."""
        self.status = self.parser.get_status_code()
        self.head = self.status >= 200
        if self.head:
            return
        if self.status < 100 or self.status == 101:  # we never ask for another protocol
            raise ProtocolError("not the status of an answer")
        self.headers.clear()

    def on_body(self, body: bytes) -> None:
        self.received += len(body)
        if self._into is not None and 200 <= self.status < 300:
            self._into.file.write(body)
        else:
            self.body += body

    def on_message_complete(self) -> None:
        """Note the end of a message, which is the answer if its head was."""
        self.whole = self.head
        self.keep_alive = self.parser.should_keep_alive()
