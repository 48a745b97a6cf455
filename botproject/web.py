"""Adapts granian: whole answers, clean environs, connections that can be cut or do not read, a common end.

granian calls ``connected`` in place of its own WSGI layer (``granian.wsgi``). The differences:

* An answer is handed over as bytes. From an iterator granian would pull on the request's thread,
  and a client that does not read would hold that thread for ever. Only files go chunk by chunk; they
  are counted, and have a time limit.
* ``environ`` holds the request and nothing else. granian adds the process's environment, secrets
  included.
* ``environ`` has a function that cuts the request's connection, for bodies that never end. granian
  has no time limit for them.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from channels_ingest.webhooks.body_limits import CUT
from channels_ingest.webhooks.fast_path import whole
from conversations.media.serving import FileAnswer
from conversations.workers.supervisor import die_with_parent

# The parts of a WSGI environ that are the same for all requests.
FIXED: Mapping[str, Any] = {
    "GATEWAY_INTERFACE": "CGI/1.1",
    "SCRIPT_NAME": "",
    "SERVER_SOFTWARE": "Granian",
    "wsgi.errors": sys.stderr,
    "wsgi.input_terminated": True,  # granian ends the stream with the body
    "wsgi.multiprocess": False,
    "wsgi.multithread": True,
    "wsgi.run_once": False,
    "wsgi.version": (1, 0),
}
# Seconds after which the kernel closes the connection of a client that takes nothing of what was sent. Larger:
# such a client holds its connection for longer. Smaller: people lose their link after a shorter break.
UNREAD_SECONDS = 60
# Bytes of answers that the kernel keeps for a client; it takes twice as many, and ``net.core.wmem_max`` at
# most. Larger: more memory for each. Smaller: large files are sent more slowly over long distances.
UNREAD_BYTES = 256 << 10
# Where granian's worker finds its WSGI layer, which is not a public name: see ``guarded``.
LAYER = "_wsgi_call_wrap"

log = logging.getLogger(__name__)

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def guarded(application: Application) -> Application:
    """Prepare this process for a WSGI application served by granian, and return the application.

    Raises ``RuntimeError`` for a granian of another make.
    """
    die_with_main_process()
    granian = sys.modules.get("granian.server.mp")
    if granian:
        if not hasattr(granian, LAYER):
            raise RuntimeError("this version of granian has another WSGI layer, see botproject/web.py")
        setattr(granian, LAYER, connected)
    return application


def connected(application: Application, *_: Any) -> Callable[[Any, dict[str, Any]], None]:
    """Return what granian calls for a request, with the connection and the request's environ."""

    def answer(connection: Any, scope: dict[str, Any]) -> None:
        limit_unread()
        said: list[Any] = []
        environ = {**FIXED, **scope, CUT: functools.partial(cut, connection)}
        body = whole(application(environ, lambda status, headers, error=None: said.extend((status, headers))))
        status, headers = said[-2:]
        # The body may not have been read. The server then closes the connection, so the client must
        # not send its next request on it.
        if status[0] == "4" and (scope.get("CONTENT_LENGTH") or "HTTP_TRANSFER_ENCODING" in scope):
            headers = [*headers, ("connection", "close")]
        if isinstance(body, FileAnswer):
            with contextlib.closing(body):
                connection.response_iter(int(status[:3]), headers, iter(body))
        else:
            connection.response_bytes(int(status[:3]), headers, *body)

    return answer


def cut(connection: Any) -> None:
    """Close the connection, also while a thread waits for the request's body.

    The answer, a 408, states a byte that never comes. That makes the server close the connection at
    once, mostly before the answer is out; after a whole answer it would go on reading the body.
    """
    connection.response_iter(408, [("content-length", "1"), ("connection", "close")], (b for b in [b""] if b))


@functools.cache
def limit_unread() -> None:
    """Bound what the kernel keeps for clients that do not read, and for how long. Only Linux can.

    Connections inherit both from the listening socket. granian makes that by itself, so it is looked for at the
    first request.
    """
    try:
        numbers = os.listdir("/proc/self/fd") if sys.platform == "linux" else []
    except OSError as error:
        numbers = []
        log.warning(
            "without /proc, clients that do not read their answers are not cut off", extra={"error": str(error)}
        )
    for number in numbers:
        with contextlib.suppress(OSError), socket.fromfd(int(number), socket.AF_INET, socket.SOCK_STREAM) as found:
            if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_SECONDS * 1000)
                found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNREAD_BYTES)


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
