"""The case about one function: what a web process computes of a request before it stores anything."""

from __future__ import annotations

import statistics
import time

from bench.runs import Result, Scale
from bench.world import World
from channels_ingest.adapters.meta import WhatsApp
from tests.kit import fixtures

WARM = 1_000  # messages


def parse(world: World, scale: Scale) -> Result:
    """Verify and read one WhatsApp message, the same in each round, in one process that does nothing else."""
    adapter, channel = WhatsApp(), fixtures.channel("whatsapp")
    body = fixtures.request("whatsapp", "text").body
    request = fixtures.incoming(body, **adapter.sign(channel, body))
    took = []
    until = time.monotonic() + scale.seconds
    while len(took) < WARM or time.monotonic() < until:
        began = time.perf_counter()
        authentic = adapter.verify(channel, request)
        parsed = adapter.parse(channel, request)
        took.append(time.perf_counter() - began)
    result = Result(name="parse", figures={"whatsapp_us": statistics.median(took[WARM // 2 :]) * 1e6})
    if not authentic or len(parsed) != 1:
        result.faults.append("the message was not read")
    return result
