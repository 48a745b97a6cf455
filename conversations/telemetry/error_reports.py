"""Failures reported to Sentry and in Celery's results: type and place, never the message."""

from __future__ import annotations

import functools
import threading
import time
from typing import Any

import structlog
from celery import states
from django.conf import settings
from django.db import Error
from django_celery_results.backends import DatabaseBackend

from conversations.telemetry import error_places

log = structlog.get_logger(__name__)

# Most failures of tasks stored per minute and process, a row each. Larger: many failures at once
# also become many writes; smaller: fewer of them can be looked up.
STORED_A_MINUTE = 60
# Longest wait for Sentry, in seconds, when a process ends itself. Longer: its successor starts
# later; shorter: the report of why it ended may be lost.
FLUSH_SECONDS = 1.0


# ---------------------------------------------------------------- Sentry


def configure(**options: Any) -> None:
    """Start Sentry if ``SENTRY_DSN`` is set. ``options`` are for tests (a transport)."""
    if not settings.SENTRY_DSN:
        return
    import sentry_sdk  # loaded only where it is used: it costs every process 15 MB
    from sentry_sdk.integrations.atexit import AtexitIntegration

    sentry_sdk.init(
        settings.SENTRY_DSN,
        release=settings.VERSION,
        # ``capture`` reports what is logged with an exception; Sentry collects nothing by itself.
        default_integrations=False,
        auto_enabling_integrations=False,
        integrations=[AtexitIntegration(callback=lambda pending, timeout: None)],
        send_default_pii=False,
        include_local_variables=False,
        include_source_context=False,
        max_request_body_size="never",
        max_breadcrumbs=0,
        send_client_reports=False,
        auto_session_tracking=False,
        before_send=keep_type_and_place,
        **options,
    )


def capture(error: BaseException) -> None:
    """Report to Sentry an exception that was logged."""
    if settings.SENTRY_DSN:
        import sentry_sdk

        sentry_sdk.capture_exception(error)


def capture_place(kind: str, place: str) -> None:
    """Report a failure of which only ``error_places.kind`` and ``.place`` are known.

    A bot's exception, for example, may have been raised in a child process.
    """
    if not settings.SENTRY_DSN:
        return
    import sentry_sdk

    module, _, name = kind.rpartition(".")
    where, _, function = place.partition(" ")
    filename, _, line = where.rpartition(":")
    frame = {"filename": filename, "function": function, "lineno": int(line) if line.isdecimal() else 0}
    value = {"type": name, "module": module or "builtins", "stacktrace": {"frames": [frame]}}
    sentry_sdk.capture_event({"level": "error", "exception": {"values": [value]}})


def flush() -> None:
    """Send waiting reports before a process ends itself; ``FLUSH_SECONDS`` at most."""
    if settings.SENTRY_DSN:
        import sentry_sdk

        sentry_sdk.flush(timeout=FLUSH_SECONDS)


def keep_type_and_place(event: Any, hint: Any) -> Any:
    """Keep an event's harmless fields only. Return None (nothing is sent) if it has no exception.

    A list of what is kept, since a new version of Sentry may add fields.
    """
    values = (event.get("exception") or {}).get("values") or []
    if not values:
        return None
    kept: dict[str, Any] = {
        name: event[name] for name in ("event_id", "timestamp", "level", "platform", "release") if name in event
    }
    return {**kept, "exception": {"values": [_exception(value) for value in values]}}


def _exception(value: dict[str, Any]) -> dict[str, Any]:
    """Keep an exception's type and frames; its message can hold what people wrote."""
    frames = (value.get("stacktrace") or {}).get("frames") or []
    kept: dict[str, Any] = {name: value[name] for name in ("type", "module") if name in value}
    return {**kept, "stacktrace": {"frames": [_frame(frame) for frame in frames]}}


def _frame(frame: dict[str, Any]) -> dict[str, Any]:
    """Keep a frame's place, without variables and source text."""
    return {name: frame[name] for name in ("filename", "function", "module", "lineno", "in_app") if name in frame}


# ---------------------------------------------------------------- results of tasks


class Results(DatabaseBackend):
    """Keeps the results of maintenance and admin tasks, and the failures of all tasks."""

    def prepare_exception(self, exc: BaseException, serializer: str | None = None) -> dict[str, Any]:
        """Store where the exception was raised in place of its message."""
        cls = type(exc)
        return {"exc_type": cls.__qualname__, "exc_message": [error_places.place(exc)], "exc_module": cls.__module__}

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        """Store a result; of an exception its type and places, without its message.

        Raises nothing while the database is away: Celery also calls this in the thread that takes
        tasks from the queue, and an exception would end that thread.
        """
        if state == states.REVOKED:  # a wake that expired: rows decide, and nothing has failed
            return None
        if isinstance(result, BaseException):
            traceback = "\n".join([*error_places.frames(result), error_places.kind(result)])
        if state in states.EXCEPTION_STATES and not _minute().room_for_one():
            return None
        try:
            return super().store_result(task_id, result, state, traceback, request, **kwargs)
        except Error as error:
            log.warning("result not stored", task=getattr(request, "task", None), error=type(error).__name__)
            return None

    def _get_extended_properties(self, request: Any, traceback: Any) -> dict[str, Any]:
        """Return what is stored beside the result: the task's name, never its arguments."""
        return {
            "task_name": getattr(request, "task", None),
            "worker": getattr(request, "hostname", None),
            "traceback": traceback,
            "task_args": None,
            "task_kwargs": None,
            "periodic_task_name": None,
        }


class _Minute:
    """Counts failures per minute, so that many failures do not become as many writes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._minute = 0
        self._count = 0

    def room_for_one(self) -> bool:
        """Count one more failure. Return True if it may be stored."""
        with self._lock:
            minute = int(time.monotonic() // 60)
            if minute != self._minute:
                self._minute, self._count = minute, 0
            self._count += 1
            return self._count <= STORED_A_MINUTE


_minute = functools.cache(_Minute)
