"""The product's fake platform in a thread of the test, with behaviours that only tests need.

    with Double() as double:
        double.script({"do": "429", "retry_after": 2}, {"do": "accept_then_reset", "chat": "42"})
        ...
        double.accepted()                          # what was taken, in order
        double.shown()                             # what people see, in the order in which it reached them

What rules and behaviours there are: ``channels_ingest.fake_platform.server``. ``release()`` ends every
hanging at once: a test need not know how long its own part takes.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from channels_ingest.fake_platform.server import Call, FakePlatform, Handler, Rule, takes

__all__ = ["Double", "Rule", "takes"]


class MoreBehaviours(Handler):
    """What a rule may do besides, all of it after the message is taken, if its name begins so."""

    def _accept_then_500(self, rule: Rule, call: Call, message_id: int) -> None:
        self.answer(500, {"ok": False, "error_code": 500, "description": "Internal Server Error"})

    def _accept_then_hang(self, rule: Rule, call: Call, message_id: int) -> None:
        self.server.platform.hang(rule)
        self._ok(rule, call, message_id)

    def _accept_then_cut(self, rule: Rule, call: Call, message_id: int) -> None:
        """Promise more bytes than come."""
        self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"ok": true, "re')
        self.wfile.flush()
        self.close_connection = True

    def _accept_then_nonsense(self, rule: Rule, call: Call, message_id: int) -> None:
        self.answer(200, "<html>welcome</html>")

    def _redirect(self, rule: Rule, call: Call, message_id: int) -> None:
        self.answer(302, {}, {"Location": rule.get("location", "/elsewhere")})

    def _drip(self, rule: Rule, call: Call, message_id: int) -> None:
        """A body of one byte a second."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
        for _ in range(int(rule.get("seconds", 60))):
            self.wfile.write(b" ")
            self.wfile.flush()
            time.sleep(1)
        self.close_connection = True

    def _flood(self, rule: Rule, call: Call, message_id: int) -> None:
        self.answer(200, "x" * rule.get("bytes", 2_000_000))


class Double(FakePlatform):
    handler = MoreBehaviours

    def __enter__(self) -> Double:
        threading.Thread(target=self.serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def accepted(self, method: str = "") -> list[dict[str, Any]]:
        """What was taken, in order; a repeated key is not taken again."""
        return [line for line in self.calls(method) if line["accepted"]]

    def wait_for(self, count: int, seconds: float = 10.0, method: str = "") -> list[dict[str, Any]]:
        """``accepted`` once it holds ``count`` lines."""
        deadline = time.monotonic() + seconds
        while len(self.accepted(method)) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.accepted(method)
