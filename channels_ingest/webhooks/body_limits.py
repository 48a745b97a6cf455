"""What a body may cost before it is verified: time, connections and memory.

``LimitedBody`` stands for the server's body stream. While a thread waits in its ``read``, the thread
``slow-bodies`` cuts the connection once the body takes too long, and the read ends early. A
connection that waits for anything else is never cut. How long is too long depends on need:
``cut_slow`` has the rules.
"""

from __future__ import annotations

import functools
import io
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any

from django.http import HttpRequest

from channels_ingest.webhooks.body import BodyError, TooSlow
from channels_ingest.webhooks.client_address import client_address

# The name in a WSGI environ of the function that cuts this request's connection, if the server has one.
CUT = "channels_ingest.cut"
# Seconds from the first read of a webhook's body to its end. Larger: clients that stopped sending
# hold connections longer. Smaller: large bodies over slow links are cut off.
WEBHOOK_SECONDS = 20.0
# The same for pages and the chat's API, whose bodies are small.
PAGE_SECONDS = 2.0
# The same for the oldest bodies while there is need, see ``cut_slow``.
HURRY_SECONDS = 1.0
# Seconds between two looks for slow bodies. Larger: they are cut later; smaller: more CPU.
LOOK_SECONDS = 0.5
CONNECTIONS = int(os.environ.get("WEB_CONNECTIONS") or 1024)  # of this process; each has a thread
# Bodies read at once beyond which there is need. Larger: strangers can hold more connections.
# Smaller: slow clients are cut off sooner.
MOST_READS = CONNECTIONS // 2
# The same for the bodies of one address. Smaller: slow clients behind one address are cut off.
READS_OF_ADDRESS = 16
# Bytes of bodies that are not verified yet, in this process. Larger: strangers can take more memory.
# Smaller: more honest requests are told to come again while strangers send large bodies.
BUDGET = 64 << 20
# How many of them may be one address's. Larger: fewer addresses can take the whole budget.
# Smaller: an honest sender can have fewer large bodies on the way.
SHARE = BUDGET // 2
# Longest time of an uploaded file, in seconds. Larger: slow clients hold connections for longer. Smaller:
# large files over slow links are cut off.
UPLOAD_SECONDS = 120.0
# Bytes of all uploads that are on their way to this process, and of those of one address: they lie on its
# disk. Larger: a larger disk is needed. Smaller: people are told to try again.
UPLOADS, UPLOADS_OF_ADDRESS = 512 << 20, 64 << 20
# The same for an address that failed too often to prove who it is. Small signed requests pass.
SUSPECT_SHARE = 1 << 20


class Full(BodyError):
    """No memory is left for bodies that nobody has verified. The platform sends it again."""

    status = 503


class Budget:
    """Counts the bytes of bodies, in all (``most``, or else ``BUDGET``) and by address."""

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._of: Counter[str] = Counter()
        self.taken = 0

    def take(self, address: str, count: int, share: int) -> bool:
        """Count ``count`` bytes more. Return False, and count nothing, if they are too many."""
        with self._lock:
            fits = self.taken + count <= (self._most or BUDGET) and self._of[address] + count <= share
            if fits:
                self.taken += count
                self._of[address] += count
        return fits

    def give_back(self, address: str, count: int) -> None:
        with self._lock:
            self.taken -= count
            self._of[address] -= count
            if not self._of[address]:
                del self._of[address]


budget = Budget()
uploads = Budget(UPLOADS)
looks: list[Callable[[], None]] = []  # what else ``watch`` calls in each round
# The bodies for which a thread waits at this moment. Adding and removing one is atomic.
_waiting: dict[LimitedBody, bool] = {}


class LimitedBody:
    """The body stream of a request, within the limits; a context that ends once it is verified.

    ``share_of`` returns how many bytes an address may have; ``of`` counts them, in place of the budget for
    unverified bodies. The first chunk of a body is not counted: most bodies have no other.
    """

    def __init__(
        self,
        environ: dict[str, Any],
        seconds: float,
        share_of: Callable[[str], int] = lambda address: SHARE,
        of: Budget | None = None,
    ) -> None:
        self._budget = of or budget
        self.seconds, self.begun = seconds, time.monotonic()
        self.cut: Callable[[], None] | None = environ.get(CUT)
        self._environ, self._stream, self._share_of = environ, environ["wsgi.input"], share_of
        self._chunks = self._counted = 0
        environ["wsgi.input"] = self
        if self.cut:
            start_watch()

    @functools.cached_property
    def address(self) -> str:
        """The client's address, see ``client_address``."""
        request = HttpRequest()
        request.META = self._environ
        return client_address(request)

    def __enter__(self) -> LimitedBody:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._counted:
            self._budget.give_back(self.address, self._counted)

    def read(self, size: int) -> bytes:
        """Read from the server. Raises ``TooSlow`` if the connection was cut, and ``Full``."""
        _waiting[self] = True
        try:
            chunk = bytes(self._stream.read(size))
        finally:
            in_time = _waiting.pop(self, False)
        if not in_time or time.monotonic() - self.begun > self.seconds:
            raise TooSlow
        if self._chunks:
            self._count(len(chunk))
        self._chunks += 1
        return chunk

    def readline(self, size: int = -1) -> bytes:
        """Refuse: Django wants a stream that has it, and nothing of ours reads lines."""
        raise io.UnsupportedOperation

    def _count(self, size: int) -> None:
        if not self._budget.take(self.address, size, self._share_of(self.address)):
            raise Full
        self._counted += size


def upload(environ: dict[str, Any]) -> LimitedBody:
    """Limit the body of a request that brings a file. Its sender is known before it is read."""
    return LimitedBody(environ, UPLOAD_SECONDS, lambda address: UPLOADS_OF_ADDRESS, uploads)


@functools.cache
def start_watch() -> None:
    """Start the thread that cuts slow bodies, once per process."""
    threading.Thread(target=watch, name="slow-bodies", daemon=True).start()


def watch() -> None:
    """Look for bodies that take too long, and into ``looks``, for as long as the process lives."""
    while True:
        time.sleep(LOOK_SECONDS)
        cut_slow(time.monotonic())
        for look in looks:
            look()


def cut_slow(now: float) -> None:
    """Cut the connections of bodies that take too long, the oldest first.

    Each body has its ``seconds``; ``HURRY_SECONDS`` at most while more than half of the connections
    or of the budget are taken, or while its address has more than ``READS_OF_ADDRESS`` bodies. A
    body whose last byte comes meanwhile is either read whole or cut, never both.
    """
    waiting = sorted((body for body in list(_waiting) if body.cut), key=lambda body: body.begun)
    of_address = Counter(body.address for body in waiting)
    for index, body in enumerate(waiting):
        many = len(waiting) - index > MOST_READS or of_address[body.address] > READS_OF_ADDRESS
        in_need = many or budget.taken > BUDGET // 2
        seconds = min(body.seconds, HURRY_SECONDS) if in_need else body.seconds
        if now - body.begun > seconds and body.cut and _waiting.pop(body, False):
            of_address[body.address] -= 1
            body.cut()
