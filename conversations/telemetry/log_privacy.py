"""Decides what a log line may contain: a security control, through which every line passes.

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

# Most characters of a text value; the rest is cut off. Larger: longer lines; smaller: our own long
# values are cut.
VALUE_CHARACTERS = 200
# Names under which text may be logged. Add a name only if its values come from our own code or
# settings, never from a user, a platform or a row's text.
WORDS = frozenset({
    "event", "level", "logger", "timestamp", "trace", "at",
    "bot", "bucket", "channel", "command", "committer", "database", "error", "held", "host", "incarnation", "kind",
    "lane", "method", "outcome", "place", "platform", "public_id", "queue", "redis", "role", "route", "scope",
    "setting", "sqlstate", "state", "status", "step", "stops", "stream", "table", "task", "tenant", "thread", "verb",
    "version", "why", "worker",
})  # fmt: skip
# Log methods whose exceptions are also sent to Sentry. More of them: reports of what is expected.
REPORTED = frozenset({"error", "exception", "critical"})
# Attributes of every record of the standard library, to tell them from values that a caller logged.
ALWAYS = frozenset(vars(logging.makeLogRecord({})))

Event = MutableMapping[str, Any]


def type_and_place(logger: Any, method: str, event: Event) -> Event:
    """Replace ``exc_info`` by ``error``, ``frames`` and ``causes``, without the message.

    Failures are also reported to Sentry, see ``REPORTED``.
    """
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


def template_only(record: logging.LogRecord) -> Event:
    """Return another library's record as an event: the first line of its template.

    A message that is not a string may be an exception: only its type is kept.
    """
    event: Event = {name: value for name, value in vars(record).items() if name in WORDS - ALWAYS}
    event["event"] = record.msg.partition("\n")[0] if isinstance(record.msg, str) else type(record.msg).__name__
    event["at"] = f"{record.module}:{record.lineno}"
    event["exc_info"] = record.exc_info
    _add_route(record, event)
    return event


def words_only(event: Event) -> Event:
    """Replace text by "(left out)" under every name that is not one of ``WORDS``."""
    for name, value in event.items():
        if name not in ("frames", "causes"):
            event[name] = _allowed(name, value)
    return event


def _allowed(name: str, value: Any) -> Any:
    """Return what a line may say for a value: numbers and ids as they are, text by its name.

    Characters that cannot be printed are replaced, since they could forge lines in a terminal.
    """
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, (list, tuple)):
        return list(value) if all(isinstance(each, int) for each in value) else [_allowed(name, each) for each in value]
    if isinstance(value, str) and name in WORDS:
        text = value[:VALUE_CHARACTERS]
        return text if text.isprintable() else "".join(char if char.isprintable() else "�" for char in text)
    return "(left out)"


def _error(exc_info: Any) -> BaseException | None:
    """Return the exception of ``exc_info``: True, a tuple or an exception, as logging allows."""
    if exc_info is True:
        return sys.exc_info()[1]
    if isinstance(exc_info, tuple):
        return exc_info[1]
    return exc_info if isinstance(exc_info, BaseException) else None


def _add_route(record: logging.LogRecord, event: Event) -> None:
    """Add a request's route (the URL pattern) and status. Its path can hold a token."""
    match = getattr(getattr(record, "request", None), "resolver_match", None)
    if match is not None:
        event["route"] = match.route
    if isinstance(code := getattr(record, "status_code", None), int):
        event.update(event="request failed", status=code)
