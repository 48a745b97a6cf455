"""The double as a small HTTP server on 127.0.0.1, with a script and a record.

``/bot<token>/<method>`` speaks Telegram, ``/v26.0/...`` WhatsApp; any other path is a receiver of
the generic channel. A call that the script leaves alone is judged by the platform's own rules.

``POST /_script`` takes a JSON list of rules, ``POST /_clear`` removes them, ``POST /_reset`` empties
the record too. A rule: ``do`` (below, or the name of an error in ``errors.csv``), ``times`` (1; 0: for
ever), ``chat``, ``method``, ``token`` and ``text`` (a part of it) to choose by, ``probability``, and what
the behaviour reads: ``retry_after``, ``seconds``, ``description``, ``migrate_to_chat_id``, ``body``;
``after``: seconds until it begins. The first rule that fits is used.

``ok``, and with ``fails`` (a code) a status ``failed`` after ``sent``; ``later`` is accepted at once and
shown after ``seconds``, so that others overtake it; ``hang`` waits and cuts the connection;
``hang_then_accept`` waits; ``accept_then_reset`` takes the message and cuts the connection.
"""

from __future__ import annotations

import contextlib
import email.policy
import json
import random
import socket
import struct
import threading
import time
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from channels_ingest.fake_platform import generic, tables, telegram, whatsapp
from channels_ingest.fake_platform.world import File, World

Call = dict[str, Any]
Rule = dict[str, Any]

PLATFORMS: dict[str, Any] = {module.NAME: module for module in (telegram, whatsapp, generic)}
# Behaviours that decide after their wait.
HANGING = ("hang", "hang_then_accept")


def takes(rule: Rule) -> bool:
    """Return True if the message is taken, whatever the caller sees."""
    return rule["do"] in ("ok", "later", "hang_then_accept") or rule["do"].startswith("accept_then_")


class FakePlatform:
    """The server with its script and its record. Thread-safe."""

    handler: ClassVar[type[Handler]]

    def __init__(self, port: int = 0, *, world: World | None = None, seed: int = 0, first_id: int = 1000) -> None:
        self.world = world or World()
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._calls: list[Call] = []
        self._shown: list[Call] = []
        self._keys: set[str] = set()
        self._random = random.Random(seed)
        self._released = threading.Event()
        self._last_message_id = first_id
        self._server = _Server(("127.0.0.1", port), self.handler)
        self._server.platform = self
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def watch(self, event: str, call: Call) -> None:
        """Hear of a call: ``called``, and of a message that was taken also sent, delivered or failed."""
        return

    def serve(self) -> None:
        self._server.serve_forever(poll_interval=0.05)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def script(self, *rules: Rule) -> None:
        """Add rules behind those that are there."""
        with self._lock:
            self._rules += [{"times": 1, **rule} for rule in rules]

    def control(self, path: str, body: Any) -> Any:
        """Obey an order that came over HTTP, and return its answer; None: it is a call."""
        match path:
            case "/_script":
                self.script(*body)
            case "/_clear":
                self.clear()
            case "/_reset":
                self.reset()
            case _:
                return None
        return {}

    def release(self) -> None:
        """End every wait at once, and those that begin from now on; until ``reset``."""
        self._released.set()

    def hang(self, rule: Rule) -> bool:
        """Wait as the rule says. Return False if ``reset`` came meanwhile."""
        released = self._released
        released.wait(rule.get("seconds", 60))
        return released is self._released

    def clear(self) -> None:
        """Forget the rules, keep the record."""
        with self._lock:
            self._rules = []

    def reset(self) -> None:
        with self._lock:
            self._rules, self._calls, self._shown, self._keys = [], [], [], set()
            self._released.set()  # nothing of an earlier test hangs on
            self._released = threading.Event()

    def calls(self, method: str = "") -> list[Call]:
        """Return every call with what was decided, taken or not, in that order."""
        with self._lock:
            return [line for line in self._calls if not method or line["method"] == method]

    def shown(self, method: str = "") -> list[Call]:
        """Return what people see, in the order in which it reached their phones."""
        with self._lock:
            return [line for line in self._shown if not method or line["method"] == method]

    def decide(self, call: Call) -> Rule:
        """Return the rule for one call, which is used up by it."""
        with self._lock:
            for rule in self._rules:
                if _fits(rule, call) and self._random.random() < rule.get("probability", 1.0):
                    if rule["times"] == 1:
                        self._rules.remove(rule)
                    rule["times"] -= rule["times"] > 1
                    return rule
        return {"do": "ok"}

    def judged(self, call: Call, rule: Rule) -> Rule:
        """Return the rule, or a refusal by the platform's own rules where it would take the call."""
        error = PLATFORMS[call["platform"]].refusal(call, self.world) if takes(rule) else None
        if "fails" in rule and error is None:
            call["fails"] = tables.error(call["platform"], rule["fails"])
        if error and error.later:
            call["fails"] = error
            return rule
        return {"do": error.name, "error": error} if error else rule

    def knows(self, call: Call) -> bool:
        """Return True if this call's key was taken before."""
        return bool(call["key"]) and call["key"] in self._keys

    def note(self, call: Call, rule: Rule) -> int:
        """Write one call down; return the platform's id of the message."""
        taken = takes(rule)
        with self._lock:
            repeated = self.knows(call)
            call |= {"decision": rule["do"], "accepted": taken and not repeated, "repeat": repeated}
            self._calls.append(call)
            if call["accepted"]:
                self._last_message_id += 1
                self._keys.add(call["key"])
                call["name"] = call["name"].replace("{}", str(self._last_message_id))
            call["message_id"] = self._last_message_id
        self.watch("called", call)
        if call["accepted"]:
            self._deliver(call, rule)
        return int(call["message_id"])

    def next_id(self) -> int:
        """Return a number that no message has had."""
        with self._lock:
            self._last_message_id += 1
            return self._last_message_id

    def _deliver(self, call: Call, rule: Rule) -> None:
        """Bring an accepted message to the phone: now, or after the wait of its rule."""
        if not call["shown"]:
            return
        if "fails" not in call or "fails" in rule:
            self.watch("sent", call)
        if rule["do"] == "later":
            threading.Thread(target=self._show_later, args=(call, rule), daemon=True).start()
        else:
            self._show(call)

    def _show_later(self, call: Call, rule: Rule) -> None:
        if self.hang(rule):
            self._show(call)

    def _show(self, call: Call) -> None:
        if "fails" in call:
            self.watch("failed", call)
            return
        with self._lock:
            self._shown.append(call)
        self.watch("delivered", call)


def _fits(rule: Rule, call: Call) -> bool:
    return (
        rule.get("chat") in (None, call["chat"])
        and rule.get("method") in (None, call["method"])
        and rule.get("token") in (None, call["token"])
        and (rule.get("text") or "") in call["text"]
    )


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512
    platform: FakePlatform


class Handler(BaseHTTPRequestHandler):
    """One connection: a call, an order, or a page."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def do_GET(self) -> None:
        self._call(dict(parse_qsl(urlsplit(self.path).query)), b"")

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        raw = self.rfile.read(length)
        if len(raw) < length:  # its sender died while it spoke: nothing was said
            self.close_connection = True
            return
        if self.path.startswith("/_"):
            self._order(raw)
            return
        try:
            body = self._read(raw)
        except ValueError:
            self.answer(400, {"error": "the body cannot be read"})
            return
        self._call(body, raw)

    def _order(self, raw: bytes) -> None:
        """Obey an order."""
        answer = self.server.platform.control(self.path, json.loads(raw or b"{}")) if self.is_local() else None
        self.answer(200 if answer is not None else 404, answer)

    def is_local(self) -> bool:
        """Return False if a page of another site sent this: browsers name its origin, or its host."""
        here = self.server.platform.url
        return self.headers.get("origin", here) == here and f"http://{self.headers.get('host')}" == here

    def _read(self, raw: bytes) -> dict[str, Any]:
        """Return a body of JSON, or the fields of a form, whose file is kept. Raises ``ValueError``."""
        kind = self.headers.get("content-type", "")
        if not kind.startswith("multipart/form-data"):
            body = json.loads(raw or b"{}")
            if not isinstance(body, dict):
                raise ValueError("not an object")
            return body
        head = f"content-type: {kind}\r\n\r\n".encode()
        form: Any = BytesParser(policy=email.policy.HTTP).parsebytes(head + raw)
        fields: dict[str, Any] = {}
        for part in form.iter_parts():
            name = str(part.get_param("name", header="content-disposition"))
            content = part.get_payload(decode=True)
            if part.get_filename() is None:
                fields[name] = content.decode()
                continue
            fields["file_id"] = self.server.platform.world.keep(File(content, part.get_content_type()))
            # The Bot API names a file by its parameter or by attach://; WhatsApp's upload judges the bytes.
            fields[name] = content if name == "file" else fields["file_id"]
        return fields

    def _call(self, body: dict[str, Any], raw: bytes) -> None:
        double, call = self.server.platform, self._described(body, raw)
        rule = double.decide(call)
        time.sleep(rule.get("after", 0))
        if rule["do"] in HANGING and not double.hang(rule):
            self.close_connection = True
            return
        rule = double.judged(call, rule)
        message_id = double.note(call, rule)
        getattr(self, f"_{rule['do']}", self._refuse)(rule, call, message_id)

    def _described(self, body: dict[str, Any], raw: bytes) -> Call:
        """Return a call as the script and the record know it.

        From its platform: ``method``, ``token``, ``chat``, ``text``; ``key`` (of idempotency); ``name``, by
        which statuses name it, where {} is our number; ``shown``: the person sees a message of it;
        ``file``: the id of a file that it reads.
        """
        path = urlsplit(self.path).path
        name = "telegram" if telegram.PATH.match(path) else "whatsapp" if whatsapp.is_path(path) else "generic"
        headers = {name.lower(): value for name, value in self.headers.items()}
        facts = {"t_ns": time.monotonic_ns(), "at": time.time(), "platform": name, "path": path, "token": ""}
        defaults = {"key": "", "name": "{}", "shown": True, "file": ""}
        said = PLATFORMS[name].describe(path, headers, body)
        return {**facts, **defaults, **said, "headers": headers, "body": body, "raw": raw}

    # -------------------------------------------------------- behaviours

    def _ok(self, rule: Rule, call: Call, message_id: int) -> None:
        world = self.server.platform.world
        if call["file"] in world.files:
            self.answer(200, world.files[call["file"]].content, {"Content-Type": world.files[call["file"]].mime_type})
        else:
            self.answer(200, rule.get("body") or PLATFORMS[call["platform"]].success(call, message_id, world))

    _later = _hang_then_accept = _ok  # after their wait

    def _refuse(self, rule: Rule, call: Call, message_id: int) -> None:
        error = rule.get("error") or tables.error(call["platform"], rule["do"])
        headers = {"Retry-After": str(rule["retry_after"])} if "retry_after" in rule else {}
        self.answer(error.status, PLATFORMS[call["platform"]].error_body(error, rule), headers)

    def _accept_then_reset(self, rule: Rule, call: Call, message_id: int) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    _hang = _accept_then_reset

    def answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        """Send bytes as they are, anything else as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
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


FakePlatform.handler = Handler
