"""The spool on two real web processes of one host: order across both switches, and nothing lost, whatever is killed."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.people import Crowd
from tests.kit.platforms import telegram_text
from tests.kit.stack import Channel, Process, Stack, every, wait_until
from tests.postgres.test_postgres_away import freeze, stop_fast, stop_immediately

pytestmark = [pytest.mark.xdist_group("spool"), pytest.mark.timeout(400)]

WEBS = 2
MOST_OUTAGES = 5


class NotFired(Exception):
    """No process came to its failpoint. That is the harness's failure: nothing was tested, nothing was found wrong."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lasting") / "spool"


@pytest.fixture(scope="module")
def stack(folder: Path) -> Iterator[Stack]:
    with Stack(roles="", webs=WEBS, env={"SPOOL_DIR": str(folder)}) as stack:
        yield stack


@pytest.fixture
def channel(stack: Stack) -> Channel:
    """Known by both web processes."""
    made = add_channel(stack)
    for web in range(WEBS):
        assert say(stack, made, 99, web, web=web) == 200
    return made


def add_channel(stack: Stack) -> Channel:
    return stack.add_channel("telegram", token="1:abc", secret_token="s3cret-Token-0123456789")


def say(stack: Stack, channel: Channel, user: int, number: int, web: int = 0) -> int:
    return stack.post(channel, *telegram_text(channel, user, number, str(number)), web)


def spooled(stack: Stack, web: int = 0) -> Any:
    return stack.http.request("GET", f"http://127.0.0.1:{stack.ports[web]}/healthz/").json()["spool"]


def emptied(folder: Path) -> bool:
    return (folder / "log").stat().st_size == 0


@contextlib.contextmanager
def failing_webs(stack: Stack, words: str) -> Iterator[list[Process]]:
    """The same two web processes, with failpoints; whole again afterwards."""
    whole = stack._workers[:WEBS]
    for process in whole:
        process.end()
    broken = [stack.web_process(f"{words[:2]}-{port}", port, {"FAILPOINTS": words}) for port in stack.ports]
    try:
        start(stack, broken)
        yield broken
    finally:
        for process in broken:
            process.end()
        start(stack, whole)


def acts(stack: Stack) -> list[str]:
    """What failpoints did."""
    path = stack.folder / "failpoints.txt"
    return path.read_text().splitlines() if path.exists() else []


def crash_postgres_until(fired: Callable[[], bool], stack: Stack, crowd: Crowd, folder: Path) -> None:
    """Crash Postgres under load, again and again, until the failpoints have fired. Raises ``NotFired``.

    What one outage leaves in the spool may be stored in one batch, by either process: such an outage adds one hit of P3
    to one of them. The third at the latest brings one of two processes to its second hit.
    """
    for outages in range(1, MOST_OUTAGES + 1):
        stop_immediately(stack)
        heard = crowd.total()
        wait_until(lambda heard=heard: crowd.total() > heard + 50, 60, "the crowd is heard again")
        wait_until(lambda: fired() or emptied(folder), 60, "the spool is empty, or a process came to its failpoint")
        if fired():
            print(f"fired after {outages} outages")
            return
    raise NotFired(f"after {MOST_OUTAGES} outages")


def start(stack: Stack, webs: list[Process]) -> None:
    for process in webs:
        process.start()
    for port in stack.ports:
        wait_until(lambda port=port: stack.healthy(port), 30, "the web process answers")


# ---------------------------------------------------------------- both switches, under load


@pytest.mark.slow
@pytest.mark.parametrize("hurt", [stop_fast, stop_immediately, freeze])
def test_with_postgres_away_nobody_is_refused_and_order_is_kept_across_both_switches(
    stack: Stack, channel: Channel, folder: Path, hurt: Any
) -> None:
    before = [process.tree() for process in stack._workers[:WEBS]]
    crowd = Crowd(stack, channel, range(1, 9), again=False)
    with crowd.writing():
        wait_until(lambda: crowd.total() > 100, 20, "the crowd is heard")
        hurt(stack)
        heard = crowd.total()
        wait_until(lambda: emptied(folder), 30, "the spool is empty, while the crowd goes on")
        wait_until(lambda: crowd.total() > heard + 100, 20, "the crowd is heard, directly")
    print(hurt.__name__, dict(crowd.answers), {code: round(at, 2) for code, at in crowd.slowest.items()})
    assert set(crowd.answers) == {200}
    wait_until(lambda: emptied(folder), 30, "the spool is empty")
    stored = crowd.stored()
    assert {user: stored[user] for user in crowd.accepted} == crowd.accepted
    assert [process.tree() for process in stack._workers[:WEBS]] == before


@pytest.mark.slow
@pytest.mark.parametrize("words", ["P1=kill@7!", "P2=kill@7!", "P3=kill@2!", "P1=stop@9;P3=stop@2"])
def test_web_processes_killed_and_stopped_at_every_step_of_the_spool_lose_nothing_and_keep_order(
    stack: Stack, channel: Channel, folder: Path, words: str
) -> None:
    before, crowd = acts(stack), Crowd(stack, channel, range(1, 9))
    points = {point.partition("=")[0] for point in words.split(";")}

    def fired() -> bool:
        return points <= {line.split()[0] for line in acts(stack)[len(before) :]}

    with failing_webs(stack, words) as webs:
        for web in range(WEBS):
            assert say(stack, channel, 99, web, web=web) == 200
        with every(4, lambda: [process.signal(signal.SIGCONT) for process in webs]):
            with crowd.writing():
                wait_until(lambda: crowd.total() > 50, 20, "the crowd is heard")
                crash_postgres_until(fired, stack, crowd, folder)
            wait_until(lambda: emptied(folder), 60, "the spool is empty")
    print(words, dict(crowd.answers), acts(stack)[len(before) :])
    stored = crowd.stored()
    assert {user: stored[user] for user in crowd.accepted} == crowd.accepted


def test_a_process_that_never_saw_the_channel_answers_503_and_the_other_takes_it(stack: Stack, folder: Path) -> None:
    fresh = add_channel(stack)
    assert say(stack, fresh, 1, 1, web=0) == 200
    with postgres_stopped(stack):
        assert [say(stack, fresh, 1, 2, web=web) for web in (1, 0)] == [503, 200]
        body, headers = telegram_text(fresh, 1, 3, "3")
        assert stack.post(fresh, body, {**headers, "x-telegram-bot-api-secret-token": "wrong"}, web=0) == 401
        both = lambda: [spooled(stack, web)["count"] for web in range(WEBS)]  # noqa: E731  (each is up to a second old)
        wait_until(lambda: both() == [1, 1], 5, "both tell of what waits")
    wait_until(lambda: emptied(folder), 20, "the spool is empty")
    assert [say(stack, fresh, 1, 3, web=web) for web in (1, 0)] == [200, 200]
    assert stack.query("SELECT sequence, text FROM message WHERE receipt_id IN (SELECT id FROM receipt WHERE channel_id"
                       " = %s) ORDER BY 1", fresh.id) == [(1, "1"), (2, "2"), (3, "3")]  # fmt: skip


def test_what_a_machine_accepted_before_it_went_down_is_stored_when_it_is_back_and_nobody_calls(
    stack: Stack, channel: Channel, folder: Path
) -> None:
    webs = stack._workers[:WEBS]
    with postgres_stopped(stack):
        for number in range(1, 21):
            assert say(stack, channel, 1, number, web=number % WEBS) == 200
        for process in webs:
            process.end()
        with (folder / "log").open("ab") as log:  # in the middle of a write
            log.write(b"+1790000000000 gAAAAA")
    start(stack, webs)
    wait_until(lambda: emptied(folder), 20, "the spool is empty")
    rows = stack.query("""SELECT m.text FROM message m JOIN conversation c ON c.id = m.conversation_id
                           WHERE c.channel_id = %s AND c."user" = '1' ORDER BY m.sequence""", channel.id)  # fmt: skip
    assert [text for (text,) in rows] == [str(number) for number in range(1, 21)]


@contextlib.contextmanager
def postgres_stopped(stack: Stack) -> Iterator[None]:
    stack.servers.postgres.stop()  # type: ignore[union-attr]
    try:
        yield
    finally:
        stack.servers.postgres.start()  # type: ignore[union-attr]
