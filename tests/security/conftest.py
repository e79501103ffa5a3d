"""What the tests of this folder share. Those that play a whole season take seconds each: they are slow ones."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that a stand-in for the network takes part in."""
    for item in items:
        if "no_torch" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def proof(tmp_path: Path) -> Path:
    """Return the folder that is there once something planted was run."""
    return tmp_path / "it ran"
