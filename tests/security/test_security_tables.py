"""CSV files in and out: what takes long, what a spreadsheet would run, and class names that look like paths."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_model import make_source, save_picture
from hypothesis import given
from hypothesis import strategies as st
from made_predictions import predictions
from small_world import answer, contents, make_world, run

from camera_trap_al.core.matching import KnownClasses
from camera_trap_al.core.records import ImageKey
from camera_trap_al.core.spreadsheets import is_safe_name, safe_cell, unguarded
from camera_trap_al.errors import LabelFileError
from camera_trap_al.exporters import exporters
from camera_trap_al.labels import timelapse
from camera_trap_al.labels.lines import LabelLines, SelectorLines
from camera_trap_al.labels.receipts import report_text
from camera_trap_al.labels.species_csv import read_species_csv
from camera_trap_al.learn.evaluate import evaluate, write_results
from camera_trap_al_service.cli import main

FORMULAS = ("=1+1", "=cmd|' /C calc'!A0", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "=A1(1)", '"=1', "=1;\n=2")
STARTS = ("=", "+", "-", "@", "\t", "\r", "\0")
NASTY = ("../x", "CON", "a/b", "n" * 300, "trailing dot.", "..", "C:\\x", "LPT1.txt", "a\\b", "~", "$(x)", "NUL")


def rows_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.slow
@given(st.text())
def test_free_text_never_starts_a_formula_and_can_be_had_back(text: str) -> None:
    assert not safe_cell(text).startswith(STARTS)
    if not text.startswith("'"):
        assert unguarded(safe_cell(text)) == text


@pytest.mark.parametrize("species", FORMULAS)
def test_a_class_is_free_text_in_every_csv(tmp_path: Path, species: str) -> None:
    key = ImageKey('site, "A"\n\'', "+1.jpg")
    listed, said = SelectorLines([key]), predictions({key: (species, 0.5)})
    timelapse.write_labels(tmp_path / "labels.csv", LabelLines([key]), [key], [species])
    timelapse.write_predictions(tmp_path / "predictions.csv", listed, said)
    timelapse.write_problems(tmp_path / "problems.csv", ["path", "text"], [[key.path, species]])
    for name, places in {"labels.csv": (1,), "predictions.csv": (2,), "problems.csv": (0, 1)}.items():
        header, row = rows_of(tmp_path / name)
        assert len(row) == len(header)
        assert all(not row[place].startswith(STARTS) for place in places)
        assert unguarded(row[places[-1]]) == species


@pytest.mark.parametrize(
    "name", ["+1.jpg", "-2.jpg", "@home.jpg", "a,b.jpg", 'quo"te.jpg', "'x.jpg", "=1.jpg", " x.jpg"]
)
def test_keys_are_written_as_they_are(tmp_path: Path, name: str) -> None:
    key = ImageKey("", name)
    listed = SelectorLines([key])
    timelapse.write_selector(tmp_path / "s.csv", listed, [key])
    timelapse.write_labels(tmp_path / "l.csv", LabelLines([key]), [], [])
    timelapse.write_predictions(tmp_path / "p.csv", listed, predictions({key: ("deer", 1.0)}))
    assert rows_of(tmp_path / "s.csv")[1] == [name, "", "true"]
    assert rows_of(tmp_path / "l.csv")[1] == [name, "unlabelled"]
    assert rows_of(tmp_path / "p.csv")[1] == [name, "", "deer", "1.000"]


@pytest.mark.parametrize(
    "name", ["=cmd|' /C calc'!A0.jpg", "+(1).jpg", "@x!y.jpg", "a\nb.jpg", "a\x1bb.jpg", "a\u2028b.jpg"]
)
def test_a_key_that_could_harm_is_written_nowhere(name: str) -> None:
    assert not is_safe_name(name) and not is_safe_name(f"site/{name}")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows allows none of these characters in names")
def test_predict_lists_names_that_could_harm_as_unreadable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_source(tmp_path / "source", classes=("=1+1", "unknown", "@red"))
    (tmp_path / "export").mkdir()
    exporters["onnx"].write(source, tmp_path / "export")
    for name in ("=cmd|' C calc'!A0.png", "blue.png", "a\x1b[2Jb\n.png"):
        save_picture(tmp_path / "images" / name, "blue", 1)
    save_picture(tmp_path / "images" / "green.png", "green", 1)
    out = tmp_path / "out.csv"
    arguments = ["predict", str(tmp_path / "export"), str(tmp_path / "images"), "--out", str(out), "--probabilities"]
    assert main([*arguments, "--min-confidence", "1"]) == 0
    header, *rows = rows_of(out)
    assert [row[1] for row in rows] == ["blue.png", "green.png"]
    assert not any(cell.startswith(STARTS) for row in [header, *rows] for cell in row)
    # A class that is called so is told from "not sure" by its probability, the largest one.
    assert [row[2] for row in rows] == ["unknown", "unknown"]
    assert [header[4 + int(np.argmax([float(p) for p in row[4:]]))] for row in rows] == ["p_=1+1", "p_unknown"]
    assert main(arguments) == 0
    assert [row[2] for row in rows_of(out)[1:]] == ["'=1+1", "unknown"]
    assert len(rows_of(tmp_path / "out.csv.unreadable.csv")) == 3
    assert all(not cell.startswith(STARTS) for row in rows_of(tmp_path / "out.csv.unreadable.csv") for cell in row)
    said = capsys.readouterr()
    assert "Classified 2 images" in said.out and "\x1b" not in said.out + said.err


@pytest.mark.slow
def test_a_confirmed_prediction_that_was_guarded_still_means_its_class(tmp_path: Path, no_torch: None) -> None:
    work = make_world(tmp_path, classes=("=red", "-green"))
    run(work)
    answer(work, species={"red": "=red", "green": "-green"})
    run(work)
    header, *rows = rows_of(work / "timelapse_predictions.csv")
    assert rows and {row[2] for row in rows} <= {"'=red", "'-green"}
    with (work / "new_labels_bin" / "confirmed.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["File", "RelativePath", "Species", "Confirmed", "Prediction"])
        asked = [row for row in rows_of(work / "timelapse_selector.csv")[1:] if row[2] == "true"]
        said = {(row[0], row[1]): row[2] for row in rows}
        writer.writerows([name, folder, "", "true", said[name, folder]] for name, folder, _ in asked)
    run(work)
    labels = {path: unguarded(species) for path, species in rows_of(work / "data" / "labels.csv")[1:]}
    assert set(labels.values()) == {"=red", "-green"}
    assert not any("stale" in p.read_text(encoding="utf-8") for p in work.glob("new_labels_bin/confirmed*.json"))


@pytest.mark.slow
def test_no_class_name_becomes_a_path(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b" / "work"
    source = make_source(inner / "source", classes=NASTY[:3])
    (inner / "export").mkdir()
    exporters["onnx"].write(source, inner / "export")
    plain = make_source(tmp_path / "plain" / "source")
    (tmp_path / "plain" / "export").mkdir()
    exporters["onnx"].write(plain, tmp_path / "plain" / "export")
    assert contents(inner / "export").keys() == contents(tmp_path / "plain" / "export").keys()
    metrics = evaluate(list(NASTY), list(reversed(NASTY)), sorted(NASTY))
    write_results(inner / "test_results" / "train_set_size_12", metrics, checkpoint=1, train_set_size=12)
    names = set(contents(inner / "test_results"))
    assert names == {
        f"train_set_size_12/{name}" for name in ("confusion_matrix.npy", "confusion_matrix.png", "metrics.json")
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "plain"]


@pytest.mark.parametrize("species", NASTY)
def test_a_label_that_looks_like_a_path_is_only_text(species: str) -> None:
    classes = KnownClasses([species, "deer"])
    assert classes.match(species).name == species


QUOTES = {
    "one quote that never ends": b'"',
    "quotes alone": b'""' * 50,
    "quote and comma": b'",' * 50,
    "escaped quotes": b'"""' * 33,
    "blanks and quote": b' "' * 50,
    "stray quotes": b'a"b,' * 25,
}


@pytest.mark.parametrize("name", QUOTES)
def test_the_work_for_adversarial_quotes_grows_as_the_file_does(tmp_path: Path, name: str) -> None:
    """Count what the interpreter does, which no busy machine changes: ten times the bytes, at most twelve times the work."""

    def work_for(n: int) -> int:
        path = tmp_path / f"{n}.csv"
        path.write_bytes(b"File,RelativePath,Species\r\n" + b"\r\n".join([QUOTES[name]] * n))
        count = 0

        def step(*_: object) -> object:
            nonlocal count
            count += 1
            return step

        before = sys.getprofile()
        sys.setprofile(step)  # type: ignore[arg-type]
        try:
            for _ in read_species_csv(path, column="Species", knows=lambda folder, file: False).rows:
                pass
        except LabelFileError:
            pass
        finally:
            sys.setprofile(before)
        return count

    small, large = work_for(30), work_for(300)
    assert large <= 12 * small + 1_000


def test_a_report_holds_no_formula() -> None:
    receipt = {
        "file": "=1.csv",
        "verdict": "rejected",
        "requested_left": 0,
        "warnings": ["=1+1", "a, =2"],
        "counts": {"rows": 1, "accepted": 0, "corrected": 0, "rejected": 1, "unchanged": 0, "skipped": 0}
        | {"unlabelled": 0, "unrequested": 0},
        "rejected": [
            {
                "line": 2,
                "path": "@x",
                "label": "=1",
                "code": "unknown_species",
                "text": "'=1' is no class",
                "suggest": ["=2"],
            }
        ],
    }
    text = report_text(receipt)
    assert text is not None
    cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
    assert cells and not any(cell.lstrip().startswith(("=", "+", "-", "@")) for cell in cells)


def test_a_confusion_matrix_is_no_pickle(tmp_path: Path) -> None:
    metrics = evaluate(["=1", "b"], ["b", "b"], ["=1", "b"])
    write_results(tmp_path, metrics, checkpoint=1, train_set_size=2)
    assert np.load(tmp_path / "confusion_matrix.npy", allow_pickle=False).sum() == 2
