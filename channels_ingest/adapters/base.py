"""What every adapter shares: its declared facts, defaults for the verbs, and helpers to read foreign values.

An adapter is one class in one file, its verbs in flow order: ``handshake``, ``verify``, ``parse``,
``answer``, ``split``, ``send``, ``acknowledge``. It knows its platform and nothing else: no models,
no Celery, no Redis. ``parse`` and ``split`` are pure. See ``docs/adding-a-platform.md``.
"""

from __future__ import annotations

import abc
import datetime as dt
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from channels_ingest.formats import text as cut
from channels_ingest.formats.strict_json import Unreadable
from conversations.contracts import (
    Answer,
    Attachment,
    ChannelConfig,
    Limit,
    OutboundReply,
    Outcome,
    Parsed,
    ReplyBody,
    WebhookRequest,
)

MAX_ID = 256  # characters of a platform's id
BIGINT = range(-(2**63), 2**63)  # what a Postgres bigint holds


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """A credential that a channel needs. A required one that is missing means 401 for its webhooks."""

    name: str
    help: str
    required: bool = True
    rotates: bool = False  # `<name>_previous` verifies too
    generated: bool = False  # ours to invent when it is not given
    prefix: str = ""  # of an invented one; base64 follows
    pattern: str = ""  # what all of it must match


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """A setting of a channel of this platform that is no secret."""

    name: str
    help: str
    pattern: str = ".*"
    number: bool = False


class NotRegistered(Exception):
    """The platform did not take our webhook; the words say why."""


class Adapter(abc.ABC):
    """Facts as data, then the verbs. Satisfies ``conversations.contracts.Adapter``."""

    platform: ClassVar[str]
    secrets: ClassVar[Sequence[Secret]] = ()
    options: ClassVar[Sequence[Option]] = ()
    limits: ClassVar[Sequence[Limit]] = ()
    settle_ms: ClassVar[int] = 0  # a channel's default settle window
    text_size: ClassVar[int] = 0  # 0: as long as you like
    caption_size: ClassVar[int] = 0
    text_unit: ClassVar[cut.Unit] = cut.Unit.UTF16
    max_choices: ClassVar[int] = 0  # 0: as many as you like
    choice_bytes: ClassVar[int] = 0  # longest id of a choice that travels as it is (``Choice.short``); 0: any
    window_seconds: ClassVar[float] = math.inf  # how long after a person's message we may write
    key_life_seconds: ClassVar[float] = 0.0  # how long the platform knows an idempotency key
    read_timeout_seconds: ClassVar[float] = 30.0
    shakes_hands: ClassVar[bool] = False  # answers GET

    def handshake(self, channel: ChannelConfig, request: WebhookRequest) -> Answer | None:
        """The answer to a GET that proves that the URL is ours; None: not a handshake."""
        return None

    @abc.abstractmethod
    def verify(self, channel: ChannelConfig, request: WebhookRequest) -> bool:
        """Whether the channel's platform sent these bytes. Constant time, False for any doubt, never raises."""

    @abc.abstractmethod
    def parse(self, channel: ChannelConfig, request: WebhookRequest) -> list[Parsed]:
        """What an authentic request says, in its order. Pure; what can't be read is ``Unusable``."""

    def answer(self, channel: ChannelConfig, request: WebhookRequest) -> Answer:
        """What an authentic request is answered with once it is stored."""
        return Answer()

    def split(self, body: ReplyBody) -> list[ReplyBody]:
        """One reply in parts that the platform takes. Pure; choices and media stay with the last part."""
        return list(self._more_choices(self._shorter_text(body)))

    def key_life(self, channel: ChannelConfig) -> float:
        """Seconds for which a repeated key is recognised; 0 where the platform has no keys."""
        return self.key_life_seconds

    @abc.abstractmethod
    def send(self, channel: ChannelConfig, reply: OutboundReply) -> Outcome:
        """One attempt. Ends in ``Sent``, ``Deferred``, ``Failed``, ``Unknown`` or ``Rejected``."""

    def acknowledge(self, channel: ChannelConfig, entry_data: Mapping[str, Any]) -> None:
        """An act that is no message and may fail silently (stop a button's spinner)."""
        return

    # ------------------------------------------------ for people who set a channel up, and for tests

    def register(self, channel: ChannelConfig, url: str) -> dict[str, Any]:
        """Tell the platform our webhook's URL. What it said, and under ``options`` what to keep of it."""
        raise NotRegistered(f"a webhook of {self.platform} is set where the account is managed, to {url}")

    def sign(self, channel: ChannelConfig, body: bytes) -> dict[str, str]:
        """Headers with which the platform would send ``body``. LookupError without the secret."""
        raise LookupError(f"nobody posts webhooks of {self.platform}")

    def renew(self, body: dict[str, Any]) -> None:
        """Give a sample body ids that were never seen, in place."""
        return

    def caption_room(self, media: Attachment) -> int:
        """How much text may stand beside ``media``."""
        return self.caption_size

    def _shorter_text(self, body: ReplyBody) -> list[ReplyBody]:
        if not self.text_size:
            return [body]
        *head, last = cut.split(body.text, self.text_size, self.text_unit)
        if body.media and last and not cut.fits(last, self.caption_room(body.media), self.text_unit):
            head, last = [*head, last], ""
        tail = ReplyBody(text=last, choices=body.choices, media=body.media)
        return [*(ReplyBody(text=part) for part in head), tail]

    def _more_choices(self, parts: list[ReplyBody]) -> Iterator[ReplyBody]:
        """Choices above the platform's number follow in parts of their own."""
        *head, last = parts
        yield from head
        step = self.max_choices or max(len(last.choices), 1)
        yield ReplyBody(text=last.text, choices=last.choices[:step], media=last.media)
        for start in range(step, len(last.choices), step):
            yield ReplyBody(text="…", choices=last.choices[start : start + step])


# ---------------------------------------------------------------- reading foreign values


def obj(parent: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A member that must be an object."""
    value = parent.get(name)
    if not isinstance(value, dict):
        raise Unreadable(f"{name} is not an object" if name in parent else f"{name} is missing")
    return value


def maybe_obj(parent: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A member that may be missing or null; then empty."""
    return {} if parent.get(name) is None else obj(parent, name)


def maybe_list(parent: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """A member that is a list of objects; missing or null: empty."""
    value = parent.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Unreadable(f"{name} is not a list of objects")
    return value


def text(parent: Mapping[str, Any], name: str) -> str:
    """A member that must be text."""
    value = parent.get(name)
    if not isinstance(value, str):
        raise Unreadable(f"{name} is not text" if name in parent else f"{name} is missing")
    return value


def maybe_text(parent: Mapping[str, Any], name: str) -> str:
    """Text that may be missing or null; then ''."""
    return "" if parent.get(name) is None else text(parent, name)


def text_id(parent: Mapping[str, Any], name: str, what: str = "") -> str:
    """An id that is text."""
    value = text(parent, name)
    return checked_id(value, what or name)


def int_id(parent: Mapping[str, Any], name: str, what: str = "") -> str:
    """An id that is an integer, as text: never a float, never a bool, any size."""
    value = parent.get(name)
    if type(value) is not int:
        raise Unreadable(f"{what or name} is not an integer" if name in parent else f"{what or name} is missing")
    return checked_id(str(value), what or name)


def any_id(parent: Mapping[str, Any], name: str, what: str = "") -> str:
    """An id that is text or an integer."""
    return (int_id if type(parent.get(name)) is int else text_id)(parent, name, what)


def checked_id(value: str, what: str) -> str:
    if not value or len(value) > MAX_ID:
        raise Unreadable(f"{what} is empty" if not value else f"{what} is longer than {MAX_ID} characters")
    if "\0" in value:
        raise Unreadable(f"NUL in {what}")
    if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        raise Unreadable(f"lone surrogate in {what}")
    return value


def bigint(value: Any) -> int | None:
    """An integer that a bigint column holds, else None."""
    return value if type(value) is int and value in BIGINT else None


def number(parent: Mapping[str, Any], name: str) -> float:
    value: Any = parent.get(name)
    if type(value) not in (int, float) or not -1e15 < value < 1e15:
        raise Unreadable(f"{name} is not a number")
    return float(value)


def moment(value: Any) -> dt.datetime | None:
    """A platform's time: unix seconds, milli- or microseconds, or ISO 8601. None where it is none of these."""
    try:
        if isinstance(value, str):
            parsed = dt.datetime.fromisoformat(value)
            return parsed.astimezone(dt.UTC) if parsed.tzinfo else parsed.replace(tzinfo=dt.UTC)
        if type(value) in (int, float) and value > 0:
            return dt.datetime.fromtimestamp(_seconds(value), dt.UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return None


def _seconds(value: float) -> float:
    """Seconds up to the year 5138, else milliseconds, else microseconds."""
    for scale in (1, 1_000):
        if value < 1e11 * scale:
            return value / scale
    return value / 1_000_000
