"""What WhatsApp says of each message that it took: in any order, several in a request, some twice, of some nothing."""

from __future__ import annotations

import heapq
import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

# What becomes of a message, and how often: Meta's words, a moment apart. It may be delivered and say nothing.
STORIES: dict[tuple[str, ...], int] = {
    ("sent", "delivered", "read"): 4,
    ("delivered", "sent"): 2,
    ("read", "delivered"): 1,
    ("sent",): 1,
    ("sent", "failed"): 1,
    (): 1,
}
LATER_SECONDS = 1.5  # from one word to the next, at most
LOOK_SECONDS = 0.1
FAILED = {"code": 131026, "title": "Message undeliverable"}

Status = dict[str, Any]


class Statuses:
    """Reads the platform's record as it grows, and posts each word when its time has come.

    ``post``: one request of several statuses; returns once it was taken.
    """

    def __init__(self, record: Path, account: str, chance: random.Random,
                 post: Callable[[list[Status]], object]) -> None:  # fmt: skip
        self._record, self._account, self._chance, self._post = record, account, chance, post
        self._read, self._number = 0, itertools.count()
        self._due: list[tuple[float, int, Status]] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="statuses", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Say at once what is left to say."""
        self._ending.set()
        self._thread.join()

    def _loop(self) -> None:
        over = False
        while not over:
            over = self._ending.wait(LOOK_SECONDS)
            for call in self._taken():
                self._plan(call)
            ready = []
            while self._due and (over or self._due[0][0] <= time.monotonic()):
                ready.append(heapq.heappop(self._due)[2])
            if ready:
                self._post(ready)

    def _taken(self) -> Iterator[Mapping[str, Any]]:
        """New lines of the record about messages that people see."""
        if not self._record.exists():
            return
        with self._record.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # it is being written
                self._read += len(line)
                call = json.loads(line)
                if call["account"] == self._account and call["accepted"] and call["text"]:
                    yield call

    def _plan(self, call: Mapping[str, Any]) -> None:
        (words,) = self._chance.choices(list(STORIES), list(STORIES.values()))
        at = time.monotonic()
        for word in words:
            at += self._chance.uniform(0, LATER_SECONDS)
            status = {"id": call["name"], "status": word, "timestamp": str(int(time.time())),
                      "recipient_user_id": call["chat"], "biz_opaque_callback_data": call["key"],
                      **({"errors": [FAILED]} if word == "failed" else {})}  # fmt: skip
            for _ in range(self._chance.choice((1, 1, 2))):
                heapq.heappush(self._due, (at, next(self._number), status))
