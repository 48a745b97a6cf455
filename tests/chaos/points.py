"""Every failpoint with every action, as a single fault: a small run while it happens, then what must hold.

    python -m tests.chaos.points [--only T4=kill,W2] [--seed 7]

A case: one process is started with its failpoint, three people write ten messages (some of them several times at once),
and the point is hit once. Afterwards every message that was taken must have been handled exactly once and in order, its
replies must be complete and in order, and nothing may be left. A point that was not hit makes a case INVALID.

``stop`` freezes the process for longer than a lock lives, while a healthy one of its kind takes over; at R1, the thread
that renews locks is what stalls. ``drop`` cuts all connections of the process to Postgres and Redis, so it makes sense
at every point. M1 is hit twice: in the migrations of a new database, and by a worker that starts.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3

from tests.chaos.run import EXIT_CODES, FAIL, INVALID, PASS, commit, worst_code
from tests.kit.doubles import Double
from tests.kit.guard import watch_over_this_process
from tests.kit.platforms import GENERIC_SECRET, generic_text, telegram_text
from tests.kit.pytest_servers import FIXED
from tests.kit.stack import ROOT, Channel, Process, Stack, free_port, state, wait_until

# The kind of process that a point is in.
POINTS = {
    **dict.fromkeys(("W1", "W2", "W3", "W4"), "web"),
    **dict.fromkeys(("T0", "T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8"), "handle"),
    **dict.fromkeys(("D1", "D2", "D3", "D4"), "send"),
    **dict.fromkeys(("S1", "S2"), "sweep"),
    **dict.fromkeys(("R1", "M1"), "handle"),
}
ACTIONS = ("kill", "stop", "raise", "drop")
MOST_HITS = {"S1": 1, "S2": 2, "R1": 1, "M1": 1}  # a small run comes to the others more often
STATEMENTS = 150  # of the migrations; one of them is hit

STALL_SECONDS = 8  # a lock lives for 6
HIT_SECONDS = 20
DRAIN_SECONDS = 60
POST_SECONDS = 3
BETWEEN_SECONDS = 0.1  # between two messages of a person: else one task takes all of them, and no point is met twice
KEYS = {name: FIXED[name] for name in ("SECRET_KEY", "CREDENTIALS_KEYS")}
ENV = {**KEYS, "EXTRA_APPS": "tests.bots_app"}
LOOSE = "channel:10000/1s,chat:1000/1s,group:1000/1s"


@dataclass(frozen=True)
class Case:
    point: str
    action: str

    @property
    def name(self) -> str:
        return f"{self.point}={self.action}"

    @property
    def kind(self) -> str:
        return POINTS[self.point]

    def words(self, hit: int) -> str:
        """FAILPOINTS of the process that is hurt; once, also where it is started again."""
        stalls = self.name == "R1=stop"  # only the renewing thread
        return f"{self.point}={f'sleep:{STALL_SECONDS}' if stalls else self.action}@{hit}!"


@dataclass(frozen=True)
class Result:
    case: str
    verdict: str
    why: str
    seconds: float
    recovery_seconds: float | None  # from the hit, or from the end of the stop, until all was handled and delivered


@dataclass
class Person:
    """Who writes what, in this order, each text so many times at once."""

    channel: Channel
    chat: str
    texts: list[str]
    copies: list[int]
    refused: list[int] = field(default_factory=list)  # answers that an authentic webhook must never get

    def webhook(self, number: int) -> tuple[bytes, dict[str, str]]:
        text = self.texts[number - 1]
        if self.channel.platform == "telegram":
            return telegram_text(self.channel, int(self.chat), number, text)
        ordered = number if "gap_timeout_s" in self.channel.secrets else None
        return generic_text(self.channel, self.chat, f"{self.chat}-{number}", text, seq=ordered)

    @property
    def replies(self) -> list[str]:
        return [f"{number}: {text}" for number, text in enumerate(self.texts, 1)]


class Invalid(Exception):
    """The case proved nothing."""


class Rig:
    """One stack for many cases. A process per kind; the one to be hurt is started anew for its case."""

    def __init__(self, stack: Stack, double: Double) -> None:
        self.stack, self.double = stack, double
        self.record = stack.folder / "failpoints.txt"
        self._running: dict[str, Process] = {}
        self._standby: list[Process] = []
        self._names = itertools.count(1)
        self._chats = itertools.count(50_000)
        self.web_port, self.blind_port = free_port(), free_port()
        tenants = [f"tenant {number}" for number in range(3)]
        out = {"secret": GENERIC_SECRET, "outbound_url": f"{double.url}/out", "limits": LOOSE}
        self.channels = [
            self._channel("generic", tenants[0], **out),
            self._channel("telegram", tenants[1], token="1:abc", secret_token="s3cret-Token-0123456789", limits=LOOSE),
            self._channel("generic", tenants[2], **out, gap_timeout_s="20"),
        ]
        without_redis = {"REDIS_URL": "redis://127.0.0.1:1/0"}
        stack._begin(stack.web_process("web-blind", self.blind_port, without_redis))
        for kind in ("handle", "send", "sweep"):
            self.have(kind)

    def _channel(self, platform: str, tenant: str, **values: str) -> Channel:
        arguments = ["add_channel", platform, "--name", f"{platform} of {tenant}", "--tenant", tenant]
        arguments += ["--bot", "obedient", "--api-base", self.double.url]
        for name, value in values.items():
            arguments += ["--set", f"{name}={value}"]
        return Channel(platform=platform, secrets=values, **json.loads(self.stack.manage(*arguments)))

    # ------------------------------------------------------------ processes

    def have(self, kind: str, words: str = "", *, ready: bool = True) -> None:
        """The process of this kind, with these failpoints: another one ends, and this one starts."""
        there = self._running.get(kind)
        if there is not None and there.alive() and there.env.get("FAILPOINTS", "") == words:
            return
        if there is not None:
            there.end()
        self._running[kind] = self._start(kind, words)
        if ready:
            self.wait_for(kind, self._running[kind])

    def stand_by(self, kind: str) -> None:
        """A healthy process beside the one that is stopped. The other web process is there already."""
        if kind != "web":
            self._standby.append(self._start(kind, ""))

    def heal(self) -> None:
        """The next case begins with healthy processes."""
        for process in self._standby:
            process.end()
        self._standby.clear()
        web = self._running.pop("web", None)
        if web is not None:
            web.end()

    def _start(self, kind: str, words: str) -> Process:
        name, env = f"{kind}-{next(self._names)}", {"FAILPOINTS": words}
        stack = self.stack
        process = stack.web_process(name, self.web_port, env) if kind == "web" else stack.worker(name, kind, env)
        return stack._begin(process)

    def wait_for(self, kind: str, process: Process) -> None:
        if kind == "web":
            wait_until(lambda: self.stack.healthy(self.web_port), 30, "the web process answers")
        else:
            wait_until(lambda: bool(set(process.children(kind)) & set(self.stack.pids(kind))), 30, f"a {kind} process")

    # ------------------------------------------------------------ people

    def people(self, chance: random.Random, slow: float) -> list[Person]:
        """Three people with ten messages. ``slow``: how long the bot takes for each first one."""
        people = []
        for channel, count in zip(self.channels, (4, 3, 3), strict=True):
            chat = str(next(self._chats))
            texts = [f"{chat}:{number}" for number in range(1, count + 1)]
            if slow:
                texts[0] = f"wait {slow}"
            people.append(Person(channel, chat, texts, [chance.choice((1, 1, 2, 3)) for _ in texts]))
        people[0].copies[0] = 2  # never none
        return people

    def write(self, person: Person, ports: Sequence[int]) -> None:
        """The next message only after the last was taken."""
        for number, copies in enumerate(person.copies, 1):
            with ThreadPoolExecutor(copies) as posts:
                list(posts.map(lambda _, number=number: self._insist(person, number, ports), range(copies)))
            time.sleep(BETWEEN_SECONDS)

    def _insist(self, person: Person, number: int, ports: Sequence[int]) -> None:
        """As a platform does: again and again until it is taken, at whichever process answers."""
        end = time.monotonic() + DRAIN_SECONDS
        for port in itertools.cycle(ports):
            if time.monotonic() > end:
                raise AssertionError("a webhook was never taken")
            body, headers = person.webhook(number)
            status = self._post(f"http://127.0.0.1:{port}{person.channel.webhook_path}", body, headers)
            if status == 200:
                return
            if status not in (0, 503):
                person.refused.append(status)
            time.sleep(0.05)

    def _post(self, url: str, body: bytes, headers: dict[str, str]) -> int:
        timeout = urllib3.Timeout(connect=1, read=POST_SECONDS)
        try:
            return self.stack.http.request("POST", url, body=body, headers=headers, timeout=timeout).status
        except urllib3.exceptions.HTTPError:
            return 0

    # ------------------------------------------------------------ what was hit

    def hits(self) -> list[tuple[str, int]]:
        """Points that were hit, and by whom."""
        lines = self.record.read_text().splitlines() if self.record.exists() else []
        return [(point, int(pid)) for point, _, pid in map(str.split, lines)]

    # ------------------------------------------------------------ what must hold

    def problems(self, people: Sequence[Person]) -> list[str]:
        found = ((person, problem) for person in people for problem in self._of(person))
        return [f"{person.channel.platform} {person.chat}: {problem}" for person, problem in found]

    def _of(self, person: Person) -> Iterator[str]:
        ask, lane = functools.partial(self._ask, person), "c.channel_id = %s AND c.chat = %s"
        numbers = list(range(1, len(person.texts) + 1))
        if person.refused:
            yield f"authentic webhooks were answered {person.refused}"
        stored = ask("SELECT m.sequence, m.text, m.status FROM message m"
                     f" JOIN conversation c ON c.id = m.conversation_id WHERE {lane} ORDER BY m.sequence")  # fmt: skip
        if stored != [(number, text, "handled") for number, text in zip(numbers, person.texts, strict=True)]:
            yield f"messages are {stored}"
        seen = ask("SELECT s.state -> 'seen' FROM conversation_state s JOIN conversation c ON c.id = s.conversation_id"
                   f" WHERE {lane}")  # fmt: skip
        if seen != [(numbers,)]:
            yield f"the bot remembers {seen}"
        turns = ask("SELECT m.sequence, t.outcome FROM turn t JOIN conversation c ON c.id = t.conversation_id"
                    f" JOIN message m ON m.id = t.message_id WHERE {lane} ORDER BY t.id")  # fmt: skip
        if turns != [(number, "committed") for number in numbers]:
            yield f"turns are {turns}"
        replies = ask("SELECT r.sequence, r.body ->> 'text', r.status, r.attempts FROM reply r"
                      f" JOIN conversation c ON c.id = r.conversation_id WHERE {lane} ORDER BY r.sequence")  # fmt: skip
        if [row[:3] for row in replies] != [(n, text, "sent") for n, text in zip(numbers, person.replies, strict=True)]:
            yield f"replies are {replies}"
        yield from self._shown(person, {row[1] for row in replies if row[3] > 1})

    def _ask(self, person: Person, query: str) -> list[Any]:
        return self.stack.query(query, person.channel.id, person.chat)

    def _shown(self, person: Person, tried_again: set[str]) -> Iterator[str]:
        """On a platform with keys each reply once; without, a repeat next to its twin where it was tried again."""
        shown = [line["text"] for line in self.double.shown() if line["chat"] == person.chat]
        repeats = {text for text, twin in itertools.pairwise(shown) if text == twin}
        if person.channel.platform == "telegram" and repeats <= tried_again:
            shown = [text for text, _ in itertools.groupby(shown)]
        if shown != person.replies:
            yield f"the person saw {shown}"


# ---------------------------------------------------------------- one case


def run_case(rig: Rig, case: Case, chance: random.Random) -> float:
    """Raises ``AssertionError`` or ``Invalid``; how long it took to recover."""
    rig.record.unlink(missing_ok=True)
    rig.double.reset()
    if case.point == "M1":
        hurt_migrations(rig, case, chance.randint(1, STATEMENTS))
        rig.record.unlink(missing_ok=True)
    for kind in ("handle", "send", "sweep"):
        if kind != case.kind:
            rig.have(kind)
    rig.have(case.kind, case.words(chance.randint(1, MOST_HITS.get(case.point, 2))), ready=case.point != "M1")
    slow = 0.0 if case.point != "R1" else STALL_SECONDS - 0.5 if case.action == "stop" else 3.0
    people = rig.people(chance, slow)
    ports = [rig.web_port, rig.stack.ports[0]] if case.kind == "web" else [rig.stack.ports[0]]
    if case.kind == "sweep":
        ports = [rig.blind_port]  # no hints: the sweeper must find everything
    with ThreadPoolExecutor(len(people)) as pool:
        writing = [pool.submit(rig.write, person, ports) for person in people]
        since = _hurt(rig, case, writing)
        for person in writing:
            person.result()
    wait_until(rig.stack.drained, DRAIN_SECONDS, "everything handled and delivered")
    recovery = time.monotonic() - since
    problems = rig.problems(people)
    assert not problems, "; ".join(problems)
    assert len(rig.hits()) == 1, f"more than one fault: {rig.hits()}"
    return recovery


def _hurt(rig: Rig, case: Case, writing: Sequence[Future[None]]) -> float:
    """Wait for the hit, end a stop; the time from which recovery counts."""
    end = time.monotonic() + HIT_SECONDS
    while not rig.hits() and time.monotonic() < end:
        time.sleep(0.02)
    if not rig.hits():
        raise Invalid("the point was not hit")
    (point, pid), *_ = rig.hits()
    assert point == case.point
    if case.action == "stop":
        rig.stand_by(case.kind)
        if case.point != "R1" and state(pid) != "T":
            raise Invalid("the process did not stop")
        time.sleep(STALL_SECONDS)
        with contextlib.suppress(ProcessLookupError):  # ended by its host meanwhile
            os.kill(pid, signal.SIGCONT)
    elif case.action == "kill":
        wait_until(lambda: state(pid) in ("", "Z"), 5, "the process is dead")
    return time.monotonic()


def hurt_migrations(rig: Rig, case: Case, statement: int) -> None:
    """A release on a new database is hurt at a statement; the next one ends it, and nothing is half done."""
    stack, name = rig.stack, f"release_{next(rig._names)}"
    stack.query(f"CREATE DATABASE {name}")
    url = urlsplit(stack.servers.database_url)._replace(path=f"/{name}").geturl()
    env = {**stack.env, "DATABASE_URL": url}
    hurt = _release({**env, "FAILPOINTS": f"M1={case.action}@{statement}!"})
    if case.action == "stop":
        wait_until(lambda: bool(rig.hits()), HIT_SECONDS, "the release comes to its point")
        time.sleep(STALL_SECONDS)
        os.kill(hurt.pid, signal.SIGCONT)
    code = hurt.wait(60)
    if not rig.hits():
        raise Invalid(f"the release has fewer than {statement} statements")
    assert (code == 0) == (case.action == "stop"), f"the hurt release ended with {code}"
    if code:
        assert _release(env).wait(60) == 0, "the next release failed"
    left = subprocess.run([sys.executable, "manage.py", "migrate", "--check"], cwd=ROOT, env=env, capture_output=True)
    assert left.returncode == 0, "migrations are left"
    stack.query(f"DROP DATABASE {name} WITH (FORCE)")


def _release(env: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "manage.py", "release"]
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


# ---------------------------------------------------------------- all of them


def cases(only: Collection[str] | None = None) -> list[Case]:
    """All, or those that are named: ``T4=kill``, ``T4`` (all its actions), ``kill`` (at all points)."""
    every = [Case(point, action) for point in POINTS for action in ACTIONS]
    if not only:
        return every
    unknown = set(only) - {name for case in every for name in (case.name, case.point, case.action)}
    if unknown:
        raise SystemExit(f"no such case: {', '.join(sorted(unknown))}")
    return [case for case in every if {case.name, case.point, case.action} & set(only)]


def run_all(
    seed: int, only: Collection[str] | None = None, say: Callable[[str], None] = lambda line: print(line, flush=True)
) -> list[Result]:
    """Every case after the other on one stack; a failed one leaves its logs, and the next begins with a new stack."""
    wanted = cases(only)
    results: list[Result] = []
    while len(results) < len(wanted):
        with _rig() as rig:
            for case in wanted[len(results) :]:
                result = _judged(rig, case, random.Random(f"{seed} {case.name}"))
                results.append(result)
                say(_line(len(results), len(wanted), result))
                if result.verdict != PASS:
                    say(f"         logs: {_keep_logs(rig, case)}")
                    break
    return results


@contextlib.contextmanager
def _rig() -> Iterator[Rig]:
    with Double() as double, Stack(roles="", env=ENV, forks=False) as stack:
        yield Rig(stack, double)


def _judged(rig: Rig, case: Case, chance: random.Random) -> Result:
    began = time.monotonic()
    recovery, verdict, why = None, PASS, ""
    try:
        recovery = run_case(rig, case, chance)
    except Invalid as error:
        verdict, why = INVALID, str(error)
    except Exception as error:
        verdict, why = FAIL, f"{type(error).__name__}: {error}"
    finally:
        rig.heal()
    return Result(case.name, verdict, why, round(time.monotonic() - began, 1), recovery and round(recovery, 1))


def _line(place: int, count: int, result: Result) -> str:
    recovery = "" if result.recovery_seconds is None else f", recovered in {result.recovery_seconds:.1f} s"
    line = f"{place:>3}/{count} {result.case:<8} {result.verdict:<7} {result.seconds:>5.1f} s{recovery}  {result.why}"
    return line.rstrip()


def _keep_logs(rig: Rig, case: Case) -> Path:
    kept = Path(tempfile.mkdtemp(prefix=f"{case.name}-"))
    for log in rig.stack.folder.glob("*.log"):
        shutil.copy(log, kept)
    return kept


def write_down(seed: int, results: Sequence[Result]) -> None:
    """For tests.chaos.report."""
    folder = ROOT / ".data" / "chaos"
    folder.mkdir(parents=True, exist_ok=True)
    found = {"commit": commit(), "seed": seed, "cases": [asdict(result) for result in results]}
    path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-points.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(f"written to {path.relative_to(ROOT)}")


def main() -> int:
    watch_over_this_process()
    parser = argparse.ArgumentParser(description="Every failpoint with every action, one at a time.")
    parser.add_argument("--only", default="", help="cases, points or actions, comma separated")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    results = run_all(arguments.seed, [word for word in arguments.only.split(",") if word])
    write_down(arguments.seed, results)
    passed = sum(result.verdict == PASS for result in results)
    print(f"{passed} of {len(results)} passed in {sum(result.seconds for result in results):.0f} s")
    return worst_code([EXIT_CODES[result.verdict] for result in results])


if __name__ == "__main__":
    sys.exit(main())
