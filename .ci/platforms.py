"""`make platforms`: write README's table of platforms, from the facts that the adapters declare."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

from django.conf import settings

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from channels_ingest.adapters.base import Adapter, Form
from conversations import registry
from conversations.contracts import ChannelConfig

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- made by make platforms -->\n", "<!-- the end of what make platforms made -->\n"


def overrides(adapter: Adapter, verb: str) -> bool:
    """Return True if an adapter has a verb of its own."""
    return getattr(type(adapter), verb) is not getattr(Adapter, verb)


def text(adapter: Adapter) -> str:
    return f"{adapter.text_size:,} {adapter.text_unit}; longer text is split" if adapter.text_size else "any length"


def markdown(adapter: Adapter) -> str:
    return "shown with its marks" if overrides(adapter, "render") else "as plain text"


def choices(adapter: Adapter) -> str:
    forms = [_form(form) for form in adapter.forms]
    return ", else ".join([*forms, *(["numbered text"] if any(map(_is_limited, adapter.forms)) else [])])


def _form(form: Form) -> str:
    is_plural = form.name.endswith("s")
    words = form.name if not form.most else f"{form.most} {form.name}" if is_plural else f"a {form.name} of {form.most}"
    return f"{words} with labels of {form.title_size}" if form.title_size else words


def _is_limited(form: Form) -> bool:
    return bool(form.most or form.title_size)


def caption(adapter: Adapter) -> str:
    if not adapter.text_size:
        return "any length"
    return f"{adapter.caption_size:,}; longer text goes ahead" if adapter.caption_size else "goes ahead"


def typing(adapter: Adapter) -> str:
    return "shown" if adapter.shows_typing else "not shown"


def invoices(adapter: Adapter) -> str:
    return "yes" if overrides(adapter, "check_invoice") else "no: the turn fails"


def templates(adapter: Adapter) -> str:
    return "yes" if adapter.template_option else "no: the turn fails"


def repeats(adapter: Adapter) -> str:
    nowhere = ChannelConfig(id=0, public_id="", platform=adapter.platform, tenant_id=0)
    if adapter.key_life(nowhere):
        return "is seen once"
    return "is seen once if a status of it comes in time" if adapter.reports_key else "can be seen twice"


def order(adapter: Adapter) -> str:
    return "in order; what follows media waits for `delivered`" if adapter.reports_delivery else "in order"


def opt_out(adapter: Adapter) -> str:
    return ", ".join(sorted(adapter.opt_out_words)) or "none"


def statuses(adapter: Adapter) -> str:
    return ", ".join(adapter.statuses) or "nothing"


def window(adapter: Adapter) -> str:
    hours = adapter.window_seconds / 3600
    return "always" if hours == math.inf else f"for {hours:g} hours after the person's last message"


def apps(adapter: Adapter) -> str:
    return f"yes, a channel for each {adapter.channel_noun}" if adapter.channel_ref_option else "no"


def rates(adapter: Adapter) -> str:
    shown = (f"{limit.count} in {limit.seconds:g} s for a {limit.bucket}" for limit in adapter.limits)
    return ", ".join(shown) or "none"


def registered(adapter: Adapter) -> str:
    if not overrides(adapter, "sign"):
        return "there is none"
    return "by `register_webhook`" if overrides(adapter, "register") else "by hand"


ROWS: dict[str, Callable[[Adapter], str]] = {
    "text of one message": text,
    "Markdown": markdown,
    "choices": choices,
    "text beside media": caption,
    "that an answer is being written": typing,
    "invoices": invoices,
    "templates": templates,
    "a reply that is sent again because its answer was lost": repeats,
    "our replies go out": order,
    "what it reports of our replies": statuses,
    "we may write": window,
    "words of people that stop replies": opt_out,
    "one webhook for many accounts (`add_app`)": apps,
    "limits of sends that we keep by default": rates,
    "its webhook is set": registered,
}


def table() -> str:
    """Return the table: a column for each platform, a row for each thing that it has, degrades to, or lacks."""
    adapters = [registry.adapter(platform) for platform in settings.ADAPTERS]
    lines = [["", *(f"`{adapter.platform}`" for adapter in adapters)], ["---"] * (len(adapters) + 1)]
    lines += [[name, *map(cell, adapters)] for name, cell in ROWS.items()]
    return "".join(f"| {' | '.join(line)} |\n".replace("|  |", "| |", 1) for line in lines)


def main() -> None:
    before, _, rest = README.read_text().partition(BEGIN)
    README.write_text(before + BEGIN + "\n" + table() + "\n" + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
