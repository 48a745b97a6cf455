"""Telegram's payments: an invoice as a send, a checkout and its answer, and money that came or went back.

Source: https://core.telegram.org/bots/payments and https://core.telegram.org/bots/payments-stars.

Telegram asks for a ``pre_checkout_query`` right before it charges the person, and cancels the
payment without an answer in 10 seconds. Only ``successful_payment`` says that money was paid.
"""

from __future__ import annotations

import re
from typing import Any

from channels_ingest.adapters.base import Unsendable
from channels_ingest.adapters.reading import Json, bigint, maybe_obj, maybe_text, obj, text_id
from channels_ingest.adapters.telegram import api
from channels_ingest.outbound import http
from conversations.contracts import ChannelConfig, Invoice, Kind
from conversations.errors import BadOutput

STARS = "XTR"  # the currency of Telegram's Stars, which need no provider
PAYLOAD_BYTES = 128
CURRENCY = re.compile("[A-Z]{3}")
# Content of a message that says that money moved -> our kind, and the beginning of its key.
PAYMENTS = {"successful_payment": (Kind.PAYMENT, "p"), "refunded_payment": (Kind.REFUND, "f")}
# Seconds for the answer to a checkout to be taken. Longer: Telegram waits no longer for a second
# attempt; shorter: a slow answer of Telegram's makes a second attempt.
ANSWER_SECONDS = 2.0


# ---------------------------------------------------------------- out


def check(invoice: Invoice) -> None:
    """Raise ``BadOutput`` for an invoice that Telegram would refuse, so that its turn fails."""
    for name, words, most in (("title", invoice.title, 32), ("description", invoice.description, 255)):
        if not 1 <= len(words) <= most:
            raise BadOutput(f"an invoice's {name} has 1 to {most} characters on Telegram")
    if not 1 <= len(invoice.payload.encode("utf-8", "surrogatepass")) <= PAYLOAD_BYTES:
        raise BadOutput(f"an invoice's payload has 1 to {PAYLOAD_BYTES} bytes on Telegram")
    if not CURRENCY.fullmatch(invoice.currency):
        raise BadOutput("an invoice's currency is a code of three capital letters; XTR for Telegram's Stars")
    if not invoice.prices or invoice.total <= 0:
        raise BadOutput("an invoice asks for more than nothing: prices are (label, amount) in the smallest unit")
    if invoice.currency == STARS and len(invoice.prices) > 1:
        raise BadOutput("an invoice in Stars has one price")


def request(channel: ChannelConfig, invoice: Invoice, address: Json) -> tuple[str, dict[str, Any]]:
    """Return method and parameters of an invoice. Raises ``Unsendable`` where Telegram takes none.

    The provider's token is a secret of the channel. It is no part of the stored reply.
    """
    if address.get("business_connection_id") or address.get("guest_query_id"):
        raise Unsendable("Telegram takes no invoice in a business account's chat, or from a guest")
    provider = "" if invoice.currency == STARS else channel.credentials.get("provider_token", "")
    if not provider and invoice.currency != STARS:
        raise Unsendable(f"the channel has no provider_token, without which nobody can pay in {invoice.currency}")
    return "sendInvoice", {
        "title": invoice.title,
        "description": invoice.description,
        "payload": invoice.payload,
        "provider_token": provider,
        "currency": invoice.currency,
        "prices": [{"label": label, "amount": amount} for label, amount in invoice.prices],
        **({"photo_url": invoice.photo_url} if invoice.photo_url else {}),
    }


def answer(channel: ChannelConfig, query_id: str, refusal: str) -> bool:
    """Let a payment go on, or refuse it in these words. Return True if Telegram took the answer.

    Raises ``CallFailed``.
    """
    payload: dict[str, Any] = {"pre_checkout_query_id": query_id, "ok": not refusal}
    if refusal:
        payload["error_message"] = refusal
    try:
        return _answer(channel, payload)
    except http.CallFailed:  # once more: two answers do no harm, and none costs the payment
        return _answer(channel, payload)


def _answer(channel: ChannelConfig, payload: Json) -> bool:
    return api.call(channel, "answerPreCheckoutQuery", payload, read_timeout=ANSWER_SECONDS).ok


# ---------------------------------------------------------------- in


def read_checkout(query: Json) -> dict[str, Any]:
    """Return what a ``pre_checkout_query`` asks, as fields of an ``Entry``."""
    query_id = text_id(query, "id", "query id")
    data = {"pre_checkout_query_id": query_id, **_money(query)}
    for name in ("order_info", "shipping_option_id"):
        if name in query:
            data[name] = query[name]
    return {"kind": Kind.CHECKOUT, "key": f"q:{query_id}", "data": data, **_words(query)}


def read_payment(message: Json) -> dict[str, Any] | None:
    """Return kind, words and data of a message that says that money moved; None for any other."""
    for name, (kind, _) in PAYMENTS.items():
        if name in message:
            payment = obj(message, name)
            charge = maybe_text(payment, "telegram_payment_charge_id")
            return {"kind": kind, "data": {"charge_id": charge, **_money(payment), name: payment}, **_words(payment)}
    return None


def payment_key(message: Json) -> str:
    """Return the key of a payment, its charge's id; '' for any other message.

    The same charge is stored once, whatever the number of the message that tells of it.
    """
    for name, (_, begin) in PAYMENTS.items():
        charge = maybe_text(maybe_obj(message, name), "telegram_payment_charge_id")
        if charge:
            return f"{begin}:{charge}"
    return ""


def _money(about: Json) -> dict[str, Any]:
    return {"currency": maybe_text(about, "currency"), "amount": bigint(about.get("total_amount"))}


def _words(about: Json) -> dict[str, str]:
    """Return the invoice's payload, and the amount as text for people: we do not know its decimals."""
    amount = f"{about.get('total_amount')} {maybe_text(about, 'currency')} (in the smallest unit)"
    return {"payload": maybe_text(about, "invoice_payload"), "text": amount}
