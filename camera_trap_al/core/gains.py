"""What more labels would bring: a learning curve through the requests so far, and how far it is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from camera_trap_al.core.estimates import Accuracy, FloatArray, Share

FEWEST_JUDGED = 20
FEWEST_SHARES = 3
# From the first to the last request the labels must have grown so much that a curve can be told from a line.
LEAST_GROWTH = 1.5
NEXT_LABELS = 100
POINT = 0.01
# Exponents that are thought of, and what is believed of them before: half of them lie between 0.25 and 0.64.
EXPONENTS = np.geomspace(0.05, 2.0, 60)
USUAL_EXPONENT, SPREAD_OF_EXPONENTS = 0.4, 0.7
ERRORS = np.geomspace(0.002, 0.95, 120)
# How far mean confidence strays from the curve, from one classifier to the next, beside what it is wrong by in all of them.
WOBBLE = 0.05
# A curve never says that all or nothing is right.
SUREST = 0.995


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


def expected_gain(
    shares: Sequence[Share],
    n_labels: int,
    accuracy: Accuracy,
    mean_confidence: Mapping[int, float],
) -> Gain | None:
    """Return what more labels would bring, or None where that cannot be said yet.

    The error is taken to fall as a power of the number of labels: 1 - a n^-b is right. How well each a and b fit is the
    binomial likelihood of what was right in each request's random share, with the newest estimate of the accuracy, and
    with the shape of the mean confidences on all images without a label, which may be wrong by any one amount. The
    medians over all a and b, so weighed, are returned.

    Parameters
    ----------
    shares : as `random_shares` gives them
    n_labels : of the classifier as it is now
    accuracy : of that classifier
    mean_confidence : of checkpoints, on the images that had no label when they were new; by `n_labels` of theirs

    Sources: power laws for learning curves, Cortes et al. 1994 (NIPS 6) and Hestness et al. 2017 (arXiv:1712.00409).
    The prior of the exponent and `WOBBLE` are ours.
    """
    judged = sum(len(share.is_right) for share in shares)
    if judged < FEWEST_JUDGED or len(shares) < FEWEST_SHARES:
        return None
    first = min(share.n_labels for share in shares)
    if first < 1 or n_labels < LEAST_GROWTH * first:
        return None
    error, exponent = (grid.ravel() for grid in np.meshgrid(ERRORS, EXPONENTS, indexing="ij"))
    fit = -((np.log(exponent / USUAL_EXPONENT) / SPREAD_OF_EXPONENTS) ** 2) / 2
    fit -= ((1 - error - accuracy.value) / accuracy.error) ** 2 / 2
    for share in shares:
        right = _right(error, exponent, share.n_labels / n_labels)
        n_right = int(share.is_right.sum())
        fit += n_right * np.log(right) + (len(share.is_right) - n_right) * np.log(1 - right)
    fit += _shape(error, exponent, n_labels, mean_confidence)
    weights = np.exp(fit - fit.max())
    points = error * (1 - (1 + NEXT_LABELS / n_labels) ** -exponent)
    with np.errstate(divide="ignore", over="ignore"):
        left = np.maximum(1 - POINT / error, 0.0)
        labels = n_labels * (left ** (-1 / exponent) - 1)
    at = (0.5, 0.1, 0.9)
    return Gain(*_quantiles(points, weights, at), *_quantiles(labels, weights, at))


def _right(error: FloatArray, exponent: FloatArray, share_of_labels: float) -> FloatArray:
    """Return what is right with a share of the labels there are now."""
    return np.asarray(np.clip(1 - error * share_of_labels**-exponent, 1 - SUREST, SUREST), dtype=np.float64)


def _shape(error: FloatArray, exponent: FloatArray, n_labels: int, mean_confidence: Mapping[int, float]) -> FloatArray:
    """Return the log likelihood of mean confidences that are wrong by one unknown amount and a wobble."""
    known = sorted((n, sure) for n, sure in mean_confidence.items() if 0 < n <= n_labels)
    if len(known) < FEWEST_SHARES:
        return np.zeros(len(error))
    off = np.stack([sure - _right(error, exponent, n / n_labels) for n, sure in known])
    return np.asarray(-(((off - off.mean(axis=0)) / WOBBLE) ** 2).sum(axis=0) / 2, dtype=np.float64)


def _quantiles(values: FloatArray, weights: FloatArray, at: Sequence[float]) -> list[float]:
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    places = np.searchsorted(reached, np.array(at) * reached[-1])
    return [float(values[order[min(place, len(order) - 1)]]) for place in places.tolist()]
