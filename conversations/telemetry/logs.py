"""Logs: one JSON object a line, with ids and places and never what people wrote.

    log = structlog.get_logger(__name__)
    with logs.traced(message.trace):
        log.info("handled", conversation=7, sequence=3, milliseconds=12)

An event is a constant text. ``log_privacy`` decides what a line may contain, ``log_writer`` writes
it.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import msgspec
import structlog
from celery import signals
from django.conf import settings

from conversations.telemetry import error_reports
from conversations.telemetry.log_privacy import Event, template_only, type_and_place, words_only
from conversations.telemetry.log_writer import EXIT_SECONDS, LogWriter

# The lowest level at which these libraries are logged. Lower: mostly noise, or URLs with tokens.
QUIET = {
    "axes": logging.WARNING,
    "celery": logging.WARNING,  # wakes are hints: two lines each would be most of the log
    "django.db.backends": logging.WARNING,
    "django.request": logging.ERROR,  # 4xx are counted by health, not logged one by one
    "django.security": logging.CRITICAL,  # strangers cause these, as often as they like
    "httpx": logging.ERROR,
    "kombu": logging.WARNING,
    "psycopg.pool": logging.ERROR,  # the caller that needs a connection gets the error and logs it
    "urllib3": logging.ERROR,
}
# Most items of a batch in a line. Larger: ``LINE_CHARACTERS`` may cut it off; smaller: more lines.
TOGETHER = 100

Line = Mapping[str, Any]


def configure() -> None:
    """Set up logging once per process, for web and workers alike."""
    writer = LogWriter(renderer(), sys.stderr)
    structlog.configure(
        processors=[*OURS, writer.hand_over],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.LOG_LEVEL)),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [Theirs(writer)]
    root.setLevel(settings.LOG_LEVEL)
    for name, level in QUIET.items():
        logging.getLogger(name).setLevel(level)
    hook_uncaught_exceptions()
    error_reports.configure()
    # With a receiver Celery leaves logging alone.
    signals.setup_logging.connect(_leave_logging_alone, weak=False)


def traced(trace: str) -> AbstractContextManager[None]:
    """Add ``trace`` to this thread's lines. ``Message.trace`` follows a message to its delivery."""
    return structlog.contextvars.bound_contextvars(trace=trace)


def together(caller: Any, event: str, lines: Sequence[Line], **words: Any) -> None:
    """Log a batch as one line with a list of values per name, ``TOGETHER`` items at most.

    One line per item would cost more than the item's work. All items have the same names.
    ``caller``: the caller's logger. ``event``: a constant.
    """
    for start in range(0, len(lines), TOGETHER):
        part = lines[start : start + TOGETHER]
        lists = {name: [line[name] for line in part] for name in part[0]}
        caller.info(event, **words, **(part[0] if len(part) == 1 else lists))


def dropped_lines() -> int:
    """Return how many lines this process dropped because nobody read its output."""
    return sum(writer.dropped for writer in _writers())


def flush() -> None:
    """Wait until the lines logged so far are written, before an ``os._exit``; one second at most."""
    for writer in _writers():
        writer.drain(EXIT_SECONDS)


def _writers() -> list[LogWriter]:
    return [handler.writer for handler in logging.getLogger().handlers if isinstance(handler, Theirs)]


# ---------------------------------------------------------------- from an event to a line

# In the caller's thread: what only that knows.
OURS: list[Callable[..., Any]] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    type_and_place,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


class Theirs(logging.Handler):
    """Takes the records of other libraries. A record that cannot be read is counted as dropped."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self.writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            event, method = template_only(record), record.levelname.lower()
            for processor in (*OURS, self.writer.hand_over):
                event = processor(record, method, event)  # both, record and logger, have the logger's name
        except structlog.DropEvent:
            pass
        except Exception:  # a log call must not raise in its caller
            self.writer.dropped += 1


def renderer() -> Callable[[Event], str]:
    """Return what makes text of an event, in the writer's thread: every line passes ``words_only``."""
    if settings.LOG_FORMAT == "json":
        return lambda event: _as_json(words_only(event))
    console = structlog.dev.ConsoleRenderer(colors="NO_COLOR" not in os.environ, pad_event_to=24)
    return lambda event: console(None, "", _short_time(words_only(event)))


def _as_json(event: Event) -> str:
    return msgspec.json.encode(event).decode()


def _short_time(event: Event) -> Event:
    """Keep the time of day only, for people at a terminal."""
    event["timestamp"] = event["timestamp"][11:23]
    return event


# ---------------------------------------------------------------- uncaught exceptions


def hook_uncaught_exceptions() -> None:
    """Log uncaught exceptions and warnings by type and place.

    By default Python prints their messages, which can hold what people wrote. At a terminal or
    under ``LOCAL`` an uncaught exception is still printed, for the developer.
    """
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
    log = structlog.get_logger(__name__)
    if category.__name__ != "SecurityWarning":
        log.warning("python warning", kind=category.__name__, place=f"{filename}:{lineno}")
    elif not settings.LOCAL:  # it warns so only about root
        log.warning("runs as root: give it a user of its own")


def _leave_logging_alone(**kwargs: Any) -> None:
    """Do nothing. Celery sets up logging only if its signal has no receiver."""
