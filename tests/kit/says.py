"""A program that says how it was started and then does what it is told; see ``tests.test_forked``."""

from __future__ import annotations

import os
import signal
import sys

if __name__ == "__main__":
    print(os.environ["SAID"], *sys.argv[1:])
    match sys.argv[1:]:
        case ["leave", *code]:
            sys.exit(*map(int, code))
        case ["fail"]:
            raise RuntimeError("as told")
        case ["die"]:
            os.kill(os.getpid(), signal.SIGKILL)
        case ["wait"]:
            signal.pause()
