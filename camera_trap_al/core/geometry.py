"""Distances between embeddings, and the ways of covering a set of them. Points come in an order that counts for ties."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

TILE_CELLS, SMALL_TILE_CELLS = 2**20, 2**18
MOST_AT_ONCE = 64
AT_ONCE = 32
LLOYD_ROUNDS = 20
# A squared distance below this share of the squared lengths is rounding, not distance.
NOISE = 1e-12

Vectors = npt.NDArray[np.floating]
Distances = npt.NDArray[np.float32]
Places = npt.NDArray[np.intp]
Tick = Callable[[], None]


def no_tick() -> None:
    """Be called between parts of a long computation, which whoever waits for it may end by raising something."""


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
    """Return squared distances of pairs from the sums of their squared lengths and their inner products, made over."""
    products *= -2
    products += lengths
    products[products < NOISE * lengths] = 0
    rounded: Distances = products.astype(np.float32)
    return rounded


def nearest(points: Vectors, others: Vectors, tick: Tick = no_tick) -> tuple[Places, Distances]:
    """Return, for each of (b, d) points, the place of the nearest of (c, d) others, c > 0, and its squared distance.

    The first one of those at the same distance. Memory is a million distances beside the vectors. Calls `tick` after each
    such part.
    """
    others = np.asarray(others, np.float64)
    places, squared = np.zeros(len(points), np.intp), np.zeros(len(points), np.float32)
    rows = max(1, TILE_CELLS // len(others))
    for start in range(0, len(points), rows):
        tile = squared_distances(points[start : start + rows], others)
        which = tile.argmin(axis=1)
        places[start : start + rows] = which
        squared[start : start + rows] = tile[np.arange(len(which)), which]
        tick()
    return places, squared


def farthest_first(points: Vectors, covered: Distances, n: int, tick: Tick = no_tick) -> Places:
    """Return the places of n points, each the farthest from those before it and from what is covered already.

    The first one of those at the same distance. The distances of several points that are far now are computed at once, and
    used for as long as one of these is the farthest; calls `tick` each time.

    Parameters
    ----------
    points : (s, d), n <= s
    covered : (s,) squared distance of each point to the nearest covered one, infinite where there is none

    Source: Gonzalez 1985, "Clustering to minimize the maximum intercluster distance": at most twice the best radius.
    """
    exact, left = np.asarray(points, np.float64), covered.astype(np.float32)
    lengths, chosen, at_once = _squared_lengths(exact), np.zeros(n, np.intp), 1
    i = 0
    while i < n:
        begun, place = i, int(left.argmax())
        near_to_far = np.argpartition(left, -at_once)
        batch = np.union1d(near_to_far[-at_once:], [place])
        outside = left[near_to_far[:-at_once]].max(initial=-1)
        near = _apart(lengths[batch][:, None] + lengths, exact[batch] @ exact.T)
        while i < n and (i == begun or left[place] > outside):
            chosen[i], i = place, i + 1
            np.minimum(left, near[np.searchsorted(batch, place)], out=left)
            left[place] = -1
            place = int(batch[left[batch].argmax()])
        at_once = min(2 * at_once, MOST_AT_ONCE, len(left)) if 2 * (i - begun) > at_once else max(1, at_once // 2)
        tick()
    return chosen


def cover(points: Vectors, weights: Vectors, squared: Vectors, radius: float, n: int, tick: Tick = no_tick) -> Places:
    """Return the places of n points, each the one that adds most to what those before it cover of all points.

    A point covers another by exp(-squared distance / (2 radius)). The first one of those that add the same. What a point
    adds never grows, so that few are computed anew for each choice; calls `tick` each time. Memory is 4 bytes for each of
    the s * s pairs.

    Parameters
    ----------
    points : (s, d), n <= s
    weights : (s,) what covering a point wholly is worth, >= 0
    squared : (s,) squared distance of each point to the nearest that covers it already, infinite where there is none
    radius : squared, > 0

    Source: greedy maximisation of a submodular function, Nemhauser, Wolsey and Fisher 1978; lazily, Minoux 1978.
    """
    exact, worth = np.asarray(points, np.float64), np.asarray(weights, np.float64)
    lengths = _squared_lengths(exact)
    covered = np.exp(np.asarray(squared, np.float32) / np.float32(-2 * radius))
    by = np.empty((len(exact), len(exact)), np.float32)
    most, chosen = np.zeros(len(exact)), np.zeros(n, np.intp)

    def added(places: Places | slice) -> npt.NDArray[np.float64]:
        gains: npt.NDArray[np.float64] = np.maximum(by[places] - covered, 0) @ worth
        return gains

    rows = max(1, SMALL_TILE_CELLS // len(exact))
    for start in range(0, len(exact), rows):
        tile = slice(start, min(start + rows, len(exact)))
        squared_here = _apart(lengths[tile, None] + lengths, exact[tile] @ exact.T)
        np.exp(squared_here / np.float32(-2 * radius), out=by[tile])
        most[tile] = added(tile)
        tick()
    is_new = np.ones(len(exact), bool)
    for i in range(n):
        while not is_new[place := int(most.argmax())]:
            old = np.flatnonzero(~is_new)
            again = old[np.argpartition(-most[old], min(AT_ONCE, len(old)) - 1)[:AT_ONCE]]
            most[again], is_new[again] = added(again), True
            tick()
        chosen[i], most[place] = place, -1
        covered = np.maximum(covered, by[place])
        is_new[:] = most < 0
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


def k_means(points: Vectors, k: int, rng: np.random.Generator, tick: Tick = no_tick) -> Clusters:
    """Return clusters of (s, d) points, s > 0: k of them, or fewer if there are fewer different points.

    Calls `tick` often.

    Source: Lloyd 1982, at most 20 rounds, from the centres of k-means++ (Arthur and Vassilvitskii 2007).
    """
    exact = np.asarray(points, np.float64)
    lengths, first = _squared_lengths(exact), int(rng.integers(len(exact)))
    centres = exact[
        spread_out(lambda place: _apart(lengths + lengths[place], exact @ exact[place]), first, k, rng, tick)
    ]
    in_, squared = nearest(exact, centres, tick)
    for _ in range(LLOYD_ROUNDS):
        centres = _means(exact, in_, centres)
        before = in_
        in_, squared = nearest(exact, centres, tick)
        if (in_ == before).all():
            break
    return Clusters(centres, in_, squared)


def spread_out(
    distances_from: Callable[[int], Distances], first: int, n: int, rng: np.random.Generator, tick: Tick = no_tick
) -> Places:
    """Draw up to n different points, each with a chance in proportion to its squared distance from those before it.

    Fewer where the others are at no distance. `distances_from` returns the (s,) squared distances from one of the points.

    Source: k-means++, Arthur and Vassilvitskii 2007.
    """
    chosen, left = [first], distances_from(first)
    while len(chosen) < n and left.any():
        different = np.flatnonzero(left)
        place = int(different[drawn(left[different], rng)])
        chosen.append(place)
        left = np.minimum(left, distances_from(place))
        tick()
    return np.array(chosen, np.intp)


def product_distances(points: Vectors, others: Vectors) -> Callable[[int], Distances]:
    """Return what gives the (s,) squared distances, from one of them, of the outer products of (s, k) and (s, d) vectors.

    Only inner products of the factors are computed: the k x d numbers of an outer product never exist.
    """
    a, b = np.asarray(points, np.float64), np.asarray(others, np.float64)
    lengths = _squared_lengths(a) * _squared_lengths(b)
    return lambda place: _apart(lengths + lengths[place], (a @ a[place]) * (b @ b[place]))


def _means(points: npt.NDArray[np.float64], in_: Places, centres: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the mean of each cluster; one without points stays where it is."""
    means = centres.copy()
    order = np.argsort(in_, kind="stable")
    which, starts = np.unique(in_[order], return_index=True)
    if len(points):
        sums = np.add.reduceat(points[order], starts, axis=0)
        means[which] = sums / np.diff([*starts, len(points)])[:, None]
    return means
