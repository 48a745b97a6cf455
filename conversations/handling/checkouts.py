"""Checkouts: whether a payment may go on, asked of the bot at once, beside the person's lane.

A platform that takes payments asks right before it charges the person, and waits for seconds only
(Telegram: 10). So the question cannot wait behind a turn. It is stored as a message that starts no
turn, and answered here by the bot's ``checkout``: a pure function without state, with a time limit.
A bot without one refuses. That money was paid is a message of its own, PAYMENT, which comes through
the lane.

Nothing is tried again later: a checkout without an answer is a payment that fails, and the person
may pay again.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
from django.conf import settings

from conversations import installation, registry, runtime, turns
from conversations.contracts import ChannelConfig
from conversations.postgres.sql_files import sql
from conversations.postgres.storable_text import clean_text
from conversations.telemetry import error_places

log = structlog.get_logger(__name__)

# Seconds after a checkout was stored in which the bot may decide. Longer: the platform no longer waits
# for our answer; shorter: a slower function refuses payments.
DECIDE_SECONDS = 5.0
# Seconds after which a checkout is not answered: no platform waits for so long. Longer: calls in vain
# after a stall; shorter: payments fail that could go on.
TOO_LATE_SECONDS = 10.0
# Checkouts that are answered at once; further ones are not. Larger: more threads; smaller: functions
# that hang cost other people's payments sooner.
AT_ONCE = 32
# Most characters of a refusal. Larger: platforms may refuse the answer; smaller: less room to explain.
REFUSAL_SIZE = 200
# What the person reads where the bot takes no payments, fails or is too slow.
REFUSED = "Sorry, we cannot take this payment now. You were not charged."

_slots = runtime.kept(lambda: threading.BoundedSemaphore(AT_ONCE))


class Asked(msgspec.Struct, frozen=True, array_like=True):
    """A checkout as it was stored: a row of ``read_checkout.sql``. ``age``: seconds since then."""

    channel_id: int
    chat: str
    user: str
    is_group: bool
    payload: dict[str, Any]
    age: float
    name: str | None
    username: str | None
    phone: str | None
    email: str | None
    language: str | None


def answer(identity: str, replace_process: Callable[[], object]) -> None:
    """Answer a checkout on a thread of its own; ``identity`` is its message's, in hexadecimal.

    Calls ``replace_process`` if the bot's function takes longer than a turn may: its thread cannot
    be stopped.
    """
    threading.Thread(target=_answer, args=(identity, replace_process), name="checkout", daemon=True).start()


def _answer(identity: str, replace_process: Callable[[], object]) -> None:
    """Ask the bot and give the platform its answer. A failure is logged: nobody waits for it here."""
    slots = _slots()
    if not slots.acquire(blocking=False):
        log.error("checkout not answered", error="too many at once")
        return
    try:
        rows = runtime.read(sql("read_checkout"), {"identity": bytes.fromhex(identity)})
        if rows:
            _decide(Asked(*rows[0]), replace_process)
    except Exception as error:
        log.error("checkout not answered", error=error_places.kind(error), place=error_places.place(error))
    finally:
        slots.release()


def _decide(asked: Asked, replace_process: Callable[[], object]) -> None:
    """Answer within the time. Returns when the bot's function has ended, or is given up."""
    channel = registry.channel(asked.channel_id)
    if channel is None or not channel.active or asked.age > TOO_LATE_SECONDS:
        log.warning("checkout not answered", channel=asked.channel_id, seconds=round(asked.age, 1))
        return
    if not installation.may_send_to(channel, asked.user, asked.chat, asked.is_group):
        return
    answers: queue.SimpleQueue[str] = queue.SimpleQueue()
    asking = threading.Thread(target=_ask, args=(channel, asked, answers.put), name="checkout-bot", daemon=True)
    asking.start()
    try:
        refusal = answers.get(timeout=max(0.0, DECIDE_SECONDS - asked.age))
    except queue.Empty:
        refusal = REFUSED
        log.warning("checkout refused: its function is too slow", channel=channel.id, bot=channel.bot)
    data = asked.payload.get("data", {})
    taken = registry.adapter(channel.platform).answer_checkout(channel, data, refusal)
    log.info("checkout answered", channel=channel.id, refused=bool(refusal), taken=taken)
    asking.join(settings.TURN_SECONDS)
    if asking.is_alive():
        log.error("a checkout never ended: this process is replaced", channel=channel.id, bot=channel.bot)
        replace_process()


def _ask(channel: ChannelConfig, asked: Asked, put: Callable[[str], object]) -> None:
    """Ask the bot's function, and put why the payment may not go on, or '' if it may.

    It may go on only if the function returns True. Text is a refusal in its words.
    """
    answer: Any = None
    try:
        function = registry.find_checkout(channel.bot)
        answer = function(_checkout(channel, asked)) if function else None
    except BaseException as error:  # also SystemExit: the person hears a refusal
        log.warning("checkout failed", channel=channel.id, bot=channel.bot,
                    error=error_places.kind(error), place=error_places.place(error))  # fmt: skip
    finally:
        words = clean_text(answer, REFUSAL_SIZE).strip() if isinstance(answer, str) else ""
        put("" if answer is True else words or REFUSED)
        turns.close_connections()


def _checkout(channel: ChannelConfig, asked: Asked) -> turns.Checkout:
    """Return what the bot gets."""
    known = {name: getattr(asked, name) or "" for name in ("name", "username", "phone", "email", "language")}
    data = asked.payload.get("data", {})
    return turns.Checkout(
        payload=asked.payload.get("payload", ""),
        currency=data.get("currency", ""),
        amount=data.get("amount") or 0,
        contact=turns.Person(user=asked.user, **known),
        details=data.get("order_info") or {},
        channel_id=channel.id,
        platform=channel.platform,
    )
