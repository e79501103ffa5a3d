"""Coverage: rows that are unlike all labelled ones and unlike each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camera_trap_al.core.geometry import farthest_first, nearest
from camera_trap_al.strategies import Pool, strategies
from camera_trap_al.strategies.shortlist import shortlist, size_for

LEAST_ROWS = 10_000


@dataclass(frozen=True)
class KCenterSampling:
    """Ask, one after the other, for the row that is farthest from every labelled and every chosen one.

    The shortlist is a uniform draw of 20 n, at least 10,000 and at most 50,000 rows: a pool of up to 10,000 is looked at
    whole, and what is common in a larger one cannot be missed. Distances are Euclidean.

    Source: k-center greedy, Sener and Savarese 2018 (arXiv:1708.00489), which is farthest-first of Gonzalez 1985.
    """

    def query(self, pool: Pool, n: int, seed: int) -> npt.NDArray[np.int64]:
        """Return n rows, the one farthest from all labelled ones first; the first at random if there are none."""
        short = shortlist(pool, size_for(n, least=LEAST_ROWS), seed)
        covered = np.full(len(short.rows), np.inf, np.float32)
        for block in pool.labelled_blocks():
            if len(block.labels):
                covered = np.minimum(covered, nearest(short.embeddings, block.embeddings, pool.tick)[1])
        return short.rows[farthest_first(short.embeddings, covered, min(n, len(short.rows)), pool.tick)]


strategies.register("kcenter")(KCenterSampling())
