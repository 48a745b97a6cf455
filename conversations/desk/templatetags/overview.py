"""The counts on the first page of the admin."""

from __future__ import annotations

import dataclasses
from typing import Any

from django import template

from conversations.desk import access, facts

register = template.Library()

# Counts end here and read "100 or more". Larger: the first page is slower.
COUNTED = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overview:
    """What needs a person now; ``stuck`` and ``quarantined`` are counted up to ``COUNTED``."""

    around: facts.Around
    stuck: int
    quarantined: int

    @property
    def stuck_words(self) -> str:
        return _number(self.stuck)

    @property
    def quarantined_words(self) -> str:
        return _number(self.quarantined)


@register.simple_tag(takes_context=True)
def overview(context: Any) -> Overview | None:
    """Return what needs a person now; None for somebody who may see nothing."""
    request = context["request"]
    if not access.may_enter(request):
        return None
    channels = access.channel_ids(request)
    around = facts.look_around(channels)
    stuck = len(facts.find_stuck(channels, around, COUNTED))
    rows = access.quarantine(request).filter(settled_at__isnull=True)
    quarantined = len(rows.order_by("pk").values_list("pk")[:COUNTED])
    return Overview(around=around, stuck=stuck, quarantined=quarantined)


def _number(count: int) -> str:
    return f"{COUNTED} or more" if count >= COUNTED else str(count)
