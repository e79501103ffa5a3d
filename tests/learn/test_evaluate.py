"""Metrics against a slow, obvious version; result folders and the learning curve."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from camera_trap_al.learn.evaluate import calibration_error, evaluate, write_learning_curve, write_results
from camera_trap_al.learn.figures import cut_name
from camera_trap_al.store.atomic import failpoints

CLASSES = ["cat", "dog", "emu", "fox"]
names = st.sampled_from(CLASSES)


def png(path: Path) -> Image.Image:
    image = Image.open(path)
    image.load()
    return image


def test_a_hand_worked_example() -> None:
    truth = ["cat", "cat", "cat", "dog", "dog", "emu"]
    predicted = ["cat", "cat", "dog", "dog", "dog", "cat"]
    metrics = evaluate(truth, predicted, CLASSES)
    assert metrics["accuracy"] == metrics["micro_precision"] == metrics["micro_recall"] == pytest.approx(4 / 6)
    assert metrics["macro_precision"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert metrics["macro_recall"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 4 / 5 + 0) / 3)
    assert metrics["conf_mat_classes"] == ["cat", "dog", "emu"]
    assert metrics["confusion_matrix"] == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert metrics["per_class"]["dog"] == {
        "precision": pytest.approx(2 / 3),
        "recall": 1.0,
        "f1": pytest.approx(0.8),
        "support": 2,
        "predicted": 3,
    }


@pytest.mark.slow
@given(st.lists(st.tuples(names, names), min_size=1, max_size=40))
def test_the_metrics_are_those_that_scikit_learn_gives_the_reference(pairs: list[tuple[str, str]]) -> None:
    from sklearn.metrics import confusion_matrix, f1_score, precision_score, recall_score

    truth, predicted = [t for t, _ in pairs], [p for _, p in pairs]
    metrics = evaluate(truth, predicted, CLASSES)
    for average in ("micro", "macro"):
        for name, score in (("precision", precision_score), ("recall", recall_score)):
            wanted = score(truth, predicted, average=average, zero_division=0)
            assert metrics[f"{average}_{name}"] == pytest.approx(wanted)
    assert metrics["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro", zero_division=0))
    present = metrics["conf_mat_classes"]
    assert metrics["confusion_matrix"] == confusion_matrix(truth, predicted, labels=present).tolist()
    assert metrics["n"] == len(pairs)
    assert json.loads(json.dumps(metrics)) == metrics


def test_the_order_of_classes_is_the_projects_and_a_class_beyond_them_comes_last() -> None:
    metrics = evaluate(["b", "gone", "a"], ["a", "a", "a"], ["b", "c", "a"])
    assert metrics["conf_mat_classes"] == ["b", "a", "gone"]


def test_a_result_folder_holds_matrix_picture_and_last_the_metrics(tmp_path: Path) -> None:
    folder = tmp_path / "test_results" / "train_set_size_40"
    written: list[str] = []
    failpoints.watch = lambda op: written.append(op.path.name) if op.name == "replace" else None
    try:
        metrics = evaluate(["cat", "dog", "dog"], ["cat", "dog", "cat"], CLASSES)
        write_results(folder, metrics, checkpoint=9, train_set_size=40)
    finally:
        failpoints.watch = None
    assert written == ["confusion_matrix.npy", "confusion_matrix.png", "metrics.json"]
    matrix = np.load(folder / "confusion_matrix.npy", allow_pickle=False)
    assert matrix.tolist() == [[1, 0], [1, 1]]
    facts = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert facts["checkpoint"] == 9 and facts["accuracy"] == pytest.approx(2 / 3)
    reference_keys = {"accuracy", "micro_precision", "micro_recall", "macro_precision", "macro_recall"}
    assert reference_keys | {"conf_mat_classes"} <= set(facts)
    picture = png(folder / "confusion_matrix.png")
    assert picture.convert("RGB").getpixel((3, 3)) == (255, 255, 255)


@pytest.mark.slow
@pytest.mark.parametrize(
    "classes",
    [
        ["only"],
        ["a", "$x_1$ {"],
        ["Кабан", "东北虎", "x" * 300, "línea\nnueva", "", "🦊"],
        [f"species number {i}" for i in range(50)],
        ["𝔘nicode\u202e", "‏עברית", "ไทย"],
    ],
    ids=["one", "mathematics", "scripts", "fifty", "odd"],
)
def test_a_picture_is_drawn_for_any_class_names(classes: list[str], tmp_path: Path) -> None:
    truth = [*classes, *classes]
    predicted = [*classes, *reversed(classes)]
    write_results(tmp_path, evaluate(truth, predicted, classes), checkpoint=1)
    width, height = png(tmp_path / "confusion_matrix.png").size
    assert 300 < width < 4000 and 300 < height < 4000


def test_long_names_are_cut_and_wide_letters_count_twice() -> None:
    assert cut_name("wild cat") == "wild cat"
    assert cut_name("x" * 300) == "x" * 29 + "…"
    assert cut_name("虎" * 300) == "虎" * 14 + "…"
    assert cut_name("two\n lines") == "two lines"


def test_the_learning_curve_has_a_row_for_each_size_in_order(tmp_path: Path) -> None:
    for size, right in ((1000, 3), (20, 1), (300, 2)):
        predicted = ["cat"] * right + ["dog"] * (4 - right)
        facts = {**evaluate(["cat"] * 4, predicted, CLASSES), "checkpoint": size, "train_set_size": size}
        (tmp_path / f"train_set_size_{size}").mkdir()
        (tmp_path / f"train_set_size_{size}" / "metrics.json").write_text(json.dumps(facts), encoding="utf-8")
    (tmp_path / "train_set_size_7").mkdir()
    (tmp_path / "train_set_size_8").mkdir()
    (tmp_path / "train_set_size_8" / "metrics.json").write_text("{", encoding="utf-8")
    (tmp_path / "train_set_size_old").mkdir()
    write_learning_curve(tmp_path)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "learning_curve.csv").read_text(encoding="utf-8"))))
    assert [row["labels"] for row in rows] == ["20", "300", "1000"]
    assert [float(row["accuracy"]) for row in rows] == [0.25, 0.5, 0.75]
    assert [row["checkpoint"] for row in rows] == ["20", "300", "1000"]
    png(tmp_path / "learning_curve.png")


def test_without_results_there_is_no_learning_curve(tmp_path: Path) -> None:
    write_learning_curve(tmp_path)
    assert list(tmp_path.iterdir()) == []


def slow_calibration_error(confidence: list[float], is_right: list[bool]) -> float:
    total = 0.0
    for b in range(15):
        here = [i for i, c in enumerate(confidence) if b <= c * 15 < b + 1 or b == 14 and c == 1]
        if here:
            sure = sum(confidence[i] for i in here) / len(here)
            right = sum(is_right[i] for i in here) / len(here)
            total += len(here) / len(confidence) * abs(sure - right)
    return total


@given(st.lists(st.tuples(st.integers(0, 64).map(lambda i: i / 64), st.booleans()), min_size=1, max_size=40))
def test_the_calibration_error_is_the_mean_gap_between_confidence_and_accuracy(pairs: list[tuple[float, bool]]) -> None:
    confidence, is_right = [c for c, _ in pairs], [r for _, r in pairs]
    found = calibration_error(np.array(confidence), np.array(is_right))
    assert found == pytest.approx(slow_calibration_error(confidence, is_right)) and 0 <= found <= 1


def test_the_metrics_hold_the_calibration_error_where_confidences_are_given(tmp_path: Path) -> None:
    truth, predicted = ["cat", "dog", "dog", "cat"], ["cat", "dog", "cat", "cat"]
    assert "expected_calibration_error" not in evaluate(truth, predicted, CLASSES)
    metrics = evaluate(truth, predicted, CLASSES, np.full(4, 0.95, np.float32))
    assert metrics["expected_calibration_error"] == pytest.approx(0.95 - 0.75)
    write_results(tmp_path / "train_set_size_8", metrics, checkpoint=1, train_set_size=8)
    write_learning_curve(tmp_path)
    (row,) = csv.DictReader(io.StringIO((tmp_path / "learning_curve.csv").read_text(encoding="utf-8")))
    assert float(row["expected_calibration_error"]) == pytest.approx(0.2)
