"""``GET /healthz/``: 200 if webhooks can be stored; a word about each other part.

Everybody gets the words. The figures, without secrets and without words of people, are for those
with METRICS_TOKEN, and for ``make run``. Each part is asked in a thread of its own, at most once a
second, and a request waits ``WAIT_SECONDS`` for it at most: a frozen Postgres or Redis costs one
thread, and the answer still comes in time.
"""

from __future__ import annotations

import hmac
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import psycopg
from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from conversations import installation, runtime
from conversations.contracts import Work
from conversations.errors import CoreError, NotStored
from conversations.lanes import redis_client
from conversations.operating import delays, webhook_counts
from conversations.operating.spool_tally import tally
from conversations.postgres import database
from conversations.postgres.sql_files import sql
from conversations.postgres.stream import Stream
from conversations.storing import intake, spool
from conversations.telemetry import error_places, logs

# Seconds for which an answer is used again. Larger: later news. Smaller: more load by health
# checks.
FRESH_SECONDS = 1.0
# Seconds for which a request waits for each part. Larger: the page may exceed a router's own limit.
# Smaller: a slow part is reported as silent.
WAIT_SECONDS = {"storing": 1.4, "redis": 0.6, "lanes": 0.9, "spool": 0.1}
SILENT = "no answer in time"
LATE_SECONDS = 20.0  # where a copied settings.py does not have it
# After a failover, or when the disk of a hosted plan is full, the server is read-only: nothing can
# be stored, though SELECT works.
CAN_WRITE = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')"


@csrf_exempt
@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """Answer 200 if webhooks can be stored, else 503; report the other parts.

    A web process without Redis still takes webhooks, so Redis must not make a router drop it.
    """
    storing = looks()["storing"].result()
    about: dict[str, Any] = {"storing": storing, "redis": looks()["redis"].result(), "version": settings.VERSION}
    if storing == "ok":
        lanes = looks()["lanes"].result()
        about.update(lanes if isinstance(lanes, dict) else {"lanes": lanes})
    if spool.is_on():
        about["spool"] = looks()["spool"].result()
    about["dropped_log_lines"] = logs.dropped_lines()
    shown = in_words(about)
    if settings.LOCAL or has_token(request):
        shown |= about
    return JsonResponse(shown, status=200 if storing == "ok" else 503, headers={"Cache-Control": "no-store"})


def has_token(request: HttpRequest) -> bool:
    """Return True if the request carries METRICS_TOKEN. Without the setting nobody has it."""
    given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
    return bool(settings.METRICS_TOKEN) and hmac.compare_digest(given, f"Bearer {settings.METRICS_TOKEN}".encode())


def in_words(about: Mapping[str, Any]) -> dict[str, str]:
    """Return a word for each part, and ``status``: what to alarm on.

    A part is ``ok``; ``late``, if a message or reply that should be moving is older than
    LATE_SECONDS; ``held`` (this database is a copy); ``waiting`` (requests in the spool); or
    ``down``. The status is ``down`` if webhooks are refused, ``degraded`` if another part is not ok.
    """
    words = {part: "ok" if about[part] == "ok" else "down" for part in ("storing", "redis")}
    if words["storing"] == "ok":
        words |= {kind.activity: _word_of(kind, about) for kind in Work}
    if tells := about.get("spool"):
        words["spool"] = "down" if not isinstance(tells, dict) else "waiting" if tells["count"] else "ok"
    degraded = "ok" if set(words.values()) == {"ok"} else "degraded"
    return {"status": "down" if words["storing"] != "ok" else degraded, **words}


def _word_of(kind: Work, about: Mapping[str, Any]) -> str:
    """Return the word for one kind of work; ``down`` also if the database does not say."""
    ages = {Work.HANDLE: about.get("oldest_due_seconds"), Work.SEND: about.get("oldest_unsent_seconds")}
    if not about.get("workers", {}).get(kind):
        return "down"
    if kind == Work.SEND and about["held"]:
        return "held"
    return "late" if (ages.get(kind) or 0.0) > getattr(settings, "LATE_SECONDS", LATE_SECONDS) else "ok"


class Look:
    """The last answer of ``ask``, at most ``FRESH_SECONDS`` old, or the kind of its failure.

    Not ``concurrency.Fresh``: there the caller who asks waits as long as it takes, and the
    others get an old answer, which may be wrong by now.
    """

    def __init__(self, name: str, ask: Callable[[], Any]) -> None:
        self._name = name
        self._ask = ask
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._asked_at = float("-inf")
        self._answer: Any = SILENT

    def result(self) -> Any:
        """Return the answer; ``SILENT`` if it does not come within this part's ``WAIT_SECONDS``."""
        with self._lock:
            done = self._done if self._is_fresh() else self._begin()
        return self._answer if done.wait(WAIT_SECONDS[self._name]) else SILENT

    def _is_fresh(self) -> bool:
        """Return True also while an answer is awaited, so that a part is not asked twice."""
        asked = self._asked_at > float("-inf")
        return asked and (not self._done.is_set() or time.monotonic() - self._asked_at < FRESH_SECONDS)

    def _begin(self) -> threading.Event:
        """Ask in a thread of its own, and return the event that tells of the answer.

        A thread that hangs is left behind: nothing can end it.
        """
        self._done, self._asked_at = threading.Event(), time.monotonic()
        threading.Thread(target=self._run, args=(self._done,), name=f"health-{self._name}", daemon=True).start()
        return self._done

    def _run(self, done: threading.Event) -> None:
        """Ask, and store the answer or the kind of the failure for those who wait."""
        try:
            self._answer = self._ask()
        except CoreError as error:
            self._answer = str(error)  # safe to show: our own words
        except Exception as error:  # any failure means that this part is not well
            self._answer = error_places.kind(error)
        done.set()


class Probe(Stream[None, list[database.Row]]):
    """A transaction that writes nothing, on the connection that stores and sent as a batch is."""

    name = "probe"
    patient = False
    short = True
    STATEMENT: database.Statement = ("SELECT %(number)s::integer", {"number": 1})

    def lane(self, item: None) -> Hashable:
        return None

    def write(self, connection: psycopg.Connection[Any], items: Sequence[None]) -> Sequence[list[database.Row]]:
        return [database.transaction(connection, {"probe": self.STATEMENT})["probe"]] * len(items)


PROBE = Probe()


def ask_storing() -> str:
    """Ask over the connection that stores webhooks, with the key that makes their identities."""
    intake.writer()
    installation.identity_key()
    (recovering, read_only), *_ = runtime.read(CAN_WRITE)
    if recovering or read_only == "on":
        return "read-only"
    try:
        intake.writer().write(PROBE, None, intake.ANSWER_SECONDS)
    except psycopg.Error as error:
        raise NotStored(type(error).__name__) from error
    return "ok"


def ask_redis() -> str:
    """Ask for an answer of Redis. A failure raises, and is the report."""
    redis_client.client().ping()
    webhook_counts.send()
    return "ok"


def ask_lanes() -> dict[str, Any]:
    """Return ages in seconds, counts, why sending is held, and mean seconds by part."""
    names = ("workers", "oldest_due_seconds", "oldest_unsent_seconds", "pauses", "quarantined")
    (row, *_) = runtime.read(sql("read_health"))
    return {**dict(zip(names, row, strict=True)), "held": installation.held(), "part_seconds": delays.read()}


def ask_spool() -> dict[str, Any]:
    """Return what waits in this host's spool, and which other hosts forbid adding to it."""
    return {**tally.look(), "other_hosts": spool.other_hosts()}


@runtime.kept
def looks() -> dict[str, Look]:
    """Return this process's look at each part."""
    asks = {"storing": ask_storing, "redis": ask_redis, "lanes": ask_lanes, "spool": ask_spool}
    return {name: Look(name, ask) for name, ask in asks.items()}
