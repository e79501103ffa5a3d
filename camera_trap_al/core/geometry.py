"""Distances between embeddings, and the ways of covering a set of them. Points come in an order that counts for ties."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

TILE_CELLS = 2**20
LLOYD_ROUNDS = 20
# A squared distance below this share of the squared lengths is rounding, not distance.
NOISE = 1e-12

Vectors = npt.NDArray[np.floating]
Distances = npt.NDArray[np.float32]
Places = npt.NDArray[np.intp]


def squared_distances(points: Vectors, others: Vectors) -> Distances:
    """Return the (b, c) squared Euclidean distances of (b, d) and (c, d) vectors.

    They are computed in float64 and then rounded, so that they do not depend on the order in which a matrix product adds
    up: equal vectors are at distance 0, and rows that tie, tie however they are cut into blocks.
    """
    a, b = np.asarray(points, np.float64), np.asarray(others, np.float64)
    return _apart(_squared_lengths(a)[:, None] + _squared_lengths(b), a @ b.T)


def _squared_lengths(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    lengths: npt.NDArray[np.float64] = np.einsum("ij,ij->i", points, points)
    return lengths


def _apart(lengths: npt.NDArray[np.float64], products: npt.NDArray[np.float64]) -> Distances:
    """Return squared distances of pairs from the sums of their squared lengths and their inner products."""
    squared = lengths - 2 * products
    squared[squared < NOISE * lengths] = 0
    rounded: Distances = squared.astype(np.float32)
    return rounded


def nearest(points: Vectors, others: Vectors) -> tuple[Places, Distances]:
    """Return, for each of (b, d) points, the place of the nearest of (c, d) others, c > 0, and its squared distance.

    The first one of those at the same distance. Memory is a million distances beside the vectors.
    """
    others = np.asarray(others, np.float64)
    places, squared = np.zeros(len(points), np.intp), np.zeros(len(points), np.float32)
    rows = max(1, TILE_CELLS // len(others))
    for start in range(0, len(points), rows):
        tile = squared_distances(points[start : start + rows], others)
        which = tile.argmin(axis=1)
        places[start : start + rows] = which
        squared[start : start + rows] = tile[np.arange(len(which)), which]
    return places, squared


def farthest_first(points: Vectors, covered: Distances, n: int) -> Places:
    """Return the places of n points, each the farthest from those before it and from what is covered already.

    Parameters
    ----------
    points : (s, d), n <= s
    covered : (s,) squared distance of each point to the nearest covered one, infinite where there is none

    Source: Gonzalez 1985, "Clustering to minimize the maximum intercluster distance": at most twice the best radius.
    """
    exact, left = np.asarray(points, np.float64), covered.astype(np.float32)
    lengths, chosen = _squared_lengths(exact), np.zeros(n, np.intp)
    for i in range(n):
        place = chosen[i] = left.argmax()
        np.minimum(left, _apart(lengths + lengths[place], exact @ exact[place]), out=left)
        left[place] = -1
    return chosen


def drawn(weights: npt.NDArray[np.floating], rng: np.random.Generator) -> int:
    """Draw one place of (s,) weights above 0, each with a chance in proportion to its weight."""
    up_to = weights.cumsum(dtype=np.float64)
    return min(int(np.searchsorted(up_to, rng.random() * up_to[-1], side="right")), len(weights) - 1)


@dataclass(frozen=True)
class Clusters:
    """`centres` (k, d) float64, and of each point the cluster it is `in_` (s,) and its `squared` distance to the centre."""

    centres: npt.NDArray[np.float64]
    in_: Places
    squared: Distances


def k_means(points: Vectors, k: int, rng: np.random.Generator) -> Clusters:
    """Return clusters of (s, d) points, s > 0: k of them, or fewer if there are fewer different points.

    Source: Lloyd 1982, at most 20 rounds, from the centres of k-means++ (Arthur and Vassilvitskii 2007).
    """
    exact = np.asarray(points, np.float64)
    centres = exact[_spread_out(exact, k, rng)]
    in_, squared = nearest(exact, centres)
    for _ in range(LLOYD_ROUNDS):
        centres = _means(exact, in_, centres)
        before = in_
        in_, squared = nearest(exact, centres)
        if (in_ == before).all():
            break
    return Clusters(centres, in_, squared)


def _spread_out(points: npt.NDArray[np.float64], k: int, rng: np.random.Generator) -> Places:
    """Draw up to k different points, each with a chance in proportion to its squared distance from those before it."""
    lengths, chosen = _squared_lengths(points), [int(rng.integers(len(points)))]
    left = _apart(lengths + lengths[chosen[0]], points @ points[chosen[0]])
    while len(chosen) < k and left.any():
        different = np.flatnonzero(left)
        place = int(different[drawn(left[different], rng)])
        chosen.append(place)
        left = np.minimum(left, _apart(lengths + lengths[place], points @ points[place]))
    return np.array(chosen, np.intp)


def _means(points: npt.NDArray[np.float64], in_: Places, centres: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the mean of each cluster; one without points stays where it is."""
    means = centres.copy()
    order = np.argsort(in_, kind="stable")
    which, starts = np.unique(in_[order], return_index=True)
    if len(points):
        sums = np.add.reduceat(points[order], starts, axis=0)
        means[which] = sums / np.diff([*starts, len(points)])[:, None]
    return means
