"""``python -m bench.crowds <kind> <site as JSON>``: strangers of one kind, until SIGTERM; then says what they got.

They are a process of their own, so that their work does not delay the one that measures, and they
come from other addresses of this machine. Their rates are constants, far above the measured 50
webhooks a second and below what takes a whole core: beyond that, load generator and server only
compete for cores.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import urllib3

LARGE_BODY = 8 * 1024 * 1024 - 1
LARGE_BODIES = 8.0  # bodies a second: half a Gbit/s
HELD_SECONDS = 1.0  # before the last byte of a large body: they lie in memory together
UNKNOWN_IDS = 500.0  # requests a second
VISITS = 100.0  # requests a second of chat visitors
LOGINS = 10.0  # attempts a second
LOOK_SECONDS = 0.25  # between two looks at slow sockets
RECEIVE_BUFFER = 4096  # of a client that does not read
LARGE_FILE = "/static/admin/js/vendor/xregexp/xregexp.js"
LOGIN = "/admin/login/"
LEANING = "leaning\n"  # said once they have begun
ESTABLISHED = 1  # the first byte of the kernel's struct tcp_info

got: Counter[str] = Counter()  # statuses; "cut" where the server ended the connection without one


@dataclass(frozen=True, kw_only=True)
class Target:
    """What strangers know. ``run`` numbers the periods: each has its own addresses."""

    port: int
    webhook: str  # a channel whose secret they do not know
    messages: str  # of the web chat
    run: int
    sockets: int

    def address(self, number: int = 0) -> str:
        return f"127.66.{self.run % 250}.{number % 250 + 2}"

    def ask(self, method: str, path: str, address: str, body: Any = None, headers: Mapping[str, str] = {}) -> Any:
        """Return the answer, or None if the connection was cut."""
        pool = urllib3.HTTPConnectionPool("127.0.0.1", self.port, source_address=(address, 0), timeout=30)
        with contextlib.closing(pool):
            try:
                answer = pool.urlopen(method, path, body, headers, retries=False)
            except urllib3.exceptions.HTTPError:
                got["cut"] += 1
                return None
        got[str(answer.status)] += 1
        return answer

    def connect(self, address: str, sent: bytes, receive_buffer: int = 0) -> socket.socket:
        made = socket.socket()
        if receive_buffer:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        made.bind((address, 0))
        made.settimeout(10)
        made.connect(("127.0.0.1", self.port))
        made.sendall(sent)
        made.setblocking(False)
        return made


# ---------------------------------------------------------------- the kinds


def large_bodies(site: Target) -> None:
    """8 MB each, from 16 addresses, by turns to a channel as if signed, to an unknown one, and to a page as a file."""
    content = b"x" * (LARGE_BODY - 1)
    paths = (site.webhook, unknown(), LOGIN)

    def body() -> Iterator[bytes]:
        yield content
        time.sleep(HELD_SECONDS)
        yield b"x"

    def send(number: int) -> None:
        path = paths[number % len(paths)]
        kind = {"Content-Type": "multipart/form-data; boundary=x"} if path == LOGIN else as_if_signed()
        site.ask("POST", path, site.address(number % 16), body(), {**kind, "Content-Length": str(LARGE_BODY)})

    paced(LARGE_BODIES, send)


def unknown_ids(site: Target) -> None:
    """Webhooks of channels that do not exist."""
    paced(UNKNOWN_IDS, lambda number: site.ask("POST", unknown(), site.address(), b"{}", as_if_signed()))


def slow_readers(site: Target) -> None:
    """Sockets that ask for large files and do not read them."""
    requests = head("GET", LARGE_FILE, {}) * 20
    hold(site, lambda place: site.connect(site.address(place), requests, RECEIVE_BUFFER))


def slow_writers(site: Target) -> None:
    """Sockets whose bodies never end, reopened when cut; half of them come from one address."""
    paths = (site.webhook, site.webhook, session(site), LOGIN)
    sent = [head("POST", path, {**as_if_signed(), "Content-Length": "60000"}) for path in paths]
    hold(site, lambda place: site.connect(site.address(max(0, place - site.sockets // 2)), sent[place % 4]), b"x")


def visitors(site: Target) -> None:
    """One address: they begin conversations, write and poll, more than they may."""
    tokens: list[str] = []
    origin = {"Origin": f"http://127.0.0.1:{site.port}"}

    def act(number: int) -> None:
        if number % 10 == 0 or not tokens:
            answer = site.ask("POST", session(site), site.address(), b"{}", origin)
            if answer is not None and answer.status == 200:
                tokens.append(answer.json()["token"])
            return
        visitor = {**origin, "Authorization": f"Bearer {secrets.choice(tokens)}"}
        message = json.dumps({"client_id": secrets.token_hex(8), "text": "hello"}).encode() if number % 2 else None
        site.ask("POST" if message else "GET", site.messages, site.address(), message, visitor)

    paced(VISITS, act)


def logins(site: Target) -> None:
    """One address tries a name after another."""
    token = secrets.token_hex(16)  # a double submit: nobody has to ask for one first
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": f"csrftoken={token}"}

    def guess(number: int) -> None:
        form = f"csrfmiddlewaretoken={token}&username=name-{number}&password=wrong-password".encode()
        site.ask("POST", LOGIN, site.address(), form, headers)

    paced(LOGINS, guess)


KINDS: dict[str, Callable[[Target], None]] = {
    each.__name__: each for each in (large_bodies, unknown_ids, slow_readers, slow_writers, visitors, logins)
}


# ---------------------------------------------------------------- how they act


def unknown() -> str:
    return f"/webhooks/generic/{secrets.token_urlsafe(24)}/"


def session(site: Target) -> str:
    return site.messages.replace("/messages/", "/session/")


def as_if_signed() -> dict[str, str]:
    """Headers of the right form: only the body shows that the signature is wrong."""
    signature = "v1," + "A" * 43 + "="
    return {"Content-Type": "application/json", "webhook-id": secrets.token_hex(8),
            "webhook-timestamp": str(int(time.time())), "webhook-signature": signature}  # fmt: skip


def head(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n".encode()


def paced(rate: float, act: Callable[[int], object], threads: int = 32) -> None:
    """Call ``act(number)``, ``rate`` times a second; later where all threads wait for the server."""
    act(0)
    began_to_lean()
    began = time.monotonic()

    def work(first: int) -> None:
        for number in itertools.count(first, threads):
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            act(number)

    for first in range(threads):
        threading.Thread(target=work, args=(first,), daemon=True).start()
    signal.pause()


def hold(site: Target, connect: Callable[[int], socket.socket], trickle: bytes = b"") -> None:
    """Keep sockets open, never read from them, and send ``trickle`` on each at every look; reopen what is cut."""
    held = [connect(place) for place in range(site.sockets)]
    began_to_lean()
    while True:
        for place, each in enumerate(held):
            if each.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != ESTABLISHED:
                got["cut"] += 1
                each.close()
                held[place] = connect(place)
            elif trickle:
                with contextlib.suppress(OSError):
                    each.send(trickle)
        time.sleep(LOOK_SECONDS)


def began_to_lean() -> None:
    print(end=LEANING, flush=True)


def say_and_end(*_: object) -> None:
    print(json.dumps(got), flush=True)
    os._exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, say_and_end)
    KINDS[sys.argv[1]](Target(**json.loads(sys.argv[2])))
