"""What every head is fitted on and what every head returns: labelled rows in, dense layers out. numpy only."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Examples:
    """What a head is fitted on.

    Parameters
    ----------
    vectors : (n, d) float32 scaled embeddings, finite, n >= 2
    targets : (n,) int64 in [0, n_classes); every class occurs
    n_classes : at least two
    unlabelled : (m, d) float32 scaled embeddings of a sample of the images without a label; m may be 0
    balanced : whether classes shall weigh alike, else images do
    """

    vectors: FloatArray
    targets: IntArray
    n_classes: int
    unlabelled: FloatArray
    balanced: bool = True

    def known(self) -> FloatArray:
        """Return the (n + m, d) vectors with and without a label."""
        return np.concatenate([self.vectors, self.unlabelled]) if len(self.unlabelled) else self.vectors

    def weights(self) -> FloatArray:
        """Return the (n,) weights of rows."""
        if not self.balanced:
            return np.ones(len(self.targets), dtype=np.float32)
        return class_weights(self.targets, self.n_classes)

    def one_hot(self) -> FloatArray:
        """Return the (n, n_classes) targets as probabilities."""
        return np.eye(self.n_classes, dtype=np.float32)[self.targets]


def class_weights(targets: IntArray, n_classes: int) -> FloatArray:
    """Return (n,) weights of rows: each class weighs alike in all."""
    counts = np.bincount(targets, minlength=n_classes)
    return (1 / counts[targets]).astype(np.float32)


class Layers(NamedTuple):
    """One (inputs, outputs) and one (outputs,) float32 array a layer, first to last; ReLU between them."""

    weights: list[FloatArray]
    biases: list[FloatArray]


@functools.cache
def _thread_pools() -> ThreadpoolController:
    """Find the thread pools of numpy's linear algebra; looking for them takes longer than a small prediction."""
    return ThreadpoolController().select(user_api="blas")


def one_thread() -> AbstractContextManager[Any]:
    """Limit numpy to one thread: more only wait for each other in matrices as small as these."""
    limit: AbstractContextManager[Any] = _thread_pools().limit(limits=1)
    return limit


def softmax(scores: FloatArray) -> FloatArray:
    """Return (n, k) probabilities; each row sums to 1."""
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    proba: FloatArray = shifted / shifted.sum(axis=1, keepdims=True)
    return proba
