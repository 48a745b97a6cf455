"""The templates of channels, as ``manage.py fetch_templates`` and webhooks keep them, for bots.

A bot's template is checked before its turn commits, so that what the platform would refuse fails in
front of the bot's author and not in front of a person.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from conversations import registry, runtime
from conversations.concurrency import NEVER
from conversations.contracts import ReplyBody
from conversations.errors import BadOutput
from conversations.postgres.storable_text import storable
from conversations.template_shapes import Template, TemplateShape, fill

__all__ = ["Template", "find", "reply"]

# Seconds for which a process keeps a template. Larger: it takes a paused one for approved for
# longer, and the platform refuses the reply. Smaller: more reads.
TEMPLATE_SECONDS = 5.0
# Most templates that a process keeps; one more, and it forgets all. Larger: more memory. Smaller:
# more reads. Names that do not exist count, too.
KEPT = 10_000
# Most names that an error lists. Larger: longer errors. Smaller: the right name may not be there.
NAMED = 30
# A flagged template is one that people rate low. It still goes out.
SENDABLE = frozenset({"approved", "flagged"})

OF_NAME = "SELECT language, status, category, shape FROM template WHERE channel_id = %s AND name = %s"
NAMES = "SELECT DISTINCT name FROM template WHERE channel_id = %s ORDER BY name LIMIT %s"


class Known(NamedTuple):
    """A template in one language."""

    status: str
    category: str
    shape: TemplateShape


def reply(channel_id: int, platform: str, template: Template) -> ReplyBody:
    """Return the reply that a template with a bot's values makes on a channel.

    Raises ``BadOutput``, which says what exists and what is wrong.
    """
    if not registry.adapter(platform).template_option:
        raise BadOutput(f"{platform} has no templates: send text in place of {template.name!r}")
    languages = find(channel_id, template.name)
    if not languages:
        names = ", ".join(name for (name,) in runtime.read(NAMES, (channel_id, NAMED))) or "none"
        raise BadOutput(f"no template {template.name!r} was fetched for this channel (fetch_templates), only: {names}")
    template = msgspec.structs.replace(template, language=template.language.replace("-", "_"))
    what = f"template {template.name!r} ({template.language})"
    if template.language not in languages:
        raise BadOutput(f"{what} does not exist; its languages: {', '.join(sorted(languages))}")
    known = languages[template.language]
    if known.status not in SENDABLE:
        raise BadOutput(f"{what} is {known.status}: {platform} sends only approved templates")
    return fill(template, known.shape, known.category)


def find(channel_id: int, name: str) -> Mapping[str, Known]:
    """Return a channel's template of this name in each of its languages; {} if there is none."""
    kept = _kept()
    read_at, found = kept.get((channel_id, name), (NEVER, {}))
    if time.monotonic() - read_at >= TEMPLATE_SECONDS:
        rows = runtime.read(OF_NAME, (channel_id, name)) if storable(name) else []
        found = {
            language: Known(status, category, msgspec.convert(shape, TemplateShape))
            for language, status, category, shape in rows
        }
        if len(kept) >= KEPT:
            kept.clear()
        kept[channel_id, name] = (time.monotonic(), found)
    return found


@runtime.kept
def _kept() -> dict[tuple[int, str], tuple[float, Mapping[str, Known]]]:
    """Return what this process read lately, with the time."""
    return {}
