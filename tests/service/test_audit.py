"""The verb `audit`: mistakes of a person are found, shown in Timelapse's form, and corrected by the ordinary door."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from season import Season

from camera_trap_al.auditing import Audit, Suspect, is_empty_class
from camera_trap_al.errors import ModelError, UsageError, WorkFolderError
from camera_trap_al.lock import take_lock
from camera_trap_al.store import embeddings
from camera_trap_al_service.audit import table
from camera_trap_al_service.cli import main
from camera_trap_al_service.timelapse_user import ImageSet

UNTRAINED: dict[str, Any] = {"train__epochs": 0, "finetune__epochs": 0, "query__per_sequence": 0}
OTHER = {"red": "green", "green": "blue", "blue": "red"}


def with_mistakes(season: Season, every: int) -> tuple[Season, set[str]]:
    """Return the season with each n-th image answered wrongly, and the paths of these."""
    wrong = sorted(season.truth)[::every]
    truth = {key: OTHER[species] if key in wrong else species for key, species in season.truth.items()}
    return Season(season.root, truth), {"/".join(filter(None, key)) for key in wrong}


def selected(path: Path) -> set[str]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["Selected"] for row in rows} <= {"true", "false"} and len(rows) == 60
    return {"/".join(filter(None, (row["RelativePath"], row["File"]))) for row in rows if row["Selected"] == "true"}


@pytest.mark.slow
def test_mistakes_are_shown_and_corrected_in_timelapse(
    new_season: Callable[..., Season], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = new_season(folders=("train",), **UNTRAINED, query__batch=20)
    season, wrong = with_mistakes(seen, every=10)
    label = season.person()
    for _ in range(2):
        season.run()
        label()
    season.run()
    learner = max((season.work / "embedding").glob("gen-*"))
    read = embeddings.Vectors.read
    with monkeypatch.context() as patched:
        patched.setattr(
            embeddings.Vectors, "read", lambda self, rows: np.where(rows[:, None] == rows[3], np.nan, read(self, rows))
        )
        assert main(["audit", str(season.work)]) == ModelError.exit_code
        said = capsys.readouterr().err
        assert ".jpg holds something that is no number" in said.lower() and str(learner) in said
    selector = (season.work / "timelapse_selector.csv").read_bytes()
    held = take_lock(season.work / "daemon.lock")
    assert held is not None
    before = {path.name for path in season.work.iterdir()}
    assert main(["audit", str(season.work), "--top", "8"]) == 0
    held.release()
    assert {path.name for path in season.work.iterdir()} - before == {"timelapse_audit.csv"}
    assert (season.work / "timelapse_selector.csv").read_bytes() == selector
    labelled = {path for path, species in season.labels_csv().items() if species != "unlabelled"}
    found = selected(season.work / "timelapse_audit.csv")
    planted = wrong & labelled
    assert 1 <= len(found) <= 8 and len(found & planted) >= 0.6 * len(planted)
    said = capsys.readouterr().out
    assert "Images that look like another species:" in said and all(path in said for path in found)

    right = {"/".join(filter(None, key)): species for key, species in seen.truth.items()}
    user = ImageSet.open(season.root / "pool", season.root / "pool" / "TimelapseTemplate.tdb")
    n = user.label_round(season.work / "timelapse_audit.csv", seen.truth, season.work / "new_labels_bin" / "again.csv")
    season.run()
    now = season.labels_csv()
    assert n == len(found) and all(now[path] == right[path] for path in found)
    assert now.keys() == right.keys() and sum(species != "unlabelled" for species in now.values()) == len(labelled)


def test_a_work_folder_without_labels_says_so(new_season: Callable[..., Season]) -> None:
    season = new_season()
    assert main(["audit", str(season.work)]) == WorkFolderError.exit_code


def test_what_looks_empty_stands_apart() -> None:
    empty = Suspect("a/1.jpg", None, "fox", "nothing", 0.97, True, True)
    other = Suspect("a/2.jpg", None, "fox", "roe", 0.6, False, True)
    lines = table(Audit((other, empty), 50, 48, 2, 1, "group"))
    assert lines.index("Images that look empty:") < lines.index("Images that look like another species:")
    assert "48 of 50 labels" in lines[0] and "     2  (training) a/1.jpg" in lines[3] and "97 %" in lines[3]


def test_the_class_for_no_animal_is_known_by_the_option_or_by_its_name() -> None:
    assert is_empty_class("vide", "vide") and not is_empty_class("empty", "vide")
    assert is_empty_class("Empty", "") and is_empty_class("no_animal", "") and not is_empty_class("fox", "")


def test_before_anything_is_embedded_it_says_so(
    new_season: Callable[..., Season], capsys: pytest.CaptureFixture[str]
) -> None:
    season = new_season()
    season.turn()
    assert main(["audit", str(season.work)]) == UsageError.exit_code
    assert "not embedded yet" in capsys.readouterr().err
