"""The storage of files: ``STORAGES["media"]``, a folder by default. Names there say nothing of people."""

from __future__ import annotations

import uuid
from typing import Any, BinaryIO, NamedTuple

from django.core.files import File
from django.core.files.storage import Storage, storages


class Kept(NamedTuple):
    """A file in the storage: what its name is made of."""

    id: uuid.UUID
    channel_id: int
    attempts: int


def read_id(text: Any) -> uuid.UUID | None:
    """Return the id of a file that somebody names; None if it can be none."""
    try:
        return uuid.UUID(text)
    except (ValueError, TypeError, AttributeError):
        return None


def storage() -> Storage:
    """Return the storage. Raises ``InvalidStorageError`` in a project without ``STORAGES["media"]``."""
    return storages["media"]


def name(kept: Kept) -> str:
    """Return a file's name in the storage: of the attempt that stored it, so that none writes over another."""
    return f"{kept.channel_id}/{kept.id.hex[:2]}/{kept.id.hex}.{kept.attempts}"


def keep(kept: Kept, file: BinaryIO) -> None:
    """Write a file into the storage. Raises whatever the storage raises."""
    storage().delete(name(kept))  # what was left of an attempt at the same: a storage would take another name
    file.seek(0)
    storage().save(name(kept), File(file))


def open_kept(kept: Kept) -> File[Any]:
    """Open a file for reading. Raises ``FileNotFoundError``, or whatever the storage raises."""
    return storage().open(name(kept), "rb")


def delete(kept: Kept) -> None:
    """Delete what all attempts wrote: one that was killed may have left a part."""
    for attempt in range(kept.attempts + 1):
        storage().delete(name(kept._replace(attempts=attempt)))
