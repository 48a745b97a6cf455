"""The checker's bots as a Django app, and the place where a planted bug gets into every process.

SIGUSR1 writes the stacks of the newest 100 threads to ``stacks-<pid>.txt``; C code does it, also while a thread holds
the interpreter.
"""

from __future__ import annotations

import faulthandler
import os
import signal

from django.apps import AppConfig


class ChaosConfig(AppConfig):
    name = "tests.chaos"

    def ready(self) -> None:
        stacks = open(f"{os.environ.get('DATA_DIR', '.')}/stacks-{os.getpid()}.txt", "w")  # noqa: SIM115  (for ever)
        faulthandler.register(signal.SIGUSR1, file=stacks)
        planted = os.environ.get("CHAOS_MUTANT", "")
        if planted:
            from tests.chaos import mutants

            mutants.apply(planted)
        if words := os.environ.get("CHAOS_CLOCK"):
            from tests.chaos import clock

            clock.shift(words)
