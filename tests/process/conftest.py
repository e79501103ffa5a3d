"""What the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from commands import Commands


@pytest.fixture
def commands() -> Iterator[Commands]:
    """Return a starter of commands; what is left of them is ended."""
    commands = Commands()
    yield commands
    commands.close()
