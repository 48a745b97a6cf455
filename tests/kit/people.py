"""People who write without pause, each one message after the other, through whichever web process is next.

A message that is not answered 200 comes again, as platforms do it, until it is or until the crowd is told to give up.
"""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import urllib3

from tests.kit.doubles import Double
from tests.kit.lanes import Lanes
from tests.kit.platforms import telegram_text
from tests.kit.stack import Channel, Stack, wait_until

ANSWER_SECONDS = 9.0  # three times what is promised, which `make chaos` measures: both sides of it share one machine
LOOSE = "channel:10000/1s,chat:1000/1s,group:1000/1s"


def open_channel(stack: Stack, double: Double) -> Channel:
    """Its bot answers each text with its number; nothing is limited; the platform remembers nothing of before."""
    double.reset()
    values = {"limits": LOOSE, "token": "1:abc", "secret_token": "s3cret-Token-0123456789"}
    return stack.add_channel("telegram", bot="obedient", api_base=double.url, **values)


class Crowd:
    """``accepted[user]``: the texts that were answered 200, in order. ``answers``: how often each status came."""

    def __init__(
        self, stack: Stack, channel: Channel, users: range, *, again: bool = True, pause: float = 0.02
    ) -> None:
        self.stack, self.channel, self.again, self.pause = stack, channel, again, pause
        self.accepted: dict[int, list[str]] = {user: [] for user in users}
        self.answers: collections.Counter[int] = collections.Counter()
        self.slowest: dict[int, float] = collections.defaultdict(float)
        self._http = urllib3.PoolManager(maxsize=64, retries=False, timeout=ANSWER_SECONDS)
        self._stopping = threading.Event()
        self._counting = threading.Lock()

    @contextlib.contextmanager
    def writing(self) -> Iterator[Crowd]:
        threads = [threading.Thread(target=self._write, args=(user,), daemon=True) for user in self.accepted]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join()

    def write_while(self, hurt: Callable[[], None], heard: int) -> None:
        """``heard`` messages are taken before ``hurt``, and as many after it."""
        with self.writing():
            wait_until(lambda: self.total() > heard, 20, "the crowd is heard")
            hurt()
            before = self.total()
            wait_until(lambda: self.total() > before + heard, 20, "the crowd is heard again")
        print(dict(self.answers), {code: round(at, 2) for code, at in self.slowest.items()})

    def check_order(self, double: Double) -> None:
        """What was accepted, and nothing else, is stored and answered once, in order."""
        assert self.stored() == self.accepted
        wait_until(self.stack.drained, 60, "all is handled and delivered")
        for user, texts in self.accepted.items():
            shown = [line["text"] for line in double.accepted("sendMessage") if line["chat"] == str(user)]
            assert shown == [f"{number}: {text}" for number, text in enumerate(texts, 1)]

    def check_turns(self) -> None:
        lanes = self.stack.query("SELECT id FROM conversation WHERE channel_id = %s", self.channel.id)
        own = {lane for (lane,) in lanes}
        lines = [line for line in Lanes(self.stack).done(word="begun") if line.lane in own]
        begun = collections.Counter((line.lane, line.sequence) for line in lines)
        assert set(begun.values()) == {1}, "a turn ran twice"

    def total(self) -> int:
        return sum(map(len, self.accepted.values()))

    def _write(self, user: int) -> None:
        number = 0
        while not self._stopping.is_set():
            number += 1
            if self._say(user, number):
                self.accepted[user].append(str(number))
            time.sleep(self.pause)

    def _say(self, user: int, number: int) -> bool:
        """Whether it was accepted; each try goes to the next web process."""
        for attempt in range(1_000_000):
            if self._post(user, number, attempt) == 200:
                return True
            if not self.again or (self._stopping.is_set() and attempt > 100):
                return False
            time.sleep(0.05)
        return False

    def _post(self, user: int, number: int, attempt: int) -> int:
        body, headers = telegram_text(self.channel, user, number, str(number))
        port = self.stack.ports[(number + attempt) % len(self.stack.ports)]
        began = time.monotonic()
        try:
            url = f"http://127.0.0.1:{port}{self.channel.webhook_path}"
            status = self._http.request("POST", url, body=body, headers=headers).status
        except urllib3.exceptions.HTTPError as error:
            print(f"not answered: {error!r}")
            status = 0
        with self._counting:
            self.answers[status] += 1
            self.slowest[status] = max(self.slowest[status], time.monotonic() - began)
        return status

    def stored(self) -> dict[int, list[str]]:
        """What the database holds of each, in the order of its numbers."""
        rows = self.stack.query(
            """SELECT c."user", array_agg(m.text ORDER BY m.sequence), array_agg(m.sequence ORDER BY m.sequence)
                 FROM message m JOIN conversation c ON c.id = m.conversation_id
                WHERE c.channel_id = %s GROUP BY c.id""",
            self.channel.id,
        )
        for _, _, numbers in rows:
            assert numbers == list(range(1, len(numbers) + 1))
        return {int(user): texts for user, texts, _ in rows}
