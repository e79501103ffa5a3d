"""The clock that counts how long an image has been away."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from camera_trap_al import upkeep

NOW = 1_800_000_000.0


class Facts:
    def __init__(self, **facts: Any) -> None:
        self._facts = facts

    def fact(self, key: str, default: Any = None) -> Any:
        return self._facts.get(key, default)


def since(ended_s: float, **facts: Any) -> float:
    work: Any = SimpleNamespace(scan_ended_s=ended_s, catalog=Facts(**facts))
    return upkeep._since_last_scan(work)


@pytest.mark.parametrize("wall_s", [NOW - 86_400, NOW, NOW + 10 * 365 * 86_400])
def test_within_a_process_a_wrong_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch, wall_s: float) -> None:
    monkeypatch.setattr(upkeep.time, "monotonic", lambda: 1000.0)
    monkeypatch.setattr(upkeep.time, "time", lambda: wall_s)
    assert since(400.0, scan_ended=NOW) == 600.0


@pytest.mark.parametrize(
    ("step_s", "counted_s"), [(-86_400.0, 0.0), (0.0, 0.0), (1200.0, 1200.0), (10 * 365 * 86_400.0, 3600.0)]
)
def test_over_a_restart_the_clock_counts_for_an_hour_at_most_and_never_backwards(
    monkeypatch: pytest.MonkeyPatch, step_s: float, counted_s: float
) -> None:
    monkeypatch.setattr(upkeep.time, "time", lambda: NOW + step_s)
    assert since(float("-inf"), scan_ended=NOW) == counted_s
    assert since(float("-inf")) == 0.0
