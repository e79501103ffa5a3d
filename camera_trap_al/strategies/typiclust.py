"""Typical rows: the middle of each part of the pool that has no label yet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camera_trap_al.core.acquisition import turns
from camera_trap_al.core.geometry import TILE_CELLS, Tick, k_means, nearest, no_tick, squared_distances
from camera_trap_al.strategies import WITHOUT_CLASSES, Pool, strategies
from camera_trap_al.strategies.shortlist import labelled_sample, shortlist, size_for

MOST_ROWS, MOST_LABELLED = 10_000, 2_000
MOST_CLUSTERS, LEAST_SIZE, NEIGHBOURS = 500, 5, 20


@dataclass(frozen=True)
class TypiclustSampling:
    """Ask for the most typical row of each cluster that has no label yet, the largest cluster first.

    As many clusters as there are labels and rows asked for, at most 500, by k-means. A row is typical where the mean
    distance to its 20 nearest neighbours in its cluster is small. Where every cluster has a label or a chosen row, those
    that have fewest come first; clusters of fewer than 5 rows come last.

    The shortlist is a uniform draw of 10,000 rows, and the same share of the labelled ones (at most 2,000). A request of
    more than 10,000 rows is filled by that draw.

    Source: Hacohen, Dekel and Weinshall 2022, "Active learning on a budget: opposite strategies suit high and low
    budgets" (arXiv:2202.02794).
    """

    def query(self, pool: Pool, n: int, seed: int) -> npt.NDArray[np.int64]:
        """Return n rows, the most typical of the largest cluster without a label first."""
        short = shortlist(pool, size_for(n, least=MOST_ROWS, most=MOST_ROWS), seed)
        labelled, n_labelled = labelled_sample(pool, MOST_LABELLED, seed)
        size = min(len(short.rows), MOST_ROWS)
        if not size or not short.embeddings.shape[1]:
            return short.rows[:n]
        points = short.embeddings[:size]
        if n_labelled:
            points = np.concatenate([points, labelled[: round(n_labelled * size / short.pool_size)]])
        k = max(1, min(n_labelled + n, MOST_CLUSTERS))
        clusters = k_means(points, k, np.random.default_rng(seed), pool.tick)
        sizes = np.bincount(clusters.in_, minlength=len(clusters.centres))
        begun = np.zeros(len(sizes), np.int64)
        for block in pool.labelled_blocks():
            begun += np.bincount(nearest(block.embeddings, clusters.centres)[0], minlength=len(sizes))
        in_ = clusters.in_[:size]
        far = distances_in_clusters(points, clusters.in_, pool.tick)[:size]
        typical = np.lexsort((np.arange(size), far))
        turn = np.empty(size, np.int64)
        turn[typical] = turns(in_[typical], begun)
        return short.chosen(np.lexsort((far, in_, -sizes[in_], turn, sizes[in_] < LEAST_SIZE)), n)


def distances_in_clusters(
    points: npt.NDArray[np.float32], in_: npt.NDArray[np.intp], tick: Tick = no_tick
) -> npt.NDArray[np.float64]:
    """Return the (s,) mean distance of each of (s, d) points to its nearest others `in_` its cluster, 0 without any."""
    means = np.zeros(len(points))
    order = np.argsort(in_, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(in_[order])) + 1):
        n_near = min(NEIGHBOURS, len(members) - 1)
        rows = max(1, TILE_CELLS // len(members))
        for start in range(0, len(members) if n_near else 0, rows):
            mine = members[start : start + rows]
            near = np.partition(squared_distances(points[mine], points[members]), n_near, axis=1)[:, : n_near + 1]
            means[mine] = np.sqrt(np.sort(near, axis=1), dtype=np.float64).sum(axis=1) / n_near
            tick()
    return means


strategies.register("typiclust", WITHOUT_CLASSES)(TypiclustSampling())
