"""The double with a page: what people see on their phones, and what they write.

Orders of the page, and of whoever drives it (``POST``, JSON), beside those of ``server``. ``/_write
{channel, event, person, values}``: a person does something; the events are those of
``webhooks.json``. ``/_fixture {channel, name}``: one of the webhooks that the tests keep. ``/_status {id,
status, error}``: the platform says something about a message. ``/_window {channel, person}``: the
person wrote 25 hours ago. ``/_file {content, mime_type, name}``: keep a file, in base64.
``GET /_events?after=n`` tells what happened since, ``GET /_about`` channels, people and events.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import queue
import re
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from django.conf import settings

from channels_ingest.fake_platform import tables
from channels_ingest.fake_platform.server import Call, FakePlatform, Handler
from channels_ingest.fake_platform.world import Account, File, World
from channels_ingest.management.commands.send_webhook import FIXTURES, body_of, find_fixture, read_fixture
from channels_ingest.outbound import http
from conversations import registry
from conversations.contracts import ChannelConfig

FOLDER = Path(__file__).parent
SAMPLES: dict[str, Any] = json.loads((FOLDER / "webhooks.json").read_text(encoding="utf-8"))
PAGES = {"/": "page.html", "/page.css": "page.css", "/page.js": "page.js"}
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
POLICY = "default-src 'self'; img-src * data:; media-src *; frame-ancestors 'none'"
TOKENS = {"telegram": "token", "whatsapp": "access_token"}  # which secret a call carries
# Attempts to post a webhook, and seconds between two. More: a server that was away for longer still
# gets it. Fewer: what people write next waits less behind it.
ATTEMPTS, AGAIN_SECONDS = 60, 1.0


class Page(Handler):
    server: Any

    def do_GET(self) -> None:
        url, double = urlsplit(self.path), self.server.platform
        if url.path in PAGES and self.is_local():
            path = FOLDER / "page" / PAGES[url.path]
            self.answer(200, path.read_bytes(), {"Content-Type": TYPES[path.suffix], "Content-Security-Policy": POLICY})
        elif url.path == "/_events" and self.is_local():
            self.answer(200, double.events[int(parse_qs(url.query)["after"][0]) :])
        elif url.path == "/_about" and self.is_local():
            self.answer(200, double.about())
        elif url.path.startswith("/_file/"):
            file = double.world.files.get(url.path.removeprefix("/_file/"), File(b"", "text/plain"))
            self.answer(200, file.content, {"Content-Type": file.mime_type, "Content-Security-Policy": "sandbox"})
        else:
            super().do_GET()


class Phones(FakePlatform):
    """The double for channels whose ``api_base`` leads to it. ``web`` is the URL of our web process."""

    handler = Page

    def __init__(self, channels: Sequence[ChannelConfig], web: str, port: int) -> None:
        self.channels = {channel.public_id: channel for channel in channels}
        self.accounts = {channel.public_id: account_of(channel) for channel in channels}
        self.events: list[dict[str, Any]] = []
        self._web = web
        self._webhooks: queue.SimpleQueue[tuple[ChannelConfig, bytes]] = queue.SimpleQueue()
        super().__init__(port, world=World(self.accounts.values()), first_id=int(time.time()))
        threading.Thread(target=self._post_webhooks, name="webhooks", daemon=True).start()

    def about(self) -> dict[str, Any]:
        """Return what the page shows before anything happens."""
        channels = [account._asdict() for account in self.accounts.values()]
        for each in channels:
            paths = (settings.BASE_DIR / FIXTURES / each["platform"]).glob("*.json")
            each |= {"fixtures": sorted(path.stem for path in paths), "events": [*SAMPLES[each["platform"]]["events"]]}
        return {"people": SAMPLES["people"], "channels": channels, "templates": self.world.templates}

    def control(self, path: str, body: Any) -> Any:
        match path:
            case "/_write":
                self.write(body["channel"], body["event"], body["person"], body["values"])
            case "/_fixture":
                self._write_fixture(self.channels[body["channel"]], body["name"])
            case "/_status":
                call = next(call for call in self.calls() if call["name"] == body["id"])
                self._post_status(call, body["status"], body.get("error", ""))
            case "/_window":
                self.world.write(self.accounts[body["channel"]].token, ids_of(body["person"]), 25 * 3600)
            case "/_file":
                file = File(base64.b64decode(body["content"]), body["mime_type"], body["name"])
                return {"file": self.world.keep(file)}
            case _:
                return super().control(path, body)
        return {}

    def write(
        self,
        public_id: str,
        event: str,
        person: Mapping[str, Any],
        values: Mapping[str, Any],
        rule: Mapping[str, Any] | None = None,
    ) -> None:
        """Let a person do something: post its webhook. ``rule``: what the platform does from then on.

        Who does anything on Telegram has unblocked the bot, unless it is to block it.
        """
        facts, file = {}, self.world.files.get(values.get("file", ""))
        if file:
            digest = base64.b64encode(hashlib.sha256(file.content).digest()).decode()
            facts = {"mime_type": file.mime_type, "size": len(file.content), "file_name": file.name, "sha256": digest}
            facts["url"] = f"{self.url}/_file/{values['file']}"
        self.world.write(self.accounts[public_id].token, ids_of(person))
        chat = str(person["user"])
        if self.channels[public_id].platform == "telegram":
            with self._lock:
                self._rules = [each for each in self._rules if (each["do"], each.get("chat")) != ("403", chat)]
        if event == "block":
            rule = {"do": "403", "chat": chat, "times": 0}
        if rule:
            self.script(dict(rule))
        self._add("wrote", channel=public_id, person=person, what=event, values=values)
        self._post(self.channels[public_id], event, {**person, **facts, **values})

    def _write_fixture(self, channel: ChannelConfig, name: str) -> None:
        """Post a webhook that the tests keep. Whoever it names is known from now on."""
        fixture, adapter = read_fixture(find_fixture(name, channel.platform)), registry.adapter(channel.platform)
        with contextlib.suppress(AttributeError, TypeError):  # a sample may be broken on purpose
            adapter.renew(fixture.get("body", {}))  # type: ignore[attr-defined]
        body = body_of(fixture)
        self.world.write(self.accounts[channel.public_id].token, re.findall(r"[\w.:-]+", body.decode(errors="replace")))
        self._add("fixture", channel=channel.public_id, what=name)
        self._webhooks.put((channel, body))

    def watch(self, event: str, call: Call) -> None:
        """Tell the page of a call, and our web process what the platform says of a message."""
        account = self.world.accounts.get(call["token"] or call["method"])
        call["channel"] = account.public_id if account else ""
        kept = {name: call[name] for name in ("channel", "method", "chat", "name", "message_id", "decision", "shown")}
        body = {name: value for name, value in call["body"].items() if not isinstance(value, bytes)}
        error = "" if call["accepted"] else tables.error(call["platform"], call["decision"]).words
        self._add(event, body=body, error=error, **kept)
        if event != "called":
            self._post_status(call, event, call["fails"].name if event == "failed" else "")

    def _post_status(self, call: Call, status: str, error: str) -> None:
        platform = call["platform"]
        if "status" not in SAMPLES[platform]["events"]:
            return
        words = tables.error(platform, error).words if error else None
        values = {"target": call["name"], "status": status, "status_type": f"message.{status}", "error": words}
        values["errors"] = [{"code": int(error), "title": words, "message": words}] if error.isdigit() else None
        self._add("status", name=call["name"], status=status, error=words)
        key = call["body"].get("biz_opaque_callback_data")
        self._post(self.channels[call["channel"]], "status", {**values, "chat": call["chat"], "key": key})

    def _post(self, channel: ChannelConfig, event: str, values: Mapping[str, Any]) -> None:
        """Queue a webhook of ``webhooks.json``, filled with ``values``."""
        samples, account, number = SAMPLES[channel.platform], self.accounts[channel.public_id], self.next_id()
        known: dict[str, Any] = {
            "account": account.number,
            "owner": account.owner or "1",
            "user_id": str(values.get("user", "")),
        }
        known |= {"now": int(time.time()), "seconds": str(int(time.time())), "number": number, "id": f"in-{number}"}
        known |= {"iso": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **values}
        known |= {name: filled(part, known) for name, part in samples["parts"].items()}
        known["event"] = filled(samples["events"][event], known)
        self._webhooks.put((channel, json.dumps(filled(samples["envelope"], known)).encode()))

    def _post_webhooks(self) -> None:
        """Post what waits, one after the other, each again until it is taken."""
        while True:
            channel, body = self._webhooks.get()
            for _ in range(ATTEMPTS):
                status = self._post_once(channel, body)
                self._add("answered", channel=channel.public_id, status=status)
                if status and status != 429 and status < 500:
                    break
                time.sleep(AGAIN_SECONDS)

    def _post_once(self, channel: ChannelConfig, body: bytes) -> int:
        """Post a webhook; return the status of the answer, 0 without one."""
        url = f"{self._web}/webhooks/{channel.platform}/{channel.public_id}/"
        headers = registry.adapter(channel.platform).sign(channel, body)  # type: ignore[attr-defined]
        try:
            return http.call("POST", url, headers=headers, body=body, allow_private=True).status
        except http.CallFailed:
            return 0

    def _add(self, event: str, **facts: Any) -> None:
        self.events.append({"at": time.time(), "event": event, **facts})


def account_of(channel: ChannelConfig) -> Account:
    """Return a channel as its platform knows it."""
    secrets, options = channel.credentials, channel.options
    return Account(
        channel.platform,
        channel.public_id,
        channel.name,
        secrets[TOKENS[channel.platform]] if channel.platform in TOKENS else urlsplit(channel.api_base).path,
        number=str(options.get("phone_number_id", "")),
        owner=str(options.get("waba_id", "")),
        secret=secrets.get("secret", ""),
    )


def ids_of(person: Mapping[str, Any]) -> list[str]:
    """Return the ids by which platforms may name a person."""
    return [str(value) for name, value in person.items() if name != "name"]


def filled(sample: Any, values: Mapping[str, Any]) -> Any:
    """Return a sample with each ``$name`` replaced; members without a value are left out."""
    if isinstance(sample, dict):
        return {name: found for name, part in sample.items() if (found := filled(part, values)) is not None}
    if isinstance(sample, list):
        return [filled(part, values) for part in sample]
    return values.get(sample[1:]) if isinstance(sample, str) and sample.startswith("$") else sample
