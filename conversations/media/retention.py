"""Deletes files: those that their tenant keeps no longer, and those to which nothing refers.

A row is marked first, unless a message has taken it meanwhile: from then on nobody opens the file. Then
its bytes go, then the row says so. A crash in between repeats the deletion: a mark is the status
``refused``, as of a file that was cut off while it was written, and such rows are found again.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from typing import Any

import structlog
from django.conf import settings

from conversations import runtime
from conversations.media import files
from conversations.media.files import Kept
from conversations.postgres.sql_files import sql
from conversations.telemetry import error_places

log = structlog.get_logger(__name__)

# Seconds after which a round deletes no more. Larger: more is deleted, while other upkeep waits. Smaller:
# files may come faster than they are deleted.
ROUND_SECONDS = 60.0
# Files of each channel that are found at once. Larger: channels with many old files hold up those of others.
# Smaller: more queries.
BATCH = 500
# Files of all channels that one statement marks. Larger: it holds up other statements. Smaller: more queries.
ALL_IN = 2_000
# Rows that a round looks at for files whose message is gone, from a random place on: ids are random, so
# a process needs to know of no other round; also uploads that are deleted in one. Larger: they are found
# sooner. Smaller: less reading.
LOOK = 5_000
# Unless the same file is being added again, which took the mark away.
FORGET = """UPDATE media SET status = 'deleted', error = ''
             WHERE id = ANY (%(ids)s::uuid[]) AND status = 'refused' AND error = 'it is kept no longer'"""
REMOVE = "DELETE FROM media WHERE id = ANY (%(ids)s::uuid[]) AND status = 'refused'"


def run() -> int:
    """Delete files until none is old, for ``ROUND_SECONDS`` at most; return how many were deleted."""
    until = time.monotonic() + ROUND_SECONDS
    orphans = runtime.execute(sql("mark_orphans"), {"place": uuid.uuid4(), "most": LOOK})
    deleted = _delete(orphans, REMOVE, until)
    old = {"days": settings.MEDIA_DAYS, "most": BATCH, "all_in": ALL_IN}
    while found := _delete(runtime.execute(sql("mark_old_files"), old), FORGET, until):
        deleted += found
    return deleted


def _delete(rows: Iterable[tuple[Any, ...]], then: str, until: float) -> int:
    """Delete these files, then write it. A file that the storage does not delete is tried again."""
    gone: list[uuid.UUID] = []
    for row in rows:
        if time.monotonic() > until:
            break
        kept = Kept(*row)
        try:
            files.delete(kept)
        except Exception as error:  # whatever a storage raises
            log.warning("file not deleted", channel=kept.channel_id, error=error_places.kind(error))
        else:
            gone.append(kept.id)
    if gone:
        runtime.execute(then, {"ids": gone})
    return len(gone)
