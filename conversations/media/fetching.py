"""Fetches files from platforms: claim -> the adapter fetches -> check -> keep.

It is beside the lane: a message is handled whether its files are there or not. A claim is a time in
the row, so that what a killed process fetched is fetched again. ``sql/settle_file.sql`` writes a
result only while its attempt is still the newest.
"""

from __future__ import annotations

import random
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

import msgspec
import psycopg
import structlog
from django.conf import settings

from conversations import installation, registry, runtime
from conversations.contracts import Attachment, Deferred, Failed, Fetched, Fetching, Rejected, Scope, Unknown
from conversations.errors import CoreError
from conversations.media import files, quota, types
from conversations.media.files import Kept
from conversations.postgres.sql_files import sql
from conversations.postgres.storable_text import clean_text
from conversations.telemetry import error_places

log = structlog.get_logger(__name__)

# Files that a process fetches at once. Larger: more threads, and more room on the disk for what is on
# its way. Smaller: files wait for each other.
AT_ONCE = 8
# How many of them may be one channel's. Larger: a server that answers slowly holds up the files of
# other channels. Smaller: the files of a busy channel wait.
OF_CHANNEL = 4
# Seconds until another process may fetch a file whose process was killed. It must be longer than an
# adapter takes for its calls and the storage for the file. Larger: such a file comes later. Smaller: a
# slow file is fetched twice, and the first result is thrown away.
CLAIM_SECONDS = 240.0
# Attempts after which a file is given up, ten hours after the first. Larger: a platform that is away for
# longer costs fewer files. Smaller: fewer calls in vain.
ATTEMPTS = 20
# Longest wait between two attempts, in seconds. Larger: fewer calls in vain. Smaller: a file comes
# sooner once its platform works again.
RETRY_SECONDS = 3600.0


class Claimed(msgspec.Struct, frozen=True, array_like=True):
    """A file to fetch: a row of ``claim_files.sql``."""

    id: Any
    channel_id: int
    attempts: int
    reference: dict[str, Any]

    @property
    def kept(self) -> Kept:
        return Kept(self.id, self.channel_id, self.attempts)


class Fetcher:
    """Fetches files in this process, ``AT_ONCE`` at once, each on a thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: set[int] = set()  # channels that may have more files
        self._busy: Counter[int] = Counter()  # files on their way, by channel
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="fetch")

    def fetch(self, channel_ids: Sequence[int]) -> None:
        """Begin with the files of these channels that are due; go on when threads are free.

        Returns at once, raises nothing.
        """
        if installation.held():  # a copy of production calls no platform
            return
        try:
            with self._lock:
                self._asked.update(channel_ids)
                while self._claim():
                    pass
        except (psycopg.Error, CoreError) as error:
            log.warning("files not claimed", error=type(error).__name__)

    def _claim(self) -> int:
        """Claim one file of each channel, as far as threads are free. Return how many."""
        room = AT_ONCE - self._busy.total()
        asked = [channel for channel in self._asked if self._busy[channel] < OF_CHANNEL]
        if room <= 0 or not asked:
            return 0
        random.shuffle(asked)
        values = {"channels": asked, "all_in": room, "seconds": CLAIM_SECONDS}
        rows = [Claimed(*row) for row in runtime.execute(sql("claim_files"), values)]
        if len(rows) < room:
            self._asked.difference_update(set(asked) - {row.channel_id for row in rows})
        for row in rows:
            self._busy[row.channel_id] += 1
            self._threads.submit(self._run, row)
        return len(rows)

    def _run(self, claimed: Claimed) -> None:
        """Make one attempt, then go on. What fails here for a reason of ours is tried again by its claim."""
        try:
            attempt(claimed)
        except Exception as error:
            log.warning("file not settled", channel=claimed.channel_id, error=error_places.kind(error))
        with self._lock:
            self._busy[claimed.channel_id] -= 1
        self.fetch(())


fetcher = runtime.kept(Fetcher)


def attempt(claimed: Claimed) -> None:
    """Fetch one file, check it, keep it, and write what came of it."""
    with tempfile.TemporaryFile() as file:
        outcome = _fetch(claimed, file)
        size, content_type = file.tell(), ""
        if isinstance(outcome, Fetched):
            content_type = types.find(file)
            outcome = _keep(claimed, file, content_type)
    if not _settle(claimed, outcome, content_type, size) and isinstance(outcome, Fetched):
        files.delete(claimed.kept)  # another attempt has begun: nobody refers to ours


def _fetch(claimed: Claimed, into: BinaryIO) -> Fetching:
    """Let the adapter write the file. Any exception is a failure that may pass."""
    file, channel = msgspec.convert(claimed.reference, Attachment), registry.channel(claimed.channel_id)
    most = settings.MEDIA_MAX_BYTES
    if channel is None:
        return Rejected(reason="its channel is gone")
    if file.size is not None and file.size > most:
        return Rejected(reason=f"it is larger than {most >> 20} MB")
    if quota.disk_is_full():
        return Failed(reason="our disk is nearly full")
    try:
        return registry.adapter(channel.platform).fetch(channel, file, into, most)
    except Exception as error:
        log.warning("fetch raised", channel=channel.id, error=error_places.kind(error), place=error_places.place(error))
        return Unknown(reason=error_places.kind(error))


def _keep(claimed: Claimed, file: BinaryIO, content_type: str) -> Fetching:
    """Put a file into the storage, unless its content is not what it may be."""
    problem = types.problem(file, str(claimed.reference.get("kind")), content_type)
    if problem:
        return Rejected(reason=problem)
    try:
        files.keep(claimed.kept, file)
    except Exception as error:  # whatever a storage raises: full, away, not allowed
        log.error("file not kept", channel=claimed.channel_id, error=error_places.kind(error))
        return Unknown(reason=f"the storage did not take it: {error_places.kind(error)}")
    return Fetched()


def _settle(claimed: Claimed, outcome: Fetching, content_type: str, size: int) -> bool:
    """Write what an attempt came to. Return False if a newer attempt has begun."""
    stored = isinstance(outcome, Fetched)
    refused = isinstance(outcome, Rejected) and outcome.scope is not Scope.CHANNEL  # a token may be renewed
    final = refused or claimed.attempts >= ATTEMPTS
    values = {
        "id": claimed.id,
        "attempt": claimed.attempts,
        "status": "stored" if stored else "refused" if final else "waiting",
        "delay": None if stored or final else _delay(claimed.attempts, outcome),
        "content_type": content_type,
        "size": size if stored else None,
        "error": "" if isinstance(outcome, Fetched) else clean_text(outcome.reason, 500),
    }
    return bool(runtime.execute(sql("settle_file"), values))


def _delay(attempts: int, outcome: Fetching) -> float:
    """Return the seconds until the next attempt: what the platform asks for, or 2, 4, 8, ... with jitter."""
    if isinstance(outcome, Deferred):
        return min(outcome.seconds, RETRY_SECONDS)
    return random.uniform(0.5, 1.0) * min(RETRY_SECONDS, 2.0**attempts)
