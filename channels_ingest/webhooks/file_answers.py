"""What files on their way to clients may cost: bytes at once, in all and of an address, and how slowly they are read.

The server takes a file chunk by chunk on the request's thread, which waits while the client does not read. A
client that takes nothing at all is cut by the kernel, see ``botproject.web``. One that takes a little now and
then keeps its thread and what the kernel holds for it, but its file is closed and counts no more.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from django.db import close_old_connections
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from channels_ingest.webhooks import body_limits
from channels_ingest.webhooks.body_limits import Budget
from channels_ingest.webhooks.client_address import client_address
from conversations.media.serving import FileAnswer

# Bytes of all files that are on their way from this process, to visitors and again to staff, and of those to
# one address, of visitors and of staff. Larger: clients that read slowly hold more threads, and more of the
# disk where the storage copies what it reads. Smaller: people are told to come again.
MOST, OF_ADDRESS, OF_STAFF = 512 << 20, 32 << 20, 128 << 20
# A client may lag LAG_SECONDS behind LEAST_BYTES a second. Larger seconds or fewer bytes: one that reads
# slowly on purpose holds its thread for longer. The reverse: files over slow links are cut off.
LAG_SECONDS, LEAST_BYTES = 30.0, 16 * 1024
FOR_STRANGERS = "/files/"  # beginning of the addresses of files that need no login
RETRY_SECONDS = 5  # in ``Retry-After``. Larger: people wait longer. Smaller: more requests in vain

to_strangers, to_staff = Budget(MOST), Budget(MOST)


class OnItsWay:
    """The chunks of a file, which count until ``close``. They end early at a client that lags too far behind.

    The server then closes the connection, because bytes are missing. While its thread waits for the client,
    ``end_lagging`` does the counting.
    """

    def __init__(self, answer: FileAnswer, budget: Budget, address: str, counted: int) -> None:
        self._chunks: Iterator[bytes] = iter(answer)
        self.file, self._budget, self._address, self._counted = answer.file, budget, address, counted
        self._begun, self._taken = time.monotonic(), 0
        _going[self] = True
        body_limits.start_watch()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self not in _going or self.lags():
            raise StopIteration
        chunk = next(self._chunks)
        self._taken += len(chunk)
        return chunk

    def lags(self) -> bool:
        return time.monotonic() - self._begun > LAG_SECONDS + self._taken / LEAST_BYTES

    def close(self) -> None:
        if _going.pop(self, False):
            self._budget.give_back(self._address, self._counted)


_going: dict[OnItsWay, bool] = {}  # adding and removing one is atomic


def end_lagging() -> None:
    """Close the files of clients that lag too far behind. Their threads may wait on."""
    for chunks in [chunks for chunks in list(_going) if chunks.lags()]:
        chunks.close()
        with contextlib.suppress(Exception):  # whatever the storage raises, the watch goes on
            chunks.file.close()


body_limits.looks.append(end_lagging)


def admit(request: HttpRequest, answer: FileAnswer) -> HttpResponseBase:
    """Count a file that is about to be sent, and limit its time; return 503 if too many are on their way."""
    close_old_connections()  # it may take long, and needs none
    is_stranger = request.path_info.startswith(FOR_STRANGERS)
    budget, share = (to_strangers, OF_ADDRESS) if is_stranger else (to_staff, OF_STAFF)
    address, counted = client_address(request), min(answer.size, share)
    if not budget.take(address, counted, share):
        answer.close()
        words = "Too many files are on their way. Please try again in a moment."
        headers = {"Retry-After": str(RETRY_SECONDS)}
        return HttpResponse(words, status=503, content_type="text/plain", headers=headers)
    answer.streaming_content = OnItsWay(answer, budget, address, counted)
    return answer
