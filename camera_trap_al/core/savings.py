"""Curves of accuracy against labels → how many labels reach a score, and which fraction of them another way saves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 1000
LEVEL = 0.95
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval over repetitions.

    `value`, `low` and `high` are infinite, or not a number, where they are not known; see the functions that return one.
    """

    value: float
    low: float
    high: float


def labels_to_reach(asked: FloatArray, scores: FloatArray, target: float) -> FloatArray:
    """Return after how many labels each curve first reaches a score, on straight lines between its points.

    Parameters
    ----------
    asked : (p,) ascending numbers of labels
    scores : (..., p) one score for each
    target : the score to reach

    Returns
    -------
    (...) float64; the first number of labels where the curve begins at or above the target, infinite where it never
    reaches it
    """
    reached = scores >= target
    first = reached.argmax(axis=-1)
    after = np.take_along_axis(scores, first[..., None], axis=-1)[..., 0]
    before = np.take_along_axis(scores, np.maximum(first - 1, 0)[..., None], axis=-1)[..., 0]
    rise = np.where(first > 0, after - before, 1.0)
    share = np.where(first > 0, (target - before) / np.where(rise > 0, rise, 1.0), 1.0)
    start = asked[np.maximum(first - 1, 0)]
    labels: FloatArray = np.where(reached.any(axis=-1), start + share * (asked[first] - start), math.inf)
    return labels


def resampled_means(curves: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return (1 + RESAMPLES, p) means of (r, p) curves: of all of them, then of draws of r with replacement.

    Source: the bootstrap, Efron 1979.
    """
    draws = rng.integers(0, len(curves), (RESAMPLES, len(curves)))
    return np.concatenate([curves.mean(axis=0, keepdims=True), curves[draws].mean(axis=1)])


def estimate(values: FloatArray) -> Estimate:
    """Return the first value, with the interval that holds 95 % of those after it; infinite ones count as such."""
    low, high = np.quantile(values[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="nearest")
    return Estimate(float(values[0]), float(low), float(high))


def needed(asked: FloatArray, curves: FloatArray, target: float, seed: int) -> Estimate:
    """Return how many labels the mean of (r, p) curves needs to reach a score; infinite where it does not."""
    return estimate(labels_to_reach(asked, resampled_means(curves, np.random.default_rng(seed)), target))


@dataclass(frozen=True)
class Saving:
    """Which fraction of another method's labels one saves, with its interval; below 0 it needs more.

    With `is_at_least` the other method did not reach the score, so that it needs more labels than were tried. `value` is
    not a number where the one did not reach it either, or where no label is needed to begin with.
    """

    estimate: Estimate
    is_at_least: bool


def saving(
    mine: tuple[FloatArray, FloatArray], other: tuple[FloatArray, FloatArray], target: float, seed: int
) -> Saving:
    """Compare the labels that two sets of curves, each as `asked` and `curves` of `needed`, need to reach a score.

    Where the other does not reach it, it counts as needing the most labels it was tried with, which can only understate
    what is saved; where one's own does not, nothing is known.
    """
    rng = np.random.default_rng(seed)
    own = labels_to_reach(mine[0], resampled_means(mine[1], rng), target)
    theirs = labels_to_reach(other[0], resampled_means(other[1], rng), target)
    is_at_least = math.isinf(theirs[0])
    theirs = np.where(np.isinf(theirs), other[0][-1], theirs)
    with np.errstate(divide="ignore", invalid="ignore"):
        saved = 1 - own / theirs
    if not math.isfinite(saved[0]):
        return Saving(Estimate(math.nan, math.nan, math.nan), is_at_least)
    # A draw in which neither is known says as little as can be: that nothing is saved.
    return Saving(estimate(np.where(np.isnan(saved), 0.0, saved)), is_at_least)
