"""`mlp`: a network with the hidden layers of the reference program's scikit-learn MLP, fitted in our own way."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from camera_trap_al.learn.heads.dense import Examples, FloatArray, Layers, softmax

HIDDEN_UNITS = (230, 100)

BATCH_ROWS = 128
EPOCHS = 30
MIN_STEPS, MAX_STEPS = 400, 4000
# Of many rows each is seen less often, and fewer steps teach more rows: at 50,000, 1,000 steps were measured 0.9 points
# below 8,000, 3,100 were 0.4 below.
STEPS_A_ROOT = 14
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.5
DROPOUT = 0.2
# Standard deviation of the inputs during the fit. Small inputs keep the start close to a linear model, which few labels
# need: measured 2 to 5 points better than 1.0 at 25 to 100 labels, and no worse at 1,600.
INPUT_STD = 0.3
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


class Perceptron:
    """Two hidden layers of 230 and 100 units.

    Takes about 2 s of one core for 5,000 rows of 256 dimensions, three times that for 50,000, and little more for any
    number of rows beyond that.

    Source: AdamW with cosine annealing, Loshchilov & Hutter 2019 (arXiv:1711.05101); dropout, Srivastava et al. 2014;
    first weights, Glorot & Bengio 2010. The inputs are centred and scaled by one number, which is folded into the
    first layer afterwards.
    """

    def fit(self, examples: Examples, seed: int) -> Layers:
        """Return the fitted layers. `seed` is of the first weights, the order of rows and the dropout."""
        vectors = examples.vectors
        centre = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        spread = float(np.sqrt(vectors.var(axis=0, dtype=np.float64).mean())) / INPUT_STD or 1.0
        inputs = ((vectors - centre) / np.float32(spread)).astype(np.float32)
        weights, biases = _fit_layers(inputs, examples.targets, examples.n_classes, np.random.default_rng(seed))
        first = weights[0].astype(np.float64) / spread
        shifted = (biases[0] - centre.astype(np.float64) @ first).astype(np.float32)
        return Layers([first.astype(np.float32), *weights[1:]], [shifted, *biases[1:]])


def _fit_layers(
    inputs: FloatArray, targets: npt.NDArray[np.int64], n_classes: int, rng: np.random.Generator
) -> tuple[list[FloatArray], list[FloatArray]]:
    sizes = [inputs.shape[1], *HIDDEN_UNITS, n_classes]
    weights = [_first_weights(a, b, rng) for a, b in zip(sizes, sizes[1:], strict=False)]
    biases = [np.zeros(size, dtype=np.float32) for size in sizes[1:]]
    wanted = np.eye(n_classes, dtype=np.float32)[targets]
    enough = min(EPOCHS * -(-len(inputs) // BATCH_ROWS), STEPS_A_ROOT * len(inputs) ** 0.5)
    n_steps = int(np.clip(enough, MIN_STEPS, MAX_STEPS))
    adam = _Adam([*weights, *biases])
    for step, rows in zip(range(n_steps), _batches(len(inputs), rng), strict=False):
        rate = LEARNING_RATE * 0.5 * (1 + np.cos(np.pi * (step + 1) / n_steps))
        gradients = _gradients(inputs[rows], wanted[rows], weights, biases, rng)
        for layer in weights:
            layer *= np.float32(1 - rate * WEIGHT_DECAY)
        adam.step(gradients, rate)
    return weights, biases


def _first_weights(n_in: int, n_out: int, rng: np.random.Generator) -> FloatArray:
    limit = np.sqrt(6 / (n_in + n_out))
    return rng.uniform(-limit, limit, (n_in, n_out)).astype(np.float32)


def _batches(n: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    """Yield row indices for ever, each row once an epoch, in another order each epoch."""
    while True:
        order = rng.permutation(n)
        for start in range(0, n, BATCH_ROWS):
            yield order[start : start + BATCH_ROWS]


def _gradients(
    inputs: FloatArray,
    wanted: FloatArray,
    weights: list[FloatArray],
    biases: list[FloatArray],
    rng: np.random.Generator,
) -> list[FloatArray]:
    """Return the gradients of the mean cross-entropy: of all weights, then of all biases."""
    layers = [inputs]
    for w, b in zip(weights[:-1], biases[:-1], strict=True):
        kept = rng.random((len(inputs), len(b)), dtype=np.float32) >= DROPOUT
        layers.append(np.maximum(layers[-1] @ w + b, 0) * (kept / np.float32(1 - DROPOUT)))
    delta = (softmax(layers[-1] @ weights[-1] + biases[-1]) - wanted) / np.float32(len(inputs))
    of_weights: list[FloatArray] = []
    of_biases: list[FloatArray] = []
    for i in reversed(range(len(weights))):
        of_weights.insert(0, layers[i].T @ delta)
        of_biases.insert(0, delta.sum(axis=0))
        if i:
            delta = (delta @ weights[i].T) * ((layers[i] > 0) / np.float32(1 - DROPOUT))
    return [*of_weights, *of_biases]


class _Adam:
    """Adam's moments of some arrays, which it changes in place. Source: Kingma & Ba 2015."""

    def __init__(self, parameters: list[FloatArray]) -> None:
        self._parameters = parameters
        self._means = [np.zeros_like(p) for p in parameters]
        self._squares = [np.zeros_like(p) for p in parameters]
        self._n = 0

    def step(self, gradients: list[FloatArray], rate: float) -> None:
        self._n += 1
        root = np.float32(1 / np.sqrt(1 - BETA_2**self._n))
        size = np.float32(rate / (1 - BETA_1**self._n))
        each = zip(self._parameters, gradients, self._means, self._squares, strict=True)
        for parameter, gradient, mean, square in each:
            mean += np.float32(1 - BETA_1) * (gradient - mean)
            square += np.float32(1 - BETA_2) * (gradient * gradient - square)
            parameter -= size * mean / (np.sqrt(square) * root + np.float32(EPSILON))
