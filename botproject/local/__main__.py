"""`make run`:

start servers, create tables and the demo, run web and worker of the Procfile until Ctrl-C. With
``--demo`` (`make demo`) a double of the platforms runs beside them and plays conversations.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from botproject.local.binaries import NoBinary
from botproject.local.environment import data_directory, environment_of, write_environment
from botproject.local.places import keep_secret
from botproject.local.processes import RUN_MARK, ServerFailed, port_is_free, send
from botproject.local.servers import AlreadyRunning, Servers, local_servers
from conversations.workers.supervisor import PR_SET_PDEATHSIG, Command, Supervisor, wants_colour

CHECKOUT = Path(__file__).resolve().parents[2]
# The processes of the Procfile that run here.
PROCESSES = ("web", "worker")
# The double's port is so many above ours.
PHONES_ABOVE = 10
# Seconds to wait for the pages. Larger: a failure is reported later. Smaller: on a slow machine a
# good start is reported as a failure.
UP_SECONDS = 60.0


class Refused(RuntimeError):
    """This run cannot start. The text says what to do."""


def main() -> int:
    """Run everything and return the exit code."""
    if "--with-parent" in sys.argv[1:]:
        stop_with_parent()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run(data_directory(), wanted_port(), "--demo" in sys.argv[1:])
    except KeyboardInterrupt:
        return 130
    except (AlreadyRunning, NoBinary, Refused, ServerFailed) as error:
        print(f"make run: {error}", file=sys.stderr)
        return 1


def run(directory: Path, port: int, with_phones: bool) -> int:
    """Start servers, prepare the database, and run web, worker and perhaps the double until they end."""
    phones = port + PHONES_ABOVE if with_phones else 0
    with contextlib.ExitStack() as stack:
        with timed("Postgres and Valkey"):
            servers = stack.enter_context(servers_of(directory))
        end_leftovers(directory)
        for taken in (port, *([phones] if phones else [])):
            require_free(taken)
        report_other_data(servers)
        environment = environment_of(directory, servers, port)
        write_environment(directory, environment)
        os.environ.update(environment)
        prepare_database(directory, phones)
        code = supervise(directory, servers, port, phones)
        say("stopping the servers")
    return code


def servers_of(directory: Path) -> contextlib.AbstractContextManager[Servers]:
    return local_servers(
        directory,
        database_url=os.environ.get("DATABASE_URL", ""),
        redis_url=os.environ.get("REDIS_URL", ""),
        wait_seconds=30.0,
        say=lambda text: print(f"{text} ... ", end="", flush=True),
    )


def prepare_database(directory: Path, phones: int) -> None:
    """Create or migrate the tables, then the demo's channels and the admin's account."""
    with timed("tables"):
        manage("release")
    keep_secret(directory / "admin_password")
    with timed("demo"):
        manage("setup_demo", *(["--phones", f"http://127.0.0.1:{phones}"] if phones else []))


def manage(*arguments: str) -> None:
    """Run a command of `manage.py`. Show its output only if it fails."""
    result = subprocess.run(
        [sys.executable, CHECKOUT / "manage.py", *arguments],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if result.returncode:
        print("failed", flush=True)
        sys.stdout.buffer.write(result.stdout)
        raise Refused(f"`manage.py {arguments[0]}` failed, see above.")


def supervise(directory: Path, servers: Servers, port: int, phones: int) -> int:
    """Run web and worker until Ctrl-C, and restart a server that dies. Returns the exit code."""
    os.chdir(CHECKOUT)
    supervisor = Supervisor(commands(directory, port, phones))
    servers.watch(supervisor.say)
    box = welcome(directory, port, phones)
    threading.Thread(target=announce, args=(supervisor, port, box), daemon=True).start()
    return supervisor.run()


def commands(directory: Path, port: int, phones: int) -> list[Command]:
    """Return the Procfile's processes, and the double, with the environment that they need here."""
    environment = {
        "PORT": str(port),
        "BIND": "127.0.0.1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
        RUN_MARK: str(directory),
    }
    if not wants_colour(sys.stdout.buffer):
        environment["NO_COLOR"] = "1"
    lines = {name: line for name, line in procfile().items() if name in PROCESSES}
    if phones:
        lines["phones"] = f"python manage.py fake_platform --demo --port {phones}"
    return [
        Command(name=name, argv=["/bin/sh", "-c", f"exec {line}"], environment=environment)
        for name, line in lines.items()
    ]


def procfile(checkout: Path = CHECKOUT) -> dict[str, str]:
    """Return the Procfile's commands by name."""
    lines = (checkout / "Procfile").read_text().splitlines()
    pairs = (line.partition(":") for line in lines if line and not line.startswith("#"))
    return {name.strip(): command.strip() for name, _, command in pairs}


def announce(supervisor: Supervisor, port: int, box: str) -> None:
    """Show the box with addresses once the pages answer. Earlier, it would scroll away."""
    deadline = time.monotonic() + UP_SECONDS
    while time.monotonic() < deadline:
        if answers(port):
            supervisor.write(box)
            return
        time.sleep(0.1)
    supervisor.say(f"no answer on port {port} after {UP_SECONDS:.0f} s; see above")


def answers(port: int) -> bool:
    """Return True if the web process answers, with whatever status."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz/", timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def welcome(directory: Path, port: int, phones: int) -> str:
    """Return a box with the addresses and the admin's password."""
    address = f"http://127.0.0.1:{port}"
    password = (directory / "admin_password").read_text().strip()
    rows = [
        f"Chat      {address}/",
        *([f"Phones    http://127.0.0.1:{phones}/"] if phones else []),
        f"Admin     {address}/admin/",
        f"          user admin, password {password}",
        f"Health    {address}/healthz/",
        f"Data      {directory}",
        "Ctrl-C stops everything; the data stays.",
    ]
    width = max(len(row) for row in rows)
    edge = "─" * (width + 2)
    middle = "".join(f"│ {row:<{width}} │\n" for row in rows)
    return f"┌{edge}┐\n{middle}└{edge}┘\n"


def wanted_port() -> int:
    """Return PORT, 8000 by default. Raises ``Refused``."""
    text = os.environ.get("PORT") or "8000"
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise Refused(f"PORT is {text!r}, not a port number.")
    return int(text)


def require_free(port: int) -> None:
    if not port_is_free(port):
        raise Refused(f"port {port} is taken. Stop what uses it, or choose: make run PORT=8001")


def report_other_data(servers: Servers) -> None:
    """Say that data of other PostgreSQL versions stays where it is: its owner may miss it."""
    if servers.postgres:
        for folder in servers.postgres.data_of_other_versions():
            say(f"data of PostgreSQL {folder.name} stays untouched in {folder}; it is not used")


def end_leftovers(directory: Path) -> None:
    """Kill web and worker processes that outlived a killed run; its servers are used again."""
    mark = f"{RUN_MARK}={directory}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (process / "environ").read_bytes().split(b"\0"):
                send(int(process.name), signal.SIGKILL)


def stop_with_parent() -> None:
    """On Linux, stop in order when make is killed, as after Ctrl-C."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    """Print what is done, and then how long it took."""
    print(f"· {what} ... ", end="", flush=True)
    begun = time.monotonic()
    yield
    print(f"{time.monotonic() - begun:.1f} s", flush=True)


def say(text: str) -> None:
    print(f"· {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
