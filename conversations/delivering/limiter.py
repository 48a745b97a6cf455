"""The platforms' rate limits. A send counts in several buckets, all or nothing; senders share them
in Redis.

After FLUSHALL a bucket starts from the last send that the caller knows of, never with a burst.
Without Redis each sender takes its share of the rate. A platform's own Retry-After is kept in
Postgres.
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

from conversations import crypto, registry, runtime
from conversations.concurrency import Fresh
from conversations.contracts import ChannelConfig, Limit, Struct
from conversations.delivering.results import Next
from conversations.errors import CoreError
from conversations.lanes.redis_client import run_script
from conversations.postgres.sql_files import sql
from conversations.postgres.storable_text import clean_text

log = structlog.get_logger(__name__)

# Seconds for which this process reuses what it read about blocked buckets (a platform's
# Retry-After). Longer: fewer reads, and more calls that the platform refuses (429), because another
# process's block is seen late.
BLOCKS_SECONDS = 0.5
# Seconds for which Redis is not asked after it failed. Longer: sends wait less for a sick Redis,
# and go on for longer with a fixed share of each limit; shorter: the reverse.
BREAKER_SECONDS = 1.0
# Buckets remembered (100 bytes each, or so); beyond them only those of the last FORGET_SECONDS.
# Larger: more memory; smaller: after a loss of Redis's data more first sends wait for one interval.
REMEMBERED = 200_000
# Seconds after which a send may be forgotten. Longer: more memory; shorter: after a loss of Redis's
# data more sends wait for one interval, since their buckets have no history.
FORGET_SECONDS = 120
# What ``admit.lua`` reads for a bucket whose last send has no known time: no send was made, so the
# first may start; or we do not know, so it waits for one interval.
NEVER_SENT, UNKNOWN = -2, -1
# A limit of N may start N / AT_ONCE sends at once; the rest is spaced. Larger: smaller bursts;
# smaller: larger bursts, and a slower rate after one.
AT_ONCE = 10
# What a limit counts: sends of a channel, sends to a chat, sends to a chat that is a group.
BUCKETS = ("channel", "chat", "group")
# One limit as an operator writes it, such as chat:1/1s: bucket, count, seconds.
_WORD = re.compile(r"^(channel|chat|group):(\d{1,6})/(\d{1,5}(?:\.\d+)?)s$")


class Request(Struct, frozen=True):
    """A send that asks to start."""

    channel: ChannelConfig
    chat: str
    is_group: bool
    limits: tuple[Limit, ...]
    seconds_ago: float | None = None  # since the lane's last send (from Postgres); None: it never sent


def request_of(reply: Next, channel: ChannelConfig, waited: float) -> Request:
    """Return what the limiter needs to know of a send.

    ``waited``: seconds since the reply's row was read, by which its age of the last send has grown.
    """
    limits = limits_of(channel.options.get("limits", ""), tuple(registry.adapter(channel.platform).limits))
    ago = None if reply.sent_ago is None else reply.sent_ago + waited
    return Request(channel=channel, chat=reply.chat, is_group=reply.is_group, limits=limits, seconds_ago=ago)


def parse_limits(words: str, default: Sequence[Limit]) -> tuple[Limit, ...]:
    """Return limits from a channel's option; a word overrides the default of its bucket.

    ``default``, ``off``, or words such as ``channel:80/1s,chat:1/1s``. Raises ``ValueError``.
    """
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
    """Return the limits of a channel: the platform's own if its option cannot be read."""
    try:
        return parse_limits(words, default)
    except ValueError as error:
        log.error("limits not readable; the platform's own hold", error=str(error)[:200])
        return tuple(default)


class Counted(NamedTuple):
    """A bucket in which a send counts: its name here; interval and burst in seconds."""

    name: str
    interval: float
    slack: float


@functools.lru_cache(maxsize=1024)
def spacing(limit: Limit) -> tuple[float, float]:
    """Return interval and burst, in seconds, that keep every period below the limit's count."""
    at_once = limit.count // AT_ONCE
    interval = limit.seconds / (limit.count - at_once)
    return interval, interval * at_once * (1 - 1e-9) if at_once else 0.0  # rounding must never admit one more


class Limiter:
    """Admits the sends of one process. ``senders()``: how many live, to take a share without Redis."""

    def __init__(self, senders: Callable[[], int] = lambda: 1) -> None:
        self._senders = senders
        self._last: dict[str, float] = {}  # bucket -> monotonic time of our last send, known or assumed
        self._free_at: dict[str, float] = {}  # bucket -> monotonic time of its next send, without Redis
        self._away_until = 0.0  # monotonic end of the time in which Redis is not asked
        self._blocks: dict[str, float] = {}  # bucket -> monotonic end of a platform's Retry-After
        self._blocking = threading.Lock()
        self._read_blocks = Fresh(self._merge_blocks, BLOCKS_SECONDS, first=None)

    def admit(self, requests: Sequence[Request]) -> list[float]:
        """Return the seconds to wait per request. 0: it may start now, and was counted.

        A chat that the platform blocked (Retry-After) waits without being counted.
        """
        buckets = [self._buckets(request) for request in requests]
        waits = [self.blocked(request) for request in requests]
        unblocked = [index for index, wait in enumerate(waits) if wait <= 0 and buckets[index]]
        if unblocked:
            groups = [(requests[index], buckets[index]) for index in unblocked]
            for index, wait in zip(unblocked, self._ask(groups), strict=True):
                waits[index] = wait
        now = time.monotonic()
        for index, wait in enumerate(waits):
            if wait <= 0:
                self._last.update((bucket.name, now) for bucket in buckets[index])
        self._last = _drop_old(self._last, now)
        return waits

    def block(self, request: Request, bucket: str, seconds: float, words: str) -> None:
        """Obey a Retry-After: here at once, in Redis for other senders, and in Postgres.

        Redis may lose its copy; other senders and later processes read the one in Postgres.
        ``words``: the platform's reason.
        """
        name = self._name(request, bucket)
        with self._blocking:
            self._blocks[name] = max(self._blocks.get(name, 0.0), time.monotonic() + seconds)
        try:
            run_script("block", [redis_key(name)], [int(seconds * 1e6)])
        except redis.RedisError as error:
            log.debug("block not shared through Redis", error=type(error).__name__)
        key = name.partition(":")[2]
        values = {"channel_id": request.channel.id, "key": key, "seconds": seconds, "words": clean_text(words, 200)}
        try:
            runtime.execute(sql("keep_bucket"), values)
        except (psycopg.Error, CoreError) as error:
            log.warning("bucket not kept", error=type(error).__name__)

    def _buckets(self, request: Request) -> list[Counted]:
        """Return the buckets in which this send counts."""
        return [
            Counted(self._name(request, limit.bucket), *spacing(limit))
            for limit in request.limits
            if limit.bucket != "group" or request.is_group
        ]

    def _name(self, request: Request, bucket: str) -> str:
        """Return the bucket's name in this process: the channel, and its key in the table bucket."""
        name = f"{request.channel.id}:{bucket}"
        return name if bucket == "channel" else f"{name}:{request.chat}"

    # ------------------------------------------------------------ Retry-After

    def blocked(self, request: Request) -> float:
        """Return the seconds left of a Retry-After, also for buckets that we do not count."""
        self._read_blocks()
        now = time.monotonic()
        return max(self._blocks.get(self._name(request, bucket), 0.0) - now for bucket in BUCKETS)

    def _merge_blocks(self, _: None) -> None:
        """Add the blocks that other senders stored. Without the database, keep those known here."""
        now = time.monotonic()
        try:
            rows = runtime.read(sql("read_buckets"))
        except (psycopg.Error, CoreError):
            return
        with self._blocking:
            live = {name: end for name, end in self._blocks.items() if end > now}
            found = {f"{channel}:{key}": now + left for channel, key, left in rows}
            self._blocks = live | {name: max(end, live.get(name, 0.0)) for name, end in found.items()}

    # ------------------------------------------------------------ counting

    def _ask(self, groups: Sequence[tuple[Request, list[Counted]]]) -> list[float]:
        """Ask Redis for many sends in one script. Without Redis, decide alone."""
        if time.monotonic() < self._away_until:
            return self._admit_alone(groups)
        keys: list[str] = []
        args: list[int] = [len(groups)]
        guessed: list[str] = []
        for request, buckets in groups:
            args.append(len(buckets))
            for bucket in buckets:
                known = self._since_last_send(request, bucket.name)
                keys.append(redis_key(bucket.name))
                args += [round(bucket.interval * 1e6), int(bucket.slack * 1e6), known]
                if known == UNKNOWN:
                    guessed.append(bucket.name)
        try:
            waits = run_script("admit", keys, args)
        except redis.RedisError:
            self._away_until = time.monotonic() + BREAKER_SECONDS
            return self._admit_alone(groups)
        assert isinstance(waits, list)
        # ``admit.lua`` assumed a send just now. Without this memory of it, repeated FLUSHALLs would
        # delay a send for ever; with it they delay it once.
        now = time.monotonic()
        for name in guessed:
            self._last.setdefault(name, now)
        return [wait / 1e6 for wait in waits]

    def _since_last_send(self, request: Request, name: str) -> int:
        """Return microseconds since the last known send to a bucket, from memory or the lane's row.

        ``NEVER_SENT`` or ``UNKNOWN`` if there is none. Only a private chat's bucket has one lane,
        whose row says when we last sent to it.
        """
        at = self._last.get(name)
        since = time.monotonic() - at if at is not None else None
        lane_knows = name.endswith(f":chat:{request.chat}") and not request.is_group
        if lane_knows:
            if request.seconds_ago is None and since is None:
                return NEVER_SENT
            since = min(ago for ago in (since, request.seconds_ago) if ago is not None)
        return UNKNOWN if since is None else int(max(since, 0.0) * 1e6)

    def _admit_alone(self, groups: Sequence[tuple[Request, list[Counted]]]) -> list[float]:
        """Admit without Redis: this sender's share of each bucket, evenly spaced, from memory."""
        now, share = time.monotonic(), max(1, self._senders())
        self._free_at = _drop_old(self._free_at, now)
        waiting: collections.Counter[str] = collections.Counter()  # by bucket: each gets a time of its own
        return [self._admit_share(request, buckets, now, share, waiting) for request, buckets in groups]

    def _admit_share(
        self, request: Request, buckets: Sequence[Counted], now: float, share: int, waiting: collections.Counter[str]
    ) -> float:
        """Return the seconds until all buckets of a send are free; count it if that is 0.

        ``share``: how many senders share each bucket. Sends that wait for one bucket get successive
        times.
        """
        free_at = {bucket: self._next_free(request, bucket, now, share) for bucket in buckets}
        fullest = max(buckets, key=lambda bucket: free_at[bucket])
        wait = free_at[fullest] - now
        if wait > 0:
            waiting[fullest.name] += 1
            return wait + (waiting[fullest.name] - 1) * fullest.interval * share
        self._free_at.update((bucket.name, now + bucket.interval * share) for bucket in buckets)
        return 0.0

    def _next_free(self, request: Request, bucket: Counted, now: float, share: int) -> float:
        """Return the monotonic time of a bucket's next send without Redis.

        A bucket without history counts as just used: another sender may have sent a moment ago.
        """
        known = self._since_last_send(request, bucket.name)
        if known == UNKNOWN:
            self._last[bucket.name], known = now, 0
        last = now - known / 1e6 if known >= 0 else now - bucket.interval * share
        return max(self._free_at.get(bucket.name, 0.0), last + bucket.interval * share)


@functools.lru_cache(maxsize=65_536)
def redis_key(name: str) -> str:
    """Return a bucket's key in Redis. A chat's id can be a phone number: only its hash goes there.

    All keys are in one hash slot: on a Redis Cluster, too, one script takes many.
    """
    channel, _, key = name.partition(":")
    return f"{{lanes}}:limit:{channel}" + (f":{crypto.hide(key)}" if key != "channel" else "")


def _drop_old(times: dict[str, float], now: float) -> dict[str, float]:
    """Drop times older than ``FORGET_SECONDS``, once there are more than ``REMEMBERED``."""
    if len(times) <= REMEMBERED:
        return times
    return {name: at for name, at in times.items() if now - at < FORGET_SECONDS}
