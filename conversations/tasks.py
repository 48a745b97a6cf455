"""Every Celery entry point. A task is a hint that conversations may have work.

What there is to do stands in the database's rows. A task may be lost, repeated or late.
"""

from __future__ import annotations

from celery import shared_task

from conversations.acts import checkouts
from conversations.contracts import Work
from conversations.media import fetching
from conversations.operating import maintenance
from conversations.waking import doorbell, publisher
from conversations.waking.queues import FETCH
from conversations.workers import lifecycle


@shared_task(name=doorbell.task_name(Work.HANDLE))
def answer_handle() -> None:
    """Take a batch of hints and run the bots on the next messages of their conversations."""
    handler = lifecycle.current().make_handler()
    try:
        doorbell.answer(Work.HANDLE, handler.has_room, handler.handle)
    finally:
        handler.keep_place()


@shared_task(name=doorbell.task_name(Work.SEND))
def answer_send() -> None:
    """Take a batch of hints and deliver the next replies of their conversations."""
    sender = lifecycle.current().make_sender()
    doorbell.answer(Work.SEND, sender.has_room, sender.send)


@shared_task(name=doorbell.task_name(FETCH))
def answer_fetch() -> None:
    """Take a batch of hints and fetch the files of their channels, as far as threads are free."""
    doorbell.answer(FETCH, lambda: True, fetching.fetcher().fetch)


@shared_task(name="conversations.handle")
def handle(conversation_ids: list[int], probe: bool = False) -> None:
    """Run the bots on the next messages of these conversations. ``probe``: also if paused.

    Probes come this way, past hints and bell. Without ``probe``: from a process of the release before
    the doorbell.
    """
    handler = lifecycle.current().make_handler()
    if handler.has_room() or not probe:
        handler.handle(conversation_ids, probe=probe)
    else:  # another process may have room
        publisher.probe(Work.HANDLE, conversation_ids)
    handler.keep_place()


@shared_task(name="conversations.send")
def send(conversation_ids: list[int], probe: bool = False) -> None:
    """Deliver the next replies of these conversations. ``probe``: see ``handle``."""
    lifecycle.current().make_sender().send(conversation_ids, probe=probe)


@shared_task(name="conversations.checkout")
def checkout(identity: str, tenant_id: int) -> None:
    """Ask the bot whether a payment may go on, and answer its platform, on a thread of its own."""
    checkouts.answer(identity, tenant_id, lifecycle.current().make_handler().overdue.set)


@shared_task(name="conversations.maintain", ignore_result=False, acks_late=False)
def maintain() -> dict[str, int]:
    """Do what is due for partitions, retention and search. The counts are the task's result.

    Acknowledged first: while it runs, no heartbeat reaches RabbitMQ, which would give it away again.
    """
    return maintenance.run()
