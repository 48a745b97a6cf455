"""A test that starts all that tests start, and never ends: ``test_killed_runner`` kills its runner."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.conftest import find_chromium
from tests.kit.shared import working


def test_that_never_ends(request: pytest.FixtureRequest) -> None:
    if find_chromium():
        request.getfixturevalue("browser")
    with working():
        Path(os.environ["READY"]).touch()
        time.sleep(600)
