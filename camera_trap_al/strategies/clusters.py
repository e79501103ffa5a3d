"""Uncertain and different: the smallest margins, spread over clusters of embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camera_trap_al.core.geometry import k_means, nearest
from camera_trap_al.strategies import Pool, PoolBlock, strategies
from camera_trap_al.strategies.groups import best_of_each
from camera_trap_al.strategies.shortlist import PER_ASKED, by_margin, shortlist, size_for

LEAST_ROWS = 10_000


@dataclass(frozen=True)
class InformativeDiverseSampling:
    """Ask for the smallest margins, but from each cluster no more than its share of all rows.

    As many clusters as classes, by k-means on a uniform draw of 20 n, at least 10,000 and at most 50,000 rows. Then every
    row of the pool is looked at; shares count labelled and unlabelled rows. What the shares leave open is filled by
    margin. Memory is one block, the draw and n rows a cluster.

    Source: the informative and diverse sampler of google/active-learning (2017), after Brinker 2003, "Incorporating
    diversity in active learning with support vector machines".
    """

    def query(self, pool: Pool, n: int, seed: int) -> npt.NDArray[np.int64]:
        """Return n rows: first those within the shares, then the others, each by margin."""
        drawn = shortlist(pool, size_for(n, least=LEAST_ROWS), seed)
        if not len(drawn.rows):
            return drawn.rows
        rng = np.random.default_rng(seed)
        centres = k_means(drawn.embeddings, max(1, len(pool.classes)), rng, pool.tick).centres

        def cluster_of(block: PoolBlock) -> npt.NDArray[np.intp]:
            return nearest(block.embeddings, centres)[0]

        best = best_of_each(pool, cluster_of, len(centres), n, seed, by_margin)
        sizes = best.sizes.astype(np.float64)
        for labelled in pool.labelled_blocks():
            sizes += np.bincount(nearest(labelled.embeddings, centres)[0], minlength=len(centres))
        return best.within_shares(sizes, n)


@dataclass(frozen=True)
class MarginClusterMeanSampling:
    """Ask for the middle of each of n clusters of the most uncertain rows.

    The method clusters what lies within the margin of a support vector machine. A classifier that gives probabilities has
    no such border; here it is the 20 n (at most 50,000) rows of smallest margin, of a small pool its smaller half.

    Source: representative sampling, Xu, Yu, Tresp, Xu and Wang 2003, "Representative sampling for text classification
    using support vector machines".
    """

    def query(self, pool: Pool, n: int, seed: int) -> npt.NDArray[np.int64]:
        """Return n rows: the one nearest to the mean of each cluster, by margin, then the smallest other margins."""
        short = shortlist(pool, size_for(n), seed, by_margin)
        within = min(len(short.rows), max(n, min(PER_ASKED * n, -(-short.pool_size // 2))))
        if not within:
            return short.rows
        clusters = k_means(short.embeddings[:within], n, np.random.default_rng(seed), pool.tick)
        by_cluster = np.lexsort((np.arange(within), clusters.squared, clusters.in_))
        _, first = np.unique(clusters.in_[by_cluster], return_index=True)
        return short.chosen(np.sort(by_cluster[first]), n)


strategies.register("informative_diverse")(InformativeDiverseSampling())
strategies.register("margin_cluster_mean")(MarginClusterMeanSampling())
