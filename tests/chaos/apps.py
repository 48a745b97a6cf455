"""The checker's bots as a Django app, and the place where a planted bug gets into every process."""

from __future__ import annotations

import os

from django.apps import AppConfig


class ChaosConfig(AppConfig):
    name = "tests.chaos"

    def ready(self) -> None:
        planted = os.environ.get("CHAOS_MUTANT", "")
        if planted:
            from tests.chaos import mutants

            mutants.apply(planted)
        if words := os.environ.get("CHAOS_CLOCK"):
            from tests.chaos import clock

            clock.shift(words)
