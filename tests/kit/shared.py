"""A stack that the tests of a file share, as a fixture: ``stack = shared(roles="handle,sweep", env=BOTS)``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.kit.stack import Stack


@contextlib.contextmanager
def working(roles: str = "handle,send,sweep", of: type[Stack] = Stack, **options: Any) -> Iterator[Any]:
    """A stack whose workers are there; ``of``: of which kind."""
    with of(roles=roles, **options) as stack:
        stack.wait_for_workers(*roles.split(","))
        yield stack


def shared(make: Callable[[Stack], Any] = lambda stack: stack, **options: Any) -> Any:
    """Return a fixture: what ``make`` makes of a stack that works."""

    @pytest.fixture(scope="module")
    def of_the_file() -> Iterator[Any]:
        with working(**options) as stack:
            yield make(stack)

    return of_the_file
