"""Clusters within clusters: rows from the branches of a tree whose labels are still in doubt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camera_trap_al.core.geometry import drawn, nearest
from camera_trap_al.strategies import Pool, strategies
from camera_trap_al.strategies.shortlist import Shortlist, labelled_sample, shortlist, size_for

LEAST_ROWS, MOST_LEAVES = 10_000, 2_000
# How much worse than another label one may be and still be admissible for a branch.
BETA = 2.0

FloatArray = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]


@dataclass(frozen=True)
class HierarchicalSampling:
    """Ask at random within the branches of a tree of clusters, more in branches that are large or mixed.

    The tree joins labelled and unlabelled rows by Ward's linkage. It is cut where the labels seen so far say that a cut
    makes branches purer; a branch is drawn in proportion to its size times the doubt about its label, then a row in it.

    The shortlist is a uniform draw of 20 n, at least 10,000 and at most 50,000 rows. The tree has at most 2,000 leaves, a
    uniform draw of shortlisted and labelled rows; the others belong to the nearest leaf. Nothing is kept between requests:
    each one cuts the tree anew, from the root, by all labels.

    Source: Dasgupta and Hsu 2008, "Hierarchical sampling for active learning"; Ward 1963.
    """

    def query(self, pool: Pool, n: int, seed: int) -> npt.NDArray[np.int64]:
        """Return n rows in the order in which they were drawn."""
        short = shortlist(pool, size_for(n, least=LEAST_ROWS), seed)
        labelled, n_labelled = labelled_sample(pool, MOST_LEAVES, seed)
        if not len(short.rows) or not short.embeddings.shape[1]:
            return short.rows[:n]
        leaves = _leaves(short, labelled, n_labelled)
        leaf_of, _ = nearest(short.embeddings, leaves, pool.tick)
        weights = np.bincount(leaf_of, minlength=len(leaves)) * (short.pool_size / len(short.rows))
        counts = np.zeros((len(leaves), max(1, len(pool.classes))))
        for block in pool.labelled_blocks():
            places, known = nearest(block.embeddings, leaves, pool.tick)[0], block.labels >= 0
            weights += np.bincount(places, minlength=len(leaves))
            np.add.at(counts, (places[known], block.labels[known]), 1)
        branch_of, doubts = cut(_ward(leaves), weights, counts)
        return short.rows[_draw(branch_of[leaf_of], doubts, min(n, len(short.rows)), np.random.default_rng(seed))]


def _leaves(short: Shortlist, labelled: npt.NDArray[np.float32], n_labelled: int) -> npt.NDArray[np.float32]:
    """Return the (l, d) leaves: labelled and unlabelled rows in the proportion in which there are such."""
    in_all = short.pool_size + n_labelled
    size = min(in_all, MOST_LEAVES)
    of_pool = min(len(short.rows), max(1, round(size * short.pool_size / in_all)))
    mine = short.embeddings[:of_pool]
    return np.concatenate([mine, labelled[: size - of_pool]]) if n_labelled else mine


def _ward(leaves: npt.NDArray[np.float32]) -> Places:
    """Return the (l - 1, 2) children of each inner node; nodes count on from the l leaves, the root is the last one."""
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import pdist

    if len(leaves) < 2:
        return np.zeros((0, 2), np.intp)
    return np.asarray(linkage(pdist(leaves), "ward")[:, :2], np.intp)


def cut(children: Places, weights: npt.NDArray[np.floating], counts: FloatArray) -> tuple[Places, FloatArray]:
    """Cut a tree into the branches that its labels support.

    Parameters
    ----------
    children : (l - 1, 2), of the inner nodes l, l + 1, ..., each after its children
    weights : (l,) how many rows belong to a leaf
    counts : (l, k) how many labels of each class belong to a leaf, k > 0

    Returns
    -------
    (l,) the branch of each leaf, numbered by first leaf, and for each branch its weight times the upper bound of the
    share of rows that do not have its label
    """
    n_leaves = len(weights)
    weights, counts = _summed(children, weights), _summed(children, counts)
    lower, is_admissible, error = _bounds(counts)
    score, can = error.min(axis=1), np.asarray(is_admissible.any(axis=1))
    is_cut = np.zeros(len(weights), bool)
    for node, (left, right) in enumerate(children, n_leaves):
        if can[node] and weights[node]:
            below = (weights[left] * score[left] + weights[right] * score[right]) / weights[node]
            is_cut[node] = below < score[node]
            score[node] = min(score[node], below)
    top, label = np.arange(len(weights)), error.argmin(axis=1)
    label[-1] = label[-1] if can[-1] else counts[-1].argmax()
    for node in range(len(weights) - 1, n_leaves - 1, -1):
        for child in children[node - n_leaves]:
            label[child] = label[child] if can[child] else label[node]
            if top[node] != node or not is_cut[node]:
                top[child] = top[node]
    _, first, branch_of = np.unique(top[:n_leaves], return_index=True, return_inverse=True)
    order = np.argsort(first)
    branches = top[first[order]]
    return np.argsort(order)[branch_of], weights[branches] * (1 - lower[branches, label[branches]])


def _summed(children: Places, of_leaves: npt.NDArray[np.floating]) -> FloatArray:
    """Return values for all nodes: those of the leaves, and for each inner node the sum of its children."""
    of_nodes = np.concatenate([of_leaves, np.zeros((len(children), *of_leaves.shape[1:]))])
    for node, (left, right) in enumerate(children, len(of_leaves)):
        of_nodes[node] = of_nodes[left] + of_nodes[right]
    return of_nodes


def _bounds(counts: FloatArray) -> tuple[FloatArray, npt.NDArray[np.bool_], FloatArray]:
    """Return, for (v, k) counts, the lower bound of each label's share, whether it is admissible, and its error.

    The error of a label that is not admissible is 1.
    """
    n = counts.sum(axis=1, keepdims=True)
    seen = np.maximum(n, 1)
    share = counts / seen
    width = 1 / seen + np.sqrt(share * (1 - share) / seen)
    lower = np.maximum(share - width, 0)
    upper = np.where(n > 0, np.minimum(share + width, 1), 1.0)
    ranked = np.sort(np.concatenate([np.zeros_like(n), upper], axis=1), axis=1)
    rival = np.where(upper == ranked[:, -1:], ranked[:, -2:-1], ranked[:, -1:])
    is_admissible: npt.NDArray[np.bool_] = np.logical_and(n > 0, 1 - lower < BETA * (1 - rival))
    return lower, is_admissible, np.where(is_admissible, 1 - share, 1.0)


def _draw(branch_of: Places, doubts: FloatArray, n: int, rng: np.random.Generator) -> Places:
    """Draw n places: each time a branch that has any left, then the next one in it."""
    order = np.argsort(branch_of, kind="stable")
    left = np.bincount(branch_of, minlength=len(doubts))
    nexts = np.concatenate([[0], np.cumsum(left)[:-1]])
    chosen = np.zeros(n, np.intp)
    for i in range(n):
        open_ = np.flatnonzero(left)
        branch = open_[drawn(doubts[open_], rng)]
        chosen[i] = order[nexts[branch]]
        nexts[branch] += 1
        left[branch] -= 1
    return chosen


strategies.register("hierarchical")(HierarchicalSampling())
