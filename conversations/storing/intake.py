"""Accepting a request: store and number its entries, COMMIT, then wake; or put it into the spool.

``accept`` returns only after its own COMMIT. One committer per web process takes whatever requests
are ready and stores them in one transaction, see ``store_stream``.

**Invariant:** a request is answered 2xx only after everything in it is stored, set aside or
knowingly noted.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import psycopg
import structlog

from conversations import runtime
from conversations.contracts import ChannelConfig, Kind, Note, Parsed, StatusUpdate, WebhookRequest
from conversations.errors import Busy, Conflict, NotStored
from conversations.failpoints import failpoint
from conversations.postgres import committer
from conversations.postgres.stream import Result, Stream, Ticket
from conversations.reports import statuses, templates
from conversations.storing import routing, spool
from conversations.storing.rows import ParsedRequest, as_quarantined, kept_headers, make_items
from conversations.storing.store_stream import STORE
from conversations.telemetry import logs
from conversations.waking import wake

log = structlog.get_logger(__name__)

# Seconds from the start of a request to its COMMIT, at most; then it goes to the spool or gets a
# 503. Larger: platforms give up on us first. Smaller: a short failure of Postgres refuses more
# requests.
ANSWER_SECONDS = 2.5
# Seconds that a batch waits for more requests while the processor is short, at most: a batch costs as
# much as ten of its messages (on 2 cores). Larger: every answer is slower. Smaller: more batches, each
# with fewer requests.
LINGER_SECONDS = 0.01
# Bytes of memory that each item takes besides its request's body. Larger: fewer large requests are
# taken at once. Smaller: what waits takes more memory than is counted.
ITEM_BYTES = 2_000
CONFLICT = "conflict: the same message again, with other content"


def accept(
    channel: ChannelConfig,
    parsed: Sequence[Parsed],
    request: WebhookRequest,
    *,
    spent: float = 0.0,
    own_api: bool = False,
) -> None:
    """Store everything in ``parsed``. Returns after COMMIT, or once it is in this host's spool.

    ``spent``: seconds of ``ANSWER_SECONDS`` that are over already. Raises ``Busy`` when the queue
    is full and ``NotStored`` when the time is over: the caller answers 503. Raises ``Conflict``
    with ``own_api`` only, see ``ParsedRequest``.
    """
    failpoint("W1")
    seconds = ANSWER_SECONDS - spent
    if not spool.is_on():
        store([ParsedRequest(channel, parsed, request, own_api)], seconds)
    else:
        without_secrets = msgspec.structs.replace(request, headers=kept_headers(request))
        _store_or_spool(ParsedRequest(channel, parsed, without_secrets, own_api), seconds)
    failpoint("W4")


def _store_or_spool(request: ParsedRequest, seconds: float) -> None:
    """Append to the spool while it has lines, or when storing fails.

    Stored directly, the request would overtake an earlier one of the same person that is still in
    the spool; the docstring of ``spool`` has the whole argument.
    """
    if spool.has_lines() and spool.append(request, only_behind=True):
        return
    try:
        store([request], seconds)
    except (Busy, NotStored, psycopg.Error) as error:
        log.warning("spooled", channel=request.channel.id, error=type(error).__name__)
        spool.append(request)


def store(requests: Sequence[ParsedRequest], seconds: float = ANSWER_SECONDS) -> None:
    """Store requests in their order. Returns after COMMIT; raises ``Busy`` or ``NotStored``.

    1. Store the entries, each under the channel that it is for. 2. Quarantine those whose identity
    is stored with other content, or raise ``Conflict`` if the request came through an API of ours.
    3. Join the statuses to their replies; those whose reply is not known yet are written once more,
    see ``statuses.write_again``. What is reported of templates is written as well.
    """
    until = time.monotonic() + seconds
    requests = [part for each in requests for part in routing.by_channel(each)]
    items = [item for each in requests for item in make_items(each)]
    size = sum(len(each.request.body) for each in requests) + ITEM_BYTES * len(items)
    results = _write(STORE, items, until - time.monotonic(), size)
    conflicts = [item for item, (verdict, *_) in zip(items, results, strict=True) if verdict == "conflict"]
    if conflicts and any(each.own_api for each in requests):
        raise Conflict
    things = [(each.channel, thing) for each in requests for thing in each.parsed]
    updates = [(channel, thing) for channel, thing in things if isinstance(thing, StatusUpdate)]
    reports = [(channel, note.template) for channel, note in things if isinstance(note, Note) and note.template]
    _write(STORE, [as_quarantined(item, CONFLICT) for item in conflicts], until - time.monotonic())
    _write(templates.TEMPLATES, reports, until - time.monotonic())
    outcomes = _write(statuses.STATUSES, updates, until - time.monotonic())
    unknown = [update for update, (outcome, _) in zip(updates, outcomes, strict=True) if outcome == "kept"]
    statuses.write_again(_write_status, unknown)


def _write_status(item: statuses.StatusItem) -> None:
    """Queue one status, for nobody who waits: if it is refused, it was kept at its first write."""
    with contextlib.suppress(Busy, NotStored):
        writer().submit(statuses.AGAIN, [item], lambda tickets: None, deadline=time.monotonic() + ANSWER_SECONDS)


def _write(stream: Stream[Any, Result], items: Sequence[Any], seconds: float, size: int = 0) -> list[Result]:
    """Write ``items`` and return their results after COMMIT. Raises ``Busy`` or ``NotStored``.

    ``size``: bytes that the items keep in memory.
    """
    try:
        return writer().write_all(stream, items, seconds, size)
    except psycopg.Error as error:
        raise NotStored(type(error).__name__) from error


def _wake(tickets: list[Ticket[Any, Any]]) -> None:
    """Publish wakes for the lanes (conversations) of a batch, after its requests are answered.

    So no request waits for Redis. A wake that is lost costs time only: the sweeper finds the lane.
    """
    log_lines: list[logs.Line] = []
    for ticket in tickets:
        if ticket.error is not None:
            continue
        if isinstance(ticket.stream, statuses.StatusStream) and ticket.result[1] is not None:
            wake.send([ticket.result[1]], ticket.item[0].tenant_id)
        elif ticket.stream is STORE and ticket.result[0] == "stored":
            (_, lane, tenant_id), row = ticket.result, ticket.item.row
            wake.handle([lane], tenant_id)
            if row.kind == Kind.CHECKOUT:
                wake.checkout(row.identity, tenant_id)
            if (row.payload or {}).get("attachments"):
                wake.fetch([row.channel_id], tenant_id)
            log_lines.append({"conversation": lane, "trace": row.identity[:16]})
    logs.together(log, "stored", log_lines)


def writer() -> committer.Committer:
    """Return this process's one committer for storing, made at the first use.

    From then on the process reads through it, too, and needs no second connection.
    """
    ours = runtime.current()
    return ours.writer or ours.start_writer("store", reads=True, after_batch=_wake, linger=LINGER_SECONDS)
