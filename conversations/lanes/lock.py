"""One Redis lock per lane and kind of work: hold, extend, release, all by owner token.

A lock saves double work; it guarantees nothing. The compare-and-set in the transaction that writes
a result decides, so that every failure here costs only time.

No wake is lost: a process that finds a lane locked leaves word in the lock and goes. Releasing
looks for that word in the same step: if there is one, the lock is kept and its owner looks at the
lane again.
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

# A lock that is not renewed ends after so long. Longer: the lanes of a dead process wait longer if
# nobody frees them; shorter: a process that pauses loses its locks, and its turns are run twice.
TTL_SECONDS = 6.0
# Between two renewals. Longer: fewer calls, and fewer attempts before a lock ends.
RENEW_SECONDS = 2.0


def key(kind: Work, conversation_id: int) -> str:
    """Return the lock's key.

    All are in one hash slot: on a Redis Cluster, too, one script takes many.
    """
    return f"{{lanes}}:{kind.activity}:{conversation_id}"


class Locks:
    """The locks of one kind that this process holds. One thread renews them."""

    def __init__(self, kind: Work, token: str) -> None:
        self.kind = kind
        self.token = token
        self.lost: set[int] = set()  # lanes in hand whose lock somebody else has by now
        self._held: dict[int, bool] = {}  # lane -> this process left word for itself
        self._lock = threading.Lock()
        # Held while locks are released or renewed. "extend" takes a free lock again (FLUSHALL): a
        # renewal that read ``_held`` before a release and ran after it would hold a lane that
        # nobody works on.
        self._releasing = threading.Lock()
        self._stopping = threading.Event()
        vital_thread(f"renew-{kind.activity}", self._renew_forever)

    def hold(self, conversation_ids: Iterable[int]) -> list[int]:
        """Lock the lanes that are free, leave word on the others. Raises ``redis.RedisError``."""
        wanted = self._not_mine(conversation_ids)
        return self._hold_in_redis(wanted) if wanted else []

    def hold_unlocked(self, conversation_ids: Iterable[int]) -> list[int]:
        """Hold lanes in this process only, with Redis away.

        The compare-and-set decides between processes.
        """
        return self._not_mine(conversation_ids)

    def release(self, conversation_ids: Sequence[int], *, keep: bool = True) -> list[int]:
        """Release lanes. Return those that are kept because somebody left word: look at them again.

        ``keep=False`` releases all, when this process ends.
        """
        with self._lock:
            again = [lane for lane in conversation_ids if keep and self._held.get(lane) and lane not in self.lost]
            for lane in again:
                self._held[lane] = False
        kept = set(again)
        return again + self._release_in_redis([lane for lane in conversation_ids if lane not in kept], keep)

    def stop(self) -> None:
        self._stopping.set()

    def running(self) -> list[int]:
        """Return the lanes in hand."""
        with self._lock:
            return list(self._held)

    def _hold_in_redis(self, wanted: Sequence[int]) -> list[int]:
        """Lock lanes that ``_held`` lists already.

        Return those that we got; the others leave ``_held``.
        """
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
                answers = [1] * len(leaving)  # the locks expire; the rows are due
            assert isinstance(answers, list)
            kept = [lane for lane, answer in zip(leaving, answers, strict=True) if answer == 2]
            asked = self._forget_released(leaving, kept, keep)
        return kept + self._hold_again(asked)

    def _forget_released(self, leaving: Sequence[int], kept: Sequence[int], keep: bool) -> list[int]:
        """Remove released lanes from ``_held``.

        Return those for which this process left word meanwhile.
        """
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
        """Lock lanes that were released a moment ago: another process may have taken them since."""
        try:
            return self._hold_in_redis(lanes) if lanes else []
        except redis.RedisError:
            return []  # the rows are due

    def _not_mine(self, conversation_ids: Iterable[int]) -> list[int]:
        """Add lanes to ``_held``. Return the new ones; leave word for ourselves on the others."""
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
        """Free locks that we asked for without an answer: Redis may have given them to us."""
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
    """Free the locks that ``token`` still owns.

    Return their lanes; with Redis away none: locks expire.
    """
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
