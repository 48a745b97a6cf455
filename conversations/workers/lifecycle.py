"""This process's life, begun and ended by Celery's signals."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import structlog
from celery.signals import worker_init, worker_shutdown, worker_shutting_down

from conversations.concurrency import vital_thread
from conversations.contracts import Work
from conversations.operating import checks
from conversations.sweeping import dead_workers
from conversations.sweeping.sweeper import Sweeper
from conversations.workers import gc_tuning
from conversations.workers.process import Process

log = structlog.get_logger(__name__)

_process: Process | None = None


def current() -> Process:
    """This process's life. Raises ``RuntimeError`` outside a worker."""
    if _process is None:
        raise RuntimeError("not a worker process")
    return _process


def start(kind: Work) -> Process:
    """Begin this process's life with the engine of its role."""
    global _process
    if _process is None:
        _process = Process(kind)
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

_told_to_stop = threading.Event()


@worker_init.connect
def _begin(**kwargs: Any) -> None:
    """Celery goes on after an exception here: with a process that takes wakes and can do nothing with them."""
    try:
        checks.refuse_to_start()
        start(Work(os.environ.get("WORKER_ROLE") or Work.HANDLE))
    except Exception as error:
        log.critical("worker not begun", error=type(error).__name__, exc_info=True)
        raise SystemExit(70) from error


@worker_shutting_down.connect
def _end(**kwargs: Any) -> None:
    """On SIGTERM, beside Celery's own shutdown: when all is written, or time is over, the process ends."""
    if _process is not None and not _told_to_stop.is_set():
        _told_to_stop.set()
        threading.Thread(target=_stop_and_exit, args=(_process,), name="stop").start()


@worker_shutdown.connect
def _wait_for_end(**kwargs: Any) -> None:
    """Celery is through; an interpreter that ends would take the threads from the turns that still run."""
    while _told_to_stop.is_set():
        time.sleep(1)


def _stop_and_exit(process: Process) -> None:
    try:
        process.stop()
    finally:
        os._exit(0)
