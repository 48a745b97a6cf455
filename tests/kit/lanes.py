"""For tests of handling: lanes filled as storing fills them, wakes, workers with failpoints, and what came of it."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from tests.kit.hints import Hints
from tests.kit.rows import add_lane, add_messages
from tests.kit.stack import Process, Stack, state, wait_until

BOTS = {"EXTRA_APPS": "tests.bots_app"}

ADD_CHANNEL = """INSERT INTO channel (public_id, platform, tenant_id, name, bot, active, sealed, options, api_base)
                 VALUES (%(public_id)s, 'web', %(tenant)s, %(public_id)s, %(bot)s, true, '{}', %(options)s, '')
                 RETURNING id"""

# Lanes with one message each; the interval until they are due.
FILL = """
WITH lanes AS (
  INSERT INTO conversation (channel_id, chat, "user", last_sequence, due_at)
  SELECT %s, 'd' || n, 'd' || n, 1, now() + %s::interval FROM generate_series(1, %s) n RETURNING id)
INSERT INTO message (conversation_id, sequence, identity, content_hash, text)
SELECT id, 1, decode(md5('due' || id), 'hex'), '', 'hello' FROM lanes RETURNING conversation_id"""


@dataclass(frozen=True)
class Done:
    """A line that a bot wrote down."""

    pid: int
    lane: int
    sequence: int
    word: str


class Lanes:
    """A stack whose bots are those of ``tests.bots_app``."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.hints = Hints(stack.servers.redis_url)
        self._done: list[Done] = []
        self._read = 0

    # ------------------------------------------------------------ filling

    def channel(self, bot: str = "obedient", *, tenant: int | None = None, **options: Any) -> int:
        tenant = tenant or self.stack.value("SELECT min(id) FROM tenant") or self.tenant()
        values = {"public_id": secrets.token_hex(12), "tenant": tenant, "bot": bot,
                  "options": msgspec.json.encode(options).decode()}  # fmt: skip
        return int(self.stack.ask(ADD_CHANNEL, values)[0][0])

    def tenant(self) -> int:
        return int(self.stack.query("INSERT INTO tenant (name) VALUES (%s) RETURNING id", secrets.token_hex(4))[0][0])

    def say(
        self,
        channel: int,
        user: str,
        *texts: str,
        kind: str = "message",
        starts_turn: bool = True,
        status: str = "pending",
        woken: bool = True,
    ) -> int:
        """Messages at the tail of a person's lane; the lane."""
        lane = add_lane(self.stack.ask, channel, user)
        add_messages(self.stack.ask, lane, texts, [status] * len(texts), kind=kind, starts_turn=starts_turn)
        if woken:
            self.wake(lane)
        return lane

    def fill(self, channel: int, many: int, due_in: str = "0 s") -> list[int]:
        """That many lanes of a new channel, with a message each, and no hint."""
        return [lane for (lane,) in self.stack.query(FILL, channel, due_in, many)]

    def wake(self, *lanes: int) -> None:
        of = "SELECT ch.tenant_id FROM channel ch JOIN conversation c ON c.channel_id = ch.id WHERE c.id = %s"
        tenant = self.stack.value(of, lanes[0])
        self.hints.ring(lanes, tenant)

    def tenant_of(self, channel: int) -> int:
        return int(self.stack.value("SELECT tenant_id FROM channel WHERE id = %s", channel))

    # ------------------------------------------------------------ workers

    @contextlib.contextmanager
    def workers(self, *failpoints: str, roles: str = "handle", **env: str) -> Iterator[list[Process]]:
        """A worker per word, with its failpoints; gone afterwards, supervisors and all."""
        before = set(self.stack.pids("handle"))
        started = [self.stack.start_workers(roles, env={"FAILPOINTS": words, **env}) for words in failpoints]
        try:
            wait_until(lambda: len(set(self.stack.pids("handle")) - before) >= len(started), 40, "workers")
            yield started
        finally:
            for process in started:
                process.lose_power()

    def stopped(self, seconds: float = 20) -> int:
        """The process that stopped itself at a failpoint."""
        found: list[int] = []

        def look() -> bool:
            found[:] = [pid for pid in self.stack.pids("handle") if state(pid) == "T"]
            return bool(found)

        wait_until(look, seconds, "a worker stopped at its failpoint")
        return found[0]

    # ------------------------------------------------------------ what came of it

    def messages(self, lane: int, columns: str = "status") -> list[Any]:
        return self._rows("message", lane, columns)

    def replies(self, lane: int, columns: str = "body ->> 'text'") -> list[Any]:
        return self._rows("reply", lane, columns)

    def turns(self, lane: int, columns: str = "outcome") -> list[Any]:
        rows = self.stack.query(f"SELECT {columns} FROM turn WHERE conversation_id = {lane} ORDER BY id")
        return [row[0] if len(row) == 1 else row for row in rows]

    def lane(self, lane: int, columns: str) -> Any:
        row = self.stack.query(f"SELECT {columns} FROM conversation WHERE id = {lane}")[0]
        return row[0] if len(row) == 1 else row

    def _rows(self, table: str, lane: int, columns: str) -> list[Any]:
        rows = self.stack.query(f"SELECT {columns} FROM {table} WHERE conversation_id = {lane} ORDER BY sequence")
        return [row[0] if len(row) == 1 else row for row in rows]

    def settled(self, *lanes: int, seconds: float = 30) -> None:
        """No message of these lanes is pending."""
        count = "SELECT count(*) FROM message WHERE status IN ('pending', 'waiting') AND conversation_id = ANY (%s)"
        wait_until(lambda: self.stack.value(count, list(lanes)) == 0, seconds, "every message of these lanes settled")

    @contextlib.contextmanager
    def released(self) -> Iterator[None]:
        """Turns that wait are done at once, inside the block."""
        word = self.stack.folder / "released"
        word.touch()
        try:
            yield
        finally:
            word.unlink()

    def done(self, lane: int | None = None, word: str = "") -> list[Done]:
        """What bots wrote down, oldest first."""
        with contextlib.suppress(FileNotFoundError), (self.stack.folder / "turns.txt").open("rb") as file:
            file.seek(self._read)  # all before it is in ``_done``
            for line in file:
                pid, of, sequence, said = line.decode().split()
                self._done.append(Done(int(pid), int(of), int(sequence), said))
                self._read += len(line)
        return [line for line in self._done if lane in (None, line.lane) and word in ("", line.word)]

    def begun(self, lane: int, times: int = 1, seconds: float = 20) -> Done:
        """The ``times``-th turn of this lane, as soon as it has begun."""
        wait_until(lambda: len(self.done(lane, "begun")) >= times, seconds, f"turn {times} of lane {lane}")
        return self.done(lane, "begun")[times - 1]

    def assert_in_order(self, *lanes: int) -> None:
        """Every message handled once, in order: what a bot remembered is 1, 2, 3, ..."""
        for lane in lanes:
            seen = self.stack.value("SELECT state -> 'seen' FROM conversation_state WHERE conversation_id = %s", lane)
            assert seen == list(range(1, self.lane(lane, "last_sequence") + 1)), f"lane {lane}"
            said = [(n, str(n)) for n in seen]
            assert self.replies(lane, "sequence, split_part(body ->> 'text', ':', 1)") == said, f"lane {lane}"


def expect_constant(ask: Any, seconds: float, value: Any) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert ask() == value
        time.sleep(0.1)


__all__: Sequence[str] = ("BOTS", "Done", "Lanes", "expect_constant")
