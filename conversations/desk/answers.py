"""What a person's answer is made of: words and files that were sent before it, or a template."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from django.conf import settings
from django.contrib.auth.models import User

from conversations import models, registry, templates
from conversations.contracts import Attachment, ReplyBody
from conversations.errors import WrongFile
from conversations.media import adding
from conversations.media.files import read_id
from conversations.models import Conversation, Media
from conversations.postgres.storable_text import clean_text
from conversations.template_shapes import HEADER, Template, TemplateShape, slots

# Longest answer of a person; a longer one is refused. Larger: one answer becomes more replies.
ANSWER_CHARACTERS = 20_000
ANSWER_FILES = 10  # of one answer; each becomes a reply. Larger: one answer becomes more replies.
PLACE = re.compile(r"(-?\d+(?:\.\d+)?)\s*,\s*(-?\d+(?:\.\d+)?)")
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


def fill(conversation_id: int, row: models.Template, given: Mapping[str, str], files: Sequence[str]) -> Template:
    """Return a template with the values that staff typed, and the file of its header. Empty values are left out.

    A place is typed as "52.52, 13.40". Raises ``ValueError`` for another, and for a file that is not there.
    """
    takes = slots(msgspec.convert(row.shape, TemplateShape))
    texts = {name: clean_text(given.get(name, "").strip()) for name in takes}
    values: dict[str, str | Attachment] = {name: text for name, text in texts.items() if text}
    if HEADER in values and takes[HEADER].media == "location":
        place = PLACE.fullmatch(texts[HEADER])
        if not place:
            raise ValueError("a place is its latitude and its longitude: 52.52, 13.40")
        values[HEADER] = Attachment(kind="location", latitude=float(place[1]), longitude=float(place[2]))
    for file in _kept(conversation_id, files):
        values[HEADER] = file
    return Template(row.name, language=row.language, values=values)


def bodies(conversation_id: int, text: str | Template, files: Sequence[str] = ()) -> list[ReplyBody]:
    """Return the answer in the parts that its platform takes: a reply for each file, the last with the words.

    Raises ``ValueError`` where it is empty or too long, ``BadOutput`` for a template that cannot be sent.
    """
    lanes = Conversation.objects.values_list("channel_id", "channel__platform")
    channel_id, platform = lanes.get(pk=conversation_id)
    if isinstance(text, Template):
        return [templates.reply(channel_id, platform, text)]
    text = clean_text(text.replace("\r\n", "\n").strip())
    attachments = _kept(conversation_id, files)
    if not text and not attachments:
        raise ValueError("an answer needs words or a file")
    if len(text) > ANSWER_CHARACTERS:
        raise ValueError(f"an answer has {ANSWER_CHARACTERS:,} characters at most")
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
