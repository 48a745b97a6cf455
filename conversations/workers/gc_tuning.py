"""Python's garbage collector, spared work that it would do in vain."""

from __future__ import annotations

import gc

COLLECT_AFTER = (20_000, 20, 20)  # allocations, and rounds; Python's own are 700, 10, 10


def spare() -> None:
    """What is loaded by now stays; the collector need not walk through all of it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
