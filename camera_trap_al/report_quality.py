"""How well images are recognised, counted from predictions of images whose class is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from camera_trap_al.exporters.report_facts import Bin, ClassFacts, Quality
from camera_trap_al.learn.evaluate import CALIBRATION_BINS, CALIBRATION_ERROR, CONFUSION, evaluate

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Measured:
    """Predictions of images that were not learned from.

    Parameters
    ----------
    rows : (n,)
    truth : their n classes
    classes : k names
    proba : (n, k) probabilities, in the order of `classes`
    how : on what this was measured, in a sentence
    """

    rows: IntArray
    truth: tuple[str, ...]
    classes: tuple[str, ...]
    proba: npt.NDArray[np.float32]
    how: str

    @cached_property
    def predicted(self) -> IntArray:
        """Return the (n,) column of each image's prediction."""
        columns: IntArray = self.proba.argmax(axis=1).astype(np.int64)
        return columns

    @cached_property
    def true_columns(self) -> IntArray:
        """Return the (n,) column of each image's class; classes that are never predicted have columns beyond the last."""
        names = [*self.classes, *sorted(set(self.truth) - set(self.classes))]
        column = {name: i for i, name in enumerate(names)}
        return np.array([column[name] for name in self.truth], dtype=np.int64)

    @property
    def is_right(self) -> npt.NDArray[np.bool_]:
        """Return the (n,) whether each prediction is right."""
        right: npt.NDArray[np.bool_] = self.true_columns == self.predicted
        return right


def quality_of(measured: Measured, classes: Sequence[str], labels: Mapping[str, int]) -> Quality:
    """Return the figures of predictions; `classes` gives the order, `labels` how many of each class there are."""
    names = [measured.classes[i] for i in measured.predicted.tolist()]
    sure = measured.proba.max(axis=1)
    found = evaluate(measured.truth, names, sorted({*classes, *measured.truth}), sure)
    listed = []
    for name in found["conf_mat_classes"]:
        one = found["per_class"][name]
        listed.append(
            ClassFacts(name, one["precision"], one["recall"], one["support"], one["predicted"], labels.get(name, 0))
        )
    return Quality(
        measured.how,
        found["n"],
        found["accuracy"],
        found["macro_f1"],
        found[CALIBRATION_ERROR],
        tuple(listed),
        tuple(tuple(row) for row in found[CONFUSION]),
        _bins(sure, measured.is_right),
    )


def _bins(sure: npt.NDArray[np.float32], is_right: npt.NDArray[np.bool_]) -> tuple[Bin, ...]:
    """Return the groups by which the calibration error is counted, those without an image left out."""
    numbers = np.clip((sure * CALIBRATION_BINS).astype(np.int64), 0, CALIBRATION_BINS - 1)
    found = []
    for n in np.unique(numbers).tolist():
        here = numbers == n
        low, high = n / CALIBRATION_BINS, (n + 1) / CALIBRATION_BINS
        found.append(Bin(low, high, int(here.sum()), float(sure[here].mean()), float(is_right[here].mean())))
    return tuple(found)
