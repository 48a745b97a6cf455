"""Every Celery entry point. A task is a hint that these conversations may have work.

What there is to do stands in the database's rows. A task may be lost, repeated or late.
"""

from __future__ import annotations

from celery import current_task, shared_task

from conversations.sweeping import maintenance
from conversations.workers import lifecycle


@shared_task(name="conversations.handle")
def handle(conversation_ids: list[int], probe: bool = False) -> None:
    """Run the bots on the next messages of these conversations. ``probe``: also if paused."""
    delivery = current_task.request.delivery_info or {}
    lifecycle.current().make_handler().handle(conversation_ids, probe=probe, queue=delivery.get("routing_key") or "")


@shared_task(name="conversations.send")
def send(conversation_ids: list[int], probe: bool = False) -> None:
    """Deliver the next replies of these conversations. ``probe``: also if paused."""
    lifecycle.current().make_sender().send(conversation_ids, probe=probe)


@shared_task(name="conversations.maintain", ignore_result=False)
def maintain() -> dict[str, int]:
    """Do what is due for partitions, retention and search. The counts are the task's result."""
    return maintenance.run()
