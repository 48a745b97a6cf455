"""Deletes files: those that their tenant keeps no longer, and those to which nothing refers.

The file goes first, then its row says so: a crash in between repeats the deletion.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable

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
# Rows that a round looks at for orphans. Larger: an orphan is found sooner. Smaller: less reading.
WALK = 5_000
FORGET = "UPDATE media SET status = 'deleted', due_at = NULL WHERE id = ANY (%(ids)s::uuid[]) AND status = 'stored'"
REMOVE = "DELETE FROM media WHERE id = ANY (%(ids)s::uuid[])"
NOBODY = uuid.UUID(int=0)


@runtime.kept
def _walk() -> dict[str, uuid.UUID]:
    """Return where the walk for orphans goes on."""
    return {}


def run() -> int:
    """Delete files until none is old, for ``ROUND_SECONDS`` at most; return how many were deleted."""
    until = time.monotonic() + ROUND_SECONDS
    seen = runtime.read(sql("find_orphans"), {"after": _walk().get("after", NOBODY), "most": WALK})
    _walk()["after"] = seen[-1][0] if len(seen) == WALK else NOBODY
    deleted = _delete([row for row in seen if row[3]], REMOVE, until)
    old = {"days": settings.MEDIA_DAYS, "most": BATCH}
    while found := _delete(runtime.read(sql("find_old_files"), old), FORGET, until):
        deleted += found
    return deleted


def _delete(rows: Iterable[tuple[object, ...]], then: str, until: float) -> int:
    """Delete these files, then write it. A file that the storage does not delete is tried again."""
    gone: list[uuid.UUID] = []
    for row in rows:
        if time.monotonic() > until:
            break
        kept = Kept(*row[:3])  # type: ignore[arg-type]
        try:
            files.delete(kept)
        except Exception as error:  # whatever a storage raises
            log.warning("file not deleted", channel=kept.channel_id, error=error_places.kind(error))
        else:
            gone.append(kept.id)
    if gone:
        runtime.execute(then, {"ids": gone})
    return len(gone)
