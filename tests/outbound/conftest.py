"""What several tests of outbound HTTP share."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import pytest

from tests.kit.http_servers import Serve, Server, Speak


@pytest.fixture
def serve() -> Iterator[Serve]:
    running: list[Server] = []

    def start(speak: Speak, tls: ssl.SSLContext | None = None) -> Server:
        running.append(Server(speak, tls))
        return running[-1]

    yield start
    for server in running:
        server.close()
