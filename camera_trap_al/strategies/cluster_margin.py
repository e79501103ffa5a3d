"""Uncertain and different, for large requests: small margins from every cluster, the small clusters first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camera_trap_al.core.acquisition import turns
from camera_trap_al.core.geometry import k_means, nearest
from camera_trap_al.strategies import Pool, strategies
from camera_trap_al.strategies.shortlist import by_margin, shortlist, size_for

LEAST_ROWS, MOST_CLUSTERS = 10_000, 500
PER_CLUSTER, UNCERTAIN_PER_ASKED = 10, 10


@dataclass(frozen=True)
class ClusterMarginSampling:
    """Ask for one of each cluster of the 10 n smallest margins in turn, the smallest cluster first.

    Clusters are those of the pool, uncertain or not: of a uniform draw of 20 n, at least 10,000 and at most 50,000 rows,
    one for each 10 rows drawn, at most n and at most 500. The method joins clusters by average linkage; here it is
    k-means. It was made for requests of many thousands; were there more clusters than rows asked for, a small request
    would hold the smallest ones only, which are odd pictures (measured worse than a uniform draw). Where it draws from a
    cluster at random, here the smallest margin comes first.

    Source: Citovsky, DeSalvo, Gentile, Karydas, Rajagopalan, Rostamizadeh and Kumar 2021, "Batch active learning at
    scale" (arXiv:2107.14263).
    """

    def query(self, pool: Pool, n: int, seed: int) -> npt.NDArray[np.int64]:
        """Return n rows, of the clusters in turn."""
        drawn = shortlist(pool, size_for(n, least=LEAST_ROWS), seed)
        short = shortlist(pool, size_for(n, per_asked=UNCERTAIN_PER_ASKED), seed, by_margin)
        if not len(short.rows) or not short.embeddings.shape[1]:
            return short.rows[:n]
        k = max(1, min(n, MOST_CLUSTERS, len(drawn.rows) // PER_CLUSTER))
        centres = k_means(drawn.embeddings, k, np.random.default_rng(seed), pool.tick).centres
        in_ = nearest(short.embeddings, centres, pool.tick)[0]
        sizes = np.bincount(in_, minlength=len(centres))
        turn = turns(in_, np.zeros(len(centres), np.int64))
        return short.rows[np.lexsort((in_, sizes[in_], turn))[:n]]


strategies.register("cluster_margin")(ClusterMarginSampling())
