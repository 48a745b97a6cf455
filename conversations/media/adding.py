"""Files that are ours from the start: what a visitor uploads, what bots and staff send."""

from __future__ import annotations

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

# The row comes before the file, so that no file is without one, and says so until the file is there.
ADD = """INSERT INTO media (id, channel_id, conversation_id, reference, status, error)
         VALUES (%(id)s, %(channel)s, %(conversation)s, %(reference)s::jsonb, 'refused', 'it did not arrive whole')
         ON CONFLICT (id) DO NOTHING"""
FINISH = """UPDATE media SET status = 'stored', error = '', content_type = %(type)s, size = %(size)s
             WHERE id = %(id)s AND status = 'refused'"""


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
    file. Without a ``conversation_id``, it is deleted after a day unless a message names it. ``about``
    is kept in its row.
    """
    content_type = types.find(file)
    size = file.seek(0, 2)
    problem = "it is empty" if not size else types.problem(file, kind or "file", content_type)
    if problem:
        raise WrongFile(problem)
    kept = Kept(id or uuid.uuid4(), channel_id, 0)
    told = Attachment(
        kind=kind or types.SHOWN.get(content_type, "file"),
        mime_type=content_type,
        name=clean_text(name, NAME_SIZE).replace("/", "_").replace("\\", "_"),
        size=size,
        media=str(kept.id),
    )
    reference = as_json({**msgspec.to_builtins(told), **about})
    values = {"id": kept.id, "channel": channel_id, "conversation": conversation_id, "reference": reference}
    runtime.execute(ADD, values)
    files.keep(kept, file)
    runtime.execute(FINISH, {"id": kept.id, "type": content_type, "size": size})
    return told
