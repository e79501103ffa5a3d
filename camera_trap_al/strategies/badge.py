"""Uncertain and different at once: rows that would change the classifier much, and each in another way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camera_trap_al.core.acquisition import FloatArray
from camera_trap_al.core.geometry import product_distances, spread_out
from camera_trap_al.strategies import Pool, PoolBlock, strategies
from camera_trap_al.strategies.shortlist import shortlist, size_for

LEAST_ROWS = 10_000


@dataclass(frozen=True)
class BadgeSampling:
    """Ask for rows whose gradients are long and far from each other, drawn as the first centres of k-means++.

    The gradient is that of a linear layer on the embedding, were the likeliest class the true one: the outer product of
    (probabilities - 1 for the likeliest class) and embedding. Only its factors are kept. The shortlist is the 20 n, at
    least 10,000 and at most 50,000 rows with the longest gradients.

    Source: Ash, Zhang, Krishnamurthy, Langford and Agarwal 2020, "Deep batch active learning by diverse, uncertain
    gradient lower bounds" (arXiv:1906.03671).
    """

    def query(self, pool: Pool, n: int, seed: int) -> npt.NDArray[np.int64]:
        """Return n rows, the longest gradient first."""
        short = shortlist(pool, size_for(n, least=LEAST_ROWS), seed, gradient_length)
        if not len(short.rows) or not n:
            return short.rows[:n]
        distances_from = product_distances(errors(short.proba), short.embeddings)
        places = spread_out(distances_from, 0, min(n, len(short.rows)), np.random.default_rng(seed), pool.tick)
        return short.chosen(places, n)


def errors(proba: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return (b, k) probabilities less 1 for the likeliest class."""
    left = proba.astype(np.float64)
    if left.shape[1]:
        left[np.arange(len(left)), left.argmax(axis=1)] -= 1
    return left


def gradient_length(block: PoolBlock) -> FloatArray:
    """Return the (b,) squared length of each gradient."""
    embeddings = block.embeddings.astype(np.float64)
    lengths: FloatArray = ((errors(block.proba) ** 2).sum(axis=1) * (embeddings**2).sum(axis=1)).astype(np.float32)
    return lengths


strategies.register("badge")(BadgeSampling())
