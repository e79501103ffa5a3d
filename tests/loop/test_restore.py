"""The restore drill of docs/reliability.md 3.9: a journal and the photographs are all that is needed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from season import Season

from camera_trap_al.errors import EXIT_DAMAGED
from camera_trap_al.store.journal import read_journal
from camera_trap_al_service.cli import main


def test_a_journal_and_the_photographs_bring_every_label_back(season: Season, tmp_path: Path, capsys: Any) -> None:
    first = season.asked()
    season.drop("a.csv", dict.fromkeys(first[:5], "red"))
    season.turn()
    before = season.labels_csv()
    backup = tmp_path / "backup.jsonl"
    shutil.copy(season.work / "data" / "journal.jsonl", backup)
    config = (season.work / "config.toml").read_bytes()
    shutil.rmtree(season.work)
    shutil.move(season.root / "pool", season.root / "pool on another disk")

    (season.work / "data").mkdir(parents=True)
    (season.work / "config.toml").write_bytes(config)
    shutil.copy(backup, season.work / "data" / "journal.jsonl")
    moved = str(season.root / "pool on another disk")
    assert main(["relocate", str(season.work), "--unlabelled", moved]) == 0
    season.turn()
    assert season.labels_csv() == before and season.asked() == first


@pytest.mark.slow
def test_what_is_good_of_a_damaged_journal_can_be_used(season: Season, tmp_path: Path, capsys: Any) -> None:
    first = season.asked()
    for n in range(3):
        season.drop(f"{n}.csv", {first[n]: "red"})
        season.turn()
    journal = season.work / "data" / "journal.jsonl"
    damaged = journal.read_bytes().replace(b'"name": "1.csv"', b'"name": "1.cs?"')
    journal.write_bytes(damaged)
    assert main(["run", str(season.work), "--until", "waiting"]) == EXIT_DAMAGED
    assert main(["check", str(season.work)]) == 1
    assert journal.read_bytes() == damaged
    assert main(["check", str(season.work), "--salvage", str(tmp_path / "good.jsonl")]) == 0
    said = capsys.readouterr().out
    assert f"Copied {len(read_journal(tmp_path / 'good.jsonl')[0]) - 1} good lines" in said and "1 are lost" in said
    assert main(["check", str(season.work), "--salvage", str(tmp_path / "good.jsonl")]) == 2, "nothing is overwritten"
    shutil.copy(tmp_path / "good.jsonl", journal)
    season.turn()
    table = season.labels_csv()
    # The middle file is still in the bin, so its label comes back too.
    assert [table[key] for key in first[:3]] == ["red", "red", "red"]
