"""The traps of working with Timelapse (docs/timelapse.md): each is walked into, and the work goes on."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from season import HUES, QUICK, Season

from camera_trap_al.config_file import read_config
from camera_trap_al.labels.template import read_template
from camera_trap_al_service.doctor import MACHINE, WORK
from camera_trap_al_service.init import init
from camera_trap_al_service.timelapse_user import BACKUP_FOLDER, ImageRow, ImageSet


def opened(season: Season) -> ImageSet:
    """Open the images as Timelapse does."""
    return ImageSet.open(season.root / "pool", season.root / "pool" / "TimelapseTemplate.tdb")


def paths(rows: list[ImageRow]) -> list[str]:
    """Return the sorted paths of rows, with `/`."""
    return sorted("/".join(part for part in row.key if part) for row in rows)


def flagged(user: ImageSet) -> list[str]:
    """Return the images whose flag is on, whatever is shown; all are shown after that."""
    return paths([row for row in user.select_all() if row.values["Selected"] == "true"])


def labelled(season: Season) -> set[str]:
    """Return the images of the pool that have a label."""
    return {path for path, species in season.labels_csv().items() if species != "unlabelled"}


def journal(season: Season) -> list[dict[str, Any]]:
    """Return the lines of the journal."""
    text = (season.work / "data" / "journal.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def receipt(season: Season, name: str) -> Any:
    """Return the receipt of a label file."""
    path = season.work / "new_labels_bin" / f"{name}.receipt.json"
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_folders_of_backups_at_the_start_are_neither_images_nor_classes(
    new_season: Callable[..., Season], capsys: pytest.CaptureFixture[str]
) -> None:
    season = new_season()
    shutil.rmtree(season.work)
    (season.root / "pool" / BACKUP_FOLDER).mkdir()
    for path in ("pool/Backups/old.jpg", "pool/Backups/TimelapseTemplate.tdb", "pool/DeletedFiles/site a/gone.JPG"):
        target = season.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(season.root / "pool" / "IMG_0000.JPG", target)
    (season.root / "train" / "backup").mkdir()
    shutil.copytree(season.root / "train" / "red", season.root / "train" / BACKUP_FOLDER)
    folders = {"data.train": str(season.root / "train"), "data.unlabelled": str(season.root / "pool")}
    init(season.work, folders, QUICK)
    season.turn()
    selector = (season.work / "timelapse_selector.csv").read_text(encoding="utf-8")
    assert selector.count("\n") == 61 and BACKUP_FOLDER not in selector and "DeletedFiles" not in selector
    assert read_config(season.work / "config.toml").classes.names == ()
    species = read_template(season.root / "pool" / "TimelapseTemplate.tdb").field("Species")
    assert species is not None and set(species.choices) == {*HUES, "unsure"}


def test_a_selection_left_on_while_the_next_selector_is_imported_keeps_no_old_flag(
    new_season: Callable[..., Season],
) -> None:
    season = new_season()
    season.turn()
    user = opened(season)
    for n in (1, 2, 3):
        asked = sorted(season.asked())
        assert user.import_csv(season.work / "timelapse_selector.csv").imported
        shown = user.select_selected()
        assert paths(shown) == asked, f"round {n}: with the selection of the round before left on"
        for row in shown:
            user.set_species(row, season.truth[row.key])
        user.export_csv(season.work / "new_labels_bin" / "ImageData.csv")
        season.turn()
        assert receipt(season, "ImageData.csv")["verdict"] == "accepted" and season.placed() == n + 1
    assert flagged(user) == asked and len(labelled(season)) == 27


@pytest.mark.slow
def test_exporting_over_the_same_file_reads_no_copy_in_backups_again(new_season: Callable[..., Season]) -> None:
    season = new_season()
    season.turn()
    person, bin_ = opened(season), season.work / "new_labels_bin"
    for _ in range(2):
        assert person.label_round(season.work / "timelapse_selector.csv", season.truth, bin_ / "ImageData.csv") == 9
        season.turn()
    copies = list((bin_ / BACKUP_FOLDER).iterdir())
    assert len(copies) == 1 and copies[0].suffix == ".csv"
    taken = [line for line in journal(season) if line["kind"] == "labels"]
    assert [line["name"] for line in taken] == ["ImageData.csv", "ImageData.csv"]


def test_all_images_exported_with_a_default_species_label_only_what_was_asked_for(
    new_season: Callable[..., Season],
) -> None:
    season = new_season()
    season.turn()
    asked = season.asked()
    user = opened(season)
    for row in user.select_all():
        user.set_species(row, "red")
    user.export_csv(season.work / "new_labels_bin" / "all.csv")
    season.turn()
    assert labelled(season) == set(asked)
    assert receipt(season, "all.csv")["counts"]["unrequested"] == 60 - len(asked)


def test_images_added_later_are_shown_once_timelapse_was_told_of_them(
    new_season: Callable[..., Season], pictures: Path
) -> None:
    season = new_season()
    season.turn()
    user = opened(season)
    shutil.copy(pictures / "pool" / "IMG_0003.JPG", season.root / "pool" / "site b" / "late.JPG")
    season.turn()
    (season.work / "timelapse_selector.csv").unlink()
    season.turn()
    result = user.import_csv(season.work / "timelapse_selector.csv")
    assert result.imported and result.unmatched == ["site b\\late.JPG"] and flagged(user) == sorted(season.asked())
    assert user.add_images() == 1
    assert user.import_csv(season.work / "timelapse_selector.csv").unmatched == []


def test_every_trap_of_the_guide_is_kept_by_a_test_or_check_that_there_is() -> None:
    root = Path(__file__).parent.parent.parent
    guide = (root / "docs" / "timelapse.md").read_text(encoding="utf-8")
    traps = [line for line in guide.partition("## Traps")[2].splitlines() if line.startswith("| ")][1:]
    tests = {
        name for path in root.glob("tests/**/*.py") for name in re.findall(r"def (test_\w+)", path.read_text("utf-8"))
    }
    checks = {check.name for check in (*MACHINE, *WORK)}
    assert len(traps) > 15
    for trap in traps:
        kept_by = trap.rsplit(" | ", 1)[1]
        named, _, checked = kept_by.partition("check")
        assert re.findall(r"`(test_\w+)`", named), trap
        assert set(re.findall(r"`(test_\w+)`", named)) <= tests, trap
        assert set(re.findall(r"`([\w ]+)`", checked)) <= checks, trap
