"""What more labels would bring: a learning curve through what the labels so far brought, and how far it is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camera_trap_al.core.estimates import Accuracy, FloatArray

# The shares of the labels, the first that were given, of which classifiers are fitted again to see what labels brought.
EARLIER = (0.25, 0.5, 0.75)
FEWEST_EARLIER = 2
NEXT_LABELS = 100
POINT = 0.01
# Exponents that are thought of, and what is believed of them before: half of them lie between 0.25 and 0.64.
EXPONENTS = np.geomspace(0.05, 2.0, 60)
USUAL_EXPONENT, SPREAD_OF_EXPONENTS = 0.4, 0.7
ERRORS = np.geomspace(0.002, 0.95, 120)
# How far what an earlier classifier got right less is from the curve.
WOBBLE = 0.02
# The intervals take what was seen for so much less than it seems: classifiers err alike, and no curve is a power law.
CAUTION = 0.08
LEAST_ERROR = 0.005


@dataclass(frozen=True)
class Gain:
    """What is to be expected; fractions, each with the interval that holds it in 8 of 10 cases.

    `points` is the accuracy that the next 100 labels add; `labels` how many more labels add one point (0.01), infinite
    where less than that is left to gain.
    """

    points: float
    points_low: float
    points_high: float
    labels: float
    labels_low: float
    labels_high: float


def expected_gain(n_labels: int, accuracy: Accuracy, lost: Mapping[int, float]) -> Gain | None:
    """Return what more labels would bring, or None where that cannot be said yet.

    The error is taken to fall as a power of the number of labels: 1 - a n^-b is right. How well each a and b fit is told
    by the estimate of the accuracy, and by how much less classifiers of the first of the labels get right. The medians
    over all a and b, so weighed, are returned.

    Parameters
    ----------
    n_labels : of the classifier as it is now
    accuracy : of that classifier
    lost : by number of labels, less than `n_labels`: by how much the accuracy of a classifier of so many is below

    Sources: power laws for learning curves, Cortes et al. 1994 (NIPS 6) and Hestness et al. 2017 (arXiv:1712.00409). The
    prior of the exponent, `WOBBLE` and `CAUTION` are ours.
    """
    if len(lost) < FEWEST_EARLIER:
        return None
    error, exponent = (grid.ravel() for grid in np.meshgrid(ERRORS, EXPONENTS, indexing="ij"))
    fit = -((np.log(exponent / USUAL_EXPONENT) / SPREAD_OF_EXPONENTS) ** 2) / 2
    fit -= ((1 - error - accuracy.value) / max(accuracy.error, LEAST_ERROR)) ** 2 / 2
    for n, less in lost.items():
        fit -= ((less - error * ((n / n_labels) ** -exponent - 1)) / WOBBLE) ** 2 / 2
    fit -= fit.max()
    points = error * (1 - (1 + NEXT_LABELS / n_labels) ** -exponent)
    with np.errstate(divide="ignore", over="ignore"):
        left = np.maximum(1 - POINT / error, 0.0)
        labels = n_labels * (left ** (-1 / exponent) - 1)
    return Gain(*_quantiles(points, fit), *_quantiles(labels, fit))


def less_right(proba: npt.NDArray[np.floating], guesses: npt.NDArray[np.integer]) -> float:
    """Return by how much the accuracy of other guesses is probably below that of a classifier.

    Parameters
    ----------
    proba : (n, k) probabilities that the classifier gives the classes of n images; they are taken for true, as it knows more
    guesses : (n,) the column that is guessed for each
    """
    return float((proba.max(axis=1) - proba[np.arange(len(proba)), guesses]).mean())


def _quantiles(values: FloatArray, fit: FloatArray) -> list[float]:
    """Return the median by what fits, and the interval that holds 8 of 10 cases."""
    middle = _quantile(values, np.exp(fit), 0.5)
    low, high = (_quantile(values, np.exp(CAUTION * fit), at) for at in (0.1, 0.9))
    return [middle, min(low, middle), max(high, middle)]


def _quantile(values: FloatArray, weights: FloatArray, at: float) -> float:
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order[min(int(np.searchsorted(reached, at * reached[-1])), len(order) - 1)]])
