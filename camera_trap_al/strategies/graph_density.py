"""Density: rows in the thick of the pool, where no label is yet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camera_trap_al.strategies import Pool, strategies
from camera_trap_al.strategies.shortlist import labelled_sample, shortlist, size_for

NEIGHBOURS = 10
LEAST_ROWS, MOST_ROWS, MOST_LABELLED = 2_000, 5_000, 2_000
TILE_ROWS = 256
# Of equal densities the first row counts, on every processor, though each rounds sums in its own way.
EXACT_DECIMALS = 9


@dataclass(frozen=True)
class GraphDensitySampling:
    """Ask for rows that have many near neighbours; each one asked for makes its neighbours less wanted.

    Rows are joined to their 10 nearest ones by Manhattan distance, an edge weighs exp(-distance / d), and the density of a
    row is the mean of its edges. A chosen row takes its density from its neighbours. So does each labelled row before the
    first choice, as if it had been chosen in an earlier round; and no row takes more than it has left, or neighbours of
    those that were asked for twice would be wanted again.

    The graph joins a uniform draw of 20 n, at least 2,000 and at most 5,000 rows, and the same share of the labelled ones
    (at most 2,000). A request of more than 5,000 rows is filled by that draw.

    Source: Ebert, Fritz and Schiele 2012, "RALF: a reinforced active learning formulation for object class recognition",
    with the kernel width of google/active-learning.
    """

    def query(self, pool: Pool, n: int, seed: int) -> npt.NDArray[np.int64]:
        """Return n rows, the densest first."""
        short = shortlist(pool, size_for(n, least=LEAST_ROWS, most=MOST_ROWS), seed)
        labelled, n_labelled = labelled_sample(pool, MOST_LABELLED, seed)
        size = min(len(short.rows), MOST_ROWS)
        if not size or not short.embeddings.shape[1]:
            return short.rows[:n]
        points = short.embeddings[:size]
        if n_labelled:
            points = np.concatenate([points, labelled[: round(n_labelled * size / short.pool_size)]])
        return short.chosen(_densest(Graph.of(points), size, min(n, size)), n)


@dataclass(frozen=True)
class Graph:
    """Neighbours of each of s rows: of row i `neighbours[starts[i]:starts[i + 1]]`, with `weights`, in both directions."""

    starts: npt.NDArray[np.intp]
    neighbours: npt.NDArray[np.intp]
    weights: npt.NDArray[np.float64]

    @classmethod
    def of(cls, points: npt.NDArray[np.float32]) -> Graph:
        """Join (s, d) points, d > 0, to their nearest ones; of those at the same distance to the first."""
        from scipy.spatial.distance import cdist

        size, dimensions = points.shape
        n_near = min(NEIGHBOURS, size - 1)
        edges, distances = [np.zeros(0, np.intp)], [np.zeros(0)]
        for start in range(0, size, TILE_ROWS):
            tile = cdist(points[start : start + TILE_ROWS], points, "cityblock")
            mine = np.arange(start, start + len(tile))
            tile[np.arange(len(tile)), mine] = np.inf
            near = np.argsort(tile, axis=1, kind="stable")[:, :n_near]
            far = np.take_along_axis(tile, near, axis=1).ravel()
            edges += [(mine[:, None] * size + near).ravel(), (near * size + mine[:, None]).ravel()]
            distances += [far, far]
        both, first = np.unique(np.concatenate(edges), return_index=True)
        starts = np.searchsorted(both, np.arange(size + 1) * size)
        return cls(starts, both % size, np.exp(-np.concatenate(distances)[first] / dimensions))

    def densities(self) -> npt.NDArray[np.float64]:
        """Return the (s,) mean weight of each row's edges, 0 without any."""
        sizes = np.diff(self.starts)
        sums = np.bincount(np.repeat(np.arange(len(sizes)), sizes), weights=self.weights, minlength=len(sizes))
        return sums / np.maximum(sizes, 1)


def _densest(graph: Graph, n_asked_of: int, n: int) -> npt.NDArray[np.intp]:
    """Return the places of n of the first `n_asked_of` rows of a graph; the others are labelled."""
    density = graph.densities()

    def take(kind: npt.NDArray[np.float64], offset: int) -> int:
        place = offset + int(kind.round(EXACT_DECIMALS).argmax())
        density[graph.neighbours[graph.starts[place] : graph.starts[place + 1]]] -= max(density[place], 0)
        density[place] = -np.inf
        return place

    for _ in range(len(density) - n_asked_of):
        take(density[n_asked_of:], n_asked_of)
    return np.array([take(density[:n_asked_of], 0) for _ in range(n)], np.intp)


strategies.register("graph_density")(GraphDensitySampling())
