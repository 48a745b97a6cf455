"""Files that are ours from the start: what a visitor uploads, what bots and staff send."""

from __future__ import annotations

import time
import uuid
from typing import Any, BinaryIO

import msgspec

from conversations import runtime
from conversations.contracts import Attachment
from conversations.errors import WrongFile
from conversations.media import files, types
from conversations.media.files import Kept
from conversations.postgres.storable_text import clean_text
from conversations.postgres.stream import as_json

NAME_SIZE = 200  # characters of a file's name that are kept
# Seconds for which others who add the same file wait for the one who writes it. Larger: after a crash
# they wait longer. Smaller: where the storage is slow, they write it, too.
CLAIM_SECONDS = 20.0
LOOK_SECONDS = 0.1  # between two looks whether it is written. Larger: later turns. Smaller: more queries.

# Claims a file for writing: a new one, one that was deleted, one that was begun and not finished. The row
# comes before the file, so that no file is without one, and says so until the file is there.
CLAIM = """INSERT INTO media AS m (id, channel_id, conversation_id, reference, status, error)
           VALUES (%(id)s, %(channel)s, %(conversation)s, %(reference)s::jsonb, 'refused', 'it did not arrive whole')
               ON CONFLICT (id) DO UPDATE
              SET status = excluded.status, error = excluded.error, attempts = m.attempts + 1, created_at = now()
            WHERE m.status = 'deleted'
               OR m.status = 'refused' AND m.created_at < now() - make_interval(secs => %(seconds)s)
           RETURNING attempts"""
# Retention counts from the last use, to the hour: not every use is a write.
USE = """UPDATE media SET created_at = now()
          WHERE id = %(id)s AND status = 'stored' AND created_at < now() - interval '1 hour'"""
LOOK = "SELECT 1 FROM media WHERE id = %(id)s AND status = 'stored'"
FINISH = """UPDATE media SET status = 'stored', error = '', content_type = %(type)s, size = %(size)s
             WHERE id = %(id)s AND status = 'refused' AND attempts = %(attempt)s RETURNING 1"""


def add(
    file: BinaryIO,
    channel_id: int,
    name: str,
    *,
    kind: str = "",
    id: uuid.UUID | None = None,
    conversation_id: int | None = None,
    **about: Any,
) -> Attachment:
    """Check a file by its content, keep it, and return its attachment. Raises ``WrongFile``.

    ``kind``: of the attachment, by default what the content is. ``id``: the same id again is the same
    content, which is kept once. Without a ``conversation_id``, it is deleted after a day unless a message
    names it. ``about`` is kept in its row.
    """
    content_type = types.find(file)
    size = file.seek(0, 2)
    problem = "it is empty" if not size else types.problem(file, kind or "file", content_type)
    if problem:
        raise WrongFile(problem)
    id = id or uuid.uuid4()
    told = Attachment(
        kind=kind or types.SHOWN.get(content_type, "file"),
        mime_type=content_type,
        name=clean_text(name, NAME_SIZE).replace("/", "_").replace("\\", "_"),
        size=size,
        media=str(id),
    )
    reference = as_json({**msgspec.to_builtins(told), **about})
    values = {"id": id, "channel": channel_id, "conversation": conversation_id, "reference": reference,
              "seconds": CLAIM_SECONDS, "type": content_type, "size": size}  # fmt: skip
    while not _is_kept(file, values):
        time.sleep(LOOK_SECONDS)
    return told


def _is_kept(file: BinaryIO, values: dict[str, Any]) -> bool:
    """Return True if a file is stored, perhaps by this call; False while another one writes it."""
    claimed, _, stored = runtime.execute_all([(CLAIM, values), (USE, values), (LOOK, values)])
    if not claimed:
        return bool(stored)
    kept = Kept(values["id"], values["channel"], claimed[0][0])
    files.keep(kept, file)
    return bool(runtime.execute(FINISH, {**values, "attempt": kept.attempts}))
