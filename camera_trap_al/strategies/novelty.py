"""Unlike anything labelled: for species that nobody has named yet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camera_trap_al.core.acquisition import FloatArray, no_preference
from camera_trap_al.core.geometry import nearest
from camera_trap_al.strategies import Pool, PoolBlock, strategies
from camera_trap_al.strategies.shortlist import labelled_sample, shortlist, size_for

LEAST_ROWS, MOST_LABELLED = 2_000, 500


@dataclass(frozen=True)
class NoveltySampling:
    """Ask for the rows that are farthest from every labelled one, wherever in the pool they are.

    The shortlist is the 20 n, at least 2,000 and at most 50,000 rows that are farthest from the nearest of at most 500
    labelled ones, drawn uniformly; on it, all labelled ones count. Distances are Euclidean.

    Source: distance to the nearest neighbour as a score of novelty, Ramaswamy, Rastogi and Shim 2000, "Efficient
    algorithms for mining outliers from large data sets".
    """

    def query(self, pool: Pool, n: int, seed: int) -> npt.NDArray[np.int64]:
        """Return n rows, the farthest first; a uniform draw if there are no labels."""
        labelled, n_labelled = labelled_sample(pool, MOST_LABELLED, seed)

        def distance(block: PoolBlock) -> FloatArray:
            if not n_labelled:
                return no_preference(block.proba)
            return nearest(block.embeddings, labelled, pool.tick)[1]

        short = shortlist(pool, size_for(n, least=LEAST_ROWS), seed, distance)
        covered = short.scores
        for block in pool.labelled_blocks() if n_labelled > MOST_LABELLED else ():
            covered = np.minimum(covered, nearest(short.embeddings, block.embeddings, pool.tick)[1])
        return short.rows[np.argsort(-covered, kind="stable")[:n]]


strategies.register("novelty")(NoveltySampling())
