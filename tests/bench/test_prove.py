"""What ``make prove`` counts: lost, swapped and doubled replies; and that a broken promise ends it with 1."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from bench import prove
from bench.prove import Outcome, Platform, outcome
from bench.world import Stream


def arrivals(*texts: str) -> Platform:
    platform = Platform()
    for text in texts:
        platform.taken(b"POST /bot1:x/sendMessage", b'{"text":"%b"}' % text.encode())
    return platform


@pytest.mark.parametrize(("texts", "lost", "swapped", "doubled"), [
    (("1:1", "1:2", "2:1", "1:3"), 0, 0, 0),
    (("1:1", "1:1", "2:1", "1:2", "1:2", "1:3"), 0, 0, 2),
    (("1:1", "1:3", "2:1"), 1, 0, 0),
    (("1:1", "1:3", "1:2", "2:1"), 0, 1, 0),
    (("1:1", "1:3", "2:1", "1:2", "1:3"), 0, 1, 1),
    # A repeated reply does not hide a swapped one, and is not one.
    (("1:1", "1:2", "1:1", "1:3", "2:1"), 0, 0, 1),
    ((), 4, 0, 0),
])  # fmt: skip
def test_counts(texts: tuple[str, ...], lost: int, swapped: int, doubled: int) -> None:
    stream = Stream("s", 1, iter(()), awaited=4)
    found = outcome("this product", arrivals(*texts), stream)
    assert (found.lost, found.swapped, found.doubled) == (lost, swapped, doubled)
    assert found.broken == bool(lost or swapped)


def made(*, lost: int = 0, swapped: int = 0, doubled: int = 0) -> Outcome:
    return Outcome(name="n", accepted=9, lost=lost, swapped=swapped, doubled=doubled, slowest=1.0)


@pytest.mark.parametrize(("ours", "plain", "code"), [
    (made(doubled=1), made(lost=3, swapped=2), 0),
    (made(lost=1), made(), 1),
    (made(swapped=1), made(), 1),
])  # fmt: skip
def test_only_a_promise_that_we_broke_ends_it_with_1(
    ours: Outcome, plain: Outcome, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["prove"])
    monkeypatch.setattr(prove, "ours", lambda seed, messages: ours)
    monkeypatch.setattr(prove, "plain", lambda seed, messages: plain)
    monkeypatch.setattr(prove, "watch_over_this_process", lambda: None)
    assert prove.main() == code
    assert "out of order" in capsys.readouterr().out


@pytest.fixture(autouse=True)
def _keep_the_handler_of_sigterm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
