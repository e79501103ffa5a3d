"""`logistic`: one layer, by regularised, class-balanced multinomial logistic regression."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from camera_trap_al.learn.heads.dense import Examples, FloatArray, Layers
from camera_trap_al.learn.heads.lbfgs import DoubleArray, minimise

# Weight of the squared coefficients beside the mean loss, of inputs whose mean square length is 1.
STRENGTH = 1e-4
TOLERANCE = 1e-3
# Directions are scaled by this power of their variance. In frozen features what many images share says more of the class
# than what few show, so 1/4 was measured 4 to 7 points better than 0 at 25 and 50 labels; whitening, -1/2, far worse.
EMPHASIS = 0.25
# Variances are estimated from at most so many vectors.
SEEN_ROWS = 4096
SMALLEST = 1e-6


class Scaling(NamedTuple):
    """An affine map of vectors: less `centre`, (d,), times `matrix`, (d, r). float32."""

    centre: FloatArray
    matrix: FloatArray

    def __call__(self, vectors: FloatArray) -> FloatArray:
        """Return the (n, r) mapped (n, d) vectors."""
        centred: FloatArray = vectors - self.centre
        mapped: FloatArray = np.matmul(centred, self.matrix, dtype=np.float32)
        return mapped


class Logistic:
    """Multinomial logistic regression whose classes weigh alike, with a penalty on large coefficients.

    Its inputs are centred, and scaled along the principal directions of all embeddings there are, with and without a
    label. All of that is folded into the one layer. The result does not depend on a seed.
    """

    def fit(self, examples: Examples, seed: int) -> Layers:
        """Return the fitted layer."""
        scaling = scaling_of(examples.known())
        return fit_layer(scaling, examples.vectors, examples.one_hot(), examples.weights())


def scaling_of(vectors: FloatArray) -> Scaling:
    """Return the scaling by the principal directions of (n, d) vectors, after which their mean square length is 1.

    Of directions in which all vectors are the same nothing is left. Where all vectors are the same, everything is
    mapped to zero.
    """
    seen = vectors[:: -(-len(vectors) // SEEN_ROWS)]
    centre = seen.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = seen - centre
    variances, directions = np.linalg.eigh(centred.T @ centred / np.float32(len(seen)))
    variances = np.maximum(variances, 0)
    kept = variances > max(SMALLEST * float(variances.max()), float(np.finfo(np.float32).tiny))
    if not kept.any() or float(variances.max()) < np.finfo(np.float32).eps ** 2:
        return Scaling(centre, np.zeros((vectors.shape[1], 1), dtype=np.float32))
    factors = variances[kept] ** EMPHASIS
    factors /= np.sqrt((factors**2 * variances[kept]).sum())
    return Scaling(centre, (directions[:, kept] * factors).astype(np.float32))


def fit_layer(scaling: Scaling, vectors: FloatArray, wanted: FloatArray, weights: npt.NDArray[np.floating]) -> Layers:
    """Return the one layer, for vectors before the scaling, that says best what is wanted of them.

    Parameters
    ----------
    vectors : (n, d) float32
    wanted : (n, k) probabilities; each row sums to 1
    weights : (n,) of rows, of any sum above 0
    """
    inputs, turn = _turned(scaling(vectors))
    share = (weights / weights.sum()).astype(np.float32)[:, None]
    n_inputs, n_classes = inputs.shape[1], wanted.shape[1]
    aims = share * wanted

    def loss(numbers: DoubleArray) -> tuple[float, DoubleArray]:
        table = numbers.reshape(n_inputs + 1, n_classes).astype(np.float32)
        scores = inputs @ table[:-1]
        scores += table[-1]
        scores -= scores.max(axis=1, keepdims=True)
        proba = np.exp(scores)
        total = proba.sum(axis=1, keepdims=True)
        mean = float((share * np.log(total)).sum(dtype=np.float64) - (aims * scores).sum(dtype=np.float64))
        proba *= share / total
        proba -= aims
        gradient = np.empty(table.shape, dtype=np.float64)
        gradient[:-1] = inputs.T @ proba + STRENGTH * table[:-1]
        gradient[-1] = proba.sum(axis=0)
        return mean + STRENGTH / 2 * float((table[:-1] ** 2).sum(dtype=np.float64)), gradient.ravel()

    found = minimise(loss, np.zeros((n_inputs + 1) * n_classes), tolerance=TOLERANCE)
    table = found.reshape(n_inputs + 1, n_classes)
    first = scaling.matrix.astype(np.float64) @ (turn @ table[:-1])
    bias = table[-1] - scaling.centre.astype(np.float64) @ first
    return Layers([first.astype(np.float32)], [bias.astype(np.float32)])


def _turned(inputs: FloatArray) -> tuple[FloatArray, DoubleArray]:
    """Return inputs in the space that they span, (n, min(n, r)), and the (r, min(n, r)) way back for coefficients.

    Coefficients outside that space would only be penalised, so nothing is lost.
    """
    if len(inputs) >= inputs.shape[1]:
        return inputs, np.eye(inputs.shape[1])
    left, sizes, right = np.linalg.svd(inputs, full_matrices=False)
    return left * sizes, right.T.astype(np.float64)
