"""Labels that predictions, made without them, contradict."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.int64]


class Suspects(NamedTuple):
    """The rows of which another class is predicted, the most doubtful first.

    `rows` (m,), `looks_like` (m,) the class that is predicted, `doubt` (m,) in [-1, 1]; `probability` (m,) of the class
    that is predicted, `given` (m,) of that of the label. `is_likely` (m,): the other class is as probable as it usually
    is on images that carry its label, while that of the label is less probable than usual.
    """

    rows: IntArray
    looks_like: IntArray
    doubt: FloatArray
    probability: FloatArray
    given: FloatArray
    is_likely: npt.NDArray[np.bool_]


def find_suspects(proba: FloatArray, labels: IntArray) -> Suspects:
    """Rank the labels that are contradicted by what is predicted without them.

    A probability is compared with the mean of its class over the images that carry the class's label: what is usual for
    a class that is hard to tell is no reason for doubt. The doubt of a label is how far the other class is above what is
    usual for it, less how far the class of the label is above what is usual for that, halved.

    Parameters
    ----------
    proba : (n, k) probabilities, each row predicted by what was learned from other rows
    labels : (n,) the column of each row's label

    Source: confident learning, Northcutt, Jiang and Chuang 2021 (doi:10.1613/jair.1.12125): self-confidence against
    thresholds of classes.
    """
    n, k = proba.shape
    if not n or k < 2:
        nothing, none = np.zeros(0, dtype=np.int64), np.zeros(0)
        return Suspects(nothing, nothing, none, none, none, np.zeros(0, dtype=bool))
    at = np.arange(n)
    own = proba[at, labels].astype(np.float64)
    counts = np.bincount(labels, minlength=k)
    usual = np.bincount(labels, weights=own, minlength=k) / np.maximum(counts, 1)
    # A class without a label here is never what an image looks like.
    above = np.where(counts > 0, proba - usual, -np.inf)
    mine = above[at, labels]
    above[at, labels] = -np.inf
    other = above.argmax(axis=1)
    theirs = above[at, other]
    doubt = (theirs - mine) / 2
    rows = np.flatnonzero((proba[at, other] > own) & np.isfinite(theirs))
    rows = rows[np.argsort(-doubt[rows], kind="stable")]
    other = other[rows]
    is_likely = (theirs[rows] >= 0) & (mine[rows] < 0)
    return Suspects(rows, other, doubt[rows], proba[rows, other], own[rows], is_likely)
