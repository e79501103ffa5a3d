"""Labels that predictions, made without them, contradict."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.int64]

# So many images' worth of belief that a class is recognised as all are: of few labels, some of them wrong, little is known.
BELIEF = 5.0
# Probabilities below this are as good as none.
LEAST = 0.02


class Suspects(NamedTuple):
    """The rows of which another class is predicted, the most doubtful first.

    `rows` (m,), `looks_like` (m,) the class that is predicted, `doubt` (m,) a difference of logarithms; `probability` (m,)
    of the class that is predicted, `given` (m,) of that of the label. `is_likely` (m,): the other class is as probable as
    it usually is on images that carry its label, while that of the label is less probable than usual.
    """

    rows: IntArray
    looks_like: IntArray
    doubt: FloatArray
    probability: FloatArray
    given: FloatArray
    is_likely: npt.NDArray[np.bool_]


def find_suspects(proba: FloatArray, labels: IntArray) -> Suspects:
    """Rank the labels that are contradicted by what is predicted without them.

    The doubt of a label is how many times as probable as its own class another one is, on a logarithmic scale, each
    compared with what is usual for it: a class that is hard to tell is not suspected for that. Usual is the mean
    probability of a class on the images that carry its label, drawn towards that of all classes where these are few.

    Parameters
    ----------
    proba : (n, k) probabilities, each row predicted by what was learned from other rows
    labels : (n,) the column of each row's label

    Source: confident learning, Northcutt, Jiang and Chuang 2021 (doi:10.1613/jair.1.12125): self-confidence against
    thresholds of classes. The logarithms and the belief in few labels are ours.
    """
    n, k = proba.shape
    if not n or k < 2:
        nothing, none = np.zeros(0, dtype=np.int64), np.zeros(0)
        return Suspects(nothing, nothing, none, none, none, np.zeros(0, dtype=bool))
    at = np.arange(n)
    own = proba[at, labels].astype(np.float64)
    counts = np.bincount(labels, minlength=k)
    usual = (np.bincount(labels, weights=own, minlength=k) + BELIEF * own.mean()) / (counts + BELIEF)
    # A class without a label here is never what an image looks like.
    others = np.where(counts > 0, proba, -1.0)
    others[at, labels] = -1.0
    looks_like = others.argmax(axis=1)
    theirs = others[at, looks_like]
    rows = np.flatnonzero(theirs > own)
    looks_like, theirs, own = looks_like[rows], theirs[rows], own[rows]
    usual_other, usual_own = usual[looks_like], usual[labels[rows]]
    doubt = np.log((theirs + LEAST) / (usual_other + LEAST)) - np.log((own + LEAST) / (usual_own + LEAST))
    order = np.argsort(-doubt, kind="stable")
    is_likely = (theirs >= usual_other) & (own < usual_own)
    return Suspects(rows[order], looks_like[order], doubt[order], theirs[order], own[order], is_likely[order])
