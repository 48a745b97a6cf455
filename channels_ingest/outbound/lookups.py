"""The addresses of a name, within a limited time.

``getaddrinfo`` takes no time limit: a resolver that does not answer holds it for as long as the
machine is set up to wait, often more than ten seconds. So it runs in a thread of its own, and the
caller stops waiting. The number of these threads is bounded; callers who ask for the same name
share one.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import socket
import threading
from concurrent.futures import Future

# Longest wait for a look-up, in seconds. Larger: a slow resolver holds calls for longer. Smaller:
# calls fail that a slow resolver would have answered.
SECONDS = 3.0
# Names that a process looks up at once; further ones are refused at once. Larger: more threads
# while a resolver is slow. Smaller: a few slow names keep calls to others from connecting.
MOST = 64


class LookUps:
    """The look-ups of this process that run now, by host and port."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._running: dict[tuple[str, int], Future[list[str]]] = {}

    def addresses_of(self, host: str, port: int, seconds: float) -> list[str]:
        """Return the addresses of a name.

        Raises ``OSError`` if it has none, if the answer takes longer than ``seconds``, and if too
        many other names are being looked up. Raises ``UnicodeError`` for what cannot be a name.
        """
        with self._lock:
            running = self._running.get((host, port))
            if running is None:
                running = self._start(host, port)
        return running.result(max(seconds, 0.0))

    def _start(self, host: str, port: int) -> Future[list[str]]:
        if len(self._running) >= self._most:
            raise TimeoutError("too many look-ups at once")
        running: Future[list[str]] = Future()
        threading.Thread(target=self._look_up, args=(host, port, running), name="look-up", daemon=True).start()
        self._running[host, port] = running
        return running

    def _look_up(self, host: str, port: int, running: Future[list[str]]) -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            running.set_result([str(info[4][0]) for info in found])
        except BaseException as error:  # whatever it is, the callers must not wait for ever
            running.set_exception(error)
        finally:
            with self._lock:
                del self._running[host, port]


@functools.cache
def _look_ups() -> LookUps:
    return LookUps()


os.register_at_fork(after_in_child=_look_ups.cache_clear)  # a child has no thread of its parent


def addresses_of(host: str, port: int, seconds: float = SECONDS) -> list[str]:
    """Return the addresses of a host, itself if it is an address. Raises as ``LookUps`` does."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        return _look_ups().addresses_of(host, port, seconds)
