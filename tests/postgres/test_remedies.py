"""What each error means for one item that was written alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg import errors

from conversations.delivering.send_stream import SENDS
from conversations.errors import NotStored, UnsafeDatabase
from conversations.handling.turn_stream import TURNS
from conversations.postgres.remedies import Remedy, classify

RETRY, MEND, WAIT, FAIL = Remedy.RETRY, Remedy.MEND, Remedy.WAIT, Remedy.FAIL
SURROGATE = UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")


@pytest.mark.parametrize(("error", "patient", "impatient"), [
    (errors.UniqueViolation(), MEND, MEND),
    (errors.CheckViolation(), MEND, MEND),
    (errors.NumericValueOutOfRange(), MEND, MEND),
    (psycopg.DataError("a NUL"), MEND, MEND),
    (SURROGATE, MEND, MEND),
    (OverflowError(), MEND, MEND),
    (RecursionError(), MEND, MEND),
    (errors.LockNotAvailable(), WAIT, WAIT),
    (errors.QueryCanceled(), WAIT, FAIL),
    (errors.DeadlockDetected(), WAIT, FAIL),
    (errors.UndefinedTable(), WAIT, FAIL),
    (psycopg.OperationalError(), WAIT, FAIL),
    (UnsafeDatabase(), WAIT, FAIL),
    (NotStored(), WAIT, FAIL),
    (KeyError("a bug"), MEND, FAIL),
], ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.name)  # fmt: skip
def test_an_error_of_an_item(error: Exception, patient: Remedy, impatient: Remedy) -> None:
    for is_patient, remedy in ((True, patient), (False, impatient)):
        stream: Any = SimpleNamespace(patient=is_patient, small=False)
        assert classify(error, stream, 2, disconnected=False) is remedy
        lost = WAIT if is_patient or isinstance(error, errors.LockNotAvailable) else FAIL
        assert classify(error, stream, 2, disconnected=True) is lost


def test_a_key_that_another_transaction_wrote_meanwhile_is_tried_once_more() -> None:
    stream: Any = SimpleNamespace(patient=False, small=False)
    assert classify(errors.UniqueViolation(), stream, 1, disconnected=False) is RETRY


@pytest.mark.parametrize("error", [errors.QueryCanceled(), errors.ProgramLimitExceeded(), errors.StatementTooComplex()])
def test_a_turn_that_takes_too_long_alone_three_times_is_mended(error: psycopg.Error) -> None:
    turns: Any = SimpleNamespace(patient=True, small=False)
    requests: Any = SimpleNamespace(patient=False, small=False)
    assert [classify(error, turns, tries, disconnected=False) for tries in (1, 2, 3)] == [WAIT, WAIT, MEND]
    assert classify(error, turns, 3, disconnected=True) is WAIT
    assert classify(error, requests, 3, disconnected=False) is FAIL


def test_a_result_of_a_send_waits_for_a_slow_database_however_often() -> None:
    """Without the platform's id it would be sent again, or shown as never delivered."""
    remedies = {classify(errors.QueryCanceled(), SENDS, tries, disconnected=False) for tries in range(1, 10)}
    assert remedies == {WAIT}
    assert classify(errors.ProgramLimitExceeded(), SENDS, 3, disconnected=False) is MEND
    assert classify(errors.QueryCanceled(), TURNS, 3, disconnected=False) is MEND


def test_the_databases_classes_22_and_23_are_the_items_fault_and_no_others() -> None:
    stream: Any = SimpleNamespace(patient=False, small=False)
    known = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, psycopg.Error)}
    for error in known:
        if error.sqlstate is not None:
            is_mended = classify(error(), stream, 2, disconnected=False) is MEND
            assert is_mended == (error.sqlstate[:2] in ("22", "23")), error
