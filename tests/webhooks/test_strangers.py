"""Strangers who lean on the real server: webhooks are answered, and so are pages.

What the server did is asserted from its answers and from which connections it closed, never from how long it took.
"""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from channels_ingest import file_links
from channels_ingest.webhooks import file_answers
from channels_ingest.webhooks.body_limits import READS_OF_ADDRESS
from conversations.media import files
from tests.kit.stack import wait_until
from tests.webhooks.edge import Edge, event

pytestmark = [pytest.mark.xdist_group("bad_inputs"), pytest.mark.timeout(400)]

MANY = 70  # more than the server's slots, WEB_THREADS
LARGE_FILE = "/static/admin/js/vendor/xregexp/xregexp.js"


def connect(edge: Edge, sent: bytes, receive_buffer: int = 0, address: str = "127.0.0.2") -> socket.socket:
    """A client at another address than the other tests', which may have failed too often."""
    connection = socket.socket()
    connection.bind((address, 0))
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.connect(("127.0.0.1", edge.stack.ports[0]))
    connection.sendall(sent)
    return connection


@contextlib.contextmanager
def opened(edge: Edge, sent: list[bytes], **more: Any) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(connect(edge, content, **more)) for content in sent]


def endless(edge: Edge, path: str = "") -> bytes:
    """A request as a customer's system sends it, whose body stops after five bytes."""
    headers = {**edge.signed(b"another body"), "content-length": "1000"}
    return edge.head(headers, path) + b'{"ty"'


def answered(connections: list[socket.socket]) -> list[socket.socket]:
    """Those on which the server has sent or closed something."""
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ)
        return [key.fileobj for key, _ in selector.select(0)]  # type: ignore[misc]


def stuck(edge: Edge, readers: list[socket.socket], seen: list[list[int]]) -> bool:
    """Whether the server has unsent bytes for each, as many as at the last look. Linux only."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    server = f":{edge.stack.ports[0]:04X}"
    unsent = {line[2].split(":")[1]: int(line[4].split(":")[0], 16) for line in lines if line[1].endswith(server)}
    seen.append([unsent.get(f"{reader.getsockname()[1]:04X}", 0) for reader in readers])
    return all(seen[-1]) and seen[-1] == seen[-2]


def webhooks(edge: Edge, count: int = 10) -> list[int]:
    return [edge.post(event(edge)) for _ in range(count)]


def page(edge: Edge, path: str) -> int:
    return edge.post(b"", {}, path=path, method="GET")


def test_clients_that_do_not_read_keep_nobody_waiting(edge: Edge) -> None:
    requests = edge.head({}, LARGE_FILE, method="GET") * 20
    with opened(edge, [requests] * MANY, receive_buffer=4096) as readers:
        seen: list[list[int]] = [[]]
        wait_until(lambda: stuck(edge, readers, seen), 10, "the server has answers for each that it cannot send")
        assert webhooks(edge) == [200] * 10
        assert page(edge, "/admin/login/") == 200
        assert all(reader.recv(15) == b"HTTP/1.1 200 OK" for reader in readers)


def kept_file(edge: Edge, size: int) -> str:
    """The address of a file of the chat, as its page gets it."""
    kept = files.Kept(uuid.uuid4(), edge.web.id, 0)
    path = edge.stack.folder / "media" / files.name(kept)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
    columns = "id, channel_id, status, content_type, size"
    edge.stack.query(f"INSERT INTO media ({columns}) VALUES (%s, %s, 'stored', 'video/mp4', %s)", *kept[:2], size)
    return file_links.address(SimpleNamespace(public_id=edge.web.public_id), str(kept.id))  # type: ignore[arg-type]


def memory_of_web(edge: Edge) -> int:
    return sum(psutil.Process(pid).memory_info().rss for pid in edge.stack._workers[0].tree())


def test_files_that_nobody_reads_take_little_memory_and_a_share_of_the_address(edge: Edge) -> None:
    size = 16 << 20
    address = kept_file(edge, size)
    asked = edge.head({}, address, method="GET")
    with opened(edge, [asked], address="127.0.0.5") as (reader,):  # whoever reads gets it whole
        answer = reader.makefile("rb")
        assert answer.readline() == b"HTTP/1.1 200 OK\r\n"
        assert len(answer.read(size)) == size
    before, share = memory_of_web(edge), file_answers.OF_ADDRESS // size
    with opened(edge, [asked] * share, receive_buffer=4096, address="127.0.0.5") as readers:
        seen: list[list[int]] = [[]]
        wait_until(lambda: stuck(edge, readers, seen), 10, "the server cannot send to any of them")
        assert max(seen[-1]) < 1 << 20, "what the kernel keeps for each"
        assert memory_of_web(edge) - before < 2 * size
        with opened(edge, [asked], address="127.0.0.5") as (refused,), opened(edge, [asked]) as (other,):
            head = refused.recv(4096)
            assert (head[:12], b"retry-after: 5" in head.lower()) == (b"HTTP/1.1 503", True)
            assert other.recv(12) == b"HTTP/1.1 200"
        assert webhooks(edge) == [200] * 10

    def comes_again() -> bool:
        with opened(edge, [asked], address="127.0.0.5") as (reader,):
            return reader.recv(12) == b"HTTP/1.1 200"

    wait_until(comes_again, 10, "those who left count no more")


def test_bodies_that_never_end_keep_nobody_waiting(edge: Edge) -> None:
    chat = edge.web.public_id
    pages = [endless(edge, f"/web/{chat}/session/"), endless(edge, "/admin/login/")] * (MANY // 2)
    hooks = [endless(edge)] * MANY
    with opened(edge, hooks) as senders, opened(edge, pages, address="127.0.0.3") as visitors:
        assert webhooks(edge) == [200] * 10
        assert page(edge, f"/chat/{chat}/") == page(edge, "/admin/login/") == 200
        visitor = {"content-type": "application/json", "origin": edge.stack.env["PUBLIC_URL"]}
        assert edge.post(b"{}", visitor, path=f"/web/{chat}/session/") == 200
        wait_until(lambda: len(answered(visitors)) == MANY, 10, "no page waits for its body for long")
        fewer = MANY - READS_OF_ADDRESS
        wait_until(lambda: len(answered(senders)) >= fewer, 10, "most webhooks of one address are cut")
        assert len(answered(senders)) == MANY - READS_OF_ADDRESS, "the others may take their time"
        assert {sender.recv(12) for sender in answered(senders + visitors)} <= {b"HTTP/1.1 408", b""}


def test_200_bodies_that_never_end_reopened_when_cut_keep_no_webhook_waiting(edge: Edge) -> None:
    stop, cut = threading.Event(), 0

    def lean() -> None:
        nonlocal cut
        with selectors.DefaultSelector() as selector:
            for _ in range(200):
                selector.register(connect(edge, endless(edge)), selectors.EVENT_READ)
            while not stop.is_set():
                for key, _ in selector.select(0.1):
                    selector.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr]
                    selector.register(connect(edge, endless(edge)), selectors.EVENT_READ)
                    cut += 1
            for key in list(selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]

    stranger = threading.Thread(target=lean)
    stranger.start()
    try:
        statuses = []
        wait_until(lambda: bool(statuses.append(edge.post(event(edge)))) or cut >= 200, 10, "200 were cut")
    finally:
        stop.set()
        stranger.join()
    assert set(statuses) == {200}


def test_strangers_are_refused_before_their_body(edge: Edge) -> None:
    """Nothing of the body is sent, and the answer comes: the one answer that every stranger gets."""
    unknown = edge.generic.webhook_path.replace(edge.generic.public_id, "A" * 32)
    stale = edge.signed(b"x", at=1e9)
    wrong = {"x-telegram-bot-api-secret-token": "wrong"}
    heads = [({**edge.signed(b"x")}, unknown), ({}, edge.generic.webhook_path),
             ({**edge.signed(b"x"), "webhook-signature": "v1,AAAA"}, edge.generic.webhook_path),
             (stale, edge.generic.webhook_path), (wrong, edge.telegram.webhook_path),
             ({**edge.signed(b"x")}, f"/bots/{'A' * 32}/replies/")]  # fmt: skip
    with opened(edge, [edge.head({**headers, "content-length": "1000"}, path) for headers, path in heads]) as senders:
        wait_until(lambda: len(answered(senders)) == len(heads), 10, "all are answered")
        answers = {sender.makefile("rb").read() for sender in senders}
    heads_and_bodies = {tuple(re.sub(rb"date: .*\r\n", b"", answer).split(b"\r\n\r\n")) for answer in answers}
    ((head, body),) = heads_and_bodies
    assert (head.split(b"\r\n")[0], body) == (b"HTTP/1.1 401 Unauthorized", b"unauthorized\n")
    assert b"\r\nconnection: close" in head


@pytest.mark.parametrize("headers", [{"content-length": str(256 * 1024 + 1)}, {"transfer-encoding": "chunked"}])
def test_pages_take_no_uploads(edge: Edge, headers: dict[str, str]) -> None:
    multipart = {"content-type": "multipart/form-data; boundary=x", **headers}
    assert edge.raw(edge.head(multipart, "/admin/login/")) == 413
