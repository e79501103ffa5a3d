"""The verb `import-timelapse`: what it shows of a Timelapse image database, and what becomes a label."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_database import answer, write_database
from season import Season

from camera_trap_al.config_file import with_values
from camera_trap_al.core.records import LabelRow
from camera_trap_al.core.seeds import key_hash
from camera_trap_al.labels.published import note_published
from camera_trap_al.store.journal import read_journal
from camera_trap_al_service import import_timelapse, timelapse_verbs
from camera_trap_al_service.cli import main
from camera_trap_al_service.import_timelapse import as_label_files

Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def take(season: Season, capsys: pytest.CaptureFixture[str]) -> Said:
    """Return a function that imports a database into the season: its status, what it says, what it complains of."""

    def run(database: Path, *more: str) -> tuple[int, str, str]:
        code = main(["import-timelapse", str(season.work), str(database), *more])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def ddb(season: Season, *rows: dict[str, str], at: str = "pool/TimelapseData.ddb", **more: Any) -> Path:
    path = season.root / at
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_database(path, rows, **more)


def journal(season: Season, kind: str = "labels") -> list[dict[str, Any]]:
    return [dict(line) for line in read_journal(season.work / "data" / "journal.jsonl")[0] if line["kind"] == kind]


def labels(season: Season) -> dict[str, str]:
    rows = [row for line in journal(season) for row in line["rows"]]
    return {f"{folder}/{file}".lstrip("/"): species for folder, file, species, _ in rows}


def unasked(season: Season, n: int) -> list[str]:
    paths = sorted(f"{folder}/{file}".lstrip("/") for folder, file in season.truth)
    return [path for path in paths if path not in season.asked()][:n]


def test_labels_are_shown_by_species_and_taken_whoever_asked(season: Season, take: Said) -> None:
    a, b, c, d = [*unasked(season, 3), season.asked()[0]]
    rows = [answer(a, "red"), answer(b, "RED"), answer(c, "Wolf"), answer(d, "blue"), answer("site a/IMG_0001.JPG")]
    database = ddb(season, *rows)
    before = (database.read_bytes(), database.stat().st_mtime_ns)
    code, out, _ = take(database, "--yes")
    assert code == 0
    assert "5 rows, 4 of them with an answer" in out and "        1  RED  (the class red)" in out
    assert "        1  Wolf  (no class of this project)" in out
    assert "3 labels would be taken: 3 of images without a label, 0 that change one." in out
    assert f"{c}: 'Wolf' is not a class" in out and "3 labels taken" in out
    assert labels(season) == {a: "red", b: "red", d: "blue"}
    assert (database.read_bytes(), database.stat().st_mtime_ns) == before


def test_the_label_file_is_answered_like_any_other_and_can_be_undone(season: Season, take: Said) -> None:
    a, b = unasked(season, 2)
    assert take(ddb(season, answer(a, "red"), answer(b, "blue")), "--yes")[0] == 0
    season.turn()
    [receipt] = (season.work / "new_labels_bin").glob("imported-*.csv.receipt.json")
    assert json.loads(receipt.read_text(encoding="utf-8"))["counts"]["accepted"] == 2
    assert len(journal(season)) == 1, "the copy in the bin is not read again"
    assert main(["labels", str(season.work), "--undo", str(journal(season)[0]["seq"])]) == 0


def test_the_same_again_is_nothing_new_and_a_correction_is_told(season: Season, take: Said) -> None:
    a, b = unasked(season, 2)
    database = ddb(season, answer(a, "red"), answer(b, "blue"))
    assert take(database, "--yes")[0] == 0
    code, out, _ = take(database, "--yes")
    assert code == 0 and "2 are known already" in out and "nothing new to take" in out
    ddb(season, answer(a, "red"), answer(b, "green"))
    code, out, _ = take(database, "--yes")
    assert code == 0 and "1 label would be taken: 0 of images without a label, 1 that change one. 1 are known" in out
    assert labels(season) == {a: "red", b: "green"}


def test_a_default_is_left_out_unless_it_is_wanted(season: Season, take: Said) -> None:
    a, b = unasked(season, 2)
    database = ddb(season, answer(a, "blue"), answer(b, "red"), default="blue")
    code, out, _ = take(database, "--yes")
    assert code == 0 and "Left out: 1 row whose Species is 'blue'" in out and labels(season) == {b: "red"}
    code, out, _ = take(database, "--yes", "--with-default")
    assert code == 0 and "Left out" not in out and labels(season) == {a: "blue", b: "red"}


def test_a_prediction_of_the_csv_is_confirmed_though_no_request_ever_said_it(season: Season, take: Said) -> None:
    a, b = unasked(season, 2)
    names = ["blue", "red"]
    note_published(
        season.work / "data" / "published.npz", np.array([key_hash(a)], dtype=np.int64), np.array([1]), names
    )
    rows = [answer(path, Confirmed="true", Prediction="red") for path in (a, b)]
    code, out, _ = take(ddb(season, *rows), "--yes")
    assert code == 0 and "1 of them confirmed predictions" in out and labels(season) == {a: "red"}
    assert f"{b}: the prediction 'red' was never ours" in out
    assert [row[3] for row in journal(season)[0]["rows"]] == ["confirmed"]


def test_duplicates_confirmations_and_deleted_images_follow_the_rules_of_label_files(
    season: Season, take: Said
) -> None:
    a, b, c, d, e = unasked(season, 5)
    rows = [answer(a, "red"), answer(a, "blue"), answer(b, "red"), answer(b, "red"), answer(c, DeleteFlag="True")]
    rows += [answer(d, Confirmed="true", Prediction="red"), answer(e, "unsure")]
    code, out, _ = take(ddb(season, *rows), "--yes")
    assert code == 0 and labels(season) == {b: "red"}
    assert "cannot be told: 1, several species: 1, marked for deletion: 1" in out
    assert "was never ours for this image" in out and "unsure  (cannot be told)" in out
    assert {skip[2] for skip in journal(season)[0]["skips"]} == {"cannot_tell", "several_species", "withdrawn"}


def test_it_asks_on_a_terminal(season: Season, take: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    database = ddb(season, answer(unasked(season, 1)[0], "red"))
    monkeypatch.setattr(timelapse_verbs.sys.stdin, "isatty", lambda: True, raising=False)
    for typed, code_, taken in (("", 0, 0), ("n", 0, 0), (None, 0, 0), ("Y", 0, 1)):

        def reply(typed: str | None = typed) -> str:
            if typed is None:
                raise EOFError
            return typed

        monkeypatch.setattr("builtins.input", reply)
        code, out, err = take(database)
        assert code == code_ and "Take them?" in err and ("Nothing was taken" in out) == (not taken)
        assert len(labels(season)) == taken


def test_without_a_terminal_it_takes_nothing_unless_told_to(
    season: Season, take: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timelapse_verbs.sys.stdin, "isatty", lambda: False, raising=False)
    code, out, err = take(ddb(season, answer(unasked(season, 1)[0], "red")))
    assert code == 2 and "1 label would be taken" in out and "Add --yes" in err and not journal(season)


def test_a_database_of_the_folder_above_is_refused_with_the_setting_that_mends_it(season: Season, take: Said) -> None:
    a = unasked(season, 1)[0]
    database = ddb(season, answer(f"pool/{a}", "red"), answer("elsewhere/x.JPG", "red"), at="TimelapseData.ddb")
    code, _, err = take(database, "--yes")
    assert (
        code == 2 and "is not the folder of images" in err and 'path_alias = ["pool="]' in err and not journal(season)
    )
    config = season.work / "config.toml"
    text = config.read_text(encoding="utf-8").replace("path_alias = []", 'path_alias = ["pool="]')
    config.write_text(text, encoding="utf-8")
    code, out, _ = take(database, "--yes")
    assert code == 0 and labels(season) == {a: "red"} and "no image of the pool has this path" in out


def test_a_database_of_a_folder_below_is_refused_with_the_setting_that_mends_it(season: Season, take: Said) -> None:
    database = ddb(season, answer("north/IMG_0000.JPG", "red"), at="pool/site a/TimelapseData.ddb")
    code, _, err = take(database, "--yes")
    assert code == 2 and 'path_alias = ["=site a"]' in err and not journal(season)


def test_a_database_of_other_images_is_refused(season: Season, take: Said) -> None:
    code, _, err = take(ddb(season, answer("north/x.JPG", "red"), at="away/a.ddb"), "--yes")
    assert code == 2 and "None of the 1 answered rows" in err and "'north/x.JPG'" in err and not journal(season)


def test_one_without_any_answer_has_nothing_to_take(season: Season, take: Said) -> None:
    code, out, _ = take(ddb(season, answer(unasked(season, 1)[0])))
    assert code == 0 and "1 rows, 0 of them with an answer" in out and "nothing new to take" in out


def test_what_only_names_unknown_species_ends_with_1(season: Season, take: Said) -> None:
    code, out, _ = take(ddb(season, answer(unasked(season, 1)[0], "Wolf")), "--yes")
    assert code == 1 and "nothing new to take" in out and not journal(season)


@pytest.mark.parametrize("kind", ["template", "old", "cut", "foreign", "away"])
def test_a_file_that_is_no_image_database_gets_one_sentence(season: Season, take: Said, kind: str) -> None:
    path = ddb(season, answer(unasked(season, 1)[0], "red"), version="2.2.2.0" if kind == "old" else "2.5.0.6")
    if kind == "template":
        path = season.root / "pool" / "TimelapseTemplate.tdb"
    elif kind == "away":
        path.unlink()
    elif kind in ("cut", "foreign"):
        path.write_bytes(path.read_bytes()[:5000] if kind == "cut" else b"File,RelativePath,Species\r\n")
    before = sorted((p, p.stat().st_mtime_ns) for p in season.root.rglob("*"))
    code, out, err = take(path, "--yes")
    assert code in (1, 2) and not out and err.startswith("camera-trap-al: ") and err.count("\n") == 1
    assert sorted((p, p.stat().st_mtime_ns) for p in season.root.rglob("*")) == before


def test_another_name_of_the_species_field_is_read(season: Season, take: Said) -> None:
    config = season.work / "config.toml"
    config.write_text(
        with_values(config.read_text(encoding="utf-8"), {"labels.column": "Prediction"}), encoding="utf-8"
    )
    a = unasked(season, 1)[0]
    code, _, err = take(ddb(season, answer(a, "blue", Prediction="green")), "--yes")
    assert code == 0 and labels(season) == {a: "green"}, err


def test_a_work_folder_that_was_never_started_is_named(season: Season, take: Said) -> None:
    os.rename(season.work / "data" / "journal.jsonl", season.root / "kept.jsonl")
    code, _, err = take(ddb(season, answer("IMG_0000.JPG", "red")), "--yes")
    assert code == 2 and "was never started" in err


def test_all_rows_of_an_image_come_in_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_timelapse, "MOST_ROWS", 3)
    rows = [LabelRow(n, "a", f"{n // 2}.JPG", "red") for n in range(11)] + [LabelRow(11, "b", "5.JPG", "red")]

    def files() -> list[list[str]]:
        return [text.splitlines()[1:] for text in as_label_files(rows)]

    lines = [f"{row.file},{row.relative_path},red,,," for row in rows]
    assert files() == [lines[:4], lines[4:8], lines[8:11], lines[11:]]
    monkeypatch.setattr(import_timelapse, "MOST_CHARACTERS", 1)
    assert [len(file) for file in files()] == [2, 2, 2, 2, 2, 1, 1]
