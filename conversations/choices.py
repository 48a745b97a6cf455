"""Choices: which a bot may offer, and which of them a message means. Pure.

A person presses a button, or writes the number, the label or the beginning of the label. Which
question a message may answer is decided in ``handling/sql/fetch_heads.sql``; see
``docs/decisions/0022-a-typed-choice-is-a-press.md``.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from conversations.contracts import Choice, Kind, ReplyBody
from conversations.errors import BadOutput

# Most bytes of a choice's value (``Choice.id``). Larger: replies take more room in the database.
# Smaller: bots must look up what they offered.
VALUE_BYTES = 200
# Most choices of one reply. Larger: lists that nobody reads to the end. Smaller: bots must split
# their lists.
MOST = 100
# Longest message that can be a typed label, in code points. Larger: long messages are compared with
# each label. Smaller: long labels can only be pressed, or chosen by their number.
LONGEST_TYPED = 200
NUMBER = re.compile(r"\d{1,9}")
# A number that the rest of the label goes on with: "2" is not the beginning of "2.5 kg" or of "20".
CUT_NUMBER = re.compile(r"\d[.,]?\d")


# ---------------------------------------------------------------- offering


def checked(values: Iterable[Choice | tuple[str, str] | str]) -> tuple[Choice, ...]:
    """Return ``(id, title)`` pairs and titles as choices. Raises ``BadOutput``, see ``check``."""
    choices = tuple(map(_choice, values))
    check(choices)
    return choices


def check(choices: Sequence[Choice]) -> None:
    """Raise ``BadOutput`` for too many choices, one without a title, or too long a value."""
    if len(choices) > MOST:
        raise BadOutput(f"{len(choices)} choices in one reply, {MOST} at most")
    for place, choice in enumerate(choices, 1):
        if not choice.title.strip():
            raise BadOutput(f"choice {place} has no title")
        size = len(choice.id.encode("utf-8", "surrogatepass"))
        if size > VALUE_BYTES:
            raise BadOutput(f"the value of choice {place} has {size} bytes, {VALUE_BYTES} at most")


def _choice(value: Choice | tuple[str, str] | str) -> Choice:
    """Make a choice of ``(id, title)`` or of a title, which is then the id as well."""
    match value:
        case Choice():
            return value
        case str():
            return Choice(id=value, title=value)
    identity, title = value
    return Choice(id=str(identity), title=str(title))


def with_distinct_titles(choices: Sequence[Choice]) -> tuple[Choice, ...]:
    """Put their numbers before titles that are equal but for case and space: ``2. Tea``, ``3. Tea``."""
    times = Counter(_folded(choice.title) for choice in choices)
    return tuple(
        Choice(id=choice.id, title=f"{place}. {choice.title}") if times[_folded(choice.title)] > 1 else choice
        for place, choice in enumerate(choices, 1)
    )


def as_text(text: str, choices: Sequence[Choice]) -> str:
    """Return ``text`` and below it a numbered line for each choice."""
    lines = "\n".join(f"{place}. {' '.join(choice.title.split())}" for place, choice in enumerate(choices, 1))
    return f"{text}\n\n{lines}" if text else lines


# ---------------------------------------------------------------- choosing


def meant(kind: str, text: str, payload: Mapping[str, Any], offered: Any, reply: str) -> tuple[str, Mapping[str, Any]]:
    """Return kind and payload of a message, as the bot is to see them.

    ``offered``: the body of the reply that had the button or, for a typed message, of the question
    that it may answer; None if there is none. ``reply``: the platform's id of that reply.
    """
    if not offered:
        return kind, payload
    question = msgspec.convert(offered, ReplyBody)
    if kind == Kind.BUTTON:
        return kind, {**payload, "payload": _value(payload.get("payload", ""), question.choices)}
    is_plain = kind == Kind.MESSAGE and not payload.keys() & {"attachments", "command"}
    choice = typed(text, question) if is_plain and payload.get("target", reply) == reply else None
    return (Kind.BUTTON, {**payload, "payload": choice.id, "target": reply}) if choice else (kind, payload)


def _value(pressed: str, choices: Sequence[Choice]) -> str:
    """Return the value of a pressed button. A long one travelled as a digest (``Choice.short``)."""
    return next((choice.id for choice in choices if pressed in (choice.id, choice.short(1))), pressed)


def typed(text: str, question: ReplyBody) -> Choice | None:
    """Return the choice that these words mean; None if they mean none, or may mean several.

    The label comes before the number, and the number before a beginning. Where the choices are
    numbered in the text, the number comes first.
    """
    if not text.strip() or len(text) > LONGEST_TYPED:
        return None
    said, titles = _folded(text), [_folded(choice.title) for choice in question.choices]
    bare, labels = _bare(said), [_bare(title) for title in titles]
    place = int(bare) if NUMBER.fullmatch(bare) else 0
    number = [place - 1] if 0 < place <= len(titles) else []
    ways = (
        number if question.numbered else [],
        _places(said == title for title in titles),
        number if _are_free_of_numbers(labels) else [],
        _places(bare == label for label in labels),
        _places(_begins(label, bare) for label in labels),
    )
    found = next(filter(None, ways), [])
    return question.choices[found[0]] if len(found) == 1 else None


def _places(matches: Iterable[bool]) -> list[int]:
    """Return where something matched, counted from 0."""
    return [place for place, is_match in enumerate(matches) if is_match]


def _are_free_of_numbers(labels: Sequence[str]) -> bool:
    """Return False if a label begins with a number that is not its own place.

    Beside labels such as "3 packs" a typed number is a quantity, and no place in the list.
    """
    found = ((place, NUMBER.match(label)) for place, label in enumerate(labels, 1))
    return all(number is None or int(number[0]) == place for place, number in found)


def _begins(label: str, bare: str) -> bool:
    """Return True if ``bare`` begins ``label``, and does not end inside a number of it."""
    return bool(bare) and label.startswith(bare) and not CUT_NUMBER.match(label, len(bare) - 1)


def _folded(words: str) -> str:
    """Return words without differences of case, width and white space."""
    return " ".join(unicodedata.normalize("NFKC", words).casefold().split())


def _bare(words: str) -> str:
    """Return folded words without punctuation and emoji around them; unchanged if nothing else is there.

    A question mark stays: "Tea?" chooses nothing. So do signs, and letters inside are untouched.
    """
    kept = [place for place, char in enumerate(words) if char.isalnum() or char in "+-?_"]
    return words[kept[0] : kept[-1] + 1] if kept else words
