"""The platforms' limits: several buckets of a send, all or nothing, shared by every sender through Redis.

After FLUSHALL, a bucket starts from what the caller knows of the last send, never with a burst. Without
Redis each sender takes its share of the rate. What a platform said (Retry-After) is kept in Postgres.
"""

from __future__ import annotations

import collections
import functools
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import psycopg
import redis
import structlog

from conversations.concurrency import Fresh
from conversations.contracts import ChannelConfig, Limit, Struct
from conversations.errors import CoreError
from conversations.lanes.redis_client import run_script
from conversations.postgres import database
from conversations.postgres.sql_files import sql
from conversations.postgres.storable_text import clean_text

log = structlog.get_logger(__name__)

BLOCKS_SECONDS = 0.5
BREAKER_SECONDS = 1.0  # after a failure Redis is not asked again for so long
REMEMBERED = 200_000  # buckets in memory; the older ones of so many are forgotten
NEVER_SENT, UNKNOWN = -2, -1
AT_ONCE = 10  # a tenth of a limit may start at the same moment, the rest is spaced
BUCKETS = ("channel", "chat", "group")
_WORD = re.compile(r"^(channel|chat|group):(\d{1,6})/(\d{1,5}(?:\.\d+)?)s$")


class Request(Struct, frozen=True):
    """One send that wants to start. ``seconds_ago``: since the lane's last send; None: there was none."""

    channel: ChannelConfig
    chat: str
    is_group: bool
    limits: tuple[Limit, ...]
    seconds_ago: float | None = None


def parse_limits(words: str, default: Sequence[Limit]) -> tuple[Limit, ...]:
    """``default``, ``off``, or ``channel:80/1s,chat:1/1s`` over the platform's own. Raises ``ValueError``."""
    if words in ("", "default"):
        return tuple(default)
    if words == "off":
        return ()
    limits = {limit.bucket: limit for limit in default}
    for word in words.split(","):
        match = _WORD.match(word.strip())
        if match is None or int(match[2]) == 0 or float(match[3]) == 0:
            known = ", ".join(BUCKETS)
            raise ValueError(f"{word.strip()!r} is not a limit; write bucket:count/seconds, as in chat:1/1s ({known})")
        limits[match[1]] = Limit(bucket=match[1], count=int(match[2]), seconds=float(match[3]))
    return tuple(limits.values())


@functools.lru_cache(maxsize=1024)
def limits_of(words: str, default: tuple[Limit, ...]) -> tuple[Limit, ...]:
    """The limits of a channel. An option that says nothing readable holds up nobody: the platform's own hold."""
    try:
        return parse_limits(words, default)
    except ValueError as error:
        log.error("limits not readable; the platform's own hold", error=str(error)[:200])
        return tuple(default)


class Counted(NamedTuple):
    """One bucket of a send: its name in Redis, the seconds between sends, and the seconds of what it takes at once."""

    name: str
    interval: float
    slack: float


@functools.lru_cache(maxsize=1024)
def spacing(limit: Limit) -> tuple[float, float]:
    """Interval and slack so that no window of the limit's period holds more than its count."""
    at_once = limit.count // AT_ONCE
    interval = limit.seconds / (limit.count - at_once)
    return interval, interval * at_once * (1 - 1e-9) if at_once else 0.0


class Limiter:
    """Admits sends of one process. ``senders`` says how many senders are alive, for the time without Redis."""

    def __init__(self, senders: Callable[[], int] = lambda: 1) -> None:
        self._senders = senders
        self._last: dict[str, float] = {}  # bucket -> when this process last sent there, or took that for granted
        self._free_at: dict[str, float] = {}  # without Redis
        self._away_until = 0.0
        self._blocks: dict[str, float] = {}  # bucket -> monotonic end, as platforms said
        self._blocking = threading.Lock()
        self._read_blocks = Fresh(self._merge_blocks, BLOCKS_SECONDS, first=None)

    def admit(self, requests: Sequence[Request]) -> list[float]:
        """Seconds to wait per request; 0: it may start now, and is counted."""
        buckets = [self._buckets(request) for request in requests]
        waits = [self.blocked(request) for request in requests]
        asking = [place for place, wait in enumerate(waits) if wait <= 0 and buckets[place]]
        if asking:
            groups = [(requests[place], buckets[place]) for place in asking]
            for place, wait in zip(asking, self._ask(groups), strict=True):
                waits[place] = wait
        now = time.monotonic()
        for place, wait in enumerate(waits):
            if wait <= 0:
                self._last.update((bucket.name, now) for bucket in buckets[place])
        self._last = _recent(self._last, now)
        return waits

    def block(self, request: Request, bucket: str, seconds: float, words: str) -> None:
        """A platform said when to come back: told to Redis at once, kept in Postgres, obeyed here from now on."""
        name = self._name(request, bucket)
        with self._blocking:
            self._blocks[name] = max(self._blocks.get(name, 0.0), time.monotonic() + seconds)
        try:
            run_script("block", [name], [int(seconds * 1e6)])
        except redis.RedisError as error:
            log.debug("block not shared through Redis", error=type(error).__name__)
        values = {"channel_id": request.channel.id, "key": name, "seconds": seconds, "words": clean_text(words, 200)}
        try:
            database.execute(sql("keep_bucket"), values)
        except (psycopg.Error, CoreError) as error:
            log.warning("bucket not kept", error=type(error).__name__)

    def _buckets(self, request: Request) -> list[Counted]:
        """Every bucket that counts this send."""
        return [
            Counted(self._name(request, limit.bucket), *spacing(limit))
            for limit in request.limits
            if limit.bucket != "group" or request.is_group
        ]

    def _name(self, request: Request, bucket: str) -> str:
        base = f"{{lanes}}:limit:{request.channel.id}"
        return base if bucket == "channel" else f"{base}:{bucket}:{request.chat}"

    # ------------------------------------------------------------ what platforms said

    def blocked(self, request: Request) -> float:
        """Seconds for which a platform said to wait: it holds whether or not we count that bucket."""
        self._read_blocks()
        now = time.monotonic()
        return max(self._blocks.get(self._name(request, bucket), 0.0) - now for bucket in BUCKETS)

    def _merge_blocks(self, _: None) -> None:
        """Add what other senders were told; what is known goes on while the database is away."""
        now = time.monotonic()
        try:
            rows = database.read(sql("read_buckets"))
        except (psycopg.Error, CoreError):
            return
        with self._blocking:
            live = {name: end for name, end in self._blocks.items() if end > now}
            self._blocks = live | {key: max(now + left, live.get(key, 0.0)) for key, left in rows}

    # ------------------------------------------------------------ counting

    def _ask(self, groups: Sequence[tuple[Request, list[Counted]]]) -> list[float]:
        if time.monotonic() < self._away_until:
            return self._alone(groups)
        keys: list[str] = []
        args: list[int] = [len(groups)]
        guessed: list[str] = []
        for request, buckets in groups:
            args.append(len(buckets))
            for bucket in buckets:
                known = self._known(request, bucket.name)
                keys.append(bucket.name)
                args += [round(bucket.interval * 1e6), int(bucket.slack * 1e6), known]
                if known == UNKNOWN:
                    guessed.append(bucket.name)
        try:
            waits = run_script("admit", keys, args)
        except redis.RedisError:
            self._away_until = time.monotonic() + BREAKER_SECONDS
            return self._alone(groups)
        assert isinstance(waits, list)
        self._take_for_granted(guessed)
        return [wait / 1e6 for wait in waits]

    def _take_for_granted(self, names: Sequence[str]) -> None:
        """Of a bucket that we knew nothing of, somebody may have sent just now. Remembered, so that a bucket that is
        lost every second (FLUSHALL) is waited for once, not for ever."""
        now = time.monotonic()
        for name in names:
            self._last.setdefault(name, now)

    def _known(self, request: Request, name: str) -> int:
        """Microseconds since the last send to this bucket that this process, or the lane, knows of."""
        at = self._last.get(name)
        own = time.monotonic() - at if at is not None else None
        lane_knows = name.endswith(f":chat:{request.chat}") and not request.is_group
        if lane_knows:
            if request.seconds_ago is None and own is None:
                return NEVER_SENT
            own = min(ago for ago in (own, request.seconds_ago) if ago is not None)
        return UNKNOWN if own is None else int(max(own, 0.0) * 1e6)

    def _alone(self, groups: Sequence[tuple[Request, list[Counted]]]) -> list[float]:
        """Redis is away: this sender's share of each bucket, evenly spaced, from its own memory."""
        now, share = time.monotonic(), max(1, self._senders())
        self._free_at = _recent(self._free_at, now)
        waiting: collections.Counter[str] = collections.Counter()  # those of the same bucket are told apart
        return [self._share(request, buckets, now, share, waiting) for request, buckets in groups]

    def _share(
        self, request: Request, buckets: Sequence[Counted], now: float, share: int, waiting: collections.Counter[str]
    ) -> float:
        free_at = {bucket: self._free(request, bucket, now, share) for bucket in buckets}
        fullest = max(buckets, key=lambda bucket: free_at[bucket])
        wait = free_at[fullest] - now
        if wait > 0:
            waiting[fullest.name] += 1
            return wait + (waiting[fullest.name] - 1) * fullest.interval * share
        self._free_at.update((bucket.name, now + bucket.interval * share) for bucket in buckets)
        return 0.0

    def _free(self, request: Request, bucket: Counted, now: float, share: int) -> float:
        known = self._known(request, bucket.name)
        if known == UNKNOWN:
            self._last[bucket.name], known = now, 0
        last = now - known / 1e6 if known >= 0 else now - bucket.interval * share
        return max(self._free_at.get(bucket.name, 0.0), last + bucket.interval * share)


def _recent(times: dict[str, float], now: float) -> dict[str, float]:
    """Without what is too old to matter, once there is a lot."""
    if len(times) <= REMEMBERED:
        return times
    return {name: at for name, at in times.items() if now - at < 120}
