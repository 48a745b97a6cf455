"""What must hold after a run, I1 to I28: functions from the evidence to violations, and to what was left unproven.

Readings. I4 is about numbered messages; what waits is younger than its window or gap. I5 holds for channels where we
give the order; on the others our numbers follow the platform's, except for messages marked late, and those are late for
a reason. I13: what a person saw first of each reply is in order; a second showing of a reply whose outcome was unknown
may come after the next one where the platform has no keys, and is counted. I14: calls that were on their way when a 429
was said (500 ms) are counted, not blamed. I15 and I16 are measured for every fault by ``run`` and bounded here.

    storing, handling, delivering, whole    the invariants, in the order of the flow
    proof                                   I25: whether enough was met
"""

from tests.chaos.invariants import delivering, handling, storing, whole  # noqa: F401  (each enters its own)
from tests.chaos.invariants.base import INVARIANTS, Violation, judge
from tests.chaos.invariants.delivering import calls_in_flight_at_429
from tests.chaos.invariants.proof import rescued, seen_to_happen, taken_over, unproven

__all__ = [
    "INVARIANTS", "Violation", "calls_in_flight_at_429", "judge", "rescued", "seen_to_happen", "taken_over", "unproven",
]  # fmt: skip
