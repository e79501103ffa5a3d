"""The strategies beyond the reference program's nine once more, in plain loops over the whole pool at once."""

from __future__ import annotations

import math

import numpy as np
from slow_strategies import (
    MadePool,
    by_score,
    in_random_order,
    k_means,
    labelled_order,
    margin,
    margins,
)

from camera_trap_al.core.acquisition import key_priority


def predicted(pool: MadePool) -> list[int]:
    return [max(range(len(row)), key=lambda c: row[c]) for row in pool.proba.tolist()]


def in_turns(ranked: list[int], group: list[int], begun: dict[int, int], n: int) -> list[int]:
    """Take the first row left of the group with fewest turns, again and again; of several, the one ranked first."""
    had, left, chosen = dict(begun), list(ranked), []
    while left and len(chosen) < n:
        first = {g: next(i for i in left if group[i] == g) for g in {group[i] for i in left}}
        g = min(first, key=lambda g: (had.get(g, 0), ranked.index(first[g])))
        chosen.append(first[g])
        left.remove(first[g])
        had[g] = had.get(g, 0) + 1
    return chosen


def class_balanced(pool: MadePool, n: int, seed: int) -> list[int]:
    return in_turns(by_score(pool, seed, margins(pool)), predicted(pool), {}, n)


def cluster_margin(pool: MadePool, n: int, seed: int) -> list[int]:
    points = [pool.embeddings[i].tolist() for i in in_random_order(pool, seed)]
    centres, _ = k_means(points, max(1, min(n, len(points) // 10)), np.random.default_rng(seed))
    uncertain = by_score(pool, seed, margins(pool))[: 10 * n]
    members: list[list[int]] = [[] for _ in centres]
    for i in uncertain:
        members[min(range(len(centres)), key=lambda c: math.dist(pool.embeddings[i], centres[c]))].append(i)
    members.sort(key=len)
    chosen: list[int] = []
    while any(members) and len(chosen) < n:
        for cluster in members:
            chosen += [cluster.pop(0)] if cluster else []
    return chosen[:n]


def novelty(pool: MadePool, n: int, seed: int) -> list[int]:
    score = [min((math.dist(p, q) for q in pool.labelled), default=0.0) for p in pool.embeddings]
    return by_score(pool, seed, score)[:n]


def typiclust(pool: MadePool, n: int, seed: int) -> list[int]:
    order, first = in_random_order(pool, seed), labelled_order(pool, seed)
    points = [pool.embeddings[i].tolist() for i in order] + [pool.labelled[i].tolist() for i in first]
    _, in_ = k_means(points, max(1, len(first) + n), np.random.default_rng(seed))
    members = {c: [i for i, of in enumerate(in_) if of == c] for c in set(in_)}

    def apart(i: int) -> float:
        others = sorted(math.dist(points[i], points[j]) for j in members[in_[i]] if j != i)[:20]
        return sum(others) / max(len(others), 1)

    had = {c: sum(1 for i in members[c] if i >= len(order)) for c in members}
    left = {c: sorted((i for i in members[c] if i < len(order)), key=apart) for c in members}
    chosen: list[int] = []
    for is_small in (False, True):
        ours = [c for c in members if (len(members[c]) < 5) == is_small]
        while any(left[c] for c in ours) and len(chosen) < n:
            c = min((c for c in ours if left[c]), key=lambda c: (had[c], -len(members[c]), c))
            chosen.append(left[c].pop(0))
            had[c] += 1
    return [order[i] for i in chosen]


def coverage_then_margin(pool: MadePool, n: int, seed: int) -> list[int]:
    return (typiclust if len(pool.labels) < 4 * len(pool.classes) else margin)(pool, n, seed)


def badge(pool: MadePool, n: int, seed: int) -> list[int]:
    guess = predicted(pool)
    gradients = [
        [(p - (c == guess[i])) * x for c, p in enumerate(row.astype(float)) for x in pool.embeddings[i].astype(float)]
        for i, row in enumerate(pool.proba)
    ]
    ranked = by_score(pool, seed, [math.hypot(*g) for g in gradients])
    rng = np.random.default_rng(seed)
    chosen = ranked[:1]
    while len(chosen) < min(n, len(ranked)):
        squared = [min(math.dist(gradients[i], gradients[c]) ** 2 for c in chosen) for i in ranked]
        aim = rng.random() * sum(squared)
        chosen.append(next(i for i, up_to in zip(ranked, np.cumsum(squared), strict=True) if up_to > aim))
    return chosen


def uncertainty_herding(pool: MadePool, n: int, seed: int) -> list[int]:
    worth = [1 + m for m in margins(pool)]
    chances = [(int(p) // 2**11 + 1) / 2**53 for p in key_priority(pool.hashes, seed)]
    order = by_score(pool, seed, [w / chance for w, chance in zip(worth, chances, strict=True)])
    points = pool.embeddings.astype(float)
    n_marks = max(1, min(len(pool.labels) + n, len(order) // 2))
    apart = [min(math.dist(points[i], points[j]) for j in order[:n_marks]) ** 2 for i in order[n_marks:]]
    radius = np.median(apart)

    def by(i: int, j: int) -> float:
        return math.exp(-(math.dist(points[i], points[j]) ** 2) / (2 * radius))

    covered = [
        max((math.exp(-(math.dist(p, q) ** 2) / (2 * radius)) for q in pool.labelled), default=0.0) for p in points
    ]
    chosen: list[int] = []
    while len(chosen) < min(n, len(order)):
        left = [i for i in order if i not in chosen]
        best = max(left, key=lambda i: sum(w * max(by(i, j) - covered[j], 0) for j, w in enumerate(worth)))
        chosen.append(best)
        covered = [max(c, by(best, j)) for j, c in enumerate(covered)]
    return chosen


def mixed(pool: MadePool, n: int, seed: int) -> list[int]:
    chosen: list[int] = []
    place: dict[int, float] = {}
    for share, up_to, theirs in [
        (0.6, 0.6, uncertainty_herding),
        (0.15, 0.75, class_balanced),
        (0.1, 0.85, novelty),
        (0.15, 1.0, stratified),
    ]:
        until = round(up_to * n)
        new = [i for i in theirs(pool, until, seed) if i not in chosen][: until - len(chosen)]
        place |= {i: (j + 0.5) / share for j, i in enumerate(new)}
        chosen += new
    return sorted(chosen, key=lambda i: place[i])


def stratified(pool: MadePool, n: int, seed: int) -> list[int]:
    guess, chosen = predicted(pool), []
    ranked = in_random_order(pool, seed)
    for i in ranked:
        mine = sum(1 for j in chosen if guess[j] == guess[i])
        if len(chosen) < n and mine < n * guess.count(guess[i]) / len(guess):
            chosen.append(i)
    return [*chosen, *(i for i in ranked if i not in chosen)][:n]


SLOW_FURTHER = {
    "badge": badge,
    "class_balanced": class_balanced,
    "cluster_margin": cluster_margin,
    "coverage_then_margin": coverage_then_margin,
    "mixed": mixed,
    "novelty": novelty,
    "typiclust": typiclust,
    "uncertainty_herding": uncertainty_herding,
}
