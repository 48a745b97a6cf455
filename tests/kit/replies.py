"""For tests of delivering: replies put into lanes as turns would, senders with failpoints, what people see of it."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from tests.kit.doubles import Double
from tests.kit.lanes import Lanes
from tests.kit.platforms import GENERIC_SECRET, WHATSAPP, whatsapp
from tests.kit.rows import add_lane, add_replies
from tests.kit.stack import Channel, Process, Stack, wait_until

LOOSE = "channel:10000/1s,chat:1000/1s,group:1000/1s"
OPEN = "('pending', 'sending')"


class Scene:
    """A stack, a double, and replies that are put into lanes as turns would.

    What an earlier test left behind, as one that failed does, is out of the way.
    """

    def __init__(self, stack: Stack, double: Double) -> None:
        self.stack, self.double = stack, double
        double.reset()
        stack.query("UPDATE channel SET active = false WHERE active")
        stack.query("DELETE FROM pause")

    def telegram(self, **values: str) -> Channel:
        values = {"limits": LOOSE, "token": "1:abc", "secret_token": "s3cret-Token-0123456789", **values}
        return self.stack.add_channel("telegram", api_base=self.double.url, **values)

    def generic(self, **values: str) -> Channel:
        return self.stack.add_channel("generic", secret=GENERIC_SECRET, outbound_url=f"{self.double.url}/out", **values)

    def whatsapp(self, **values: str) -> Channel:
        return self.stack.add_channel("whatsapp", api_base=self.double.url, **WHATSAPP, **values)

    def report(self, channel: Channel, sent: dict[str, Any], status: str) -> None:
        """Let WhatsApp report what became of a message that the double took."""
        key = sent["body"]["biz_opaque_callback_data"]
        told = {"id": sent["name"], "status": status, "biz_opaque_callback_data": key}
        assert self.stack.post(channel, *whatsapp(channel, statuses=[told])) == 200

    def say(self, channel: Channel, chat: str | int, *texts: str, author: str = "bot") -> int:
        """Replies at the tail of a lane, due now; the lane."""
        lane = add_lane(self.stack.ask, channel.id, str(chat))
        add_replies(self.stack.ask, lane, texts, authors=[author] * len(texts))
        return lane

    def shown(self, chat: str | int) -> list[str]:
        return [line["text"] for line in self.double.accepted() if line["chat"] == str(chat)]

    def calls(self, chat: str | int) -> list[str]:
        return [line["text"] for line in self.double.calls() if line["chat"] == str(chat)]

    def replies(self, lane: int, columns: str = "status") -> list[Any]:
        rows = self.stack.query(f"SELECT {columns} FROM reply WHERE conversation_id = {lane} ORDER BY sequence")
        return [row[0] if len(row) == 1 else row for row in rows]

    def settled(self, *channels: Channel, seconds: float = 30) -> None:
        ids = [channel.id for channel in channels]
        count = f"SELECT count(*) FROM reply WHERE status IN {OPEN} AND channel_id = ANY (%s)"
        wait_until(lambda: self.stack.value(count, ids) == 0, seconds, "every reply of these channels settled")

    @contextlib.contextmanager
    def senders(self, *failpoints: str) -> Iterator[list[Process]]:
        """A sender process per word, with its failpoints; gone afterwards, supervisors and all."""
        before = set(self.stack.pids("send"))
        started = [self.stack.start_workers("send", env={"FAILPOINTS": words}) for words in failpoints]
        try:
            if not any("kill" in words for words in failpoints):
                wait_until(lambda: len(set(self.stack.pids("send")) - before) >= len(started), 40, "senders")
            yield started
        finally:
            for process in started:
                process.lose_power()


def texts(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(1, count + 1)]


def without_repeats(lines: Sequence[str]) -> list[str]:
    return [line for line, _ in itertools.groupby(lines)]


# ---------------------------------------------------------------- staff


def desk(scene: Scene | Lanes, verb: str) -> None:
    """A verb of staff, in a process of its own."""
    scene.stack.manage("shell", "-c",
                       f"""
from django.contrib.auth.models import User
from conversations.desk import actions as desk
from conversations.models import Conversation, Reply
anna, _ = User.objects.get_or_create(username="anna")
def seen(pk):
    lane = Conversation.objects.get(pk=pk)
    return desk.Seen(conversation=pk, epoch=lane.epoch, next_sequence=lane.next_sequence)
{verb}
""")  # fmt: skip


def decide(scene: Scene, lane: int, *, sent: bool) -> None:
    reply = f"Reply.objects.get(conversation={lane}, status='unknown')"
    desk(scene, f"desk.decide_unknown_reply({reply}, anna, sent={sent})")
