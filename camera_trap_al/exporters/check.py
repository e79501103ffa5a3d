"""The check of an export: its files, run in onnxruntime on the reference images, against what the learner said."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from camera_trap_al.exporters import ExportCheckError
from camera_trap_al.learn.onnx_files import open_session, read_alone
from camera_trap_al.store.embeddings import scale

# Of probabilities, and of scaled embeddings, which lie between 0 and 1 for the most part.
TOLERANCE = 1e-4
# float32 arithmetic in another order moves an embedding by about this part of its largest value; scaling enlarges that
# in a dimension whose range is narrow beside that value.
ROUNDING = 1e-5
ALIKE = 1e-6

FloatArray = npt.NDArray[np.float32]
Run = Callable[[npt.NDArray[Any]], list[Any]]


def check_export(
    files: Mapping[str, bytes],
    images: npt.NDArray[np.uint8],
    embeddings: FloatArray,
    scaler: npt.NDArray[np.float64],
    proba: FloatArray,
    classes: Sequence[str],
) -> None:
    """Raise `ExportCheckError` unless the files predict as the learner does, for each image alone and in a batch.

    And unless `model.onnx` says what its outputs mean, so that it can be used alone.

    Parameters
    ----------
    files : with `model.onnx`, `embedding.onnx` and `classifier.onnx`
    images : (m, 256, 256, 3) uint8, the reference images, m >= 1
    embeddings : (m, d) float32, raw, as the network gave them when the model was made
    scaler : (2, d) minimum and range of each dimension
    proba : (m, k) float32, what the classifier said of the images when it was fitted
    classes : its k classes
    """
    if read_alone(files["model.onnx"], "model.onnx") != list(classes):
        raise ExportCheckError("model.onnx does not name the classes of the learner.")
    scaled = scale(embeddings, scaler)
    embed, model, classify = (_open(files, name) for name in ("embedding.onnx", "model.onnx", "classifier.onnx"))
    embedded, predicted = embed(images)[0], model(images)[0]
    allowed = TOLERANCE + ROUNDING * np.abs(embeddings).max() / scaler[1]
    _check_near("embedding.onnx", embedded, scaled, allowed)
    _check_near("model.onnx", predicted, proba, TOLERANCE)
    for i in range(len(images)):
        alone = model(images[i : i + 1])[0]
        _check_near(f"model.onnx, with image {i} alone,", alone, predicted[i : i + 1], TOLERANCE)
    labels, of_classifier = classify(scaled)
    _check_near("classifier.onnx", of_classifier, proba, TOLERANCE)
    _check_labels(labels, proba)
    if (images != images[0]).any() and np.ptp(embedded, axis=0).max() < ALIKE:
        raise ExportCheckError(
            f"The network gives the same embedding for all {len(images)} reference images: it sees no difference.",
            hint="Train the model again, or start from pretrained weights.",
        )


def _open(files: Mapping[str, bytes], name: str) -> Run:
    """Return a function from the file's one input to its outputs."""

    def failed(error: Exception) -> ExportCheckError:
        text = f"onnxruntime {importlib.metadata.version('onnxruntime')} cannot run {name} ({error})."
        return ExportCheckError(text, hint="Update onnxruntime.")

    # onnxruntime raises classes of its own that share no base.
    try:
        session = open_session(files[name])
    except Exception as error:
        raise failed(error) from error

    def run(value: npt.NDArray[Any]) -> list[Any]:
        try:
            return list(session.run(None, {session.get_inputs()[0].name: value}))
        except Exception as error:
            raise failed(error) from error

    return run


def _check_near(what: str, got: FloatArray, wanted: FloatArray, allowed: float | npt.NDArray[np.float64]) -> None:
    if got.shape != wanted.shape:
        raise ExportCheckError(f"{what} gives an array {got.shape} where {wanted.shape} was expected.")
    off = np.abs(got - wanted)
    # Written so that what is not a number fails, too.
    if (off <= allowed).all():
        return
    row, column = np.unravel_index(np.argmax(np.nan_to_num(off, nan=np.inf) / allowed), off.shape)
    raise ExportCheckError(
        f"{what} differs from the learner: {got[row, column]:.6g} where {wanted[row, column]:.6g} was expected"
        f" (reference image {row}, column {column}).",
        hint="Nothing was exported; it is tried again with the next classifier.",
    )


def _check_labels(labels: npt.NDArray[np.int64], proba: FloatArray) -> None:
    """Of classes that are equally likely up to the tolerance, any may be named."""
    is_right = labels.shape == (len(proba),) and labels.dtype == np.int64
    if is_right:
        named = proba[np.arange(len(proba)), labels]
        is_right = bool((named >= proba.max(axis=1) - TOLERANCE).all())
    if not is_right:
        raise ExportCheckError("classifier.onnx does not name the likeliest class of each reference image.")
