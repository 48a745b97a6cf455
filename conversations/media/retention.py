"""Deletes files: those that their tenant keeps no longer, and those to which nothing refers.

The file goes first, then its row says so: a crash in between repeats the deletion.
"""

from __future__ import annotations

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

# Files of a channel that are deleted in a round. Larger: old ones go sooner, in a longer round. Smaller:
# they may come faster than they go.
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
    """Do one round; return how many files were deleted."""
    old = runtime.read(sql("find_old_files"), {"days": settings.MEDIA_DAYS, "most": BATCH})
    seen = runtime.read(sql("find_orphans"), {"after": _walk().get("after", NOBODY), "most": WALK})
    _walk()["after"] = seen[-1][0] if len(seen) == WALK else NOBODY
    return _delete(old, FORGET) + _delete([row for row in seen if row[3]], REMOVE)


def _delete(rows: Iterable[tuple[object, ...]], then: str) -> int:
    """Delete these files, then write it. A file that the storage does not delete is tried again."""
    gone: list[uuid.UUID] = []
    for row in rows:
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
