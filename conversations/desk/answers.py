"""What a person's answer is made of: words, and files that were sent before it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import msgspec
from django.conf import settings
from django.contrib.auth.models import User

from conversations import registry
from conversations.contracts import Attachment, ReplyBody
from conversations.errors import WrongFile
from conversations.media import adding
from conversations.media.files import read_id
from conversations.models import Conversation, Media
from conversations.postgres.storable_text import clean_text

# Longest answer of a person; a longer one is refused. Larger: one answer becomes more replies.
ANSWER_CHARACTERS = 20_000
ANSWER_FILES = 10  # of one answer; each becomes a reply. Larger: one answer becomes more replies.
CHUNK = 64 * 1024  # bytes of one read of a file; larger: more memory, smaller: more reads


def keep_file(lane: Conversation, staff: User, body: Any, name: str) -> Attachment:
    """Keep a file of staff, for an answer in this lane. ``body``: what can be read, chunk by chunk.

    Raises ``WrongFile`` for one that is empty, too large or a program.
    """
    with tempfile.TemporaryFile() as file:
        while chunk := body.read(CHUNK):
            file.write(chunk)
            if file.tell() > settings.MEDIA_MAX_BYTES:
                raise WrongFile(f"it is larger than {settings.MEDIA_MAX_BYTES >> 20} MB")
        return adding.add(file, lane.channel_id, name, conversation_id=lane.pk, staff=staff.pk)


def bodies(conversation_id: int, text: str, files: Sequence[str]) -> list[ReplyBody]:
    """Return the answer in the parts that its platform takes: a reply for each file, the last with the words.

    Raises ``ValueError`` where it is empty or too long.
    """
    text = clean_text(text.replace("\r\n", "\n").strip())
    attachments = _kept(conversation_id, files)
    if not text and not attachments:
        raise ValueError("an answer needs words or a file")
    if len(text) > ANSWER_CHARACTERS:
        raise ValueError(f"an answer has {ANSWER_CHARACTERS:,} characters at most")
    platform = Conversation.objects.values_list("channel__platform", flat=True).get(pk=conversation_id)
    *first, last = [ReplyBody(media=file) for file in attachments] or [ReplyBody()]
    return [*first, *registry.adapter(platform).split(msgspec.structs.replace(last, text=text))]


def _kept(conversation_id: int, files: Sequence[str]) -> list[Attachment]:
    """Return files that staff kept for this lane. Raises ``ValueError`` for others, and for too many."""
    if len(files) > ANSWER_FILES:
        raise ValueError(f"an answer has {ANSWER_FILES} files at most")
    ids = [id for file in files if (id := read_id(file))]
    kept = Media.objects.filter(conversation_id=conversation_id, status=Media.Status.STORED, reference__has_key="staff")
    found = {str(row.pk): row.reference for row in kept.filter(pk__in=ids)} if ids else {}
    if len(found) < len(set(files)):
        raise ValueError("a file is not there any more; please choose it again")
    return [msgspec.convert(found[file], Attachment) for file in files]
