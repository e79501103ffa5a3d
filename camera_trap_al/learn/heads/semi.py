"""`semi`: `logistic`, taught by images without a label too, whose classes are guessed from their neighbours' labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from camera_trap_al.learn.heads.dense import Examples, FloatArray, IntArray, Layers, class_weights
from camera_trap_al.learn.heads.logistic import fit_layer, scaling_of

NEIGHBOURS = 10
# Exponent of the cosine that an edge weighs, share of a vector's belief that its neighbours give, and rounds of giving.
SHARPNESS = 3
SPREAD = 0.8
ROUNDS = 30
# The labels that take part in the graph, and vectors whose neighbours are looked for at once.
MOST_LABELS = 4096
BLOCK_ROWS = 512
# Weight of all guesses together, that of all labels together being 1; less where each would weigh more than a label.
GUESSES_WEIGH = 1.0


class SemiSupervised:
    """Logistic regression on the labels and on confident guesses for a sample of the images that have none.

    Labels spread over the graph of nearest neighbours (by cosine, about the mean); each unlabelled image then teaches
    what reached it, with a weight that falls from 1, all one class, to 0, all classes alike. Where there is no unlabelled
    image, or there are more than 4,096 labels, which say enough, it is `logistic`. Memory is bounded by the sample.

    Source: label spreading, Zhou et al. 2004 (NIPS 16); soft guesses weighted by their certainty (one less their
    normalised entropy), Iscen et al. 2019 (arXiv:1904.04717).
    """

    def fit(self, examples: Examples, seed: int) -> Layers:
        """Return the fitted layer. It does not depend on the seed."""
        known, n = examples.known(), len(examples.vectors)
        scaling = scaling_of(known)
        wanted, weights = examples.one_hot(), examples.weights()
        if len(examples.unlabelled) == 0 or n > MOST_LABELS:
            return fit_layer(scaling, examples.vectors, wanted, weights)
        guesses, certainty = spread_labels(known, examples.targets, examples.n_classes)
        certain = certainty > 0
        if not certain.any():
            return fit_layer(scaling, examples.vectors, wanted, weights)
        taught = np.concatenate([examples.vectors, examples.unlabelled[certain]])
        sure = float(certainty[certain].sum())
        shares = certainty[certain] * np.float32(min(GUESSES_WEIGH, sure / n) / sure)
        return fit_layer(
            scaling,
            taught,
            np.concatenate([wanted, guesses[certain]]),
            np.concatenate([weights / weights.sum(), shares]),
        )


def spread_labels(vectors: FloatArray, targets: IntArray, n_classes: int) -> tuple[FloatArray, FloatArray]:
    """Guess the classes of vectors from the labels of the first of them.

    Parameters
    ----------
    vectors : (n + m, d) float32, those with a label first
    targets : (n,) int64 in [0, n_classes)

    Returns
    -------
    (m, n_classes) float32 guesses, rows that sum to 1; and their (m,) certainty in [0, 1], 0 where no label reached
    """
    n = len(targets)
    places, edges = nearest_neighbours(directions_of(vectors), NEIGHBOURS)
    given = np.zeros((len(vectors), n_classes), dtype=np.float32)
    # A class of many labels gives more than one of few, but less than in proportion.
    given[np.arange(n), targets] = np.sqrt(class_weights(targets, n_classes))
    belief = given
    graph = _graph(places, edges)
    for _ in range(ROUNDS):
        belief = given + np.float32(SPREAD) * (graph @ belief)
    belief = belief[n:]
    total = belief.sum(axis=1, keepdims=True)
    reached = total[:, 0] > np.finfo(np.float32).tiny
    guesses = np.full(belief.shape, 1 / n_classes, dtype=np.float32)
    guesses[reached] = belief[reached] / total[reached]
    entropy = -(guesses * np.log(np.maximum(guesses, np.finfo(np.float32).tiny))).sum(axis=1)
    certainty = np.clip(1 - entropy / np.log(n_classes), 0, 1).astype(np.float32)
    certainty[~reached] = 0
    return guesses, certainty


def directions_of(vectors: FloatArray) -> FloatArray:
    """Return (n, d) vectors about their mean, of length 1; zero where one is the mean itself."""
    centred = vectors - vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    directions: FloatArray = np.divide(centred, lengths, out=np.zeros_like(centred), where=lengths > 1e-6)
    return directions


def nearest_neighbours(directions: FloatArray, k: int) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Return the (n, k) places of each row's nearest others, and the weights of these edges, normalised.

    An edge weighs the cosine to the power of `SHARPNESS`, 0 where it is negative, over the root of what the edges of each
    of its two ends weigh together. k is smaller where there are fewer others.
    """
    n = len(directions)
    k = min(k, n - 1)
    places, cosines = np.empty((n, k), dtype=np.int64), np.empty((n, k), dtype=np.float32)
    for start in range(0, n, BLOCK_ROWS):
        here = np.arange(start, min(start + BLOCK_ROWS, n))
        alike = directions[here] @ directions.T
        alike[np.arange(len(here)), here] = -np.inf
        best = np.argpartition(alike, n - k, axis=1)[:, n - k :]
        places[here], cosines[here] = best, np.take_along_axis(alike, best, axis=1)
    edges = np.maximum(cosines, 0) ** SHARPNESS
    degree = edges.sum(axis=1) + np.bincount(places.ravel(), weights=edges.ravel(), minlength=n)
    root = np.sqrt(np.maximum(degree, np.finfo(np.float32).tiny)).astype(np.float32)
    edges /= root[:, None] * root[places]
    return places, edges


def _graph(places: npt.NDArray[np.int64], edges: FloatArray) -> Any:
    """Return the (n, n) sparse matrix that gives each row what its edges, which lead both ways, bring it."""
    from scipy.sparse import csr_matrix  # slow to import, and not needed before there is something to fit

    n, k = places.shape
    one_way = csr_matrix((edges.ravel(), (np.repeat(np.arange(n), k), places.ravel())), shape=(n, n))
    return (one_way + one_way.T).tocsr()
