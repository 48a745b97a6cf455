"""What the case of strangers sees of the server's sockets, and how its table is turned."""

from __future__ import annotations

import contextlib
import socket

from bench.report import turned
from bench.strangers import sockets
from tests.kit.stack import wait_until


def test_only_accepted_sockets_of_strangers_are_slow_ones() -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = server.getsockname()[1]

        def accepted(address: str) -> socket.socket:
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.bind((address, 0))
            client.connect(("127.0.0.1", port))
            return stack.enter_context(server.accept()[0])

        accepted("127.0.0.1")
        accepted("127.66.1.2")
        unread = accepted("127.66.1.3")
        unread.setblocking(False)
        unread.send(b"x" * 10_000_000)
        stack.enter_context(socket.create_connection(("127.0.0.1", port), source_address=("127.66.1.4", 0)))
        wait_until(lambda: sockets(port)["slow_readers"] == 1, 5, "one client has not read")
        found = sockets(port)
        assert (found["sockets"], found["slow_writers"]) == (3, 2), "the last one was not accepted"
        assert found["unsent_mb"] > 0


def test_a_table_has_a_column_for_each_of_what_is_compared() -> None:
    assert turned({"alone": {"p99_ms": 2.0}, "beside": {"p99_ms": 3.0, "times": 1.5}}) == [
        ["", "alone", "beside"],
        ["p99_ms", "2", "3"],
        ["times", "", "1.5"],
    ]
    assert turned({}) == []
