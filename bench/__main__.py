"""``python -m bench [--short] [case ...]``: run cases."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from dataclasses import asdict

from bench.cases import CASES, Scale
from bench.world import World


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("cases", nargs="*", default=[], metavar="case", help=", ".join(CASES))
    parser.add_argument("--seconds", type=float, help="of one measurement")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    scale = Scale(**({"seconds": chosen.seconds} if chosen.seconds else {}))
    for name in chosen.cases:
        print(json.dumps(asdict(CASES[name](World(), scale)), indent=1), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
