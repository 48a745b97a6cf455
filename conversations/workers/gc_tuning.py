"""Makes Python's garbage collector run less often, and skip what was loaded at start."""

from __future__ import annotations

import gc

# Allocations before a collection, then rounds (Python: 700, 10, 10). Larger: less CPU, more memory
# held by reference cycles.
COLLECT_AFTER = (20_000, 20, 20)


def spare() -> None:
    """Freeze the objects that exist now: they stay, and the collector need not visit them again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
