"""Filters and tags that show texts of people and platforms, times, and the menu."""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import Any

from django import template
from django.utils import timezone
from django.utils.html import escape
from django.utils.safestring import SafeString

from conversations import installation
from conversations.template_shapes import VARIABLE

register = template.Library()

# Verbs of the audit entries that the trigger ``lane_stops`` writes (``migrations/sql/gate.sql``).
STOPS = frozenset({"opted_out", "opted_in", "marketing_refused", "marketing_allowed", "unreachable", "reachable"})

# Control characters, and characters that change the direction of writing. They are shown as
# symbols, so that no text can look like another.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


# Marks of a template's text, and the HTML element of each.
_MARKS = tuple(
    (re.compile(rf"(?<![^\W_])(?<!{mark}){mark}([^\s{mark}](?:[^{mark}\n]*[^\s{mark}])?){mark}(?!{mark}|[^\W_])"), tag)
    for mark, tag in {r"\*": "b", "_": "i", "~": "s"}.items()
)


@register.filter
def visible(text: Any) -> str:
    """Return ``text`` with a symbol for every invisible character."""
    return _HIDDEN.sub(_symbol, "" if text is None else str(text))


def in_words(value: Any) -> str:
    """Return a row's value as text for a page: "—" for none, times in local time, lists as JSON.

    ``visible`` puts a symbol in place of each invisible character of a text.
    """
    match value:
        case None | "":
            return "—"
        case bool():
            return "yes" if value else "no"
        case dt.datetime():
            return timezone.localtime(value).strftime("%Y-%m-%d %H:%M:%S")
        case dict() | list():
            return json.dumps(value, ensure_ascii=False, indent=2) if value else "—"
    return visible(value)


def _symbol(match: re.Match[str]) -> str:
    """Return the picture of an ASCII control character (from U+2400), else the code in brackets."""
    code = ord(match.group())
    return chr(0x2400 + code) if code < 0x20 else f"⟦U+{code:04X}⟧"


@register.filter
def age(moment: dt.datetime | None) -> str:
    """Return how long ago ``moment`` was:

    12 s, 5 min, 3 h, 2 d; '' for None. Never negative: the clocks of two machines differ.
    """
    if moment is None:
        return ""
    seconds = max(0, int((timezone.now() - moment).total_seconds()))
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


@register.filter
def clock(moment: dt.datetime | None) -> str:
    """Return the time of day, with the date unless it is today; '' for None."""
    if moment is None:
        return ""
    local = timezone.localtime(moment)
    today = local.date() == timezone.localdate()
    return local.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M")


@register.filter
def seconds_between(ended: dt.datetime, started: dt.datetime) -> str:
    """Return the time from ``started`` to ``ended``, in seconds."""
    return f"{max(0.0, (ended - started).total_seconds()):.2f} s"


@register.filter
def as_on_phone(text: Any) -> SafeString:
    """Return a template's text as HTML: bold, italic and struck out as marked, variables as chips."""
    html = str(escape(visible(text)))
    for mark, tag in _MARKS:
        html = mark.sub(rf"<{tag}>\1</{tag}>", html)
    return SafeString(VARIABLE.sub(r'<span class="variable">\1</span>', html))


@register.simple_tag
def why_held() -> str:
    """Return why this installation sends nothing to people; '' where it sends."""
    return installation.held()


@register.filter
def lines(texts: list[str]) -> str:
    """Join ``texts``, one a line."""
    return "\n".join(map(str, texts))


@register.filter
def pretty(value: Any) -> str:
    """Return JSON with a line per value."""
    return json.dumps(value, ensure_ascii=False, indent=2)


@register.filter
def words(verb: str) -> str:
    """Return the name of an action as words: ``take_over`` as "take over"."""
    return verb.replace("_", " ")


@register.filter
def actor(act: Any) -> str:
    """Return who is behind an audit entry: staff, a command, or who changed what stops replies.

    The subject of the latter is a message of the person, or a reply that the platform refused.
    """
    if act.staff:
        return visible(act.staff.get_username())
    if act.verb in STOPS:
        return "the platform" if act.subject.startswith("reply") else "the person"
    if act.verb == "joined_with":  # ``migrations/sql/join_lanes.sql``
        return "the platform"
    return "a command"


# ---------------------------------------------------------------- the menu

# Groups of the menu, each with its models in the order of a day's work. Other models of ours are
# left out.
MENU = {
    "Work": ("Conversation", "StuckConversation", "ParkedMessage", "ReplyForStaff", "Quarantine", "Contact"),
    "Set up": ("Channel", "Template", "App", "Pause", "Tenant", "TenantStaff"),
    "Look into": ("Worker", "Audit"),
}
Group = dict[str, Any]


@register.simple_tag
def menu(app_list: list[Group]) -> list[Group]:
    """Return the menu: our pages in the order of a day's work, then those of other apps."""
    ours = [app for app in app_list if app["app_label"] == "conversations"]
    models = {model["object_name"]: model for app in ours for model in app["models"]}
    groups = [{"name": name, "models": [models[one] for one in names if one in models]} for name, names in MENU.items()]
    others = [{"name": app["name"], "models": app["models"]} for app in app_list if app not in ours]
    return [group for group in groups + others if group["models"]]
