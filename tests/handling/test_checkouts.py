"""Checkouts: what a bot's function returns, and what the platform is told of it in time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from conversations import turns
from conversations.acts import checkouts
from conversations.acts.checkouts import BUSY, REFUSED, Asked
from conversations.concurrency import Shares
from conversations.workers.process import Process
from tests.kit.stack import wait_until

DATA = {"pre_checkout_query_id": "pq1", "currency": "EUR", "amount": 1990, "order_info": {"name": "Ada"}}
PAYLOAD = {"payload": "order-7", "data": DATA}


def asked(age: float = 0.0, channel_id: int = 1) -> Asked:
    return Asked(channel_id, "7001", "7001", False, PAYLOAD, age, "Ada", None, None, None, "de")


class Shop:
    """A bot with a checkout, on a platform that notes what it is told."""

    def __init__(self) -> None:
        self.function: Callable[[turns.Checkout], Any] | None = None
        self.told: list[tuple[Any, str]] = []
        self.replaced = threading.Event()
        self.channel: Any = SimpleNamespace(id=1, tenant_id=1, bot="shop", platform="fake", active=True)

    def answer_checkout(self, channel: Any, data: Any, refusal: str) -> bool:
        self.told.append((data, refusal))
        return True

    def decide(self, question: Asked) -> list[tuple[Any, str]]:
        checkouts._decide(question, self.replaced.set)
        return self.told


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Shop:
    ours = Shop()
    monkeypatch.setattr(checkouts.registry, "adapter", lambda name: ours)
    monkeypatch.setattr(checkouts.registry, "channel", lambda channel_id: ours.channel)
    monkeypatch.setattr(checkouts.registry, "find_checkout", lambda bot: ours.function)
    monkeypatch.setattr(checkouts.installation, "may_send_to", lambda *_: True)
    return ours


def raises(error: BaseException) -> Callable[[Any], Any]:
    def function(_: Any) -> Any:
        raise error

    return function


@pytest.mark.parametrize(("function", "refusal"), [
    (lambda checkout: True, ""),
    (lambda checkout: "Sold out, sorry.", "Sold out, sorry."),
    (lambda checkout: "no\0 " + "x" * 300, None),
    (lambda checkout: "  ", REFUSED),
    (lambda checkout: None, REFUSED),  # somebody forgot to return
    (lambda checkout: 1, REFUSED),
    (raises(ValueError("a bug")), REFUSED),
    (raises(SystemExit(3)), REFUSED),
    (None, REFUSED),  # the bot takes no payments
])  # fmt: skip
def test_a_payment_goes_on_only_if_the_bot_says_so(shop: Shop, function: Any, refusal: str | None) -> None:
    shop.function = function
    ((data, told),) = shop.decide(asked())
    assert data == DATA
    if refusal is None:
        assert len(told) <= checkouts.REFUSAL_SIZE
        assert "\0" not in told
    else:
        assert told == refusal


def test_the_bot_sees_what_is_paid_and_by_whom(shop: Shop) -> None:
    seen: list[turns.Checkout] = []
    shop.function = seen.append
    shop.decide(asked())
    person = turns.Person(user="7001", name="Ada", language="de")
    assert seen == [
        turns.Checkout(payload="order-7", currency="EUR", amount=1990, contact=person, details={"name": "Ada"},
                       channel_id=1, platform="fake")
    ]  # fmt: skip


def test_a_function_that_is_too_slow_refuses_in_time_and_one_that_hangs_costs_its_process(
    shop: Shop, settings: Any
) -> None:
    go_on = threading.Event()
    shop.function = lambda _: go_on.wait(20)
    slow = threading.Thread(target=shop.decide, args=(asked(age=checkouts.DECIDE_SECONDS),))
    slow.start()
    wait_until(lambda: shop.told, 5, "the answer")
    assert shop.told == [(DATA, REFUSED)]
    go_on.set()
    slow.join(5)
    assert not shop.replaced.is_set()
    go_on.clear()
    settings.TURN_SECONDS = 0.1
    shop.decide(asked(age=checkouts.DECIDE_SECONDS))
    assert shop.replaced.wait(20)
    go_on.set()


def test_what_nobody_waits_for_is_not_answered(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.function = lambda _: True
    assert shop.decide(asked(age=checkouts.TOO_LATE_SECONDS + 1)) == []
    shop.channel.active = False
    assert shop.decide(asked()) == []
    shop.channel.active = True
    monkeypatch.setattr(checkouts.installation, "may_send_to", lambda *_: False)
    assert shop.decide(asked()) == [], "a copy of production tells nobody"


def test_when_no_slot_is_free_the_next_person_is_refused_in_words_and_other_tenants_are_asked(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = Shares(checkouts.AT_ONCE)
    monkeypatch.setattr(checkouts, "_asking", lambda: shares)
    shop.function = lambda _: True
    with contextlib.ExitStack() as stack, structlog.testing.capture_logs() as logged:
        for _ in range(checkouts.AT_ONCE // 2):
            assert stack.enter_context(shares.take(1))
        assert shop.decide(asked()) == [(DATA, BUSY)]
        assert {"tenant": 1, "log_level": "error"}.items() <= logged[0].items()
        shop.channel.tenant_id = 2
        assert shop.decide(asked())[1:] == [(DATA, "")]
    shop.channel.tenant_id = 1
    assert shop.decide(asked())[2:] == [(DATA, "")]


def test_a_process_that_stops_answers_the_checkouts_that_it_has_before_it_leaves(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    shop.function = lambda _: go_on.wait(20)
    row = [getattr(asked(), name) for name in Asked.__struct_fields__]
    monkeypatch.setattr(checkouts.runtime, "read", lambda *_: [row])
    told_before: list[Any] = []
    process: Any = SimpleNamespace(sender=None, handler=SimpleNamespace(stop=lambda seconds: go_on.set()),
                                   leave=lambda: told_before.extend(shop.told),
                                   writer=SimpleNamespace(stop=lambda seconds: None))  # fmt: skip
    for _ in range(3):
        checkouts.answer("00ff", 1, shop.replaced.set)
    Process.stop(process)
    assert told_before == [(DATA, "")] * 3


def test_checkouts_over_the_limit_and_those_of_a_sick_database_are_dropped(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Any] = []

    def read(*statement: Any) -> list[Any]:
        reads.append(statement)
        raise OSError

    monkeypatch.setattr(checkouts.runtime, "read", read)
    checkouts._answer("00ff", 1, shop.replaced.set)
    shares = Shares(2)
    monkeypatch.setattr(checkouts, "_in_hand", lambda: shares)
    with shares.take(1):
        checkouts._answer("00ff", 1, shop.replaced.set)
        assert len(reads) == 1
        checkouts._answer("00ff", 2, shop.replaced.set)
    assert (len(reads), shop.told) == (2, [])
