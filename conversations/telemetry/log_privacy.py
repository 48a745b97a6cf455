"""What a log line may say: a security control, through which every line passes.

Lines may hold numbers, flags, ids, and text under the names in ``WORDS``. Other text is left out,
however it got there, since it can be what people wrote, a name, a row, or a URL with a token. An
exception becomes its type and the place where it was raised. A record of another library becomes
its template, without its arguments.

tests/telemetry/test_logs.py and test_canaries.py look for words that leak.
"""

from __future__ import annotations

import logging
import sys
import uuid
from collections.abc import MutableMapping
from typing import Any

from conversations.telemetry import error_places, error_reports

# Characters of a text value; the rest is cut off. More: longer error messages of ours, longer
# lines.
VALUE_CHARACTERS = 200
# Names of values that hold words of ours. Add a name only if no user, platform or database fills
# its values.
WORDS = frozenset({
    "event", "level", "logger", "timestamp", "trace", "at",
    "bot", "bucket", "channel", "command", "committer", "database", "error", "held", "host", "incarnation", "kind",
    "lane", "method", "outcome", "place", "platform", "public_id", "queue", "redis", "role", "route", "scope",
    "setting", "sqlstate", "state", "status", "step", "stops", "stream", "table", "task", "tenant", "thread", "verb",
    "version", "why", "worker",
})  # fmt: skip
# Levels at which an exception is also sent to Sentry.
REPORTED = frozenset({"error", "exception", "critical"})
# Attributes of every record of the standard library: they are not values that somebody logged.
ALWAYS = frozenset(vars(logging.makeLogRecord({})))

Event = MutableMapping[str, Any]


def type_and_place(logger: Any, method: str, event: Event) -> Event:
    """Replace ``exc_info`` by ``error``, ``frames`` and ``causes``; tell Sentry of it."""
    error = _error(event.pop("exc_info", None))
    if error is not None:
        event["error"] = error_places.kind(error)
        event["frames"] = error_places.frames(error)
        event["causes"] = error_places.causes(error)
        if method in REPORTED:
            error_reports.capture(error)
    elif "error" in event and "place" in event:
        # Only the type and the place are left of this exception: a bot's, maybe of another process.
        error_reports.capture_place(event["error"], event["place"])
    if method == "critical":
        error_reports.flush()
    return event


def template_only(logger: Any, method: str, event: Event) -> Event:
    """Reduce another library's record to the first line of its template.

    A message that is not a string may be an exception, with words: only its type is kept.
    """
    record: logging.LogRecord = event["_record"]
    event["event"] = record.msg.partition("\n")[0] if isinstance(record.msg, str) else type(record.msg).__name__
    event["at"] = f"{record.module}:{record.lineno}"
    event.pop("stack_info", None)
    event.update({name: value for name, value in vars(record).items() if name in WORDS - ALWAYS})
    _add_route(record, event)
    return event


def words_only(logger: Any, method: str, event: Event) -> Event:
    """Leave out text under every name that is not one of ``WORDS``."""
    for name, value in event.items():
        if name in ("frames", "causes") or name.startswith("_"):
            continue
        event[name] = _word(name, value)
    return event


def _word(name: str, value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, (list, tuple)):
        return list(value) if all(isinstance(each, int) for each in value) else [_word(name, each) for each in value]
    if isinstance(value, str) and name in WORDS:
        text = value[:VALUE_CHARACTERS]
        return text if text.isprintable() else "".join(char if char.isprintable() else "�" for char in text)
    return "(left out)"


def _error(exc_info: Any) -> BaseException | None:
    if exc_info is True:
        return sys.exc_info()[1]
    if isinstance(exc_info, tuple):
        return exc_info[1]
    return exc_info if isinstance(exc_info, BaseException) else None


def _add_route(record: logging.LogRecord, event: Event) -> None:
    """Add the route and status of a request. Its path is left out: it can hold a token."""
    match = getattr(getattr(record, "request", None), "resolver_match", None)
    if match is not None:
        event["route"] = match.route
    if isinstance(code := getattr(record, "status_code", None), int):
        event.update(event="request failed", status=code)
