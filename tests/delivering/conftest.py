from __future__ import annotations

import pytest

from tests.kit.doubles import Double
from tests.kit.replies import Scene
from tests.kit.stack import Stack


@pytest.fixture
def scene(stack: Stack, double: Double) -> Scene:
    """Replies on the stack of the test's file."""
    return Scene(stack, double)
