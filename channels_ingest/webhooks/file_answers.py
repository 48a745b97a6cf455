"""What files on their way to clients may cost: bytes at once, in all and of an address, and how slowly they are read.

The server takes a file chunk by chunk on the request's thread, which waits while the client does not read. A
client that takes nothing at all is cut by the kernel, see ``botproject.web``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from django.db import close_old_connections
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from channels_ingest.webhooks.body_limits import Budget
from channels_ingest.webhooks.client_address import client_address
from conversations.media.serving import FileAnswer

# Bytes of all files that are on their way from this process, to visitors and again to staff, and of those to
# one address. Larger: clients that read slowly hold more threads, and more of the disk where the storage copies
# what it reads. Smaller: people are told to come again.
MOST, OF_ADDRESS = 512 << 20, 128 << 20
# A client may lag LAG_SECONDS behind LEAST_BYTES a second. Larger seconds or fewer bytes: one that reads
# slowly on purpose holds its thread for longer. The reverse: files over slow links are cut off.
LAG_SECONDS, LEAST_BYTES = 30.0, 16 * 1024
FOR_STRANGERS = "/files/"  # beginning of the addresses of files that need no login
RETRY_SECONDS = 5  # in ``Retry-After``. Larger: people wait longer. Smaller: more requests in vain

to_strangers, to_staff = Budget(MOST), Budget(MOST)


class OnItsWay:
    """The chunks of a file, which count until ``close``. They end early at a client that lags too far behind.

    The server then closes the connection, because bytes are missing.
    """

    def __init__(self, answer: FileAnswer, budget: Budget, address: str, counted: int) -> None:
        self._chunks: Iterator[bytes] = iter(answer)
        self._budget, self._address, self._counted = budget, address, counted
        self._begun, self._taken = time.monotonic(), 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if time.monotonic() - self._begun > LAG_SECONDS + self._taken / LEAST_BYTES:
            raise StopIteration
        chunk = next(self._chunks)
        self._taken += len(chunk)
        return chunk

    def close(self) -> None:
        self._budget.give_back(self._address, self._counted)


def admit(request: HttpRequest, answer: FileAnswer) -> HttpResponseBase:
    """Count a file that is about to be sent, and limit its time; return 503 if too many are on their way."""
    close_old_connections()  # it may take long, and needs none
    budget = to_strangers if request.path_info.startswith(FOR_STRANGERS) else to_staff
    address, counted = client_address(request), min(answer.size, OF_ADDRESS)
    if not budget.take(address, counted, OF_ADDRESS):
        answer.close()
        words = "Too many files are on their way. Please try again in a moment."
        headers = {"Retry-After": str(RETRY_SECONDS)}
        return HttpResponse(words, status=503, content_type="text/plain", headers=headers)
    answer.streaming_content = OnItsWay(answer, budget, address, counted)
    return answer
