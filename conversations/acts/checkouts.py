"""Checkouts: whether a payment may go on, asked of the bot at once, beside the person's lane.

A platform that takes payments asks right before it charges the person, and waits for seconds only
(Telegram: 10). So the question cannot wait behind a turn. It is stored as a message that starts no
turn, and answered here by the bot's ``checkout``: a pure function without state, with a time limit.
A bot without one refuses. That money was paid is a message of its own, PAYMENT, which comes through
the lane.

Nothing is tried again later: a checkout without an answer is a payment that fails, and the person
may pay again. So one for which no slot is free is refused at once, and a process that stops answers
those that it has.
"""

from __future__ import annotations

import functools
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
from django.conf import settings

from conversations import installation, registry, runtime, turns
from conversations.concurrency import Shares
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
# Checkouts of which bots are asked at once, half of them a tenant's; further ones are refused. Larger: more
# threads; smaller: functions that hang cost other people's payments sooner.
AT_ONCE = 32
# Checkouts in hand, also those that are refused, half of them a tenant's; further ones are not answered.
# Larger: a platform that takes no answers holds more threads; smaller: the reverse.
IN_HAND = 256
# Most characters of a refusal. Larger: platforms may refuse the answer; smaller: less room to explain.
REFUSAL_SIZE = 200
# What the person reads where the bot takes no payments, fails or is too slow.
REFUSED = "Sorry, we cannot take this payment now. You were not charged."

# The same while the slots for asking bots are taken.
BUSY = "Sorry, many people are paying at this moment. You were not charged. Please try again in a minute."
THREAD = "checkout"

_asking = runtime.kept(lambda: Shares(AT_ONCE))
_in_hand = runtime.kept(lambda: Shares(IN_HAND))


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


def answer(identity: str, tenant_id: int, replace_process: Callable[[], object]) -> None:
    """Answer a checkout on a thread of its own; ``identity`` is its message's, in hexadecimal.

    Calls ``replace_process`` if the bot's function takes longer than a turn may: its thread cannot
    be stopped.
    """
    threading.Thread(target=_answer, args=(identity, tenant_id, replace_process), name=THREAD, daemon=True).start()


def finish(seconds: float) -> None:
    """Wait, for at most ``seconds``, until all checkouts that this process has are answered."""
    end = time.monotonic() + seconds
    for thread in threading.enumerate():
        if thread.name == THREAD:
            thread.join(max(0.0, end - time.monotonic()))


def _answer(identity: str, tenant_id: int, replace_process: Callable[[], object]) -> None:
    """Ask the bot and give the platform its answer. A failure is logged: nobody waits for it here."""
    try:
        with _in_hand().take(tenant_id) as taken:
            rows = runtime.read(sql("read_checkout"), {"identity": bytes.fromhex(identity)}) if taken else []
            if rows:
                _decide(Asked(*rows[0]), replace_process)
        if not taken:
            log.error("checkout not answered", tenant=tenant_id, error="too many at once")
    except Exception as error:
        log.error("checkout not answered", error=error_places.kind(error), place=error_places.place(error))


def _decide(asked: Asked, replace_process: Callable[[], object]) -> None:
    """Answer within the time. A function of the bot's that goes on is looked at once more, later."""
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
    runtime.timer().call_later(settings.TURN_SECONDS, functools.partial(_look, asking, channel, replace_process))
    data = asked.payload.get("data", {})
    taken = registry.adapter(channel.platform).answer_checkout(channel, data, refusal)
    log.info("checkout answered", channel=channel.id, refused=bool(refusal), taken=taken)


def _look(asking: threading.Thread, channel: ChannelConfig, replace_process: Callable[[], object]) -> None:
    """Replace the process if the bot's function has not ended by now."""
    if asking.is_alive():
        log.error("a checkout never ended: this process is replaced", channel=channel.id, bot=channel.bot)
        replace_process()


def _ask(channel: ChannelConfig, asked: Asked, put: Callable[[str], object]) -> None:
    """Ask the bot's function, and put why the payment may not go on, or '' if it may.

    It may go on only if the function returns True. Text is a refusal in its words.
    """
    answer: Any = None
    try:
        with _asking().take(channel.tenant_id) as taken:
            function = registry.find_checkout(channel.bot)
            if not taken:
                answer = BUSY
                log.error("checkout refused: too many at once", channel=channel.id, tenant=channel.tenant_id)
            elif function:
                answer = function(_checkout(channel, asked))
    except BaseException as error:  # also SystemExit: the person hears a refusal
        log.warning("checkout failed", channel=channel.id, bot=channel.bot,
                    error=error_places.kind(error), place=error_places.place(error))  # fmt: skip
    finally:
        words = clean_text(answer, REFUSAL_SIZE).strip() if isinstance(answer, str) else ""
        put("" if answer is True else words or REFUSED)
        turns.close_connections()


def _checkout(channel: ChannelConfig, asked: Asked) -> turns.Checkout:
    """Return what the bot gets."""
    data = asked.payload.get("data", {})
    return turns.Checkout(
        payload=asked.payload.get("payload", ""),
        currency=data.get("currency", ""),
        amount=data.get("amount") or 0,
        contact=turns.Person.of(asked),
        details=data.get("order_info") or {},
        channel_id=channel.id,
        platform=channel.platform,
    )
