"""The best rows of each group of a pool, and how a request is shared between groups: clusters, predicted classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camera_trap_al.core.acquisition import RowArray, Scored, best_first, may_be_best, turns
from camera_trap_al.strategies import Pool, PoolBlock
from camera_trap_al.strategies.shortlist import Score

Places = npt.NDArray[np.intp]


@dataclass(frozen=True)
class BestOfEach:
    """Rows in order of score: `rows` (s,), `groups` (s,) the group of each; `sizes` (g,) how many rows a group has."""

    rows: RowArray
    groups: Places
    sizes: npt.NDArray[np.int64]

    def within_shares(self, weights: npt.NDArray[np.floating], n: int) -> RowArray:
        """Return n rows: first those within their group's share, in proportion to (g,) weights, then the others."""
        shares = n * weights / max(weights.sum(), 1)
        within = self._turns() < shares[self.groups]
        return np.concatenate([self.rows[within], self.rows[~within]])[:n]

    def in_turns(self, n: int) -> RowArray:
        """Return n rows, of all groups in turn, in order of score within a turn."""
        return self.rows[np.argsort(self._turns(), kind="stable")[:n]]

    def _turns(self) -> npt.NDArray[np.int64]:
        return turns(self.groups, np.zeros(len(self.sizes), np.int64))


def best_of_each(
    pool: Pool, group_of: Callable[[PoolBlock], Places], n_groups: int, n: int, seed: int, score: Score
) -> BestOfEach:
    """Return the n rows of each group that score highest. Memory is one block and n rows a group."""
    best, sizes = [Scored.empty() for _ in range(n_groups)], np.zeros(n_groups, np.int64)
    for block in pool.unlabelled_blocks():
        groups, scores = group_of(block), score(block)
        sizes += np.bincount(groups, minlength=n_groups)
        for group in np.unique(groups):
            here = groups == group
            mine = Scored(block.rows[here], block.key_hashes[here], scores[here])
            both = best[group].join(mine.take(may_be_best(mine, best[group], n, seed)))
            best[group] = both.take(best_first(both, n, seed))
    every = Scored.empty()
    for of_group in best:
        every = every.join(of_group)
    order = best_first(every, len(every.rows), seed)
    groups = np.repeat(np.arange(n_groups), [len(of_group.rows) for of_group in best])
    return BestOfEach(every.rows[order], groups[order], sizes)


def predicted(block: PoolBlock) -> Places:
    """Return the (b,) place of the likeliest class; 0 for all before there is a classifier."""
    return block.proba.argmax(axis=1) if block.proba.shape[1] else np.zeros(len(block.rows), np.intp)
