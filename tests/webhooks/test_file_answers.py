"""Files on their way to clients: counted, for strangers and for staff, and cut at who reads too slowly."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from django.core.files import File
from django.http import HttpResponseBase
from django.test import RequestFactory

from channels_ingest.webhooks import body_limits, file_answers
from channels_ingest.webhooks.body_limits import Budget
from conversations.media.serving import CHUNK, FileAnswer

pytestmark = pytest.mark.usefixtures("own_database")  # its connections are closed


@pytest.fixture(autouse=True)
def _nothing_is_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of other tests may be: a test's client does not end what it does not read."""
    for name in ("to_strangers", "to_staff"):
        monkeypatch.setattr(file_answers, name, Budget(file_answers.MOST))


def sent(size: int, path: str = "/files/x/", address: str = "192.0.2.1") -> HttpResponseBase:
    request = RequestFactory().get(path, REMOTE_ADDR=address)
    return file_answers.admit(request, FileAnswer(File(io.BytesIO(bytes(size))), size))


def test_an_address_has_a_share_of_the_files_on_their_way_and_staff_have_a_count_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(file_answers, "OF_ADDRESS", 100)
    first = sent(60)
    refused = sent(60)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    others = [sent(60, address="192.0.2.2"), sent(60, "/admin/x/")]
    assert {other.status_code for other in others} == {200}
    first.close()
    others.append(sent(1000))  # larger than a share: alone
    assert (others[-1].status_code, sent(1).status_code) == (200, 503)
    for other in others:
        other.close()
    assert file_answers.to_strangers.taken == file_answers.to_staff.taken == 0


def test_a_file_that_the_storage_cannot_close_counts_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: File[bytes]) -> None:
        raise OSError("gone")

    monkeypatch.setattr(File, "close", fail)
    with pytest.raises(OSError, match="gone"):
        sent(60).close()
    assert file_answers.to_strangers.taken == 0


def test_a_client_that_lags_far_behind_gets_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(monotonic=lambda: clock.now, now=0.0)
    monkeypatch.setattr(file_answers, "time", clock)
    answer = sent(5 * CHUNK)
    chunks = iter(answer)  # type: ignore[call-overload]
    clock.now = file_answers.LAG_SECONDS + 1
    assert next(chunks, b"") == b""
    answer.close()
    answer = sent(5 * CHUNK)
    chunks = iter(answer)  # type: ignore[call-overload]
    assert len(next(chunks)) == CHUNK
    clock.now += file_answers.LAG_SECONDS + 1
    assert len(b"".join(chunks)) == 4 * CHUNK
    answer.close()
    answer = sent(5 * CHUNK)
    file_answers.end_lagging()
    assert file_answers.to_strangers.taken == 5 * CHUNK
    clock.now += file_answers.LAG_SECONDS + 1  # while the thread waits for the client
    for look in body_limits.looks:
        look()
    assert (file_answers.to_strangers.taken, answer.file.closed) == (0, True)  # type: ignore[attr-defined]
    assert b"".join(answer) == b""  # type: ignore[call-overload]
    answer.close()
    assert file_answers.to_strangers.taken == 0
