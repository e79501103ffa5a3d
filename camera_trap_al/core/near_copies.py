"""Which embeddings are so close that a second image teaches nothing: measured by the pool's own distances."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from camera_trap_al.core.geometry import Vectors, squared_distances

SAMPLE_ROWS = 1000
NEAR_SHARE = 0.001
BLOCK_ROWS = 256


def near_copy_distance(sample: Vectors, sequences: npt.NDArray[np.int64]) -> float:
    """Return the squared distance up to which two images of a pool are near-copies.

    It is the one that a thousandth of all pairs of different sequences do not exceed, pairs of equal embeddings aside: there
    may be many, such as of black frames. Measured on 369 camera-trap images of 8 sites with known sequences (1,280
    features of an ImageNet network): 42 in 100 pairs of one sequence are that close, and of the pairs of different
    sequences that are, all showed the same species.

    Parameters
    ----------
    sample : (s, d) embeddings of a uniform draw from the pool; s = 1,000 is enough
    sequences : (s,) of which sequence each is

    Returns
    -------
    the squared Euclidean distance, or -1 where there is no pair of different sequences
    """
    apart = np.triu(sequences[:, None] != sequences, 1)
    squared = squared_distances(sample, sample)[apart]
    different = squared[squared > 0]
    if len(different):
        return float(np.quantile(different, NEAR_SHARE, method="lower"))
    return 0.0 if len(squared) else -1.0


@dataclass
class Apart:
    """The embeddings chosen so far, no two of which are near-copies.

    Parameters
    ----------
    limit : as `near_copy_distance` returns it; below 0 nothing is a near-copy
    """

    limit: float
    _chosen: list[npt.NDArray[np.floating]] = field(default_factory=list)

    def add(self, vectors: Vectors) -> None:
        """Choose (b, d) embeddings, whatever they are close to."""
        if len(vectors):
            self._chosen.append(np.asarray(vectors))

    def choose(self, vectors: Vectors) -> npt.NDArray[np.bool_]:
        """Return which of (b, d) embeddings, the best first, are no near-copies of what was chosen; they are chosen now.

        Memory is 256 times as many distances as vectors were chosen.
        """
        fits = np.zeros(len(vectors), dtype=bool)
        for start in range(0, len(vectors), BLOCK_ROWS):
            block = np.asarray(vectors[start : start + BLOCK_ROWS])
            free = np.ones(len(block), dtype=bool)
            for chosen in self._chosen:
                free &= (squared_distances(block, chosen) > self.limit).all(axis=1)
            within = squared_distances(block, block)
            for i in range(len(block)):
                if free[i]:
                    free[i + 1 :] &= within[i, i + 1 :] > self.limit
            self.add(block[free])
            fits[start : start + BLOCK_ROWS] = free
        return fits
