"""The running server of this folder's tests, its channels, and ways to post to it."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg

from channels_ingest.formats.signatures import sign_webhook
from tests.kit.stack import Channel, Stack

SECRET = "whsec_" + "Zml4dHVyZS1zZWNyZXQtb2YtMzItYnl0ZXMtbG9uZyE="
OTHER_SECRET = "whsec_" + "b3RoZXItdGVuYW50LXNlY3JldC1vdGhlci10ZW5hbnQ="
NOWHERE = "http://127.0.0.1:9/"  # replies cannot be sent
OLD_SECRET = "whsec_" + "b2xkLXNlY3JldC1vZi0zMi1ieXRlcy1sb25nLW9sZCE="
TOKEN = "telegram-token_0123456789"
Counts = tuple[int, int, int]  # status, new messages, new quarantine


@dataclass
class Edge:
    """The running server, its channels, and ways to post to it."""

    stack: Stack
    generic: Channel
    telegram: Channel
    web: Channel
    other: Channel
    whatsapp: Channel
    connection: psycopg.Connection[Any]
    count: int = 0
    seen: list[float] = field(default_factory=list)

    def fresh(self) -> str:
        self.count += 1
        return f"id-{self.count}"

    def signed(self, body: bytes, *, secret: str = SECRET, at: float | None = None, id_: str = "") -> dict[str, str]:
        timestamp, id_ = str(int(time.time() if at is None else at)), id_ or self.fresh()
        return {"content-type": "application/json", "webhook-id": id_, "webhook-timestamp": timestamp,
                "webhook-signature": sign_webhook(secret, id_, timestamp, body)}  # fmt: skip

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql).fetchall()

    def value(self, sql: str) -> Any:
        return self.query(sql)[0][0]

    def stored(self) -> tuple[int, int]:
        return (self.value("SELECT count(*) FROM message"), self.value("SELECT coalesce(sum(seen), 0) FROM quarantine"))

    @contextlib.contextmanager
    def adds(self, messages: int, quarantined: int) -> Iterator[None]:
        before = self.stored()
        yield
        after = self.stored()
        assert (after[0] - before[0], after[1] - before[1]) == (messages, quarantined)

    def post(self, body: bytes, headers: dict[str, str] | None = None, path: str = "", method: str = "POST") -> int:
        url = f"http://127.0.0.1:{self.stack.ports[0]}{path or self.generic.webhook_path}"
        began = time.monotonic()
        headers = self.signed(body) if headers is None else headers
        answer = self.stack.http.request(method, url, body=body, headers=headers)
        self.seen.append(time.monotonic() - began)
        assert b"Traceback" not in answer.data
        return answer.status

    def check(self, body: bytes, wanted: Counts, headers: dict[str, str] | None = None, path: str = "") -> None:
        with self.adds(*wanted[1:]):
            assert self.post(body, headers, path) == wanted[0]

    def raw(self, content: bytes, *, rest: bytes = b"", wait: float = 0.0, seconds: float = 5.0) -> int:
        """Bytes as they are; the status, or 0 when the connection was closed without an answer."""
        with socket.create_connection(("127.0.0.1", self.stack.ports[0]), timeout=seconds) as connection:
            with contextlib.suppress(OSError):
                connection.sendall(content)
                if rest:
                    time.sleep(wait)
                    connection.sendall(rest)
            with contextlib.suppress(OSError):
                first = connection.recv(65536)
                assert b"Traceback" not in first
                return int(first.split(b" ", 2)[1]) if first.startswith(b"HTTP/") else 0
        return 0

    def head(self, headers: dict[str, str], path: str = "", method: str = "POST") -> bytes:
        lines = [f"{method} {path or self.generic.webhook_path} HTTP/1.1", f"Host: 127.0.0.1:{self.stack.ports[0]}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def chunked(self, body: bytes, ending: bytes = b"0\r\n\r\n") -> int:
        head = self.head({**self.signed(body), "transfer-encoding": "chunked"})
        return self.raw(head + b"%x\r\n%s\r\n" % (len(body), body) + ending)


def item(edge: Edge, text: Any = "hello", **data: Any) -> dict[str, Any]:
    """The members of a message; ``...``: one that is missing."""
    content = {"message_id": edge.fresh(), "user": {"id": "u"}, "chat": {"id": "c"}, "text": text, **data}
    return {name: value for name, value in content.items() if value is not ...}


def event(edge: Edge, text: Any = "hello", **data: Any) -> bytes:
    return json.dumps({"type": "message.created", "data": item(edge, text, **data)}).encode()


def batch(items: list[dict[str, Any]]) -> bytes:
    return json.dumps({"type": "messages.batch", "data": {"messages": items}}).encode()
