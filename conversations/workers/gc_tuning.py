"""Makes Python's garbage collector run less often, and skip what was loaded at start."""

from __future__ import annotations

import gc

# Allocations before a collection of the youngest generation, then such collections before one of
# the next two (Python: 700, 10, 10). Larger: reference cycles hold more memory; smaller: more CPU.
COLLECT_AFTER = (20_000, 20, 20)


def spare() -> None:
    """Freeze the objects that exist now: they stay for good, and visiting them costs CPU."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
