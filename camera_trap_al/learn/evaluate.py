"""Metrics of a classifier on labelled images, and `test_results/`: metrics, confusion matrices, the learning curve."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from camera_trap_al.learn.figures import confusion_figure, curve_figure
from camera_trap_al.store import atomic
from camera_trap_al.store.json_files import read_object

FORMAT = 1
METRICS, MATRIX, MATRIX_PICTURE = "metrics.json", "confusion_matrix.npy", "confusion_matrix.png"
CURVE, CURVE_PICTURE = "learning_curve.csv", "learning_curve.png"
RESULTS_PREFIX = "train_set_size_"
CALIBRATION_ERROR = "expected_calibration_error"
ESTIMATE_COLUMNS = ("estimated_accuracy", "estimated_low", "estimated_high")
CURVE_COLUMNS = (
    *("labels", "accuracy", "macro_f1", "macro_precision", "macro_recall", "n", "checkpoint"),
    CALIBRATION_ERROR,
    *ESTIMATE_COLUMNS,
)
CALIBRATION_BINS = 15
CONFUSION = "confusion_matrix"

IntArray = npt.NDArray[np.int64]


def evaluate(
    truth: Sequence[str],
    predicted: Sequence[str],
    classes: Sequence[str],
    confidence: npt.NDArray[np.floating] | None = None,
) -> dict[str, Any]:
    """Compare predicted with true classes.

    Parameters
    ----------
    truth, predicted : n class names each, n >= 1
    classes : all classes of the project, which gives the order; a name beyond them is added at the end
    confidence : (n,) probability in [0, 1] that was given to each predicted class; None where there is none

    Returns
    -------
    JSON values. Those of the reference program: `accuracy`; `micro_precision` and `micro_recall`, equal to the
    accuracy where each image has one label; `macro_precision` and `macro_recall`; `conf_mat_classes`, the classes that
    occur in `truth` or `predicted`, in order. Beside them `macro_f1`, `n`, `per_class` (name → precision, recall, f1,
    support, predicted) and `confusion_matrix`, a list of rows (true class) of counts by predicted class; with
    `confidence` also `expected_calibration_error`, as `calibration_error` gives it.

    Fractions are in [0, 1]. A precision, recall or F1 of 0/0 counts as 0. The macro figures are plain means over
    `conf_mat_classes`, so a class that is predicted but never true lowers them, and one that occurs in neither does
    not count.
    """
    names = list(dict.fromkeys([*classes, *sorted({*truth, *predicted} - set(classes))]))
    present = [name for name in names if name in {*truth, *predicted}]
    matrix = _confusion(truth, predicted, present)
    hits, n_true, n_predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    recall, precision = _ratio(hits, n_true), _ratio(hits, n_predicted)
    f1 = _ratio(2 * hits, n_true + n_predicted)
    accuracy = float(hits.sum() / matrix.sum())
    per_class = {
        name: {
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "support": int(n_true[i]),
            "predicted": int(n_predicted[i]),
        }
        for i, name in enumerate(present)
    }
    metrics = {
        "accuracy": accuracy,
        "micro_precision": accuracy,
        "micro_recall": accuracy,
        "macro_precision": float(precision.mean()),
        "macro_recall": float(recall.mean()),
        "macro_f1": float(f1.mean()),
        "n": int(matrix.sum()),
        "conf_mat_classes": present,
        "per_class": per_class,
        CONFUSION: matrix.tolist(),
    }
    if confidence is not None:
        is_right = np.array([t == p for t, p in zip(truth, predicted, strict=True)])
        metrics[CALIBRATION_ERROR] = calibration_error(confidence, is_right)
    return metrics


def calibration_error(confidence: npt.NDArray[np.floating], is_right: npt.NDArray[np.bool_]) -> float:
    """Return how far confidence and accuracy are apart, in [0, 1]: 0 where of images said to be 80 % sure 80 % are right.

    The mean, over 15 equally wide bins of confidence and weighted by their number of images, of the difference between
    the mean confidence and the accuracy within the bin.

    Parameters
    ----------
    confidence : (n,) in [0, 1], n >= 1
    is_right : (n,) whether the predicted class is the true one

    Source: expected calibration error, Naeini et al. 2015; bins as in Guo et al. 2017 (arXiv:1706.04599).
    """
    bins = np.clip((np.asarray(confidence) * CALIBRATION_BINS).astype(np.int64), 0, CALIBRATION_BINS - 1)
    sure = np.bincount(bins, weights=confidence, minlength=CALIBRATION_BINS)
    right = np.bincount(bins, weights=is_right, minlength=CALIBRATION_BINS)
    return float(np.abs(sure - right).sum() / len(bins))


def write_results(folder: Path, metrics: Mapping[str, Any], **facts: Any) -> None:
    """Write `confusion_matrix.npy` (int64) and `.png`, and `metrics.json` last; each is durable on return.

    Parameters
    ----------
    folder : `train_set_size_N`, made if it is not there
    metrics : as `evaluate` gives them
    facts : JSON values to note in `metrics.json`, such as `checkpoint` and `train_set_size`
    """
    matrix = np.array(metrics[CONFUSION], dtype=np.int64)
    classes = metrics["conf_mat_classes"]
    atomic.make_folder(folder)
    atomic.replace_file(folder / MATRIX, lambda file: np.save(file, matrix, allow_pickle=False))
    subtitle = f"{metrics['n']:,} images, accuracy {metrics['accuracy']:.1%}, macro F1 {metrics['macro_f1']:.1%}"
    if "train_set_size" in facts:
        subtitle += f", learned from {facts['train_set_size']:,} labels"
    atomic.replace_bytes(folder / MATRIX_PICTURE, confusion_figure(matrix, classes, subtitle))
    noted = {name: value for name, value in metrics.items() if name != CONFUSION}
    atomic.replace_json(folder / METRICS, {"format": FORMAT, **facts, **noted})


def write_learning_curve(test_results: Path, estimates: Sequence[Mapping[str, Any]] = ()) -> None:
    """Write `learning_curve.csv` and `.png` from every `train_set_size_*/metrics.json` below the folder, and estimates.

    A row for each size, by number of labels. Folders without metrics that can be read are passed over. Nothing is
    written where there is nothing to tell.

    Parameters
    ----------
    estimates : `labels`, and `accuracy`: None, or `value`, `low` and `high` on images without a label, fractions
    """
    points = _read_points(test_results)
    rows = {int(point["labels"]): point for point in points}
    band = [(int(noted["labels"]), *_estimated(noted)) for noted in estimates if noted.get("accuracy")]
    for size, *figures in band:
        row = rows.setdefault(size, dict.fromkeys(CURVE_COLUMNS, "") | {"labels": size})
        row |= dict(zip(ESTIMATE_COLUMNS, figures, strict=True))
    if not rows:
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(CURVE_COLUMNS)
    for _, row in sorted(rows.items()):
        writer.writerow([_cell(row[column]) for column in CURVE_COLUMNS])
    atomic.replace_bytes(test_results / CURVE, text.getvalue().encode("utf-8"))
    labels = [point["labels"] for point in points]
    curves = {"Accuracy": [p["accuracy"] for p in points], "Macro F1": [p["macro_f1"] for p in points]}
    atomic.replace_bytes(test_results / CURVE_PICTURE, curve_figure(labels, curves if points else {}, band))


def _confusion(truth: Sequence[str], predicted: Sequence[str], present: Sequence[str]) -> IntArray:
    assert len(truth) == len(predicted) > 0, "as many predictions as true classes, at least one"
    index = {name: i for i, name in enumerate(present)}
    k = len(present)
    cells = np.array([index[t] * k + index[p] for t, p in zip(truth, predicted, strict=True)])
    return np.bincount(cells, minlength=k * k).astype(np.int64).reshape(k, k)


def _ratio(part: IntArray, whole: IntArray) -> npt.NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def _read_points(test_results: Path) -> list[dict[str, Any]]:
    points = []
    for path in sorted(test_results.glob(f"{RESULTS_PREFIX}*/{METRICS}")):
        size = path.parent.name.removeprefix(RESULTS_PREFIX)
        try:
            metrics = read_object(path)
            point = {column: metrics.get(column, "") for column in CURVE_COLUMNS}
            point |= {
                "labels": int(size),
                "accuracy": float(metrics["accuracy"]),
                "macro_f1": float(metrics["macro_f1"]),
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        points.append(point)
    return sorted(points, key=lambda point: int(point["labels"]))


def _estimated(noted: Mapping[str, Any]) -> tuple[float, float, float]:
    accuracy = noted["accuracy"]
    return float(accuracy["value"]), float(accuracy["low"]), float(accuracy["high"])


def _cell(value: Any) -> str:
    return f"{value:.6f}" if isinstance(value, float) else str(value)
