"""How much strangers may leave with us: bytes of a channel within a day, and what stays free on the disk."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.core.files.storage import FileSystemStorage

from conversations import runtime
from conversations.media import files

# Megabytes of visitors' files that a channel takes within a day, unless its option of the same name says
# otherwise. Larger: strangers can fill more of the storage. Smaller: a busy channel takes no more files sooner.
FILES_MB_PER_DAY = 2048
# Each file counts as so many bytes at least. Larger: a channel takes fewer small files. Smaller: more rows are
# read for each upload.
LEAST_BYTES = 256 << 10
# Files that a process fetches at once. Larger: more threads, and more room on the disk for what is on
# its way. Smaller: files wait for each other.
AT_ONCE = 8
# Bytes of the disk that stay free: below, visitors' files are refused and others are not fetched. Larger: more
# of the disk is never used. Smaller: what else is written there, the database perhaps, may find it full. In
# the folder of temporary files, room for what a process fetches at once is enough.
FREE_BYTES = 1 << 30
ADDED = """SELECT coalesce(sum(greatest(size, %(least)s)), 0)::bigint FROM media
            WHERE channel_id = %(channel)s AND status = 'stored' AND reference ? 'visitor'
              AND created_at > now() - interval '1 day'"""


def day_bytes(options: Mapping[str, Any]) -> int:
    """Return how many bytes the visitors of a channel with these options may add in a day; 0: no limit."""
    try:
        return max(int(options.get("files_mb_per_day", FILES_MB_PER_DAY)), 0) << 20
    except (TypeError, ValueError):
        return FILES_MB_PER_DAY << 20


def added(channel_id: int) -> int:
    """Return how many bytes the visitors of a channel added within a day, of those that are still kept."""
    return int(runtime.read(ADDED, {"channel": channel_id, "least": LEAST_BYTES})[0][0])


def disk_is_full() -> bool:
    """Return True if too little is free where files arrive, or in the storage if that is a folder."""
    floors = {tempfile.gettempdir(): min(FREE_BYTES, AT_ONCE * settings.MEDIA_MAX_BYTES)}
    storage = files.storage() if "media" in settings.STORAGES else None
    if isinstance(storage, FileSystemStorage):
        floors[str(storage.location)] = FREE_BYTES
    for folder, floor in floors.items():
        with contextlib.suppress(FileNotFoundError):  # it is made for the first file
            if shutil.disk_usage(folder).free < floor:
                return True
    return False
