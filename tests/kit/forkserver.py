"""Fork the product's processes from one that has imported their packages: each start saves that CPU second.

    python -u -m tests.kit.forkserver ROOM        # its stdin is a socket, see tests.kit.forked

A request is a JSON object, ``argv``, ``env``, ``cwd`` and ``serves``, with four descriptors: a pipe to report to, and
the new process's stdin, stdout and stderr. What is reported: ``pid``, a line, when the process leads its session;
``code``, a line, when it has ended. A process that ``serves`` has set up Django for ``manage.py`` and is such a server
itself, on its stdin.

The packages are imported without settings, and nothing of the product is: a forked process reads its environment and
its settings as one does that was started by its command. It shows its own command and environment in /proc, too.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import FileIO
from typing import Any, NoReturn

# What the processes import of other people's packages; the rest of those comes with them.
PACKAGES = (
    "argon2",
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.concurrency.solo",
    "celery.fixups.django",
    "celery.loaders.app",
    "celery.worker.components",
    "celery.worker.consumer",
    "celery.worker.strategy",
    "cryptography.fernet",
    "django.contrib.admin",
    "django.contrib.messages.middleware",
    "django.contrib.sessions.middleware",
    "django.core.cache",
    "django.core.checks",
    "django.core.handlers.wsgi",
    "django.core.management",
    "django.core.wsgi",
    "django.db.backends.postgresql.base",
    "django.db.migrations",
    "django.db.models",
    "django.forms",
    "django.test.signals",
    "django.urls",
    "environ",
    "granian.cli",
    "granian.server.mp",
    "granian.wsgi",
    "httptools",
    "kombu.transport.redis",
    "msgspec",
    "psycopg_pool",
    "redis.cluster",
    "structlog",
    "urllib3",
    "whitenoise.middleware",
)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
Room = tuple[int, int]  # where this process's arguments, or its environment, begin in memory, and how long they are

_arguments: Room = (0, 0)
_environment: Room = (0, 0)


def main() -> None:
    global _arguments, _environment
    _arguments, _environment = rooms()
    for name in PACKAGES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    serve(socket.socket(fileno=os.dup(0)))


def serve(requests: socket.socket) -> None:
    """Fork a process for each request, until nobody asks any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for keepers
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, 1 << 20, 4)
        if not message:
            return
        if not os.fork():
            requests.close()
            keep(json.loads(message), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def keep(request: Mapping[str, Any], descriptors: Sequence[int]) -> NoReturn:
    """Start the process, wait for its end and report it."""
    report, *standard = descriptors
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if not pid:
        os.setsid()
        os.write(report, b"%d\n" % os.getpid())
        os.chdir(request["cwd"])
        begin(request["argv"], request["env"], standard)
        finish(prepared_server if request["serves"] else lambda: run(request["argv"]))
    for descriptor in standard:
        os.close(descriptor)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):  # whoever asked has gone
        os.write(report, b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def begin(argv: Sequence[str], env: Mapping[str, str], standard: Iterable[int], kept: Sequence[int] = ()) -> None:
    """Become, in a fork, what a new process is: its descriptors, signals, arguments and environment."""
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor not in kept:
            with contextlib.suppress(OSError):  # the one that read the list
                os.close(descriptor)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
    os.environ.clear()
    os.environ.update(env)
    show(_arguments, argv)
    show(_environment, [f"{name}={value}" for name, value in env.items()])


def finish(work: Callable[[], object]) -> NoReturn:
    """Do the work of a forked process and end it, as the interpreter does it."""
    code: Any = 0
    try:
        work()
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code or 0)


# ---------------------------------------------------------------- what a process does


def run(argv: Sequence[str]) -> None:
    """Do what a command would."""
    match list(argv):
        case ["/bin/sh", "-c", line]:
            run(words_of(line))
        case [_, "manage.py", "run_worker", "--roles", roles]:
            supervise(roles)
        case [_, "manage.py", *_]:
            sys.argv = list(argv[1:])
            runpy.run_path("manage.py", run_name="__main__")
        case [_, "-m", module, *rest]:
            sys.argv = [module, *rest]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case _:
            raise ValueError(f"no command of ours: {argv}")


def words_of(line: str) -> list[str]:
    """The words of a line of the Procfile as the shell sees them."""
    printing = ["/bin/sh", "-c", f"printf '%s\\n' {line.removeprefix('exec ')}"]
    printed = subprocess.run(printing, capture_output=True, text=True, check=True)
    return printed.stdout.splitlines()


def prepared_server() -> None:
    import django
    from django.core.checks import run_checks

    django.setup()
    run_checks()  # imports all that commands need for theirs
    serve(socket.socket(fileno=os.dup(0)))


def supervise(roles: str) -> None:
    """Be the supervisor that ``run_worker`` becomes. Its processes are forks of this one."""
    listed = commands(roles)
    from conversations.workers import supervisor

    show(_arguments, [sys.executable, "-I", supervisor.__file__, listed])
    supervisor.subprocess = types.SimpleNamespace(  # type: ignore[assignment]
        Popen=Forked, DEVNULL=subprocess.DEVNULL, PIPE=subprocess.PIPE, STDOUT=subprocess.STDOUT
    )
    sys.exit(supervisor.main([listed]))


def commands(roles: str) -> str:
    """What ``run_worker`` hands to the supervisor. Another process reads the settings, which are the children's own."""
    reading, writing = os.pipe()
    if not os.fork():
        os.dup2(writing, 1)
        finish(lambda: print_commands(roles))
    os.close(writing)
    with open(reading) as file:
        listed = file.read()
    os.wait()
    return listed


def print_commands(roles: str) -> None:
    from conversations.management.commands import run_worker

    run_worker.exec_supervisor = lambda listed: print(json.dumps([vars(each) for each in listed]))
    run_worker.Command().handle(roles=roles)


class Forked:
    """What the supervisor needs of ``subprocess.Popen``, for a fork of this process."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        pass_fds: Sequence[int],
        preexec_fn: Callable[[], None],
        **options: Any,
    ) -> None:
        self.returncode: int | None = None
        reading, writing = os.pipe()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # one that comes meanwhile is not lost in the fork
        try:
            self.pid = os.fork()
            if not self.pid:
                os.setsid()
                preexec_fn()
                nothing = os.open(os.devnull, os.O_RDONLY)
                begin(argv, env, (nothing, writing, writing), pass_fds)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
                finish(lambda: run(argv))
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.close(writing)
        self.stdout = FileIO(reading)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


# ---------------------------------------------------------------- what /proc shows


def rooms() -> tuple[Room, Room]:
    """The places that hold this process's arguments and its environment: /proc/PID/cmdline and environ show them."""
    with open("/proc/self/stat") as file:
        numbers = file.read().rpartition(")")[2].split()
    arguments, end_of_arguments, environment, end_of_environment = map(int, numbers[45:49])
    return (arguments, end_of_arguments - arguments), (environment, end_of_environment - environment)


def show(room: Room, words: Iterable[str]) -> None:
    """Write these words there, as many as there is room for."""
    start, length = room
    shown = b"\0".join(word.encode(errors="surrogateescape") for word in words)[: length - 1]
    ctypes.memset(start, 0, length)
    ctypes.memmove(start, shown, len(shown))


if __name__ == "__main__":
    main()
