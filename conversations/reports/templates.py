"""What platforms say of templates: lists that were fetched, and reports in webhooks.

Reports come in any order. **Invariant:** an older one changes nothing, whether a list or a report
told the newer state.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import psycopg

from conversations import runtime
from conversations.contracts import ChannelConfig, TemplateUpdate
from conversations.postgres import database
from conversations.postgres.sql_files import sql
from conversations.postgres.storable_text import clean_text
from conversations.postgres.stream import LaneLocked, Stream, as_json
from conversations.template_shapes import ListedTemplate

# Seconds before its beginning from which a list counts as old: the platform's clock is not ours, and
# counts whole seconds. Larger: a report that came late overrides the list for a while. Smaller: a
# report of something newer than the list is taken for older.
CLOCK_SECONDS = 60.0

TemplateItem = tuple[ChannelConfig, TemplateUpdate]


class TemplateStream(Stream[TemplateItem, None]):
    """Writes reports into the rows of all channels of an app that fetched the account's templates."""

    name = "templates"
    patient = False

    def lane(self, item: TemplateItem) -> Hashable:
        return item[1].account, item[1].name, item[1].language

    def owner(self, item: TemplateItem) -> Hashable:
        return item[0].tenant_id

    def write(self, connection: psycopg.Connection[Any], items: Sequence[TemplateItem]) -> Sequence[LaneLocked | None]:
        """Write each in a statement of its own: two may be about one template. All lock in one order."""
        ordered = sorted(items, key=lambda item: (item[1].account, item[1].name, item[1].language))
        statement = sql("update_templates")
        database.transaction(connection, {str(n): (statement, _values(*item)) for n, item in enumerate(ordered)})
        return [None] * len(items)


def _values(channel: ChannelConfig, update: TemplateUpdate) -> dict[str, Any]:
    """Return a report as the statement reads it. One without a time, or from the future, is of now.

    A time of the future, such as milliseconds for seconds, would outdo all later reports.
    """
    now = time.time()
    words = ("account", "name", "language", "status", "quality")
    texts = {word: clean_text(getattr(update, word), 500) for word in words}
    return {
        "channel": channel.id,
        "app": channel.app_id,
        "at": float(update.at) if 0 < update.at <= now else now,
        **texts,
    }


TEMPLATES = TemplateStream()


def keep(channel_id: int, account: str, listed: Iterable[ListedTemplate], began: float) -> tuple[int, int]:
    """Keep the whole list of a channel's templates, as it was from ``began`` (unix seconds) on.

    Return how many there are now, and how many the platform no longer lists.
    """
    values = {"channel": channel_id, "account": account, "began": began - CLOCK_SECONDS, "items": as_json([*listed])}
    ((kept, gone),) = runtime.execute(sql("keep_templates"), values)
    return kept, gone
