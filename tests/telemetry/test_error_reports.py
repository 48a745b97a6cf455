"""Sentry and stored results get type and place, never words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import sentry_sdk
import structlog
from celery import current_app, states
from django.db import InterfaceError, OperationalError, connection
from django_celery_results.models import TaskResult
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from conversations.telemetry import error_reports

CANARY = "canary-5b1e"


class Caught(Transport):
    """Keeps envelopes instead of sending them."""

    sent: list[bytes]

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.sent = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.sent.append(envelope.serialize())


@pytest.fixture
def sentry(settings: Any) -> Iterator[Caught]:
    settings.SENTRY_DSN = "https://public@sentry.invalid/1"
    transport = Caught()
    error_reports.configure(transport=transport)
    yield transport
    sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)


def fail(text: str) -> None:
    words = {"text": text}  # a local variable with what a person wrote
    raise ValueError(f"cannot handle {words}")


def test_sentry_hears_of_type_and_place(sentry: Caught) -> None:
    sentry_sdk.set_user({"id": CANARY})
    sentry_sdk.set_context("chat", {"text": CANARY})
    try:
        fail(CANARY)
    except ValueError:
        structlog.get_logger("ours").exception("turn failed", conversation=7)
    (envelope,) = sentry.sent
    assert CANARY.encode() not in envelope
    assert b"ValueError" in envelope
    assert b'"function":"fail"' in envelope.replace(b": ", b":")


def test_sentry_hears_of_a_failure_that_is_words_already(sentry: Caught) -> None:
    structlog.get_logger("ours").warning("turn failed", error="shop.NotFound", place="shop/bots.py:7 order", bot=CANARY)
    (envelope,) = sentry.sent
    assert CANARY.encode() not in envelope
    event = json.loads(envelope.splitlines()[-1])
    (value,) = event["exception"]["values"]
    assert (value["module"], value["type"]) == ("shop", "NotFound")
    assert value["stacktrace"]["frames"] == [{"filename": "shop/bots.py", "function": "order", "lineno": 7}]


def test_sentry_is_told_nothing_without_an_exception(sentry: Caught) -> None:
    sentry_sdk.capture_message(CANARY)
    assert sentry.sent == []


def test_sentry_is_off_without_a_dsn(settings: Any) -> None:
    settings.SENTRY_DSN = ""
    error_reports.configure()
    assert not sentry_sdk.get_client().is_active()


@pytest.mark.django_db
def test_a_failed_task_is_kept_without_words() -> None:
    backend = current_app.backend
    assert isinstance(backend, error_reports.Results)
    try:
        fail(CANARY)
    except ValueError as error:
        backend.mark_as_failure("some-id", error, traceback=f"Traceback\nValueError: {CANARY}")
    row = TaskResult.objects.get(task_id="some-id")
    assert row.status == states.FAILURE
    kept = json.dumps([row.result, row.traceback, row.meta, row.task_args, row.task_kwargs])
    assert CANARY not in kept
    assert "ValueError" in row.result
    assert "test_error_reports.py" in row.traceback


@pytest.mark.django_db
def test_a_storm_of_failures_is_no_storm_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    error_reports._minute.cache_clear()
    for number in range(error_reports.STORED_A_MINUTE + 20):
        current_app.backend.mark_as_failure(f"storm-{number}", ValueError())
    assert TaskResult.objects.filter(task_id__startswith="storm-").count() <= error_reports.STORED_A_MINUTE
    error_reports._minute.cache_clear()


@pytest.mark.django_db
def test_a_wake_that_expired_is_no_failure() -> None:
    current_app.backend.mark_as_revoked("expired", "expired", request=None, store_result=True)
    assert not TaskResult.objects.filter(task_id="expired").exists()


@pytest.mark.django_db
@pytest.mark.parametrize("kind", [OperationalError, InterfaceError])
def test_a_result_that_cannot_be_stored_ends_no_worker(kind: type[Exception]) -> None:
    """Celery asks for it in the thread that takes wakes."""

    def away(*statement: Any) -> None:
        raise kind("the database went away")

    with connection.execute_wrapper(away):
        current_app.backend.mark_as_failure("lost", ValueError())
    assert not TaskResult.objects.filter(task_id="lost").exists()
