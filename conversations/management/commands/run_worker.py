"""`manage.py run_worker`: run one or more Celery processes for each kind of work, supervised.

Each kind of work has its own processes and queues, so that slow bots hold up neither delivery nor
sweeping. A single process is supervised too: a process that replaces itself (after a turn that never
ends) must be back in a second, while a platform's own restarts back off to minutes.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from conversations.contracts import Work
from conversations.waking.queues import queue_names
from conversations.workers.supervisor import Command as Process
from conversations.workers.supervisor import exec_supervisor


class Command(BaseCommand):
    help = "Run the workers: handle, send and sweep, each in a process of its own."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--roles",
            default=os.environ.get("WORKER_ROLES") or ",".join(Work),
            help="comma separated (default: WORKER_ROLES or %(default)s)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        roles = chosen_roles(options["roles"])
        exec_supervisor([process for role in roles for process in processes(role)])


def chosen_roles(text: str) -> list[Work]:
    """Return the roles in the order given, each once. Raises ``CommandError`` for others."""
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [name for name in names if name not in set(Work)]
    if unknown or not names:
        raise CommandError(f"--roles takes {', '.join(Work)}; not {text!r}")
    return [Work(name) for name in names]


def processes(role: Work) -> Iterator[Process]:
    """Yield the Celery processes of one kind of work, with the environment that each needs."""
    for number in range(process_count(role)):
        process_name = f"{role}-{number}"
        yield Process(
            name=process_name,
            argv=celery_command(role, process_name),
            # Hosts send SIGTERM to every process at once, and we pass ours on: Celery's warm
            # shutdown takes any number of them. Turns and calls are not its tasks;
            # conversations.workers.lifecycle gives them their time.
            environment={"WORKER_ROLE": role, "REMAP_SIGTERM": "", "CELERY_SKIP_CHECKS": "1"},
        )


def process_count(role: Work) -> int:
    """Return how many processes WORKER_<KIND>_PROCESSES asks for, 1 by default."""
    variable = f"WORKER_{role.upper()}_PROCESSES"
    text = os.environ.get(variable) or "1"
    if not text.isdigit() or int(text) < 1:
        raise CommandError(f"{variable} is {text!r}, not a number of processes")
    return int(text)


def celery_command(role: Work, process_name: str) -> list[str]:
    """Return the command of one Celery worker.

    Tasks run in the thread that takes them, one after the other: a task only takes a batch in hand,
    and turns and calls have threads of their own. Gossip, mingle and Celery's own heartbeats are
    off: our processes have their own.
    """
    command = [sys.executable, "-m", "celery", "--quiet", "-A", settings.CELERY_APP, "worker"]
    command += ["--pool", "solo"]
    command += ["-Q", ",".join(queue_names(role)), "-n", f"{process_name}@%h"]
    command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    return [*command, "--loglevel", settings.LOG_LEVEL]
