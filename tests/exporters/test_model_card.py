"""The model card: filled from the run, and what strangers wrote stands in it as text."""

from __future__ import annotations

import json
import re
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_model import make_source
from hypothesis import given
from hypothesis.strategies import text

from camera_trap_al.exporters import ImageFolder, RunFacts
from camera_trap_al.exporters.model_card import licence_line, model_card, plain
from camera_trap_al.exporters.onnx import read_parts
from camera_trap_al.layout import WorkFolder
from camera_trap_al.learn.evaluate import evaluate
from camera_trap_al.learn.exported import holds_export
from camera_trap_al.learn.onnx_files import read_onnx_facts
from camera_trap_al.learn.predict import open_export
from camera_trap_al.provenance import run_facts
from camera_trap_al.store import generations
from camera_trap_al_service.cli import main

CLASSES = ("blue", "green", "red")
TRUTH = ["blue"] * 30 + ["red"] * 5 + ["fox"] * 2
SAID = ["blue"] * 27 + ["red"] * 3 + ["red"] * 4 + ["blue"] + ["red"] * 2
RUN = RunFacts(
    made_at="2026-11-22T10:30:05Z",
    labels={"blue": 1234, "green": 25, "red": 7},
    n_propagated=12,
    folders=(ImageFolder("to label", "Season 2026", 54321),),
    n_sites=12,
    n_labelled_sites=7,
    metrics=evaluate(TRUTH, SAID, list(CLASSES)),
    estimate={"value": 0.91, "low": 0.85, "high": 0.95, "n_judged": 140},
    calibration_error=0.0312,
    calibrated_on="37 validation images",
)
FIXTURES = sorted((Path(__file__).resolve().parents[1] / "fixtures").glob("work-*.tar.gz"))


@pytest.fixture(scope="module")
def card_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    source = make_source(tmp_path_factory.mktemp("work"), CLASSES)
    parts = read_parts(source)

    def card(run: RunFacts, **facts: Any) -> str:
        return model_card(replace(source, run=run), parts.facts, parts.classifier, "camera_trap_al 9.9")

    return card


def section(card: str, name: str) -> str:
    return card.partition(f"## {name}\n\n")[2].partition("\n\n## ")[0]


def cells(part: str) -> dict[str, list[str]]:
    """Return the rows of a table by their first cell."""
    rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| ")]
    return {row[0]: row[1:] for row in rows[2:]}


def test_the_card_holds_what_the_run_knows(card_of: Callable[..., str]) -> None:
    card = card_of(RUN)
    assert "Fitted 2026-11-22 10:30 UTC" in card and "camera\\_trap\\_al 9.9" in card
    assert "1,266 labels, and 12 other images" in card and cells(card)["to label"] == ["Season 2026", "54,321"]
    by_class = cells(section(card, "Labels and validation by class"))
    assert by_class["blue"] == ["1,234", "30", "0.964", "0.900", "0.931"]
    assert by_class["green"] == ["25", "0", "-", "-", "-"]
    assert by_class["fox"] == ["0", "2", "-", "0.000", "0.000"]
    quality = section(card, "How good it is")
    assert "On 37 validation images" in quality and "accuracy 0.838" in quality
    assert "0.910 (95 % sure: 0.850 to 0.950)" in quality
    confused = [line for line in section(card, "What it confuses").splitlines() if line.startswith("| ")][2:]
    assert confused == ["| blue | red | 3 | 0.100 |", "| fox | red | 2 | 1.000 |", "| red | blue | 1 | 0.200 |"]
    assert "0.031, measured on 37 validation images" in section(card, "Calibration")
    assert "the owner of the images and labels decides" in section(card, "Licence")


def test_of_a_class_without_a_validation_image_only_precision_is_known(card_of: Callable[..., str]) -> None:
    run = replace(RUN, metrics=evaluate(["blue", "red"], ["blue", "green"], list(CLASSES)))
    by_class = cells(section(card_of(run), "Labels and validation by class"))
    assert by_class["green"][1:] == ["0", "0.000", "-", "-"] and by_class["red"][2:] == ["-", "0.000", "0.000"]


def test_the_limits_name_what_little_is_known_of(card_of: Callable[..., str]) -> None:
    limits = section(card_of(RUN), "What it must not be used for")
    assert "fewer than 20 labels, so hardly to be relied on: red (7)." in limits
    assert "fewer than 20 validation images: green (0), red (5)." in limits
    assert "but no class, so never right there: fox." in limits
    assert "5 of the 12 folders with images hold no label" in limits
    assert "not measured on validation images" in section(card_of(RunFacts()), "What it must not be used for")


def test_a_classifier_of_an_older_version_leaves_gaps(card_of: Callable[..., str]) -> None:
    card = card_of(RunFacts())
    assert "on a day that was not noted" in card and "did not note it" in section(card, "What it learned from")
    assert cells(section(card, "Labels and validation by class"))["red"] == ["-"] * 5
    assert "Not measured" in section(card, "How good it is") and "None" not in card and "nan" not in card


def test_a_long_licence_is_not_cut(card_of: Callable[..., str]) -> None:
    licence = "Free to use " + "with our names " * 40 + "and not to be sold"
    run = replace(RUN, licence=licence)
    assert licence_line(run) == licence and licence in card_of(run)


def test_equal_facts_give_equal_text(card_of: Callable[..., str]) -> None:
    assert card_of(RUN) == card_of(replace(RUN, made_at=RUN.made_at))


@pytest.mark.parametrize(
    "name",
    [
        "a | b | c",
        "<script>alert(1)</script>",
        "[me](http://evil.example)",
        "![x](https://evil.example/x.png)",
        "**bold** _it_ `code` ~~no~~",
        "# heading",
        "&lt;b&gt;",
        "www.evil.example",
        "me@evil.example",
        "line\nbreak\r| x | y |",
        "turned\u202eback",
        "$\\alpha$",
    ],
)
def test_what_people_wrote_stands_as_text(name: str, card_of: Callable[..., str]) -> None:
    run = replace(RUN, licence=name, folders=(ImageFolder("to label", name, 1),), calibrated_on=name)
    card = card_of(run)
    usual = card_of(RUN)
    assert card.count("\n") == usual.count("\n")
    for line in card.splitlines():
        bare = re.sub(r"\\.", "", line)
        assert bare.count("|") in (0, 4, 5, 7, 3), line
        assert not set("<>[]`*&$\u202e\r") & set(bare) and "://" not in bare and "www." not in bare, line


def test_a_name_that_a_spreadsheet_would_run_is_quoted() -> None:
    assert plain("=1+1") == "'=1+1" and plain("@x").startswith("'") and plain(" \n") == "(no name)"


@given(text(max_size=300))
def test_any_text_stays_on_one_line_of_one_cell(name: str) -> None:
    shown = plain(name)
    assert len(shown.splitlines()) == 1 and shown.encode("utf-8")
    assert "|" not in re.sub(r"\\.", "", shown)


def unpacked(fixture: Path, to: Path) -> Path:
    with tarfile.open(fixture) as archive:
        archive.extractall(to, **({"filter": "data"} if sys.version_info >= (3, 12) else {}))
    return to / "work"


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.name)
def test_exports_of_all_released_versions_open(fixture: Path, tmp_path: Path) -> None:
    export = unpacked(fixture, tmp_path) / "export"
    assert open_export(export).classes == open_export(export / "model.onnx").classes


def test_results_that_somebody_changed_leave_gaps(tmp_path: Path) -> None:
    folder = WorkFolder.at(unpacked(FIXTURES[-1], tmp_path))
    checkpoint = generations.newest(folder.checkpoints)
    assert checkpoint is not None

    def measured() -> bool:
        return bool(run_facts(folder, checkpoint, "").metrics)

    assert measured()
    results = folder.test_results / f"train_set_size_{checkpoint.manifest['n_labels']}"
    matrix, metrics = results / "confusion_matrix.npy", results / "metrics.json"
    whole, facts = matrix.read_bytes(), json.loads(metrics.read_text(encoding="utf-8"))
    for wrong in (b"", whole[:50], whole[:-8], b"[]", whole.replace(b"(3, 3)", b"(9, 9)")):
        matrix.write_bytes(wrong)
        assert not measured(), wrong[:20]
    matrix.write_bytes(whole)
    for key, value in (("accuracy", float("nan")), ("n", 3), ("per_class", {"a": 1}), ("checkpoint", 99)):
        metrics.write_text(json.dumps({**facts, key: value}), encoding="utf-8")
        assert not measured(), key
    metrics.write_text(json.dumps(facts), encoding="utf-8")
    assert measured()


def test_the_verb_overwrites_nothing_but_its_own_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = unpacked(FIXTURES[-1], tmp_path)
    (tmp_path / "photo.zip").write_bytes(b"a photograph")
    (tmp_path / "folder.zip").mkdir()
    before = sorted(tmp_path.iterdir())
    for name, words in (
        ("photo.zip", "holds something else than an export"),
        ("folder.zip", "holds something else than an export"),
        ("given", "no name of a ZIP file"),
        ("gone/x.zip", "There is no folder"),
    ):
        assert main(["export", str(work), "--zip", str(tmp_path / name)]) != 0
        assert words in capsys.readouterr().err
    assert (tmp_path / "photo.zip").read_bytes() == b"a photograph" and sorted(tmp_path.iterdir()) == before
    for name, data in (("manifest.json", b'{"name": "my program"}'), ("model.onnx", b"mine")):
        (tmp_path / "folder.zip" / name).write_bytes(data)
    for to in (tmp_path / "folder.zip", work / "checkpoints" / "gen-000004", tmp_path / "photo.zip"):
        assert to.exists() and main(["export", str(work), "--to", str(to)]) != 0
        assert "holds something else than an export" in capsys.readouterr().err
    assert (tmp_path / "folder.zip" / "model.onnx").read_bytes() == b"mine"


@pytest.mark.slow
def test_the_verb_makes_one_file_for_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = unpacked(FIXTURES[-1], tmp_path)
    config = (work / "config.toml").read_text(encoding="utf-8")
    (work / "config.toml").write_text(f'{config}\n[export]\nlicence = "CC BY 4.0"\n', encoding="utf-8")
    given = tmp_path / "given"
    given.mkdir()
    packed = given / "for others.zip"
    for _ in range(2):
        assert main(["export", str(work), "--zip", str(packed)]) == 0
        assert "predict" in capsys.readouterr().out
    assert holds_export(packed) and list(given.iterdir()) == [packed]
    with zipfile.ZipFile(packed) as archive:
        card = archive.read("model_card.md").decode("utf-8")
    assert "CC BY 4.0" in section(card, "Licence") and str(tmp_path) not in card
    out = tmp_path / "p.csv"
    assert main(["predict", str(packed), str(tmp_path / "validation"), "--out", str(out)]) == 0
    assert len(out.read_text(encoding="utf-8").splitlines()) == 10


@pytest.mark.slow
def test_a_run_fills_the_card_without_a_question(new_season: Callable[..., Any], no_torch: None) -> None:
    season = new_season(classifier__head="logistic", export__licence="CC0")
    season.run()
    label = season.person()
    label()
    season.run()
    labels = [name for name in season.labels_csv().values() if name != "unlabelled"]
    card = (season.work / "export" / "model_card.md").read_text(encoding="utf-8")
    by_class = cells(section(card, "Labels and validation by class"))
    # Two images a class were in the training folder, four in the one for validation.
    assert {name: int(row[0]) for name, row in by_class.items()} == {
        name: labels.count(name) + 2 for name in ("blue", "green", "red")
    }
    assert [row[1] for row in by_class.values()] == ["4"] * 3
    assert cells(section(card, "What it learned from")) == {
        "to train on": ["train", "6"],
        "for validation": ["validation", "12"],
        "to label": ["pool", "60"],
    }
    assert "in 3 folders (sites)" in card and "12 validation images" in section(card, "Calibration")
    assert section(card, "Licence").strip() == "CC0" and str(season.root) not in card
    about = read_onnx_facts((season.work / "export" / "model.onnx").read_bytes()).metadata
    assert sum(json.loads(about["training_counts"]).values()) == len(labels) + 6
    assert json.loads(about["calibration"])["measured_on"] == "12 validation images"


@pytest.mark.slow
def test_without_validation_images_the_card_says_so(new_season: Callable[..., Any], no_torch: None) -> None:
    season = new_season(("train",))
    season.run()
    label = season.person()
    for _ in range(2):
        label()
        season.run()
    card = (season.work / "export" / "model_card.md").read_text(encoding="utf-8")
    assert (
        "- It was not measured on validation images." in card and section(card, "What it confuses") == "Not measured."
    )
