"""Strangers who hold sockets: they do not read their answers, or never end their bodies. No proxy stands in front."""

from __future__ import annotations

import contextlib
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.faults.base import Scene, fault
from tests.kit.stack import every

SOCKETS, SLOW_CLIENTS = 200, 50
LARGE_FILE = "/static/admin/js/vendor/xregexp/xregexp.js"  # 325 kB
ASKED = 25  # times, by each: more than a kernel buffers
# In reads at one moment: all threads of two web processes of 64, or nearly all of the sockets where more can read.
READS = 128
REFUSED_SECONDS = 1.0  # the p99 of other webhooks


@fault("F24", "Fifty clients send a byte a second", bound=10, seconds=30, scaled=10)
def slow_clients(scene: Scene) -> Iterator[None]:
    head = _head(scene)
    sent = 0

    def drip() -> None:
        nonlocal sent
        for client in clients:
            with contextlib.suppress(OSError):
                client.sendall(b"x")
                sent += 1

    with contextlib.ExitStack() as sockets:
        clients = [sockets.enter_context(_client(scene, n)) for n in range(SLOW_CLIENTS)]
        for n, client in enumerate(clients):  # half of them are still in their headers
            client.sendall(head if n % 2 else head[:30])
        scene.began = time.monotonic_ns()
        with every(1.0, drip):
            yield
    scene.saw("they sent their bytes", sent > SLOW_CLIENTS)
    _others_are_answered(scene)


@fault("clients-that-do-not-read", "Two hundred clients ask for much and read nothing", bound=10, seconds=30, scaled=10)
def clients_that_do_not_read(scene: Scene) -> Iterator[None]:
    with contextlib.ExitStack() as sockets:
        clients = [sockets.enter_context(_client(scene, n)) for n in range(SOCKETS)]
        for client in clients:
            client.sendall(f"GET {LARGE_FILE} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode() * ASKED)
        looks: list[list[int]] = []

        def stand_still() -> bool:
            """Nothing has moved for a second: the kernel took its 0.4 MB for each, more than the standing costs."""
            looks.append(unread(clients))
            return len(looks[-1]) == SOCKETS and looks[-20:-19] == looks[-1:]

        scene.wait(stand_still)
        scene.began = time.monotonic_ns()
        yield
        waiting = len(unread(clients))
    scene.saw(f"{waiting} sockets had unsent bytes in the server's queue", waiting == SOCKETS)
    _others_are_answered(scene)


@fault("bodies-that-never-end", "Two hundred clients never end their bodies, and come again when they are cut",
       bound=10, seconds=30, scaled=12, env={"CHAOS_READS": "1"})  # fmt: skip
def bodies_that_never_end(scene: Scene) -> Iterator[None]:
    web = [pid for n in range(len(scene.cluster.web)) for pid in scene.cluster.pids(f"web-{n}")]
    again = 0

    def open_again() -> None:
        nonlocal again
        for n, client in enumerate(clients):
            if _is_cut(client):
                client.close()
                with contextlib.suppress(OSError):
                    clients[n], again = _beginning(scene, n), again + 1

    clients = [_beginning(scene, n) for n in range(SOCKETS)]
    try:
        scene.began = time.monotonic_ns()
        with every(0.1, open_again):
            yield
    finally:
        for client in clients:
            client.close()
    reads = sum(_most_reads(scene.cluster.folder / f"reads-{pid}.txt") for pid in web)
    scene.notes.update(opened_again=again, reading_at_most=reads)
    scene.saw(f"{reads} threads of the server were in reads at once", reads >= READS)
    _others_are_answered(scene)


def _client(scene: Scene, n: int) -> socket.socket:
    """Connect to a web process itself, also where other faults want a link before it."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(5)
    ports = scene.cluster.inner_ports
    client.connect(("127.0.0.1", ports[n % len(ports)]))
    return client


def _head(scene: Scene) -> bytes:
    """Return a request up to its body, which nothing but the signature would show to be a stranger's."""
    headers = {"webhook-id": "msg_stranger", "webhook-timestamp": f"{time.time():.0f}",
               "webhook-signature": f"v1,{'A' * 43}=", "content-type": "application/json"}  # fmt: skip
    lines = [f"{name}: {value}" for name, value in {"host": "127.0.0.1", "content-length": "1000", **headers}.items()]
    path = scene.generator.channels["keep"].webhook_path
    return "\r\n".join([f"POST {path} HTTP/1.1", *lines, "\r\n"]).encode()


def _beginning(scene: Scene, n: int) -> socket.socket:
    client = _client(scene, n)
    client.sendall(_head(scene) + b'{"type": ')
    client.setblocking(False)
    return client


def _is_cut(client: socket.socket) -> bool:
    try:
        client.recv(1 << 16)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True  # an answer, or the end


def unread(clients: list[socket.socket]) -> list[int]:
    """Return the bytes in the server's own queues of these connections, where there are any: no proxy took them."""
    names = {client.getsockname()[1]: client.getpeername()[1] for client in clients}
    sizes = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, queues, *_ = line.split()
        server, peer = (int(address.partition(":")[2], 16) for address in (local, remote))
        if state == "01" and names.get(peer) == server and (size := int(queues.partition(":")[0], 16)):
            sizes.append(size)
    return sizes


def _most_reads(path: Path) -> int:
    """Return how many threads of a web process waited for a body at most, see ``apps``."""
    return max(map(int, path.read_text().split()), default=0) if path.exists() else 0


def _others_are_answered(scene: Scene) -> None:
    seen = list(scene.attempts(time.monotonic_ns()))
    answers = sorted(seconds for status, seconds, _ in seen if 200 <= status < 300)
    refused = len(seen) - len(answers)
    scene.saw("other webhooks came meanwhile", len(seen) > 20)
    p99 = statistics.quantiles(answers, n=100)[98] if len(answers) > 1 else 0.0
    scene.notes.update(p99_seconds=round(p99, 3), answered=len(answers), refused=refused)
    scene.wrong(f"other webhooks waited for them: p99 {p99:.2f} s", p99 > REFUSED_SECONDS)
    scene.wrong(f"{refused} of {len(seen)} other webhooks were not taken", refused)
