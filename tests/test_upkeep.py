"""The clock that counts how long an image has been away; and shards that are taken into the catalogue."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from camera_trap_al import upkeep
from camera_trap_al.errors import ModelError
from camera_trap_al.store import shards

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


def with_shards(folder: Path, *marks: str) -> tuple[Any, list[str]]:
    """Return a work folder with a shard for each mark, and the list of those that its catalogue, called c, takes in."""
    for row, mark in enumerate(marks):
        shards.write_shard(folder / "gen-000001", np.array([row]), np.ones((1, 2), np.float32), {}, mark)
    taken: list[str] = []
    catalog = SimpleNamespace(absorbed_shards=lambda: set(taken), absorb=lambda name, *given: taken.append(name))
    return SimpleNamespace(folder=SimpleNamespace(embedding=folder), catalog=catalog, catalog_id="c"), taken


def test_a_shard_whose_facts_are_damaged_is_set_aside_and_keeps_no_other_from_being_taken_in(tmp_path: Path) -> None:
    work, taken = with_shards(tmp_path, "m-c", "m-c")
    (tmp_path / "gen-000001" / "shard-000000.json").write_bytes(b"")
    with pytest.raises(ModelError, match="embedded again"):
        upkeep.absorb(work)
    upkeep.absorb(work)
    assert taken == ["gen-000001/shard-000001"] and shards.shard_names(tmp_path / "gen-000001") == ["shard-000001"]


def test_what_a_shard_says_of_rows_of_another_catalogue_is_not_taken_in(tmp_path: Path) -> None:
    work, taken = with_shards(tmp_path, "m-b", "m-c")
    for _ in range(2):
        upkeep.absorb(work)
    assert taken == ["gen-000001/shard-000001"] and shards.shard_names(tmp_path / "gen-000001") == ["shard-000001"]
