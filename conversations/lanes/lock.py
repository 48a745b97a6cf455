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

# Seconds after which a lock that is not renewed expires. Longer: lanes of a dead process wait
# longer if nobody frees them; shorter: a process that pauses loses its locks, and turns run twice.
TTL_SECONDS = 6.0
# Seconds between two renewals. Longer: fewer attempts before a lock expires; shorter: more calls.
RENEW_SECONDS = 2.0
# Most locks in one script. Larger: fewer round trips, and Redis serves nobody else for longer.
LOCKS_PER_SCRIPT = 500
# What ``hold.lua`` answers for a lock: ours, or another's that had no TTL and got one.
HELD, MENDED = 1, 2
# What ``release.lua`` answers for a lock: deleted, or kept because a process left word in it.
RELEASED, KEPT = 1, 2


def key(kind: Work, conversation_id: int) -> str:
    """Return the Redis key of a lane's lock.

    The braces put all locks into one hash slot: on a Redis Cluster, a script can only use keys of
    one slot.
    """
    return f"{{lanes}}:{kind.activity}:{conversation_id}"


class Locks:
    """The locks for one kind of work that this process holds. One thread renews them.

    ``token`` names the owner in Redis: the incarnation of the process.
    """

    def __init__(self, kind: Work, token: str) -> None:
        self.kind = kind
        self.token = token
        self.lost: set[int] = set()  # lanes that we still work on, but another process has the lock
        self._held: dict[int, bool] = {}  # lane -> a wake came here meanwhile: look at it again
        self._lock = threading.Lock()
        # Held while locks are released or renewed. "extend" takes a free lock again (FLUSHALL): a
        # renewal that read ``_held`` before a release and ran after it would hold a lane that
        # nobody works on.
        self._releasing = threading.Lock()
        self._stopping = threading.Event()
        vital_thread(f"renew-{kind.activity}", self._renew_forever)

    def hold(self, conversation_ids: Iterable[int]) -> list[int]:
        """Lock the lanes that are free, and return them. Raises ``redis.RedisError``.

        On the others leave word: their owner looks at them again before it releases them.
        """
        wanted = self.hold_unlocked(conversation_ids)
        return self._hold_in_redis(wanted) if wanted else []

    def hold_unlocked(self, conversation_ids: Iterable[int]) -> list[int]:
        """Hold lanes in this process only, while Redis is away; return those that were free here.

        The others are marked, so that ``release`` returns them to be looked at again. Two processes
        may then work on one lane; the COMMIT of only one of them succeeds.
        """
        wanted = []
        with self._lock:
            for lane in dict.fromkeys(conversation_ids):
                if lane not in self._held:
                    wanted.append(lane)
                self._held[lane] = lane in self._held
        return wanted

    def take(self, conversation_ids: Sequence[int], *, locked: bool) -> list[int]:
        """Hold lanes, with ``locked`` in Redis, too. Return those that were free: none if Redis fails."""
        try:
            return self.hold(conversation_ids) if locked else self.hold_unlocked(conversation_ids)
        except redis.RedisError as error:
            log.warning("lanes not held", kind=self.kind, error=type(error).__name__, lanes=len(conversation_ids))
            return []

    def release(self, conversation_ids: Sequence[int], *, keep: bool = True) -> list[int]:
        """Release lanes. Return those that stay ours because new work came: look at them again.

        ``keep=False`` releases all: this process ends.
        """
        with self._lock:
            again = [lane for lane in conversation_ids if keep and self._held.get(lane) and lane not in self.lost]
            for lane in again:
                self._held[lane] = False
        kept = set(again)
        return again + self._release_in_redis([lane for lane in conversation_ids if lane not in kept], keep)

    def begin_again(self, token: str) -> None:
        """Take new locks as ``token``. All lanes in hand are lost: a sweeper freed their locks."""
        with self._lock:
            self.token = token
            self.lost.update(self._held)

    def stop(self) -> None:
        """End the renewals and free the locks that are still held: a renewal would take them again."""
        self._stopping.set()
        with self._releasing:
            free(self.kind, self.token, self.running())
            with self._lock:
                self._held.clear()

    def running(self) -> list[int]:
        """Return the lanes on which this process works."""
        with self._lock:
            return list(self._held)

    def _hold_in_redis(self, wanted: Sequence[int]) -> list[int]:
        """Lock in Redis lanes that ``_held`` lists already. Raises ``redis.RedisError``.

        Return the lanes that we got, and remove the others from ``_held``.
        """
        token = self.token
        try:
            answers = _ask("hold", self.kind, wanted, token, int(TTL_SECONDS * 1000))
        except redis.RedisError:
            self._abandon_hold(wanted, token)
            raise
        held = [lane for lane, answer in answers.items() if answer == HELD]
        if mended := [lane for lane, answer in answers.items() if answer == MENDED]:
            log.warning("locks had no expiry; they expire now", kind=self.kind, conversations=mended)
        with self._lock:
            if same_life := token == self.token:
                self.lost.difference_update(wanted)
                for lane in set(wanted).difference(held):
                    self._held.pop(lane, None)
        if not same_life:  # ``begin_again`` came between: they are another life's locks
            self._abandon_hold(wanted, token)
            return []
        return held

    def _release_in_redis(self, lanes: Sequence[int], keep: bool) -> list[int]:
        """Release locks in Redis. Return the lanes that stay ours because new work came.

        If Redis fails, all count as released: the locks expire, and the sweeper finds the lanes,
        which are due in the database.
        """
        if not lanes:
            return []
        with self._releasing:
            try:
                answers = _ask("release", self.kind, lanes, self.token, int(keep))
            except redis.RedisError:
                answers = {}
            kept = [lane for lane, answer in answers.items() if answer == KEPT]
            woken = self._forget_released(lanes, kept, keep)
        try:  # another process may have taken these since
            return kept + (self._hold_in_redis(woken) if woken else [])
        except redis.RedisError:
            return kept  # the others are due in the database: the sweeper finds them

    def _forget_released(self, lanes: Sequence[int], kept: Sequence[int], keep: bool) -> list[int]:
        """Remove released lanes from ``_held``.

        Return those for which another wake came to this process meanwhile: they need a new lock.
        """
        woken = []
        with self._lock:
            self.lost.difference_update(lanes)
            for lane in lanes:
                if lane in kept:
                    self._held[lane] = False
                elif self._held.pop(lane, False) and keep:
                    self._held[lane] = False
                    woken.append(lane)
        return woken

    def _abandon_hold(self, wanted: Sequence[int], token: str) -> None:
        """Free locks that Redis may have given us: there was no answer, or it is another life's."""
        with self._lock:
            self.lost.difference_update(wanted)
            for lane in wanted:
                self._held.pop(lane, None)
        with self._releasing:
            free(self.kind, token, wanted)

    def _renew_forever(self) -> None:
        while not self._stopping.wait(RENEW_SECONDS):
            failpoint("R1")
            self._renew()

    def _renew(self) -> None:
        """Extend all locks that we hold. Lanes whose lock another process has go to ``lost``."""
        lanes = self.running()
        for start in range(0, len(lanes), LOCKS_PER_SCRIPT):
            with self._releasing:
                held = [lane for lane in lanes[start : start + LOCKS_PER_SCRIPT] if lane in self._held]
                try:
                    answers = _ask("extend", self.kind, held, self.token, int(TTL_SECONDS * 1000))
                except redis.RedisError as error:
                    log.warning("locks not renewed", error=type(error).__name__)
                    return
                self.lost |= {lane for lane, answer in answers.items() if not answer}


def free(kind: Work, token: str, conversation_ids: Sequence[int]) -> list[int]:
    """Free the locks that ``token`` still owns, and return their lanes.

    If Redis does not answer, the others are left: they expire.
    """
    freed: list[int] = []
    for start in range(0, len(conversation_ids), LOCKS_PER_SCRIPT):
        try:
            answers = _ask("release", kind, conversation_ids[start : start + LOCKS_PER_SCRIPT], token, 0)
        except redis.RedisError as error:
            log.debug("locks not freed; they expire", error=type(error).__name__)
            break
        freed += [lane for lane, answer in answers.items() if answer == RELEASED]
    return freed


def _ask(script: str, kind: Work, lanes: Sequence[int], *arguments: str | int) -> dict[int, int]:
    """Run a script on the locks of distinct ``lanes``. Return its answers. Raises ``redis.RedisError``."""
    answers = run_script(script, [key(kind, lane) for lane in lanes], arguments)
    assert isinstance(answers, list)
    return dict(zip(lanes, answers, strict=True))
