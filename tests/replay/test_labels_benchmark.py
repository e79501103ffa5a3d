"""The benchmark of labels: how a set is laid out, the recall of rare classes, and what the table and the medians say."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from made_season import made_season

from benchmarks.labels.figures import overall, panel, rare_recall, table
from benchmarks.labels.sets import Photograph, PhotographSet, laid_out
from camera_trap_al.comparison import Replays
from camera_trap_al.replay import Method
from camera_trap_al.strategies import strategies

ROOT = Path(__file__).parents[2]
STORED = json.loads((ROOT / "benchmarks" / "labels" / "stored.json").read_text(encoding="utf-8"))


def photographs(data: Path, folder: Path) -> Iterator[Photograph]:
    for i in range(6):
        yield Photograph(lambda target: target.write_bytes(b"picture"), f"{i}.jpg", f"site{i % 2}", "hare", i > 3)


def test_a_set_is_laid_out_by_site_and_class_and_its_truth_names_what_is_to_be_labelled(tmp_path: Path) -> None:
    place = laid_out(PhotographSet("made", photographs, 5, 10), tmp_path, tmp_path)
    found = sorted(path.relative_to(place).as_posix() for path in place.rglob("*.jpg"))
    pool = ["pool/site0/0.jpg", "pool/site0/2.jpg", "pool/site1/1.jpg", "pool/site1/3.jpg"]
    assert found == [*pool, "validation/hare/4.jpg", "validation/hare/5.jpg"]
    with (place / "truth.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["RelativePath"], row["File"], row["Species"]) for row in csv.DictReader(file)]
    assert rows == [(f"site{i % 2}", f"{i}.jpg", "hare") for i in range(4)]


def test_a_set_that_was_cut_short_is_laid_out_anew(tmp_path: Path) -> None:
    (tmp_path / "made" / "pool" / "old").mkdir(parents=True)
    (tmp_path / "made" / "pool" / "old" / "left.jpg").write_bytes(b"half")
    place = laid_out(PhotographSet("made", photographs, 5, 10), tmp_path, tmp_path)
    assert not (place / "pool" / "old").exists() and (place / "truth.csv").is_file()


def test_the_rarest_quarter_of_the_classes_that_can_be_measured_is_what_counts() -> None:
    season = made_season(n_train=0, n_pool=60, n_validation=40)
    # Of three classes one is the rarest; the first, with fewer than eight validation images, is not measured.
    labels = season.labels.copy()
    labels[:60] = [0] * 5 + [1] * 15 + [2] * 40
    labels[60:] = [0] * 7 + [1] * 10 + [2] * 23
    season = SimpleNamespace(
        labels=labels, validation=slice(60, 100), n_known=60, classes=season.classes
    )  # what is read of a season
    points = [{"asked": asked, "hits": [7, hits, 1]} for asked, hits in ((25, 10), (50, 2), (100, 5))]
    runs = {0: points, 1: [{**point, "hits": [0, 10, 0]} for point in points]}
    replays: Any = SimpleNamespace(points={"margin": runs})
    assert rare_recall(season, replays, "margin") == {"50": 0.6, "100": 0.75}


def saved(value: float | None) -> dict[str, Any]:
    return {"value": value, "low": value, "high": value, "at_least": False}


def said(saving: float | None, recall: float) -> dict[str, Any]:
    labels = {"90": {"value": 100.0, "low": 90.0, "high": None}}
    score = {"labels": labels, "asked": [50, 100, 400]}
    both = {"accuracy": saved(saving), "macro_f1": saved(0.25)}
    mine = {"seeds": 20, "accuracy": score, "macro_f1": score}
    return {
        "default": "ours",
        "best": {name: {"score": 0.9, "head": "mlp"} for name in ("accuracy", "macro_f1")},
        "methods": {"ours": {**mine, "saving_against_uniform": both, "saving_against_seed": both}, "seed_recipe": mine},
        "rare_recall": {"ours": {"50": recall}, "seed_recipe": {"50": 0.5}},
    }


def test_what_is_not_known_counts_as_nothing_saved_and_recalls_are_pooled() -> None:
    found = overall({"a": said(0.5, 0.7), "b": said(None, 0.9), "c": said(0.4, 0.5)})
    assert found["ours"]["saving_against_seed"] == {"accuracy": 0.4, "macro_f1": 0.25}
    assert found["ours"]["rare_recall_above_seed"]["50"] == pytest.approx(0.2)
    assert found["ours"]["rare_recall_above_seed"]["400"] is None


def test_the_table_says_what_share_of_others_labels_is_needed_with_its_interval() -> None:
    lines = table({"set a": said(0.6, 0.5)}).splitlines()
    assert lines[0] == "**set a** (all labels: accuracy 0.900, macro F1 0.900)"
    assert any(line.startswith("| **ours** | 20 | 100 (90–> 400) | 40% (40%–40%) |") for line in lines)
    assert any(line.startswith("| seed_recipe | 20 | 100 (90–> 400) | – | – |") for line in lines)
    assert {line.count("|") for line in lines[2:] if line} == {lines[2].count("|")}


def test_recall_is_of_images_and_not_of_guesses() -> None:
    season = made_season(n_train=0, n_pool=60, n_validation=60)
    none = np.zeros(3, int).tolist()
    replays: Any = SimpleNamespace(points={"margin": {0: [{"asked": 50, "hits": none}]}})
    assert rare_recall(season, replays, "margin") == {"50": 0.0}


def test_a_panel_shows_the_default_its_uniform_draw_and_the_original_and_nothing_else() -> None:
    names = {
        "ours": ("margin", "mlp"),
        "other": ("entropy", "mlp"),
        "uniform": ("uniform", "mlp"),
        "seed_recipe": ("margin", "seed_recipe"),
    }
    methods = tuple(Method(name, *what) for name, what in names.items())
    points = {name: {0: [{"asked": 0, "macro_f1": 0.2}, {"asked": 10, "macro_f1": 0.6}]} for name in names}
    replays = Replays(methods, points, {"mlp": [{"macro_f1": 0.9}], "semi": [{"macro_f1": 0.8}]}, "ours")
    curves, best, who = panel(replays)
    assert [(curve.name, curve.role) for curve in curves] == [
        ("ours", "default"),
        ("uniform", "uniform"),
        ("seed_recipe", "recipe"),
    ]
    assert (best, who) == (0.9, "mlp, all labels") and curves[0].scores.tolist() == [[0.2, 0.6]]


def test_the_tables_in_the_documentation_are_those_of_the_stored_replays() -> None:
    text = (ROOT / "docs" / "label-efficiency.md").read_text(encoding="utf-8")
    assert text.endswith(table(STORED["sets"]).rstrip() + "\n")
    for name in strategies.names():
        assert f"| {name}" in text or f"| **{name}**" in text


def test_a_strategy_that_is_worse_than_a_uniform_draw_beyond_the_noise_says_so_in_its_help() -> None:
    worse = set()
    for said in STORED["sets"].values():
        for found in said["methods"].values():
            saved = found.get("saving_against_uniform", {})
            if saved and all(score["high"] is not None and score["high"] < 0 for score in saved.values()):
                worse.add(found["strategy"])
    assert worse
    help_of = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")
    for name in worse:
        (row,) = [line for line in help_of.splitlines() if line.startswith(f"| `{name}` |") and "slowly" in line]
        assert "more slowly than `uniform`" in row
