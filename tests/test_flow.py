"""Read this second: from webhook to delivery, on the real processes, while they are being hurt."""

from __future__ import annotations

import collections
import itertools
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.kit.doubles import Double
from tests.kit.platforms import GENERIC_SECRET, generic_text, telegram_text
from tests.kit.stack import Channel, Stack, every, wait_until

MESSAGES = 100
FIRST_WINDOWS = threading.Semaphore(2)
HIGH = "channel:10000/1s,chat:1000/1s,group:1000/1s"


def insist(stack: Stack, channel: Channel, body: bytes, headers: dict[str, str]) -> None:
    """Post as a platform does: again and again until it is taken."""
    for _ in range(200):
        status = stack.post(channel, body, headers)
        if status == 200:
            return
        assert status in (0, 503), f"an authentic webhook was answered {status}"
    raise AssertionError("never taken")


def telegram_user(stack: Stack, channel: Channel, user: int, chance: random.Random, pause: float) -> None:
    """One chat, as Telegram posts it: the next message only after the last was taken, each 1 to 5 times."""
    for number in range(1, MESSAGES + 1):
        body, headers = telegram_text(channel, user, number, f"{user}:{number}")
        for _ in range(chance.randint(1, 5)):
            insist(stack, channel, body, headers)
        time.sleep(pause)


def generic_user(stack: Stack, channel: Channel, user: str, chance: random.Random) -> None:
    """One conversation with the producer's own numbers, shuffled within a window of 8, each 1 to 5 times."""

    def deliver(number: int) -> None:
        body, headers = generic_text(channel, user, f"{user}-{number}", f"{user}:{number}", seq=number)
        insist(stack, channel, body, headers)

    for start in range(1, MESSAGES + 1, 8):
        window = [n for n in range(start, min(start + 8, MESSAGES + 1)) for _ in range(chance.randint(1, 5))]
        chance.shuffle(window)
        if start > 1:
            for number in window:
                deliver(number)
        else:  # the first window names the base of the order, for which we wait 2 s: all at once
            with FIRST_WINDOWS, ThreadPoolExecutor(len(window)) as posts:
                list(posts.map(deliver, window))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("settings", "users", "pause"), [
    pytest.param("botproject.settings", 50, 0.0, id="whole"),
    # Few people, slow enough that the faults happen while they write.
    pytest.param("tests.bare_project.settings", 4, 0.12, id="without desk and webchat"),
])  # fmt: skip
def test_every_message_is_answered_once_and_in_order_while_everything_is_killed(
    settings: str, users: int, pause: float
) -> None:
    seed = 20261122
    with Double() as double, Stack(webs=1, env={"DJANGO_SETTINGS_MODULE": settings}) as stack:
        values = {"token": "1:abc", "secret_token": "s3cret-Token-0123456789", "limits": HIGH}
        telegram = stack.add_channel("telegram", api_base=double.url, **values)
        generic = stack.add_channel("generic", secret=GENERIC_SECRET, outbound_url=f"{double.url}/out", limits=HIGH,
                                    gap_timeout_s="600")  # fmt: skip
        stack.wait_for_workers("handle", "send", "sweep")
        kills: collections.Counter[str] = collections.Counter()

        def kill() -> None:
            for role in ("handle", "send"):
                kills[role] += len(stack.kill(role))

        with every(1.0, stack.flush_redis) as flushes, every(3.0, kill), ThreadPoolExecutor(2 * users) as pool:
            chances = [random.Random(seed + n) for n in range(users)]
            jobs = [pool.submit(telegram_user, stack, telegram, 1000 + n, chances[n], pause) for n in range(users)]
            jobs += [pool.submit(generic_user, stack, generic, f"g{n}", random.Random(seed - n)) for n in range(users)]
            for job in jobs:
                job.result()
        wait_until(stack.drained, 120, "everything handled and delivered after the last fault")

        assert min(len(flushes) - 2, kills["handle"], kills["send"]) > 1, "the faults did not happen"
        assert stack.query("SELECT id FROM message WHERE status <> 'handled'") == []
        assert_dense(stack)
        shown = collections.defaultdict(list)
        for line in filter(lambda line: line["shown"], double.accepted()):
            user, _, number = line["text"].partition(":")
            shown[user].append(int(number))
        expected = list(range(1, MESSAGES + 1))
        for n in range(users):
            assert [number for number, _ in itertools.groupby(shown[str(1000 + n)])] == expected
            assert shown[f"g{n}"] == expected
        repeats = sum(len(numbers) for numbers in shown.values()) - 2 * users * MESSAGES
        again = stack.value("SELECT count(*) FROM reply WHERE attempts > 1")
        assert repeats <= again, "a repeat without a sender that was killed"


def assert_dense(stack: Stack) -> None:
    """Numbers are 1, 2, 3, ... in every conversation, for messages and for replies."""
    for table in ("message", "reply"):
        counts = "min(sequence) <> 1 OR max(sequence) <> count(*) OR count(DISTINCT sequence) <> count(*)"
        holes = stack.query(f"SELECT conversation_id FROM {table} GROUP BY 1 HAVING {counts}")
        assert holes == [], f"{table}: not dense in {holes}"
