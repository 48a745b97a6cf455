"""What goes wrong, by name: ``FAULTS["F6"]``. The table's numbers, and what has no number has a word.

processes   killed, frozen, starved, told to stop at the wrong moment
postgres    gone, crashed, full, locked, without a free connection
redis       flushed, killed, full, away
network     slow, cut one way, an answer swallowed, a name that cannot be found
platforms   429, 500, refusals, taken and reset, a revoked token
traffic     copies, disorder, messages that cannot be handled, a tenant that floods
strangers   sockets that do not read, bodies that never end
neighbours  a tenant whose service fails, or whose batches are full
misdeeds    bots that hold the interpreter, end the event loop, ask the database and wait
deploys     all at once, three in one turn, a release that raises, two versions at a time
people      somebody takes over in the middle of everything
races       of this design, each made likely
failover    a standby that lacks the last commits: the limit that is measured
"""

from tests.chaos.faults import (  # noqa: F401  (each enters its faults)
    deploys,
    failover,
    misdeeds,
    neighbours,
    network,
    people,
    platforms,
    postgres,
    processes,
    races,
    redis,
    strangers,
    traffic,
)
from tests.chaos.faults.base import FAULTS as _ENTERED
from tests.chaos.faults.base import Fault, Scene


def _place(name: str) -> tuple[int, str]:
    """The table's numbers first."""
    number = name.partition("-")[0].removeprefix("F")
    return (int(number) if number.isdigit() else 1000, name)


FAULTS: dict[str, Fault] = {name: _ENTERED[name] for name in sorted(_ENTERED, key=_place)}

__all__ = ["FAULTS", "Fault", "Scene"]
