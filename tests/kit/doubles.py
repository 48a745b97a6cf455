"""A local double of the Telegram Bot API and of a generic receiver: a small real HTTP server.

    with Double() as double:                       # a thread of this process
        double.script({"do": "429", "retry_after": 2}, {"do": "accept_then_reset", "chat": "42"})
        ...
        double.accepted()                          # what the people would see, in order

    python -m tests.kit.doubles --port 9000 --record accepted.jsonl     # a process of its own

``POST /bot<token>/<method>`` speaks Telegram; any other path is a generic receiver, which knows a
repeated ``webhook-id``. ``POST /_script`` takes a JSON list of rules, ``GET /_accepted`` gives the
record, ``POST /_clear`` empties the script, ``POST /_reset`` both.

A rule: ``do`` (below), ``times`` (1; 0: for ever), ``chat``, ``method``, ``token`` and ``text`` (a part of it)
to choose by, ``probability``, and what the behaviour reads: ``retry_after``, ``seconds``, ``description``,
``new_chat``, ``body``; ``after``: seconds until it begins. The first rule that fits is used. Without one: accepted.
``release()`` ends every hanging at once: a test need not know how long its own part takes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import socket
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TextIO

Rule = dict[str, Any]

# Refusals: status and Telegram's words.
REFUSALS = {
    "400": (400, "Bad Request: message is too long"),
    "401": (401, "Unauthorized"),
    "403": (403, "Forbidden: bot was blocked by the user"),
    "404": (404, "Not Found"),
    "409": (409, "Conflict: terminated by other getUpdates request"),
    "410": (410, "Gone"),
    "429": (429, "Too Many Requests: retry after 1"),
    "500": (500, "Internal Server Error"),
    "502": (502, "Bad Gateway"),
    "503": (503, "Service Unavailable"),
    "chat_not_found": (400, "Bad Request: chat not found"),
    "deactivated": (403, "Forbidden: user is deactivated"),
    "kicked": (403, "Forbidden: bot was kicked from the group chat"),
    "not_a_member": (403, "Forbidden: bot is not a member of the channel chat"),
    "upgraded": (400, "Bad Request: group chat was upgraded to a supergroup chat"),
}
# Behaviours that take the message before they misbehave, and those that never read it.
TAKING = {
    "accept_then_reset",
    "accept_then_500",
    "accept_then_hang",
    "accept_then_cut",
    "accept_then_nonsense",
    "hang_then_accept",
}
HANGING = {"hang", "hang_then_accept"}  # decided only when the waiting is over


class Double:
    """The server with its script and its record. Thread-safe."""

    def __init__(self, port: int = 0, record: Path | None = None, seed: int = 0) -> None:
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._accepted: list[dict[str, Any]] = []
        self._calls: list[dict[str, Any]] = []
        self._keys: set[str] = set()
        self._random = random.Random(seed)
        self._released = threading.Event()
        self._last_message_id = 1000
        self._file: TextIO | None = record.open("a", buffering=1) if record else None
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.double = self
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Double:
        threading.Thread(target=self.serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def serve(self) -> None:
        self._server.serve_forever(poll_interval=0.05)

    def script(self, *rules: Rule) -> None:
        """Add rules behind those that are there."""
        with self._lock:
            self._rules += [{"times": 1, **rule} for rule in rules]

    def control(self, path: str, body: Any) -> bool:
        """An order of the test that came over HTTP; False: it is a call."""
        match path:
            case "/_script":
                self.script(*body)
            case "/_clear":
                self.clear()
            case "/_reset":
                self.reset()
            case _:
                return False
        return True

    def release(self) -> None:
        """What hangs goes on, and what is told to hang from now on does not; until ``reset``."""
        self._released.set()

    def hang(self, rule: Rule) -> bool:
        """Wait as the rule says; False: ``reset`` came, and whoever asked for it has gone."""
        released = self._released
        released.wait(rule.get("seconds", 60))
        return released is self._released

    def clear(self) -> None:
        """Forget the rules, keep the record."""
        with self._lock:
            self._rules = []

    def reset(self) -> None:
        with self._lock:
            self._rules, self._accepted, self._calls, self._keys = [], [], [], set()
            self._released.set()  # nothing of an earlier test hangs on
            self._released = threading.Event()

    def accepted(self, method: str = "") -> list[dict[str, Any]]:
        """What was taken and shown, in order; a repeated key is not shown again."""
        with self._lock:
            return [line for line in self._accepted if not method or line["method"] == method]

    def calls(self, method: str = "") -> list[dict[str, Any]]:
        """Every request with what was decided, taken or not."""
        with self._lock:
            return [line for line in self._calls if not method or line["method"] == method]

    def wait_for(self, count: int, seconds: float = 10.0, method: str = "") -> list[dict[str, Any]]:
        """``accepted`` once it holds ``count`` lines."""
        deadline = time.monotonic() + seconds
        while len(self.accepted(method)) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.accepted(method)

    def decide(self, call: dict[str, Any]) -> Rule:
        """The rule for one call, which is used up by it."""
        with self._lock:
            for rule in self._rules:
                if _fits(rule, call) and self._random.random() < rule.get("probability", 1.0):
                    if rule["times"] == 1:
                        self._rules.remove(rule)
                    rule["times"] -= rule["times"] > 1
                    return rule
        return {"do": "ok"}

    def knows(self, call: dict[str, Any]) -> bool:
        """Whether this call's key was shown before."""
        return bool(call["key"]) and call["key"] in self._keys

    def note(self, call: dict[str, Any], rule: Rule) -> int:
        """Write one call down; the platform's id of the message where it was taken."""
        taken = rule["do"] == "ok" or rule["do"] in TAKING
        with self._lock:
            repeated = self.knows(call)
            line = {**call, "decision": rule["do"], "accepted": taken and not repeated, "repeat": repeated}
            self._calls.append(line)
            if line["accepted"]:
                self._last_message_id += 1
                self._keys.add(call["key"])
                self._accepted.append({**line, "message_id": self._last_message_id})
            if self._file:
                self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
            return self._last_message_id


def _fits(rule: Rule, call: dict[str, Any]) -> bool:
    return (
        rule.get("chat") in (None, call["chat"])
        and rule.get("method") in (None, call["method"])
        and rule.get("token") in (None, call["token"])
        and (rule.get("text") or "") in call["text"]
    )


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512
    double: Double


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def do_GET(self) -> None:
        if self.path == "/_accepted":
            self._answer(200, self.server.double.accepted())
        else:
            self._call({})

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        raw = self.rfile.read(length)
        if len(raw) < length:  # its sender died while it spoke: nothing was said
            self.close_connection = True
            return
        body = json.loads(raw or b"{}")
        if self.server.double.control(self.path, body):
            self._answer(200, {})
        else:
            self._call(body)

    def _call(self, body: dict[str, Any]) -> None:
        double, call = self.server.double, self._described(body)
        rule = double.decide(call)
        time.sleep(rule.get("after", 0))
        if rule["do"] in HANGING and not double.hang(rule):
            self.close_connection = True
            return
        message_id = double.note(call, rule)
        getattr(self, "_" + rule["do"], self._refuse)(rule, call, message_id)

    def _described(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.path.startswith("/v26.0/"):
            return self._described_whatsapp(body)
        telegram = self.path.startswith("/bot")
        data = body if telegram else body.get("data", {})
        chat = data.get("chat_id", "") if telegram else data.get("chat", {}).get("id", "")
        return {
            "t_ns": time.monotonic_ns(),
            "at": time.time(),
            "platform": "telegram" if telegram else "generic",
            "method": self.path.rsplit("/", 1)[1] if telegram else self.path,
            "token": self.path.split("/")[1].removeprefix("bot") if telegram else "",
            "key": self.headers.get("webhook-id", ""),
            "chat": str(chat),
            "text": data.get("text") or data.get("caption") or data.get("title") or "",
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": body,
        }

    def _described_whatsapp(self, body: dict[str, Any]) -> dict[str, Any]:
        text = body.get("text") or {}
        return {
            "t_ns": time.monotonic_ns(),
            "at": time.time(),
            "platform": "whatsapp",
            "method": body.get("type", "read"),
            "token": self.headers.get("authorization", "").removeprefix("Bearer "),
            "key": "",
            "chat": str(body.get("to") or body.get("recipient") or ""),
            "text": text.get("body", ""),
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": body,
        }

    # -------------------------------------------------------- behaviours

    def _ok(self, rule: Rule, call: dict[str, Any], message_id: int) -> None:
        if call["platform"] == "whatsapp":
            self._answer(200, {"messages": [{"id": call.get("name", f"wamid.{message_id}")}]})
        elif call["platform"] == "generic":
            self._answer(200, rule.get("body", {}))
        else:
            self._answer(200, {"ok": True, "result": self._result(call, message_id)})

    def _result(self, call: dict[str, Any], message_id: int) -> Any:
        method = call["method"]
        if method == "getMe":
            return {"id": 4242, "is_bot": True, "first_name": "Double", "username": "double_bot"}
        if method == "getWebhookInfo":
            return {"url": "", "has_custom_certificate": False, "pending_update_count": 0}
        if method.startswith("send"):
            return {"message_id": message_id, "date": int(call["at"]), "chat": {"id": call["body"].get("chat_id")}}
        return True

    def _refuse(self, rule: Rule, call: dict[str, Any], message_id: int) -> None:
        status, words = REFUSALS[rule["do"]]
        if call["platform"] == "whatsapp":
            self._answer(status, {"error": {"code": {429: 130429}.get(status, 131000), "message": words}})
            return
        parameters = {name: rule[name] for name in ("retry_after", "migrate_to_chat_id") if name in rule}
        answer = {"ok": False, "error_code": status, "description": rule.get("description", words)}
        headers = {"Retry-After": str(rule["retry_after"])} if "retry_after" in rule else {}
        self._answer(status, {**answer, **({"parameters": parameters} if parameters else {})}, headers)

    def _accept_then_reset(self, rule: Rule, call: dict[str, Any], message_id: int) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def _accept_then_500(self, rule: Rule, call: dict[str, Any], message_id: int) -> None:
        self._answer(500, {"ok": False, "error_code": 500, "description": "Internal Server Error"})

    def _accept_then_hang(self, rule: Rule, call: dict[str, Any], message_id: int) -> None:
        self.server.double.hang(rule)
        self._ok(rule, call, message_id)

    def _accept_then_cut(self, rule: Rule, call: dict[str, Any], message_id: int) -> None:
        """Headers that promise more than comes."""
        self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"ok": true, "re')
        self.wfile.flush()
        self.close_connection = True

    def _accept_then_nonsense(self, rule: Rule, call: dict[str, Any], message_id: int) -> None:
        self._answer(200, "<html>welcome</html>")

    def _hang(self, rule: Rule, call: dict[str, Any], message_id: int) -> None:
        self._accept_then_reset(rule, call, message_id)

    def _hang_then_accept(self, rule: Rule, call: dict[str, Any], message_id: int) -> None:
        self._ok(rule, call, message_id)

    def _redirect(self, rule: Rule, call: dict[str, Any], message_id: int) -> None:
        self._answer(302, {}, {"Location": rule.get("location", "/elsewhere")})

    def _drip(self, rule: Rule, call: dict[str, Any], message_id: int) -> None:
        """A body of one byte a second."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
        for _ in range(int(rule.get("seconds", 60))):
            self.wfile.write(b" ")
            self.wfile.flush()
            time.sleep(1)
        self.close_connection = True

    def _flood(self, rule: Rule, call: dict[str, Any], message_id: int) -> None:
        self._answer(200, "x" * rule.get("bytes", 2_000_000))

    def _answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        raw = json.dumps(body).encode()
        self.send_response_only(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(raw)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, ValueError):  # the other side left, or a behaviour closed it
            super().handle()

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description="A double of the Telegram Bot API and of a generic receiver.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--script", help="a JSON list of rules")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    double = Double(arguments.port, arguments.record, arguments.seed)
    double.script(*json.loads(arguments.script or "[]"))
    print(double.url, flush=True)
    try:
        double.serve()
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
