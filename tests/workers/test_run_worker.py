"""`run_worker`: which processes it wants."""

from __future__ import annotations

import pytest
from django.core.management.base import CommandError

from conversations.contracts import Work
from conversations.management.commands.run_worker import chosen_roles, processes
from conversations.waking.queues import OLD_QUEUES, queue_names


def test_every_role_has_queues_of_its_own() -> None:
    queues = [queue for role in Work for queue in queue_names(role)]
    assert len(queues) == len(set(queues)) == 2 * (2 + OLD_QUEUES) + 3  # the upkeep, checkouts, files


@pytest.mark.parametrize("text", ["", ",", "handle,cook"])
def test_unknown_roles_are_refused(text: str) -> None:
    with pytest.raises(CommandError):
        chosen_roles(text)


def test_roles_come_once_and_in_order() -> None:
    assert chosen_roles("send, handle,send") == ["send", "handle"]


def test_a_role_may_have_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_SEND_PROCESSES", "2")
    started = list(processes(Work.SEND))
    assert [each.name for each in started] == ["send-0", "send-1"]
    assert started[1].environment["WORKER_ROLE"] == "send"
    assert "send-0,send-1" in started[0].argv[started[0].argv.index("-Q") + 1]


@pytest.mark.parametrize("text", ["0", "-1", "many"])
def test_a_nonsense_number_of_processes_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("WORKER_HANDLE_PROCESSES", text)
    with pytest.raises(CommandError):
        list(processes(Work.HANDLE))
