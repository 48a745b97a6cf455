"""Starts and stops this worker process at Celery's signals."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import structlog
from celery.signals import worker_init, worker_shutdown, worker_shutting_down

from conversations import runtime
from conversations.concurrency import vital_thread
from conversations.contracts import Work
from conversations.operating import checks
from conversations.sweeping import dead_workers
from conversations.sweeping.sweeper import Sweeper
from conversations.telemetry import logs
from conversations.workers import gc_tuning, pulse
from conversations.workers.process import Process

log = structlog.get_logger(__name__)

_process: Process | None = None


def current() -> Process:
    """Return this worker process. Raises ``RuntimeError`` outside a worker."""
    if _process is None:
        raise RuntimeError("not a worker process")
    return _process


def start(kind: Work) -> Process:
    """Start this process's one engine for its kind of work, its heartbeat and its recovery.

    A second call returns the process that the first one made.
    """
    global _process
    if _process is None:
        _process = Process(kind, runtime.current())
        if kind == Work.HANDLE:
            _process.make_handler()
        elif kind == Work.SEND:
            _process.make_sender()
        else:
            Sweeper(_process.writer, _process).start()
        gc_tuning.spare()
        vital_thread("beat", _process.beat)
        dead_workers.recover_predecessor(_process.writer, _process.incarnation)
    return _process


# ---------------------------------------------------------------- in Celery

_stopping = threading.Event()


@worker_init.connect
def _begin(**kwargs: Any) -> None:
    """Start, or exit with a failure.

    After an exception alone Celery would go on, and take tasks that this process cannot run.
    """
    try:
        checks.refuse_to_start()
        start(Work(os.environ.get("WORKER_ROLE") or Work.HANDLE))
        pulse.start()
    except Exception as error:
        log.critical("worker not begun", error=type(error).__name__, exc_info=True)
        raise SystemExit(70) from error


@worker_shutting_down.connect
def _end(**kwargs: Any) -> None:
    """On SIGTERM, stop in a thread of our own, while Celery shuts down.

    That thread ends the process when all results are written or ``GRACE_SECONDS`` have passed.
    """
    if _process is not None and not _stopping.is_set():
        _stopping.set()
        threading.Thread(target=_stop_and_exit, args=(_process,), name="stop").start()


@worker_shutdown.connect
def _wait_for_end(**kwargs: Any) -> None:
    """Wait, after Celery's shutdown, until ``_stop_and_exit`` ends the process.

    If the interpreter ended first, it would cut off turns that still run.
    """
    while _stopping.is_set():
        time.sleep(1)


def _stop_and_exit(process: Process) -> None:
    """Stop, then exit whatever happens: ``_wait_for_end`` waits for this."""
    try:
        process.stop()
    finally:
        logs.flush()
        os._exit(0)
