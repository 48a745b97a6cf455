"""``GET /metrics/``: the numbers of ``/healthz/`` and a few more, for Prometheus.

A request needs ``Authorization: Bearer $METRICS_TOKEN``; without the setting the page is a 404. The
numbers are read from the database at each scrape, so any web process answers for all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from conversations import installation, runtime
from conversations.contracts import Work
from conversations.errors import CoreError
from conversations.operating import delays, health, webhook_counts
from conversations.operating.spool_tally import tally
from conversations.postgres.sql_files import sql
from conversations.storing import intake, spool

# Columns of read_health.sql after the first, in its order.
NUMBERS = {
    "oldest_due_seconds": "Age of the oldest message that should be moving",
    "oldest_unsent_seconds": "Age of the oldest reply that should be moving",
    "pauses": "Bots, channels and tenants that are stopped",
    "quarantined": "Entries that staff have to settle",
}


def metrics(request: HttpRequest) -> HttpResponse:
    """Answer with the numbers; 404 if METRICS_TOKEN is not set, 401 if the request's is wrong."""
    if not settings.METRICS_TOKEN:
        raise Http404
    if not health.has_token(request):
        return HttpResponse(status=401)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector())
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


class Collector:
    """Reads the numbers once for each scrape."""

    def collect(self) -> Iterator[Metric]:
        """Yield the spool, then what the database knows.

        If the database does not answer, yield only ``database_up 0`` for it. The spool
        comes first: it is on this host's disk and needed most while the database is away.
        """
        if spool.is_on():
            yield from of_spool()
        yield webhooks(webhook_counts.read())
        try:
            intake.writer()  # the process reads through its connection
            ((alive, *numbers), *_) = runtime.read(sql("read_health"))
            seconds_by_part = delays.read()
        except (psycopg.Error, CoreError):
            yield gauge("database_up", "Whether the database answers", 0)
            return
        yield gauge("database_up", "Whether the database answers", 1)
        yield gauge("sending_held", "1 if nothing is sent: not our database", int(bool(installation.held())))
        yield workers(alive)
        for (name, about), value in zip(NUMBERS.items(), numbers, strict=True):
            yield gauge(name, about, value or 0)
        yield parts(seconds_by_part)


def of_spool() -> Iterator[Metric]:
    """Report the spool, which is on this host's disk and not in the database."""
    about = tally.look()
    yield gauge("spool_waiting", "Accepted requests that wait on the disk", about["count"])
    yield gauge("spool_oldest_seconds", "Age of the oldest of them", about["oldest_seconds"] or 0)
    yield gauge("spool_bad", "Lines of the spool that could not be opened", about["bad"])


def webhooks(counts: dict[tuple[str, str], int]) -> CounterMetricFamily:
    """Report what ``webhook_counts`` counted, by channel id."""
    family = CounterMetricFamily(
        "conversations_webhooks", "Refused, or signed with an old secret", labels=["channel", "what"]
    )
    for labels, number in sorted(counts.items()):
        family.add_metric(labels, number)
    return family


def gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"conversations_{name}", about, value=value)


def workers(alive: dict[str, Any]) -> GaugeMetricFamily:
    """Report every kind of process, with 0 for a missing one, so that an alarm can see it."""
    family = GaugeMetricFamily("conversations_workers", "Living processes", labels=["kind"])
    for kind in Work:
        family.add_metric([kind], alive.get(kind, 0))
    return family


def parts(seconds_by_part: dict[str, float]) -> GaugeMetricFamily:
    """Report the mean seconds in each part that messages went through lately."""
    family = GaugeMetricFamily("conversations_part_seconds", "Mean time of the newest messages", labels=["part"])
    for part, seconds in seconds_by_part.items():
        family.add_metric([part], seconds)
    return family
