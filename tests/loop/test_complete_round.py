"""One round after the other as a person plays it in Timelapse: both CSVs and the recognitions, typed and confirmed labels."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import pytest
from season import HUES, Season

from camera_trap_al.work import Work
from camera_trap_al_service.template import check_or_make
from camera_trap_al_service.timelapse_user import ImageSet

pytestmark = pytest.mark.slow
ORACLE = Path(__file__).resolve().parents[3] / "shared" / "timelapse" / "timelapse_oracle.py"
DATES = "The Date/Time was not updated for"
DATES_WHY = (
    "- the CSV file is missing either a DateTime column or both Date and Time columns (this is ok if it was intended)"
)


class Person(Protocol):
    """A Timelapse that is open over the images: what both re-statements of its rules can do."""

    def bring_in(self, path: Path) -> None: ...
    def recognise(self, path: Path) -> None: ...
    def selected(self) -> list[tuple[Any, tuple[str, str], dict[str, str]]]: ...
    def enter(self, row: Any, field: str, value: str) -> None: ...
    def export(self, path: Path) -> None: ...


def check_import(result: Any, n: int) -> None:
    """No error, every row met its image, and no warning but the one that is harmless."""
    assert result.imported and result.unmatched == [] and result.rows_changed == n, result
    assert [m for m in result.messages if not m.startswith((DATES, DATES_WHY))] == [], result.messages


class OurPerson:
    def __init__(self, root: Path) -> None:
        self.user = ImageSet.open(root, root / "TimelapseTemplate.tdb")

    def bring_in(self, path: Path) -> None:
        check_import(self.user.import_csv(path), n_rows(path))

    def recognise(self, path: Path) -> None:
        """Our own user imports no recognitions; what they must be is INTEROP's recipe."""
        said = json.loads(path.read_text(encoding="utf-8"))
        assert {"detector", "classifier", "detector_metadata", "classifier_metadata"} <= set(said["info"])
        known = {row.path.replace("\\", "/") for row in self.user.select_all()}
        for image in said["images"]:
            assert image["file"] in known
            for box in image["detections"]:
                assert box["category"] in said["detection_categories"] and 0 < box["conf"] <= 1
                numbers = [number for number, _ in box["classifications"]]
                assert numbers and set(numbers) <= set(said["classification_categories"])

    def selected(self) -> list[tuple[Any, tuple[str, str], dict[str, str]]]:
        return [(row, row.key, row.values) for row in self.user.select_selected()]

    def enter(self, row: Any, field: str, value: str) -> None:
        self.user.set_value(row, field, value)

    def export(self, path: Path) -> None:
        self.user.export_csv(path)
        self.user.select_all()


class ThePerson:
    def __init__(self, reference: ModuleType, root: Path) -> None:
        self.findings = reference.check_tdb(root / "TimelapseTemplate.tdb")
        self.user = reference.ImageSet.open(root)
        assert list(self.findings) == []

    def bring_in(self, path: Path) -> None:
        check_import(self.user.import_csv(path), n_rows(path))

    def recognise(self, path: Path) -> None:
        result = self.user.import_recognitions(path)
        told = [finding for finding in result.findings if finding.severity != "info"]
        assert result.imported and told == [] and result.unmatched_files == [], str(result.findings)

    def selected(self) -> list[tuple[Any, tuple[str, str], dict[str, str]]]:
        assert self.user.select([("Selected", "=", "true")])
        rows = [dict(row) for row in self.user.rows()]
        return [(row["Id"], (row["RelativePath"].replace("\\", "/"), row["File"]), row) for row in rows]

    def enter(self, row: Any, field: str, value: str) -> None:
        self.user.set_value(row, field, value)

    def export(self, path: Path) -> None:
        self.user.export_csv(path)
        self.user.select_all()


def n_rows(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines()) - 1


def play_round(season: Season, person: Person, name: str) -> dict[str, int]:
    """Import all that is there, type two thirds of what is asked for, confirm the rest where it is right; export."""
    work = season.work
    person.bring_in(work / "timelapse_selector.csv")
    person.bring_in(work / "timelapse_predictions.csv")
    person.recognise(work / "timelapse_recognitions.json")
    rows = person.selected()
    assert sorted("/".join(filter(None, key)) for _, key, _ in rows) == sorted(season.asked())
    expected = {"confirmed": 0, "oracle": 0}
    for n, (row, key, values) in enumerate(rows):
        truth = season.truth[key]
        is_right = values["Prediction"] == truth
        assert values["Prediction"] in HUES and 0 < float(values["Confidence"]) <= 1
        if is_right and n % 3:
            person.enter(row, "Confirmed", "true")
        else:
            person.enter(row, "Species", truth)
        expected["confirmed" if is_right and n % 3 else "oracle"] += 1
    person.export(work / "new_labels_bin" / name)
    return expected


def check_taken(season: Season, name: str, expected: dict[str, int]) -> None:
    """All rows were taken, with nothing to remark, as what they were: typed or confirmed."""
    receipt = json.loads((season.work / "new_labels_bin" / f"{name}.receipt.json").read_text(encoding="utf-8"))
    assert (receipt["verdict"], receipt["rejected"], receipt["warnings"]) == ("accepted", [], []), receipt
    assert receipt["counts"]["accepted"] == sum(expected.values())
    work = Work.open(season.work)
    try:
        labels = work.history.labels
        of_file = [label.provenance for label in labels.values() if label.seq == receipt["seq"]]
        assert {kind: of_file.count(kind) for kind in expected} == expected
        known = {(key.relative_path, key.file): label.species for key, label in labels.items()}
    finally:
        work.close()
    assert all(season.truth[key] == species for key, species in known.items() if key in season.truth)


def play(season: Season, open_: Callable[[Path], Person]) -> None:
    season.run()
    lines, is_usable = check_or_make(season.work)
    assert is_usable and lines[-1] == "It can be used."
    template = (season.root / "pool" / "TimelapseTemplate.tdb").read_bytes()
    person, n_confirmed = open_(season.root / "pool"), 0
    for number in (1, 2, 3):
        assert season.placed() == number
        expected = play_round(season, person, f"round{number}.csv")
        n_confirmed += expected["confirmed"]
        season.run()
        check_taken(season, f"round{number}.csv", expected)
    assert n_confirmed >= 5
    # The real Timelapse writes its version into the template; this program never touches it.
    assert (season.root / "pool" / "TimelapseTemplate.tdb").read_bytes() == template


@pytest.mark.parametrize("first", ["now", "embedded"])
def test_rounds_played_by_our_own_user_are_taken_whole(new_season: Callable[..., Season], first: str) -> None:
    play(new_season(query__first=first), OurPerson)


@pytest.mark.skipif(not ORACLE.is_file(), reason="shared/timelapse/timelapse_oracle.py is not beside this checkout")
def test_rounds_played_by_the_re_statement_of_timelapse_are_taken_whole(new_season: Callable[..., Season]) -> None:
    spec = importlib.util.spec_from_file_location("timelapse_oracle", ORACLE)
    assert spec is not None and spec.loader is not None
    module = sys.modules["timelapse_oracle"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    play(new_season(), lambda root: ThePerson(module, root))
