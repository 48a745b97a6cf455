"""The chat platforms, as a process of their own that the checker can believe.

``/bot<token>/<method>`` is Telegram and ``/v26.0/...`` WhatsApp: no idempotency keys. ``/keep/<name>`` knows a key for
ever, ``/forget/<name>`` for 60 s. An *account* is a token or such a path. Rules, refusals and behaviours are those of
the product's double (``channels_ingest.fake_platform``). Accounts that were given limits have token buckets; a call
over them gets 429 with the time after which there is room again.

Every call is one line of JSON, written when it was decided (a call that hangs: when the waiting is over), in the order
in which the people would see what was accepted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.kit.doubles import Double, Rule, takes
from tests.kit.stack import ROOT, Process, free_port, wait_until

FORGET_SECONDS = 60.0
BURST_SECONDS = 2.0  # what a bucket holds, in seconds of its rate: a stall of the machine squeezes two windows

Limits = dict[str, dict[str, float]]  # account -> {"channel": calls a second, "chat": calls a second}


class Accounts(Double):
    """The server's side."""

    def __init__(self, port: int, record: Path, seed: int) -> None:
        now = time.monotonic()  # a platform that was restarted still knows its keys
        self._known = {(line["account"], line["key"]): now for line in read(record) if line["accepted"] and line["key"]}
        self._limits: Limits = {}
        self._buckets: dict[tuple[str, str], tuple[float, float]] = {}
        super().__init__(port, seed=seed)
        self._file = record.open("a", buffering=1)

    def limit(self, limits: Limits) -> None:
        with self._lock:
            self._limits = limits
            self._buckets.clear()

    def decide(self, call: dict[str, Any]) -> Rule:
        rule = super().decide(call)
        if rule["do"] != "ok":
            return rule
        with self._lock:
            wait = self._take(account_of(call), call["chat"])
        return {"do": "429", "retry_after": round(wait + 0.05, 2)} if wait else rule

    def _take(self, account: str, chat: str) -> float:
        """A token from each bucket of this call; else the seconds until all have one."""
        rates = self._limits.get(account, {})
        keys = {(account, chat if bucket == "chat" else ""): rate for bucket, rate in rates.items()}
        levels, now = {}, time.monotonic()
        for key, rate in keys.items():
            level, at = self._buckets.get(key, (rate * BURST_SECONDS, now))
            levels[key] = min(rate * BURST_SECONDS, level + (now - at) * rate)
        wait = max([(1 - levels[key]) / rate for key, rate in keys.items() if levels[key] < 1], default=0.0)
        for key, level in levels.items():
            self._buckets[key] = (level if wait else level - 1, now)
        return wait

    def knows(self, call: dict[str, Any]) -> bool:
        account = account_of(call)
        at = self._known.get((account, call["key"]))
        if not call["key"] or at is None:
            return False
        return account.startswith("keep") or time.monotonic() - at < FORGET_SECONDS

    def note(self, call: dict[str, Any], rule: Rule) -> int:
        taken = takes(rule)
        with self._lock:
            repeat = self.knows(call)
            account = account_of(call)
            if taken and not repeat and call["key"]:
                self._known[(account, call["key"])] = time.monotonic()
            self._last_message_id += 1
            line = {name: call[name] for name in ("t_ns", "method", "key", "chat", "text")}
            call["name"] = f"wamid.{time.time_ns()}.{self._last_message_id}"  # also after a start nobody else's
            line |= {"name": call["name"], "key": call["key"] or call["body"].get("biz_opaque_callback_data", "")}
            line |= {"done_ns": time.monotonic_ns(), "account": account, "decision": rule["do"]}
            line |= {"accepted": taken and not repeat, "repeat": taken and repeat, "id": self._last_message_id}
            if "retry_after" in rule:
                line["retry_after"] = rule["retry_after"]
            self._file.write(json.dumps(line) + "\n")
            return self._last_message_id

    def control(self, path: str, body: Any) -> Any:
        if path != "/_limits":
            return super().control(path, body)
        self.limit(body)
        return {}


def account_of(call: dict[str, Any]) -> str:
    return call["token"] or call["method"].strip("/")


# ---------------------------------------------------------------- the checker's side


class Platform:
    """The process, and what it wrote down."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.port = free_port()
        self.record = folder / "platform.jsonl"
        command = [sys.executable, "-m", "tests.chaos.platform", "--port", str(self.port), "--seed", str(seed)]
        command += ["--record", str(self.record)]
        self.process = Process("platform", command, {"PYTHONPATH": str(ROOT)}, folder / "platform.log")

    def __enter__(self) -> Platform:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.end()

    def start(self) -> None:
        self.process.start()
        wait_until(self._answers, 20, "the fake platform answers")

    def stop(self) -> None:
        self.process.signal(signal.SIGSTOP)

    def cont(self) -> None:
        self.process.signal(signal.SIGCONT)

    def script(self, *rules: Rule) -> None:
        """Add rules (``kit.doubles``); ``times`` 0 and ``probability`` make a mood of them."""
        self._post("/_script", list(rules))

    def clear(self) -> None:
        """No rules any more."""
        self._post("/_clear", {})

    def limit(self, limits: Limits) -> None:
        """Calls a second that accounts may make, per channel and per chat; they replace those from before."""
        self._post("/_limits", limits)

    def calls(self) -> list[dict[str, Any]]:
        """Every call, in the order in which it was decided."""
        return read(self.record)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            self._post("/_script", [])
            return True
        return False

    def _post(self, path: str, body: Any) -> None:
        data = json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, method="POST")
        with urllib.request.urlopen(request, timeout=5) as answer:
            answer.read()


def read(record: Path) -> list[dict[str, Any]]:
    """The lines that were written whole."""
    if not record.exists():
        return []
    return [json.loads(line) for line in record.read_bytes().splitlines() if line.endswith(b"}")]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    Accounts(arguments.port, arguments.record, arguments.seed).serve()


if __name__ == "__main__":
    main()
