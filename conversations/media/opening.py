"""A bot opens a file that a person sent. Only then does its turn wait for it."""

from __future__ import annotations

import contextvars
import time
from typing import Any

from asgiref.sync import sync_to_async
from django.core.files import File

from conversations import runtime
from conversations.contracts import Attachment
from conversations.errors import NoFile
from conversations.media import files
from conversations.media.files import Kept
from conversations.postgres.sql_files import sql
from conversations.waking import wake

# Seconds until the first look whether the file has come, and at most between two: each wait is twice the one
# before. Larger: the bot gets it later. Smaller: more queries.
LOOK_SECONDS, LONGEST_SECONDS = 0.05, 1.0
# The part of ``TURN_SECONDS`` after which a turn waits no longer for a file. Larger: a bot has less
# time for the file. Smaller: a file that takes long fails more turns.
SHARE = 0.8
LOOK = "SELECT id, channel_id, attempts, status, error FROM media WHERE id = %(id)s"

# When the wait of the running turn for files ends, on the monotonic clock.
_until: contextvars.ContextVar[float] = contextvars.ContextVar("until", default=0.0)


def begin(turn_seconds: float) -> None:
    """Let the turn that begins now, in this context, wait for files for most of its time."""
    _until.set(time.monotonic() + SHARE * turn_seconds)


class Received(Attachment, frozen=True):
    """An attachment of a message, as its bot gets it."""

    def open(self) -> File[Any]:
        """Open the file for reading, in binary mode. Wait for it if it has not been fetched yet.

        Raises ``NoFile`` if it was refused or deleted, if there is none (a location, a contact), and if
        it did not come within the turn's time. The message tells which.
        """
        if not self.media:
            raise NoFile("the attachment has no file")
        kept = _wait(self.media)
        try:
            return files.open_kept(kept)
        except FileNotFoundError:
            raise NoFile("the storage of this process does not have the file: do all of them share one?") from None

    async def aopen(self) -> File[Any]:
        """Do the same in an ``async def`` bot, without blocking the event loop."""
        return await sync_to_async(self.open)()


def _wait(media: str) -> Kept:
    """Return the file once it is stored. Ask for it at once, ahead of its channel's other files."""
    wait, asked = LOOK_SECONDS, False
    while True:
        row = next(iter(runtime.read(LOOK, {"id": media})), None)
        if row is None:
            raise NoFile("the file is gone")
        kept, (status, error) = Kept(*row[:3]), row[3:]
        if status == "stored":
            return kept
        if status != "waiting":
            raise NoFile(f"the file was {status}: {error}" if error else f"the file was {status}")
        if time.monotonic() >= _until.get():
            raise NoFile(f"the file did not come in time: {error}" if error else "the file did not come in time")
        for channel_id, tenant_id in () if asked else runtime.execute(sql("ask_for_file"), {"id": media}):
            asked = True  # until then another process had it, and may have lost it
            wake.fetch([channel_id], tenant_id)
        time.sleep(wait)
        wait = min(2 * wait, LONGEST_SECONDS)
