"""Fetches files from platforms: claim -> the adapter fetches -> check -> keep.

It is beside the lane: a message is handled whether its files are there or not. A claim is a time in
the row, which the heartbeats of its process move on: what a killed process fetched is fetched again.
``sql/settle_file.sql`` writes a result only while its attempt is still the newest.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

import msgspec
import psycopg
import structlog
from django.conf import settings

from conversations import installation, registry, runtime
from conversations.contracts import Attachment, Deferred, Fetched, Fetching, Rejected, Scope, Unknown
from conversations.errors import CoreError
from conversations.media import files, quota, types
from conversations.media.files import Kept
from conversations.media.quota import AT_ONCE
from conversations.postgres.database import Statement
from conversations.postgres.sql_files import sql
from conversations.postgres.storable_text import clean_text
from conversations.telemetry import error_places

log = structlog.get_logger(__name__)

# Seconds from the last heartbeat of a process until another one may fetch its files. Larger: the files of
# a killed process come later. Smaller: where heartbeats are late, files are fetched twice, and the first
# result is thrown away.
CLAIM_SECONDS = 10.0
# Seconds for which heartbeats renew a claim: longer than an adapter takes for its calls and the storage for
# the file. Larger: a file whose storage never answers comes later. Smaller: as above.
LONGEST_SECONDS = 240.0
# Attempts after which a file is given up, ten hours after the first. Larger: a platform that is away for
# longer costs fewer files. Smaller: fewer calls in vain.
ATTEMPTS = 20
# Attempts that faults of ours may use up: beyond, only failures of the platform count. Larger: fewer of
# these are left afterwards. Smaller: such faults are repeated sooner, in vain.
OUR_ATTEMPTS = 10
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
        self._changed = threading.Condition()
        self._asked: set[int] = set()  # channels that may have more files
        self._running: dict[Kept, float] = {}  # files on their way, and until when their claims are renewed
        self._stopped = False
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="fetch")

    def fetch(self, channel_ids: Sequence[int]) -> None:
        """Begin with the files of these channels that are due; go on when threads are free.

        Returns at once, raises nothing. While the disk is nearly full, files wait for the sweeper.
        """
        if installation.held():  # a copy of production calls no platform
            return
        try:
            if quota.disk_is_full():  # before a claim, which would cost an attempt
                log.warning("files wait: the disk is nearly full")
                return
            with self._changed:
                self._asked.update(channel_ids)
                while not self._stopped and self._claim():
                    pass
        except Exception as error:
            log.warning("files not claimed", error=error_places.kind(error))

    def _claim(self) -> bool:
        """Claim a file and begin to fetch it. Return False if there is none, or no thread for it.

        A channel gets one more thread while more threads are free than it uses. The last free thread is for
        a tenant that uses none. So servers that answer slowly leave a thread to the next channel or tenant.
        """
        channels = Counter(kept.channel_id for kept in self._running)
        tenants, free = set(map(_tenant, channels)), AT_ONCE - len(self._running)
        asked = [id for id in self._asked if channels[id] < free and (free > 1 or _tenant(id) not in tenants)]
        random.shuffle(asked)
        values = {"channels": asked, "all_in": 1, "seconds": CLAIM_SECONDS}
        rows = runtime.execute(sql("claim_files"), values) if asked else []
        if not rows:
            self._asked.difference_update(asked)
            return False
        claimed = Claimed(*rows[0])
        self._running[claimed.kept] = time.monotonic() + LONGEST_SECONDS
        self._threads.submit(self._run, claimed)
        return True

    def _run(self, claimed: Claimed) -> None:
        """Make one attempt, then go on. What could not be written is tried again once its claim ends."""
        try:
            attempt(claimed)
        except Exception as error:
            log.warning("file not settled", channel=claimed.channel_id, error=error_places.kind(error))
        with self._changed:
            del self._running[claimed.kept]
            self._changed.notify_all()
        self.fetch(())

    def renewal(self) -> Statement | None:
        """Return the statement that renews the claims of this process; None while it has none.

        It takes no lock: a heartbeat must not wait for claims that are made meanwhile.
        """
        kept = [kept for kept, until in self._running.copy().items() if time.monotonic() < until]
        return _move_claims(kept, CLAIM_SECONDS) if kept else None

    def stop(self, seconds: float) -> None:
        """Claim no more files, wait ``seconds`` for those on their way, and release the claims of the rest."""
        with self._changed:
            self._stopped = True
            self._changed.wait_for(lambda: not self._running, seconds)
            left = list(self._running)
        try:
            if left:
                runtime.execute(*_move_claims(left, None))
        except (psycopg.Error, CoreError) as error:
            log.warning("files not released", error=type(error).__name__)


def _tenant(channel_id: int) -> int:
    """Return a channel's tenant; 0 if the channel is gone."""
    channel = registry.channel(channel_id)
    return channel.tenant_id if channel else 0


def _move_claims(files: Sequence[Kept], seconds: float | None) -> Statement:
    """Return the statement that lets claims end in ``seconds``; None: now."""
    ids, attempts = [kept.id for kept in files], [kept.attempts for kept in files]
    return sql("move_claims"), {"ids": ids, "attempts": attempts, "seconds": seconds}


fetcher = runtime.kept(Fetcher)


def attempt(claimed: Claimed) -> None:
    """Fetch one file, check it, keep it, and write what came of it. A fault of ours is tried again."""
    try:
        _attempt(claimed)
    except Exception as error:
        place = error_places.place(error)
        log.error("file not kept", channel=claimed.channel_id, error=error_places.kind(error), place=place)
        _settle(claimed, Unknown(reason=f"a fault of ours: {error_places.kind(error)}"), ours=True)


def _attempt(claimed: Claimed) -> None:
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
    try:
        return registry.adapter(channel.platform).fetch(channel, file, into, most)
    except Exception as error:
        log.warning("fetch raised", channel=channel.id, error=error_places.kind(error), place=error_places.place(error))
        return Unknown(reason=error_places.kind(error))


def _keep(claimed: Claimed, file: BinaryIO, content_type: str) -> Fetching:
    """Put a file into the storage, unless its content is not what it may be. Raises what the storage raises."""
    problem = types.problem(file, str(claimed.reference.get("kind")), content_type)
    if problem:
        return Rejected(reason=problem)
    files.keep(claimed.kept, file)
    return Fetched()


def _settle(claimed: Claimed, outcome: Fetching, content_type: str = "", size: int = 0, *, ours: bool = False) -> bool:
    """Write what an attempt came to. Return False if a newer attempt has begun."""
    stored = isinstance(outcome, Fetched)
    refused = isinstance(outcome, Rejected) and outcome.scope is not Scope.CHANNEL  # a token may be renewed
    final = refused or (claimed.attempts >= ATTEMPTS and not ours)
    values = {
        "id": claimed.id,
        "attempt": claimed.attempts,
        "counted": claimed.attempts - (ours and claimed.attempts > OUR_ATTEMPTS),
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
    return random.uniform(0.5, 1.0) * min(RETRY_SECONDS, 2.0 ** min(attempts, ATTEMPTS))
