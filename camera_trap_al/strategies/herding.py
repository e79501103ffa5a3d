"""Uncertain parts of the pool, covered: one rule for few labels and for many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camera_trap_al.core.acquisition import FloatArray, key_priority, margin_score
from camera_trap_al.core.geometry import cover, nearest
from camera_trap_al.strategies import WITHOUT_CLASSES, Pool, PoolBlock, strategies
from camera_trap_al.strategies.shortlist import shortlist

MOST_ROWS, MOST_MARKS = 3_000, 1_000


@dataclass(frozen=True)
class UncertaintyHerdingSampling:
    """Ask, one after the other, for the row that covers most of what is uncertain and not covered yet.

    A row covers another by exp(-distance^2 / 2 r^2), as labelled ones do; uncertain is a row by 1 - margin, and all alike
    before there is a classifier. The radius r shrinks as labels come: it is the usual distance of a row to the nearest of
    as many rows as are labelled or asked for.

    The shortlist is 3,000 rows, drawn in proportion to their uncertainty, each of which stands for as much of the pool as
    its uncertainty and its chance say. A smaller pool is looked at whole. A larger request is filled by that draw.

    Source: Bae, Oliveira and Sutherland 2025, "Uncertainty herding: one active learning method for all label budgets"
    (arXiv:2412.20644); the draw is priority sampling, Duffield, Lund and Thorup 2007.
    """

    radius: float = 1.0

    def query(self, pool: Pool, n: int, seed: int) -> npt.NDArray[np.int64]:
        """Return n rows, the one that covers most first."""

        def priority(block: PoolBlock) -> FloatArray:
            chance = (key_priority(block.key_hashes, seed) >> np.uint64(11)).astype(np.float64) + 1
            return uncertainty(block.proba) * (2.0**53 / chance)

        short = shortlist(pool, max(n, MOST_ROWS) + 1, seed, priority)
        size = min(len(short.rows), MOST_ROWS)
        if not size or not short.embeddings.shape[1]:
            return short.rows[:n]
        points = short.embeddings[:size]
        bar = short.scores[size] if size < len(short.rows) else 0.0
        weights = np.maximum(uncertainty(short.proba[:size]), bar)
        squared, n_labelled = np.full(size, np.inf), 0
        for block in pool.labelled_blocks():
            if len(block.labels):
                n_labelled += len(block.labels)
                squared = np.minimum(squared, nearest(points, block.embeddings, pool.tick)[1])
        marks = max(1, min(n_labelled + n, MOST_MARKS, size // 2))
        apart = nearest(points[marks:], points[:marks], pool.tick)[1]
        radius = self.radius**2 * float(np.median(apart)) if len(apart) else 0.0
        places = cover(points, weights, squared, radius or 1.0, min(n, size), pool.tick)
        return short.chosen(places, n)


def uncertainty(proba: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return 1 - margin (b,), 1 where there are no two classes."""
    return 1 + margin_score(proba).astype(np.float64)


strategies.register("uncertainty_herding", WITHOUT_CLASSES)(UncertaintyHerdingSampling())
