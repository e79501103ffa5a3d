"""Acquisition scores over a block of class probabilities, and the running best n. Higher always means ask first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]
RowArray = npt.NDArray[np.int64]
HashArray = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Scored:
    """Scored rows: `rows` (b,) int64, `key_hashes` (b,) uint64, `scores` (b,) float; all of one length."""

    rows: RowArray
    key_hashes: HashArray
    scores: FloatArray

    @classmethod
    def empty(cls) -> Scored:
        """Return a block of no rows."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.uint64), np.zeros(0))

    def join(self, other: Scored) -> Scored:
        """Return both blocks as one."""
        return Scored(
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.key_hashes, other.key_hashes]),
            np.concatenate([self.scores, other.scores]),
        )

    def take(self, order: npt.NDArray[np.intp]) -> Scored:
        """Return the rows at these places."""
        return Scored(self.rows[order], self.key_hashes[order], self.scores[order])


def margin_score(proba: FloatArray) -> FloatArray:
    """Score class probabilities by how close the two best classes are.

    Parameters
    ----------
    proba : (b, k) float array, rows sum to 1; with k < 2 there is nothing to tell apart

    Returns
    -------
    (b,) float array in [-1, 0]; 0 is a coin toss, so higher means ask first; zeros where k < 2

    Source: Scheffer, Decomain and Wrobel 2001, "Active hidden Markov models for information extraction".
    """
    if proba.shape[1] < 2:
        return no_preference(proba)
    best = np.maximum(proba[:, 0], proba[:, 1])
    second = np.minimum(proba[:, 0], proba[:, 1])
    for column in proba.T[2:]:
        np.maximum(second, np.minimum(best, column), out=second)
        np.maximum(best, column, out=best)
    score: FloatArray = second - best
    return score


def entropy_score(proba: FloatArray) -> FloatArray:
    """Score (b, k) class probabilities by their entropy: (b,) float64 in [0, log k], 0 where the classifier is certain.

    Source: Shannon 1948; as an acquisition score Settles 2009, "Active learning literature survey".
    """
    known = np.where(proba > 0, proba, 1).astype(np.float64)
    score: FloatArray = -(known * np.log(known)).sum(axis=1) + 0.0
    return score


def confidence_score(proba: FloatArray) -> FloatArray:
    """Score (b, k) class probabilities by how unlikely the likeliest class is: (b,) float in [-1, -1 / k], 0 if k = 0.

    Source: Lewis and Gale 1994, "A sequential algorithm for training text classifiers"; for many classes Culotta and
    McCallum 2005.
    """
    return -proba.max(axis=1) if proba.shape[1] else no_preference(proba)


def no_preference(proba: FloatArray) -> FloatArray:
    """Return (b,) zeros, so that key hashes and seed alone decide: a draw without replacement."""
    return np.zeros(len(proba))


def key_priority(key_hashes: HashArray, seed: int) -> HashArray:
    """Return a (b,) uint64 pseudo-random number for each image key and seed, the same on every machine.

    Source: the finaliser of SplitMix64 (Steele, Lea and Flood 2014).
    """
    mixed = key_hashes ^ np.uint64((seed * 0x9E3779B97F4A7C15) % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def best_first(scored: Scored, n: int, seed: int) -> npt.NDArray[np.intp]:
    """Return the places of the n highest scores, the best first; ties go by image key and seed."""
    return np.lexsort((scored.key_hashes, key_priority(scored.key_hashes, seed), -scored.scores))[:n]


def may_be_best(block: Scored, best: Scored, n: int, seed: int) -> npt.NDArray[np.intp]:
    """Return the places in a block of rows that may be among the best n of it and of `best`, which is `best_first`."""
    if not 0 < n <= len(best.rows):
        return np.arange(len(block.rows) if n else 0)
    last = best.take(np.array([n - 1]))
    higher, tied = block.scores > last.scores, np.flatnonzero(block.scores == last.scores)
    first = key_priority(block.key_hashes[tied], seed) <= key_priority(last.key_hashes, seed)
    return np.sort(np.concatenate([np.flatnonzero(higher), tied[first]]))


def turns(groups: RowArray, begun: npt.NDArray[np.integer]) -> RowArray:
    """Return the turn of each row where every group gives one row a turn, in the order in which its rows come.

    Parameters
    ----------
    groups : (s,) places of groups in `begun`, of rows in order of preference
    begun : (g,) how many turns each group has had

    Returns
    -------
    (s,) int64, the number of turns that the row's group has had before it
    """
    order = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups, minlength=len(begun))
    before = np.empty(len(groups), np.int64)
    before[order] = np.arange(len(groups)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return before + begun[groups]


def top_n(blocks: Iterable[Scored], n: int, seed: int) -> RowArray:
    """Return the n highest-scoring rows, the best first; ties go by image key, however blocks are cut.

    Memory is one block plus n rows.
    """
    best = Scored.empty()
    for block in blocks:
        best = best.join(block.take(may_be_best(block, best, n, seed)))
        best = best.take(best_first(best, n, seed))
    return best.rows
