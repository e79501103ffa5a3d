"""Tests that play a whole season take seconds each, so they are not in the fast suite."""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that a stand-in for the network takes part in."""
    for item in items:
        if "no_torch" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
