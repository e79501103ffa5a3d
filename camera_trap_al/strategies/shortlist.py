"""The rows among which a strategy chooses that has to compare rows with each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camera_trap_al.core.acquisition import (
    FloatArray,
    RowArray,
    Scored,
    best_first,
    margin_score,
    may_be_best,
    no_preference,
)
from camera_trap_al.strategies import Pool, PoolBlock

PER_ASKED, MOST_ROWS = 20, 50_000
Score = Callable[[PoolBlock], FloatArray]


@dataclass(frozen=True)
class Shortlist:
    """Rows to choose from, the best first, drawn from `pool_size` rows.

    `rows` (s,), `scores` (s,), `embeddings` (s, d), `proba` (s, k).
    """

    rows: RowArray
    scores: FloatArray
    embeddings: npt.NDArray[np.float32]
    proba: npt.NDArray[np.float32]
    pool_size: int

    def chosen(self, places: npt.NDArray[np.intp], n: int) -> RowArray:
        """Return n rows, or all: those at these places, then the others in order."""
        rest = np.ones(len(self.rows), bool)
        rest[places] = False
        return np.concatenate([self.rows[places], self.rows[rest]])[:n]


def of_all(block: PoolBlock) -> FloatArray:
    """Prefer no row."""
    return no_preference(block.proba)


def by_margin(block: PoolBlock) -> FloatArray:
    """Prefer rows of small margin."""
    return margin_score(block.proba)


def size_for(n: int, *, least: int = 0, most: int | None = None, per_asked: int = PER_ASKED) -> int:
    """Return how many rows a request of n is chosen from: 20 n within these bounds, never fewer than n."""
    return max(n, min(max(per_asked * n, least), MOST_ROWS if most is None else most))


def shortlist(pool: Pool, size: int, seed: int, score: Score = of_all) -> Shortlist:
    """Return the `size` rows of a pool that score highest; without a score, a uniform draw that stands for the pool.

    Equal scores go by image key and seed, so that neither blocks nor rows decide. Memory is one block plus `size` rows.
    """
    best, slots, pool_size, d = Scored.empty(), np.zeros(0, np.intp), 0, 0
    held = np.zeros((0, 0), np.float32)
    for block in pool.unlabelled_blocks():
        pool_size += len(block.rows)
        scored = Scored(block.rows, block.key_hashes, score(block))
        may_be = may_be_best(scored, best, size, seed)
        both = best.join(scored.take(may_be))
        order = best_first(both, size, seed)
        is_new = order >= len(best.rows)
        d, k = block.embeddings.shape[1], block.proba.shape[1]
        held = held if len(held) else np.zeros((0, d + k), np.float32)
        if len(held) < len(order):
            room = min(size, 2 * len(order)) - len(held)
            held = np.concatenate([held, np.empty((room, d + k), np.float32)])
        kept = np.full(len(order), -1, np.intp)
        kept[~is_new] = slots[order[~is_new]]
        free = np.ones(len(held), bool)
        free[kept[~is_new]] = False
        kept[is_new] = np.flatnonzero(free)[: is_new.sum()]
        new = may_be[order[is_new] - len(best.rows)]
        held[kept[is_new], :d], held[kept[is_new], d:] = block.embeddings[new], block.proba[new]
        best, slots = both.take(order), kept
    found = held[slots]
    return Shortlist(best.rows, best.scores, found[:, :d], found[:, d:], pool_size)


def labelled_sample(pool: Pool, most: int, seed: int) -> tuple[npt.NDArray[np.float32], int]:
    """Return the (m, d) embeddings of a uniform draw of at most `most` labelled rows, and how many there are in all.

    They come in random order, so that the first few are a uniform draw too.
    """
    best, seen = Scored.empty(), 0
    held = np.zeros((0, 0), np.float32)
    for block in pool.labelled_blocks():
        places = np.arange(seen, seen + len(block.labels))
        seen += len(places)
        both = best.join(Scored(places, places.astype(np.uint64), np.zeros(len(places))))
        order = best_first(both, most, seed)
        held = (np.concatenate([held, block.embeddings]) if len(held) else block.embeddings)[order]
        best = both.take(order)
    return held, seen
