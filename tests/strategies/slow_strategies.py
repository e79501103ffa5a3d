"""Pools made by hand, and every strategy once more: over the whole pool at once, in plain loops, as its source says."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from camera_trap_al.core.acquisition import key_priority
from camera_trap_al.core.seeds import key_hash
from camera_trap_al.strategies import LabelledBlock, PoolBlock


@dataclass(frozen=True)
class MadePool:
    """A pool of made-up rows, cut into blocks anywhere. `order` shuffles which image has which row and place."""

    proba: np.ndarray
    embeddings: np.ndarray
    labelled: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    block: int = 1000
    order: int = 0
    classes: Sequence[str] = ("a", "b", "c")

    @property
    def paths(self) -> list[str]:
        return [f"site{i % 7}/IMG_{i:05d}.JPG" for i in self._shuffled().tolist()]

    def _shuffled(self) -> np.ndarray:
        size = len(self.proba)
        return np.random.default_rng(self.order).permutation(size) if self.order else np.arange(size)

    @property
    def hashes(self) -> np.ndarray:
        return np.array([key_hash(path) for path in self.paths], np.int64).view(np.uint64)

    def unlabelled_blocks(self) -> Iterator[PoolBlock]:
        which, hashes = self._shuffled(), self.hashes
        for start in range(0, len(which), self.block):
            here = which[start : start + self.block]
            rows = np.arange(100 + start, 100 + start + len(here))
            yield PoolBlock(rows, hashes[start : start + self.block], self.proba[here], self.embeddings[here])

    def labelled_blocks(self) -> Iterator[LabelledBlock]:
        for start in range(0, len(self.labels), self.block):
            end = start + self.block
            yield LabelledBlock(self.labelled[start:end], self.labels[start:end])

    def tick(self) -> None:
        pass

    def paths_of(self, rows: np.ndarray) -> list[str]:
        return [self.paths[row - 100] for row in rows.tolist()]


def random_pool(
    size: int = 60, n_labelled: int = 20, seed: int = 0, d: int = 4, k: int = 3, **options: object
) -> MadePool:
    """Return a pool of three unequal clouds, and labels that mostly follow them."""
    rng = np.random.default_rng(seed)
    in_ = rng.choice(3, size + n_labelled, p=[0.6, 0.3, 0.1])
    every = (rng.normal(size=(3, d))[in_] * 2 + rng.normal(size=(len(in_), d))).astype(np.float32)
    labels = np.where(rng.random(len(in_)) < 0.9, in_, rng.integers(0, 3, len(in_))) % max(k, 1)
    proba = rng.dirichlet([0.5] * k, size).astype(np.float32) if k else np.zeros((size, 0), np.float32)
    return MadePool(
        proba,
        every[:size],
        every[size:],
        labels[size:],
        classes=("a", "b", "c", "d")[:k],
        **options,  # type: ignore[arg-type]
    )


def in_random_order(pool: MadePool, seed: int) -> list[int]:
    """Return the places of all images as a seed orders them: what decides where nothing else does."""
    priorities = key_priority(pool.hashes, seed).tolist()
    return sorted(range(len(priorities)), key=lambda i: priorities[i])


def by_score(pool: MadePool, seed: int, score: list[float]) -> list[int]:
    return sorted(in_random_order(pool, seed), key=lambda i: -score[i])


def margins(pool: MadePool) -> list[float]:
    return [sorted(row)[-2] - sorted(row)[-1] for row in pool.proba]


def uniform(pool: MadePool, n: int, seed: int) -> list[int]:
    return in_random_order(pool, seed)[:n]


def margin(pool: MadePool, n: int, seed: int) -> list[int]:
    return by_score(pool, seed, margins(pool))[:n]


def entropy(pool: MadePool, n: int, seed: int) -> list[int]:
    return by_score(pool, seed, [-sum(p * math.log(p) for p in row.tolist() if p) for row in pool.proba])[:n]


def confidence(pool: MadePool, n: int, seed: int) -> list[int]:
    return by_score(pool, seed, [-max(row) for row in pool.proba])[:n]


def kcenter(pool: MadePool, n: int, seed: int) -> list[int]:
    centres = pool.labelled.tolist()
    left = in_random_order(pool, seed)
    chosen: list[int] = []
    while left and len(chosen) < n:
        best = max(left, key=lambda i: min((math.dist(pool.embeddings[i], c) for c in centres), default=0.0))
        left.remove(best)
        chosen.append(best)
        centres.append(pool.embeddings[best].tolist())
    return chosen


def graph_density(pool: MadePool, n: int, seed: int) -> list[int]:
    order = in_random_order(pool, seed)
    first = labelled_order(pool, seed)
    points = [pool.embeddings[i].tolist() for i in order] + [pool.labelled[i].tolist() for i in first]
    everyone = range(len(points))

    def distance(i: int, j: int) -> float:
        return sum(abs(a - b) for a, b in zip(points[i], points[j], strict=True))

    joined: dict[int, set[int]] = {i: set() for i in everyone}
    for i in everyone:
        for j in sorted((j for j in everyone if j != i), key=lambda j: distance(i, j))[:10]:
            joined[i].add(j)
            joined[j].add(i)
    d = len(points[0])
    density = {i: sum(math.exp(-distance(i, j) / d) for j in joined[i]) / max(len(joined[i]), 1) for i in everyone}
    chosen = []
    for left, count in [(set(everyone[len(order) :]), len(first)), (set(everyone[: len(order)]), min(n, len(order)))]:
        for _ in range(count):
            best = max(sorted(left), key=lambda i: round(density[i], 9))
            left.remove(best)
            chosen.append(best)
            for j in joined[best]:
                density[j] -= max(density[best], 0)
    return [order[i] for i in chosen if i < len(order)]


def labelled_order(pool: MadePool, seed: int) -> list[int]:
    places = np.arange(len(pool.labels))
    return sorted(places.tolist(), key=lambda i: int(key_priority(places.astype(np.uint64), seed)[i]))


def k_means(points: list[list[float]], k: int, rng: np.random.Generator) -> tuple[list[list[float]], list[int]]:
    """Return centres, and the centre of each point."""
    centres = [points[int(rng.integers(len(points)))]]
    while len(centres) < k:
        squared = [min(math.dist(p, c) ** 2 for c in centres) for p in points]
        if sum(squared) == 0:
            break
        aim = rng.random() * sum(squared)
        centres.append(next(p for p, up_to in zip(points, np.cumsum(squared), strict=True) if up_to > aim))
    for _ in range(1 + 20):
        in_ = [min(range(len(centres)), key=lambda c: math.dist(p, centres[c])) for p in points]
        of_last_round = centres
        members = [[p for p, c in zip(points, in_, strict=True) if c == i] for i in range(len(centres))]
        centres = [np.mean(m, axis=0).tolist() if m else c for m, c in zip(members, centres, strict=True)]
    return of_last_round, in_


def informative_diverse(pool: MadePool, n: int, seed: int) -> list[int]:
    order = in_random_order(pool, seed)
    points = [pool.embeddings[i].tolist() for i in order]
    centres, _ = k_means(points, max(1, len(pool.classes)), np.random.default_rng(seed))

    def cluster(point: np.ndarray) -> int:
        return min(range(len(centres)), key=lambda c: math.dist(point, centres[c]))

    of_all = [cluster(p) for p in [*pool.embeddings, *pool.labelled]]
    chosen: list[int] = []
    for i in by_score(pool, seed, margins(pool)):
        mine = sum(1 for c in chosen if of_all[c] == of_all[i])
        if len(chosen) < n and mine / n < of_all.count(of_all[i]) / len(of_all):
            chosen.append(i)
    return [*chosen, *(i for i in by_score(pool, seed, margins(pool)) if i not in chosen)][:n]


def margin_cluster_mean(pool: MadePool, n: int, seed: int) -> list[int]:
    ranked = by_score(pool, seed, margins(pool))
    within = ranked[: max(n, min(20 * n, math.ceil(len(ranked) / 2)))]
    points = [pool.embeddings[i].tolist() for i in within]
    centres, in_ = k_means(points, n, np.random.default_rng(seed))
    middles = set()
    for c, centre in enumerate(centres):
        members = [i for i, of in enumerate(in_) if of == c]
        if members:
            middles.add(within[min(members, key=lambda i: math.dist(points[i], centre))])
    return [*(i for i in ranked if i in middles), *(i for i in ranked if i not in middles)][:n]


@dataclass(frozen=True)
class Node:
    """A cluster of places, made of two others unless it is a leaf."""

    places: list[int]
    mean: list[float]
    parts: tuple[Node, ...] = ()


def ward(points: list[list[float]]) -> Node:
    """Join, again and again, the two clusters whose union adds least to the squared distances from the means."""
    nodes = [Node([i], point) for i, point in enumerate(points)]

    def cost(a: Node, b: Node) -> float:
        return math.dist(a.mean, b.mean) ** 2 * len(a.places) * len(b.places) / (len(a.places) + len(b.places))

    while len(nodes) > 1:
        pairs = [(cost(a, b), i, j) for i, a in enumerate(nodes) for j, b in enumerate(nodes[:i])]
        _, i, j = min(pairs)
        a, b = nodes[i], nodes[j]
        places = a.places + b.places
        both = Node(places, np.mean([points[i] for i in places], axis=0).tolist(), (a, b))
        nodes = [node for node in nodes if node is not a and node is not b] + [both]
    return nodes[0]


def hierarchical(pool: MadePool, n: int, seed: int) -> list[int]:
    order, first = in_random_order(pool, seed), labelled_order(pool, seed)
    label_of = {len(order) + j: int(pool.labels[i]) for j, i in enumerate(first)}
    points = [pool.embeddings[i].tolist() for i in order] + [pool.labelled[i].tolist() for i in first]
    k = max(1, len(pool.classes))

    def share(node: Node, label: int) -> tuple[int, float]:
        labels = [label_of[i] for i in node.places if i in label_of]
        return len(labels), labels.count(label) / max(len(labels), 1)

    def bounds(node: Node, label: int) -> tuple[float, float]:
        count, p = share(node, label)
        if not count:
            return 0.0, 1.0
        width = 1 / count + math.sqrt(p * (1 - p) / count)
        return max(p - width, 0), min(p + width, 1)

    def admissible(node: Node) -> list[int]:
        if not share(node, 0)[0]:
            return []
        return [
            label
            for label in range(k)
            if all(1 - bounds(node, label)[0] < 2 * (1 - bounds(node, c)[1]) for c in range(k) if c != label)
        ]

    def best(node: Node) -> tuple[float, list[Node]]:
        whole = min((1 - share(node, label)[1] for label in admissible(node)), default=1.0)
        if not node.parts or not admissible(node):
            return whole, [node]
        below = [best(part) for part in node.parts]
        cut = sum(len(p.places) / len(node.places) * s for p, (s, _) in zip(node.parts, below, strict=True))
        return (cut, below[0][1] + below[1][1]) if cut < whole else (whole, [node])

    root = ward(points)
    branches = sorted(best(root)[1], key=lambda node: min(node.places))

    def label(branch: Node) -> int:
        chain, node = [], root
        while node is not branch:
            chain.append(node)
            (node,) = (part for part in node.parts if set(branch.places) <= set(part.places))
        for node in [branch, *reversed(chain)]:
            if admissible(node):
                return min(admissible(node), key=lambda c: 1 - share(node, c)[1])
        return max(range(k), key=lambda c: share(root, c)[1])

    rng = np.random.default_rng(seed)
    weights = [len(b.places) * (1 - bounds(b, label(b))[0]) for b in branches]
    left = [[i for i in sorted(b.places) if i < len(order)] for b in branches]
    chosen = []
    while any(left) and len(chosen) < n:
        open_ = [i for i in range(len(branches)) if left[i]]
        aim = rng.random() * sum(weights[i] for i in open_)
        up_to = np.cumsum([weights[i] for i in open_])
        chosen.append(left[next(i for i, u in zip(open_, up_to, strict=True) if u > aim)].pop(0))
    return [order[i] for i in chosen]


SLOW = {
    "uniform": uniform,
    "margin": margin,
    "entropy": entropy,
    "confidence": confidence,
    "kcenter": kcenter,
    "graph_density": graph_density,
    "informative_diverse": informative_diverse,
    "margin_cluster_mean": margin_cluster_mean,
    "hierarchical": hierarchical,
}
