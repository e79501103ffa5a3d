"""The classifier: a small network over scaled embeddings. Fit, predict, save as arrays. numpy only.

It has the sizes of the reference program's scikit-learn MLP (230 and 100 hidden units, ReLU, softmax), so that it can
be rebuilt as one; how it is fitted is our own.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError
from threadpoolctl import ThreadpoolController

from camera_trap_al.errors import ModelError, UsageError
from camera_trap_al.store import atomic

FORMAT = 1
FACTS, WEIGHTS, REFERENCE = "classifier.json", "classifier.safetensors", "reference_probabilities.npy"
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

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Classifier:
    """Dense layers with ReLU between them and a softmax at the end.

    Parameters
    ----------
    weights : one (inputs, outputs) float32 array a layer
    biases : one (outputs,) float32 array a layer
    classes : the names of the last layer's outputs, sorted by code point, at least two
    """

    weights: tuple[FloatArray, ...]
    biases: tuple[FloatArray, ...]
    classes: tuple[str, ...]

    @property
    def feat_dim(self) -> int:
        """Return the number of embedding dimensions that it takes."""
        return int(self.weights[0].shape[0])

    def predict_proba(self, scaled: FloatArray) -> FloatArray:
        """Return the (b, k) float32 probabilities of (b, d) scaled embeddings, in the order of `classes`.

        Rows sum to 1. A row's result does not depend on the other rows, up to rounding.
        """
        with one_thread():
            layer = np.asarray(scaled, dtype=np.float32)
            for weights, biases in zip(self.weights[:-1], self.biases[:-1], strict=True):
                layer = layer @ weights
                layer += biases
                np.maximum(layer, 0, out=layer)
            # Each class is contiguous, since what follows compares classes, of which there are few, over many rows.
            return _softmax((self.weights[-1].T @ layer.T).T + self.biases[-1])


def fit_classifier(scaled: FloatArray, species: Sequence[str], seed: int) -> Classifier:
    """Fit a classifier on labelled rows.

    Equal rows, labels, order and seed give the same classifier on one machine. Takes about 2 s of one core for 5,000
    rows of 256 dimensions, three times that for 50,000, and little more for any number of rows beyond that.

    Parameters
    ----------
    scaled : (n, d) float32 scaled embeddings, finite
    species : n class names; the classes are those that occur here
    seed : of the first weights, the order of rows and the dropout

    Raises
    ------
    UsageError
        Fewer than two classes occur.

    Source: AdamW with cosine annealing, Loshchilov & Hutter 2019 (arXiv:1711.05101); dropout, Srivastava et al. 2014;
    first weights, Glorot & Bengio 2010. The inputs are centred and scaled by one number, which is folded into the
    first layer afterwards.
    """
    classes = tuple(sorted(set(species)))
    if len(classes) < 2:
        known = f"only '{classes[0]}' has any" if classes else "there are none"
        raise UsageError(
            f"A classifier needs labels of at least two classes; {known}.", hint="Label images of another class."
        )
    column = {name: i for i, name in enumerate(classes)}
    targets = np.array([column[name] for name in species])
    centre = scaled.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread = float(np.sqrt(scaled.var(axis=0, dtype=np.float64).mean())) / INPUT_STD or 1.0
    with one_thread():
        inputs = ((scaled - centre) / np.float32(spread)).astype(np.float32)
        weights, biases = _fit_layers(inputs, targets, len(classes), np.random.default_rng(seed))
    first = weights[0].astype(np.float64) / spread
    folded = [first.astype(np.float32), *weights[1:]]
    shifted = [(biases[0] - centre.astype(np.float64) @ first).astype(np.float32), *biases[1:]]
    return Classifier(tuple(folded), tuple(shifted), classes)


def save_classifier(classifier: Classifier, folder: Path, *, reference: FloatArray, **facts: Any) -> None:
    """Write a classifier into a folder that is there, `classifier.json` last; each file is durable on return.

    Parameters
    ----------
    folder : such as the hidden folder of a checkpoint; its commit is the caller's
    reference : (m, d) float32 scaled embeddings of the model's reference images; what the classifier says of them is
        kept (`reference_probabilities.npy`, (m, k) float32), so that an export can be checked
    facts : JSON values to note in `classifier.json` (what it was made from)
    """
    tensors = {f"weights.{i}": np.ascontiguousarray(w) for i, w in enumerate(classifier.weights)}
    tensors |= {f"biases.{i}": np.ascontiguousarray(b) for i, b in enumerate(classifier.biases)}
    proba = classifier.predict_proba(reference)
    atomic.replace_bytes(folder / WEIGHTS, safetensors.numpy.save(tensors))
    atomic.replace_file(folder / REFERENCE, lambda file: np.save(file, proba, allow_pickle=False))
    noted = {"format": FORMAT, "head": "mlp", "classes": list(classifier.classes), "layers": len(classifier.weights)}
    atomic.replace_json(folder / FACTS, {**noted, **facts})


def load_classifier(folder: Path) -> Classifier:
    """Read what `save_classifier` wrote. Raises `ModelError` if it is damaged, incomplete or of another format."""
    path = folder / FACTS
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            text = f"{path} is of format {facts['format']}; this version reads format {FORMAT}."
            raise ModelError(text, hint="Update the program.")
        path = folder / WEIGHTS
        tensors = safetensors.numpy.load(path.read_bytes())
        weights = tuple(tensors[f"weights.{i}"] for i in range(facts["layers"]))
        biases = tuple(tensors[f"biases.{i}"] for i in range(facts["layers"]))
        classes = tuple(facts["classes"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(
            f"The classifier in {path} cannot be read ({type(error).__name__}: {error}).",
            hint="Set this folder aside; an older checkpoint counts, or it is fitted again.",
        ) from error
    _check_shapes(folder, weights, biases, classes)
    return Classifier(weights, biases, classes)


def _check_shapes(
    folder: Path, weights: tuple[FloatArray, ...], biases: tuple[FloatArray, ...], classes: tuple[str, ...]
) -> None:
    sizes = [*(w.shape[0] for w in weights), len(classes)]
    fits = all(w.shape == (a, b) for w, a, b in zip(weights, sizes, sizes[1:], strict=False))
    if not fits or [b.shape for b in biases] != [(size,) for size in sizes[1:]] or len(classes) < 2:
        raise ModelError(
            f"The arrays of the classifier in {folder} do not fit together.",
            hint="Set this folder aside; an older checkpoint counts, or it is fitted again.",
        )


@functools.cache
def _thread_pools() -> ThreadpoolController:
    """Find the thread pools of numpy's linear algebra; looking for them takes longer than a small prediction."""
    return ThreadpoolController().select(user_api="blas")


def one_thread() -> AbstractContextManager[Any]:
    """Limit numpy to one thread: more only wait for each other in matrices as small as these."""
    limit: AbstractContextManager[Any] = _thread_pools().limit(limits=1)
    return limit


def _softmax(scores: FloatArray) -> FloatArray:
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    proba: FloatArray = shifted / shifted.sum(axis=1, keepdims=True)
    return proba


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
    delta = (_softmax(layers[-1] @ weights[-1] + biases[-1]) - wanted) / np.float32(len(inputs))
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
