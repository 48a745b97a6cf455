"""Logs: one JSON object a line, ids and places only, never what people wrote.

    log = structlog.get_logger(__name__)
    with logs.traced(message.trace):
        log.info("handled", conversation=7, sequence=3, milliseconds=12)

An event is a constant. A value is a number, a flag, an id, or text under one of ``WORDS``; other
text is left out. Of an exception only type and place are written. Records of other libraries
are reduced to their template: their arguments can be URLs with tokens, rows or texts.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import sys
import threading
import types
import uuid
import warnings
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TextIO

import msgspec
import structlog
from celery import signals
from django.conf import settings

from conversations.telemetry import error_places, error_reports

WAITING_LINES = 5_000
LINE_CHARACTERS = 8_000
VALUE_CHARACTERS = 200
EXIT_SECONDS = 1.0
# Names of values that are words of ours.
WORDS = frozenset({
    "event", "level", "logger", "timestamp", "trace", "at",
    "bot", "bucket", "channel", "command", "committer", "database", "error", "held", "host", "incarnation", "kind",
    "lane", "method", "outcome", "place", "platform", "public_id", "queue", "redis", "role", "route", "scope",
    "setting", "sqlstate", "state", "status", "step", "stops", "stream", "table", "task", "tenant", "verb", "version",
    "why", "worker",
})  # fmt: skip
# What these say at lower levels is noise, or holds URLs with tokens.
QUIET = {
    "axes": logging.WARNING,
    "celery": logging.WARNING,  # wakes are hints: two lines each would be most of the log
    "django.db.backends": logging.WARNING,
    "django.request": logging.ERROR,  # 4xx are counted by health, not logged one by one
    "httpx": logging.ERROR,
    "kombu": logging.WARNING,
    "urllib3": logging.ERROR,
}
REPORTED = frozenset({"error", "exception", "critical"})
# Attributes that every record has, whatever was logged.
ALWAYS = frozenset(vars(logging.makeLogRecord({})))

TOGETHER = 100  # things in one line

Event = MutableMapping[str, Any]
Line = Mapping[str, Any]


def configure() -> None:
    """Set up logging once per process, for web and workers alike."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            *OURS,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.LOG_LEVEL)),
        cache_logger_on_first_use=True,
    )
    handler = PatientHandler(sys.stderr)
    handler.setFormatter(formatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.LOG_LEVEL)
    for name, level in QUIET.items():
        logging.getLogger(name).setLevel(level)
    hook_what_nobody_caught()
    error_reports.configure()
    # With a receiver Celery leaves logging alone.
    signals.setup_logging.connect(_leave_logging_alone, weak=False)


def traced(trace: str) -> AbstractContextManager[None]:
    """Lines of this thread carry ``trace`` (``Message.trace``): it follows a message from webhook to delivery."""
    return structlog.contextvars.bound_contextvars(trace=trace)


def together(logs_of: Any, event: str, lines: Sequence[Line], **words: Any) -> None:
    """What happened to all of a batch as one line, with a list per name: a line each would cost more than the work."""
    for start in range(0, len(lines), TOGETHER):
        part = lines[start : start + TOGETHER]
        lists = {name: [line[name] for line in part] for name in part[0]}
        logs_of.info(event, **words, **(part[0] if len(part) == 1 else lists))


def dropped_lines() -> int:
    """How many lines this process gave up because nobody read its output."""
    return sum(handler.dropped for handler in logging.getLogger().handlers if isinstance(handler, PatientHandler))


# ---------------------------------------------------------------- what a line may say


def type_and_place(logger: Any, method: str, event: Event) -> Event:
    """``exc_info`` becomes ``error``, ``frames`` and ``causes``; Sentry hears of it too."""
    error = _error(event.pop("exc_info", None))
    if error is not None:
        event["error"] = error_places.kind(error)
        event["frames"] = error_places.frames(error)
        event["causes"] = error_places.causes(error)
        if method in REPORTED:
            error_reports.capture(error)
    elif "error" in event and "place" in event:
        # A failure that was turned into words already: a bot's, perhaps of another process.
        error_reports.capture_place(event["error"], event["place"])
    if method == "critical":
        error_reports.flush()
    return event


def template_only(logger: Any, method: str, event: Event) -> Event:
    """Another library's record: the first line of its template. One that was filled in already may be an exception."""
    record: logging.LogRecord = event["_record"]
    event["event"] = record.msg.partition("\n")[0] if isinstance(record.msg, str) else type(record.msg).__name__
    event["at"] = f"{record.module}:{record.lineno}"
    event.pop("stack_info", None)
    event.update({name: value for name, value in vars(record).items() if name in WORDS - ALWAYS})
    _add_route(record, event)
    return event


def words_only(logger: Any, method: str, event: Event) -> Event:
    """Text under a name that is not one of ``WORDS`` is left out, however it came here."""
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
    """Django says of a request its status and its path; the path can hold a token, its route cannot."""
    match = getattr(getattr(record, "request", None), "resolver_match", None)
    if match is not None:
        event["route"] = match.route
    if isinstance(code := getattr(record, "status_code", None), int):
        event.update(event="request failed", status=code)


OURS: list[Callable[..., Any]] = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    type_and_place,
    words_only,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]
THEIRS: list[Callable[..., Any]] = [template_only, structlog.contextvars.merge_contextvars, *OURS]


def formatter() -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=THEIRS,
        use_get_message=False,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers()],
    )


def _renderers() -> list[Callable[..., Any]]:
    if settings.LOG_FORMAT == "json":
        return [structlog.processors.JSONRenderer(serializer=_as_json)]
    return [_short_time, structlog.dev.ConsoleRenderer(colors="NO_COLOR" not in os.environ, pad_event_to=24)]


def _as_json(event: Event, **options: Any) -> str:
    return msgspec.json.encode(event).decode()


def _short_time(logger: Any, method: str, event: Event) -> Event:
    """For people: the time of day."""
    event["timestamp"] = event["timestamp"][11:23]
    return event


# ---------------------------------------------------------------- writing never waits


class PatientHandler(logging.Handler):
    """Writes from its own thread. When nobody reads the output, lines are dropped and counted; the work goes on."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.dropped = 0
        self._stream = stream
        self._begin()
        os.register_at_fork(after_in_child=self._begin)
        atexit.register(self.drain, EXIT_SECONDS)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self.format(record)[:LINE_CHARACTERS])
        except Exception:  # full, or a record that cannot be formatted: never the caller's concern
            self.dropped += 1
        # The last words of a process that is about to end itself.
        if record.levelno >= logging.CRITICAL:
            self.drain(EXIT_SECONDS)

    def drain(self, seconds: float) -> None:
        """Wait until what was logged is written, but not for ever."""
        done = threading.Event()
        try:
            self._lines.put(done, timeout=seconds)
        except queue.Full:
            return
        done.wait(seconds)

    def _begin(self) -> None:
        """In a new process, too: threads do not come along."""
        self._lines: queue.Queue[str | threading.Event] = queue.Queue(WAITING_LINES)
        threading.Thread(target=self._write, args=(self._lines,), name="logs", daemon=True).start()

    def _write(self, lines: queue.Queue[str | threading.Event]) -> None:
        told = 0
        while True:
            line = lines.get()
            if isinstance(line, threading.Event):
                line.set()
                continue
            if self.dropped > told:
                told = self.dropped
                line += f'\n{{"event":"log lines dropped","level":"warning","lines":{told}}}'
            self._print(line)

    def _print(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # a closed pipe must not end this thread
            self.dropped += 1


# ---------------------------------------------------------------- what nobody caught


def hook_what_nobody_caught() -> None:
    """Python would print an exception's words: for people on their own machine or at a terminal, not for a log."""
    logging.raiseExceptions = False
    warnings.showwarning = _log_warning
    if not settings.LOCAL and not sys.stderr.isatty():
        sys.excepthook = _log_uncaught
    threading.excepthook = lambda args: _log_thread(args)
    sys.unraisablehook = lambda args: _log_unraisable(args)


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    structlog.get_logger(__name__).critical("uncaught exception", exc_info=error)


def _log_thread(args: Any) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        structlog.get_logger(__name__).critical("uncaught exception in a thread", exc_info=args.exc_value)


def _log_unraisable(args: Any) -> None:
    structlog.get_logger(__name__).error("exception ignored", exc_info=args.exc_value)


def _log_warning(message: Any, category: type[Warning], filename: str, lineno: int, *args: Any, **kwargs: Any) -> None:
    structlog.get_logger(__name__).warning("python warning", kind=category.__name__, place=f"{filename}:{lineno}")


def _leave_logging_alone(**kwargs: Any) -> None:
    return None
