"""One Redis lock per lane and kind of work: hold, extend, release, all by owner token.

A lock serialises; it neither orders nor excludes. It saves double work. What decides is the
compare-and-set in the transaction that writes the result, so every failure here costs time only.

Whoever finds a lane taken leaves word and goes; whoever releases looks for word in the same step.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

import redis
import structlog

from conversations.concurrency import vital_thread
from conversations.contracts import Work
from conversations.failpoints import failpoint
from conversations.lanes.redis_client import run_script

log = structlog.get_logger(__name__)

TTL_SECONDS = 6.0
RENEW_SECONDS = 2.0


def key(kind: Work, conversation_id: int) -> str:
    """All locks share one hash slot, so that a batch is one script also on a Redis Cluster."""
    return f"{{lanes}}:{kind.activity}:{conversation_id}"


class Locks:
    """The locks of one kind that this process holds, renewed by one thread."""

    def __init__(self, kind: Work, token: str) -> None:
        self.kind = kind
        self.token = token
        self.lost: set[int] = set()  # lanes in hand that are somebody else's by now
        self._held: dict[int, bool] = {}  # conversation -> word was left by this very process
        self._lock = threading.Lock()
        self._releasing = threading.Lock()  # a lock that was just released must not be renewed
        self._stopping = threading.Event()
        vital_thread(f"renew-{kind.activity}", self._renew_forever)

    def hold(self, conversation_ids: Iterable[int]) -> list[int]:
        """Take what is free; leave word on the rest. Raises ``redis.RedisError`` when Redis is away."""
        wanted = self._not_mine(conversation_ids)
        return self._hold_in_redis(wanted) if wanted else []

    def hold_unlocked(self, conversation_ids: Iterable[int]) -> list[int]:
        """Take lanes in this process only, with Redis away: the compare-and-set decides between processes."""
        return self._not_mine(conversation_ids)

    def release(self, conversation_ids: Sequence[int], *, keep: bool = True) -> list[int]:
        """Let go; returns the lanes that are kept because word was left: to be looked at. ``keep``: not when we end."""
        with self._lock:
            again = [lane for lane in conversation_ids if keep and self._held.get(lane) and lane not in self.lost]
            for lane in again:
                self._held[lane] = False
        kept = set(again)
        return again + self._release_in_redis([lane for lane in conversation_ids if lane not in kept], keep)

    def stop(self) -> None:
        self._stopping.set()

    def running(self) -> list[int]:
        """The lanes in hand."""
        with self._lock:
            return list(self._held)

    def _hold_in_redis(self, wanted: Sequence[int]) -> list[int]:
        """Of the lanes that are entered already, those that this process got; the others are struck out again."""
        try:
            answers = run_script("hold", self._keys(wanted), [self.token, int(TTL_SECONDS * 1000)])
        except redis.RedisError:
            self._abandon_hold(wanted)
            raise
        assert isinstance(answers, list)
        with self._lock:
            self.lost.difference_update(wanted)
            for lane, answer in zip(wanted, answers, strict=True):
                if not answer:
                    self._held.pop(lane, None)
        return [lane for lane, answer in zip(wanted, answers, strict=True) if answer]

    def _release_in_redis(self, leaving: Sequence[int], keep: bool) -> list[int]:
        if not leaving:
            return []
        with self._releasing:
            try:
                answers = run_script("release", self._keys(leaving), [self.token, int(keep)])
            except redis.RedisError:
                answers = [1] * len(leaving)  # it expires; the rows are due
            assert isinstance(answers, list)
            kept = [lane for lane, answer in zip(leaving, answers, strict=True) if answer == 2]
            asked = self._forget_released(leaving, kept, keep)
        return kept + self._hold_again(asked)

    def _forget_released(self, leaving: Sequence[int], kept: Sequence[int], keep: bool) -> list[int]:
        """Forget what was released; those for which this very process left word meanwhile."""
        asked = []
        with self._lock:
            self.lost.difference_update(leaving)
            for lane in leaving:
                if lane in kept:
                    self._held[lane] = False
                elif self._held.pop(lane, False) and keep:
                    self._held[lane] = False
                    asked.append(lane)
        return asked

    def _hold_again(self, lanes: Sequence[int]) -> list[int]:
        """They are free in Redis already: somebody else may have taken them."""
        try:
            return self._hold_in_redis(lanes) if lanes else []
        except redis.RedisError:
            return []  # the rows are due

    def _not_mine(self, conversation_ids: Iterable[int]) -> list[int]:
        """Enter the lanes that this process does not hold; on those that it does, leave word to itself."""
        wanted = []
        with self._lock:
            for lane in dict.fromkeys(conversation_ids):
                if lane in self._held:
                    self._held[lane] = True
                else:
                    self._held[lane] = False
                    wanted.append(lane)
        return wanted

    def _abandon_hold(self, wanted: Sequence[int]) -> None:
        """No answer: what was asked for may be held in our name; delete it before we go."""
        with self._lock:
            for lane in wanted:
                self._held.pop(lane, None)
        with self._releasing:
            free(self.kind, self.token, wanted)

    def _keys(self, lanes: Sequence[int]) -> list[str]:
        return [key(self.kind, lane) for lane in lanes]

    def _renew_forever(self) -> None:
        while not self._stopping.wait(RENEW_SECONDS):
            failpoint("R1")
            self._renew()

    def _renew(self) -> None:
        lanes = self.running()
        for start in range(0, len(lanes), 500):
            with self._releasing:
                held = [lane for lane in lanes[start : start + 500] if lane in self._held]
                try:
                    answers = run_script("extend", self._keys(held), [self.token, int(TTL_SECONDS * 1000)])
                except redis.RedisError as error:
                    log.warning("locks not renewed", error=type(error).__name__)
                    return
                assert isinstance(answers, list)
                self.lost |= {lane for lane, answer in zip(held, answers, strict=True) if not answer}


def free(kind: Work, token: str, conversation_ids: Sequence[int]) -> list[int]:
    """Free the locks of a dead process; those that it had. Silent when Redis is away (they expire)."""
    freed: list[int] = []
    for start in range(0, len(conversation_ids), 500):
        lanes = conversation_ids[start : start + 500]
        try:
            answers = run_script("free", [key(kind, lane) for lane in lanes], [token])
        except redis.RedisError as error:
            log.debug("locks not freed; they expire", error=type(error).__name__)
            break
        assert isinstance(answers, list)
        freed += [lane for lane, answer in zip(lanes, answers, strict=True) if answer]
    return freed
