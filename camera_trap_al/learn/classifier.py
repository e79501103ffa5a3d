"""The classifier: dense layers over scaled embeddings. Fit by a head, predict, save as arrays. numpy only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from camera_trap_al.errors import ModelError, UsageError
from camera_trap_al.learn.heads import heads
from camera_trap_al.learn.heads.dense import Examples, FloatArray, one_thread, softmax
from camera_trap_al.store import atomic

__all__ = ["Classifier", "fit_classifier", "load_classifier", "one_thread", "save_classifier"]

FORMAT = 1
FACTS, WEIGHTS, REFERENCE = "classifier.json", "classifier.safetensors", "reference_probabilities.npy"


@dataclass(frozen=True)
class Classifier:
    """Dense layers with ReLU between them and a softmax at the end.

    Parameters
    ----------
    weights : one (inputs, outputs) float32 array a layer
    biases : one (outputs,) float32 array a layer
    classes : the names of the last layer's outputs, sorted by code point, at least two
    head : which head fitted it
    temperature : by which the last layer was divided already, so that the probabilities are calibrated; above 0
    """

    weights: tuple[FloatArray, ...]
    biases: tuple[FloatArray, ...]
    classes: tuple[str, ...]
    head: str = "mlp"
    temperature: float = 1.0

    @property
    def feat_dim(self) -> int:
        """Return the number of embedding dimensions that it takes."""
        return int(self.weights[0].shape[0])

    def predict_proba(self, scaled: FloatArray) -> FloatArray:
        """Return the (b, k) float32 probabilities of (b, d) scaled embeddings, in the order of `classes`.

        Rows sum to 1. A row's result does not depend on the other rows, up to rounding.
        """
        return softmax(self.scores(scaled))

    def scores(self, scaled: FloatArray) -> FloatArray:
        """Return what the softmax is taken of: (b, k) float32."""
        with one_thread():
            layer = np.asarray(scaled, dtype=np.float32)
            for weights, biases in zip(self.weights[:-1], self.biases[:-1], strict=True):
                layer = layer @ weights
                layer += biases
                np.maximum(layer, 0, out=layer)
            # Each class is contiguous, since what follows compares classes, of which there are few, over many rows.
            scores: FloatArray = (self.weights[-1].T @ layer.T).T + self.biases[-1]
            return scores


def fit_classifier(
    scaled: FloatArray,
    species: Sequence[str],
    seed: int,
    head: str = "mlp",
    *,
    unlabelled: FloatArray | None = None,
    temperature: float = 1.0,
    balanced: bool = True,
) -> Classifier:
    """Fit a classifier on labelled rows.

    Equal rows, labels, order, head and seed give the same classifier on one machine.

    Parameters
    ----------
    scaled : (n, d) float32 scaled embeddings
    species : n class names; the classes are those that occur here
    seed : of whatever the head draws
    head : a name in `heads`
    unlabelled : (m, d) float32 scaled embeddings of a sample of the images without a label, for heads that use them
    temperature : the scores are divided by this, above 0
    balanced : whether classes shall weigh alike, where the head can do so; else images do

    Raises
    ------
    UsageError
        Fewer than two classes occur.
    ModelError
        An embedding holds something that is no number: rows of `scaled` are named by their place.
    """
    classes = tuple(sorted(set(species)))
    if len(classes) < 2:
        known = f"only '{classes[0]}' has any" if classes else "there are none"
        raise UsageError(
            f"A classifier needs labels of at least two classes; {known}.", hint="Label images of another class."
        )
    column = {name: i for i, name in enumerate(classes)}
    targets = np.array([column[name] for name in species], dtype=np.int64)
    sample = np.zeros((0, scaled.shape[1]), dtype=np.float32) if unlabelled is None else unlabelled
    for what, vectors in (("labelled", scaled), ("unlabelled", sample)):
        if not np.isfinite(vectors).all():
            first = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
            raise ModelError(
                f"The embedding of {what} image {first} holds something that is no number.",
                hint="Set the newest folder in embedding aside, so that its images are embedded again.",
            )
    with one_thread():
        layers = heads[head].fit(Examples(scaled, targets, len(classes), sample, balanced), seed)
    last = np.float32(1 / temperature)
    weights = (*layers.weights[:-1], layers.weights[-1] * last)
    biases = (*layers.biases[:-1], layers.biases[-1] * last)
    return Classifier(weights, biases, classes, head, float(temperature))


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
    noted = {"format": FORMAT, "head": classifier.head, "temperature": classifier.temperature}
    noted |= {"classes": list(classifier.classes), "layers": len(classifier.weights)}
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
        head, temperature = str(facts["head"]), float(facts.get("temperature", 1.0))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(
            f"The classifier in {path} cannot be read ({type(error).__name__}: {error}).",
            hint="Set this folder aside; an older checkpoint counts, or it is fitted again.",
        ) from error
    _check_shapes(folder, weights, biases, classes)
    return Classifier(weights, biases, classes, head, temperature)


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
