"""Small HTTP servers on 127.0.0.1 that say what a test wants them to say, and calls to them."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Callable

import pytest

from channels_ingest.outbound import http

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Speak = Callable[[socket.socket], None]


class Server:
    """On 127.0.0.1: ``speak`` has each connection, in a thread of its own, and hangs up when it returns."""

    def __init__(self, speak: Speak, tls: ssl.SSLContext | None = None) -> None:
        self._speak, self._tls = speak, tls
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}/bot?x=1"
        self.connections = 0
        self.hung_up = threading.Semaphore(0)  # by either side
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connected, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._answer, args=(connected,), daemon=True).start()

    def _answer(self, connected: socket.socket) -> None:
        try:
            if self._tls:
                connected = self._tls.wrap_socket(connected, server_side=True)
            self._speak(connected)
        except OSError:
            pass
        finally:
            connected.close()
            self.hung_up.release()

    def close(self) -> None:
        self._listening.close()


Serve = Callable[..., Server]


def read_request(connected: socket.socket) -> bytes:
    """One whole request (a client may send head and body apart); b"" at the end of the stream."""
    data = b""
    while more := connected.recv(65536):
        data += more
        head, end, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        if end and len(body) >= int(length[1] if length else 0):
            return data
    return b""


def always(answer: bytes, times: int = 1000) -> Speak:
    """The same answer to each request, so many times on one connection."""

    def speak(connected: socket.socket) -> None:
        for _ in range(times):
            if not read_request(connected):
                return
            connected.sendall(answer)

    return speak


def call(server: Server, body: bytes = b"{}", read_timeout: float = 20.0, **headers: str) -> http.Answered:
    return http.call("POST", server.url, headers=headers, body=body, allow_private=True, read_timeout=read_timeout)


def failure(server: Server, read_timeout: float = 20.0) -> object:
    with pytest.raises(http.CallFailed) as failed:
        call(server, read_timeout=read_timeout)
    return failed.value.outcome


def hang(connected: socket.socket) -> None:
    """Take the request and say nothing, until the other side hangs up."""
    while connected.recv(65536):
        pass
