"""Every strategy against the same thing done slowly, and what each one is for."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_further_strategies import SLOW_FURTHER
from slow_strategies import SLOW, MadePool, k_means, margins, random_pool

from camera_trap_al.core import geometry
from camera_trap_al.strategies import hierarchical, strategies

EVERY = {**SLOW, **SLOW_FURTHER}


def places(name: str, pool: MadePool, n: int, seed: int = 3) -> list[int]:
    return (strategies[name].query(pool, n, seed) - 100).tolist()


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(("n_labelled", "seed"), [(0, 0), (9, 1), (30, 2), (30, 3)])
def test_it_chooses_what_the_slow_version_chooses(name: str, n_labelled: int, seed: int) -> None:
    pool = random_pool(24, n_labelled, seed)
    for n in (5, 24):
        assert places(name, pool, n, seed) == EVERY[name](pool, n, seed)


def test_every_strategy_has_a_slow_version() -> None:
    assert sorted(EVERY) == strategies.names()


@pytest.mark.parametrize("name", ["kcenter", "graph_density"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_rows_at_equal_distances_are_taken_in_the_same_order(name: str, data: st.DataObject) -> None:
    grid = data.draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=16))
    n_labelled = data.draw(st.integers(0, len(grid) - 1))
    points = np.array(grid, np.float32)
    size = len(grid) - n_labelled
    pool = MadePool(np.full((size, 2), 0.5, np.float32), points[:size], points[size:], np.zeros(n_labelled, np.int64))
    assert places(name, pool, size, 5) == SLOW[name](pool, size, 5)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=6, max_size=9), st.integers(1, 3))
def test_kcenter_covers_at_most_twice_as_badly_as_the_best_choice(numbers: list[float], n: int) -> None:
    points = np.array(numbers, np.float32)[:, None]
    pool = MadePool(np.zeros((len(points), 0), np.float32), points)

    def radius(chosen: tuple[int, ...]) -> float:
        return max(min(abs(float(p - points[c, 0])) for c in chosen) for p in points[:, 0])

    best = min(radius(chosen) for chosen in itertools.combinations(range(len(points)), n))
    assert radius(tuple(places("kcenter", pool, n))) <= 2 * best + 1e-6


def test_kcenter_keeps_away_from_what_is_labelled() -> None:
    points = np.array([[0.0], [1.0], [5.0], [9.0]], np.float32)
    pool = MadePool(np.zeros((4, 0), np.float32), points, np.array([[9.2], [0.4]], np.float32), np.zeros(2, np.int64))
    assert places("kcenter", pool, 1) == [2]


def clouds(*sizes: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = np.array([[20.0 * i, 0.0] for i in range(len(sizes))]).repeat(sizes, axis=0)
    return (centres + rng.normal(size=centres.shape)).astype(np.float32)


def even(size: int) -> np.ndarray:
    return np.full((size, 2), 0.5, np.float32)


def test_graph_density_begins_in_the_thick_and_leaves_it_once_it_is_labelled() -> None:
    lonely = np.array([[100.0 + 40 * i, 70.0 * i] for i in range(10)], np.float32)
    dense = clouds(40)
    both = np.concatenate([lonely, dense])
    assert places("graph_density", MadePool(even(50), both), 1)[0] >= 10
    asked = places("graph_density", MadePool(even(50), both), 8)
    labelled = MadePool(even(50), both, dense, np.zeros(40, np.int64))
    near = [i for i in places("graph_density", labelled, 8) if i >= 10]
    assert len(near) < len([i for i in asked if i >= 10])


def test_informative_diverse_asks_from_every_cluster_by_its_share() -> None:
    points = clouds(30, 20, 10)
    proba = np.random.default_rng(1).dirichlet([1, 1, 1], 60).astype(np.float32)
    proba[:30] = [0.34, 0.33, 0.33]  # margin alone would ask for the first cloud only
    found = places("informative_diverse", MadePool(proba, points), 12)
    assert np.bincount(np.searchsorted([30, 50], found, side="right")).tolist() == [6, 4, 2]


def test_margin_cluster_mean_asks_for_uncertain_rows_that_differ() -> None:
    points = clouds(15, 15, 30)
    certain, unsure = np.array([0.9, 0.1], np.float32), np.array([0.55, 0.45], np.float32)
    pool = MadePool(np.array([unsure] * 30 + [certain] * 30), points)
    found = places("margin_cluster_mean", pool, 2)
    assert {i // 15 for i in found} == {0, 1}


def test_hierarchical_asks_more_where_labels_disagree() -> None:
    points, labelled = clouds(100, 100), clouds(60, 60)
    labels = np.concatenate([np.zeros(60, np.int64), np.arange(60) % 2])
    found = places("hierarchical", MadePool(even(200), points, labelled, labels, classes=("a", "b")), 60)
    assert sum(i >= 100 for i in found) > 40


def test_hierarchical_cuts_where_a_cut_makes_branches_purer() -> None:
    children = np.array([[0, 1], [2, 3], [4, 5]])
    counts = np.array([[20.0, 0], [20, 0], [0, 20], [0, 10]])
    branch_of, doubts = hierarchical.cut(children, np.array([30.0, 30, 30, 10]), counts)
    assert branch_of.tolist() == [0, 0, 1, 1], "admissible everywhere, so it is cut once"
    assert doubts.tolist() == pytest.approx([60 / 40, 40 / 30])
    nothing_known = hierarchical.cut(children, np.ones(4), np.zeros((4, 2)))
    assert nothing_known[0].tolist() == [0, 0, 0, 0] and nothing_known[1].tolist() == [4.0]


def test_a_tree_with_fewer_leaves_than_rows_still_asks_from_all_clouds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hierarchical, "MOST_LEAVES", 12)
    pool = MadePool(even(80), clouds(40, 40), clouds(20, 20), np.arange(40) // 20, classes=("a", "b"))
    found = places("hierarchical", pool, 40)
    assert len(set(found)) == 40
    assert 10 < sum(i >= 40 for i in found) < 30


@pytest.mark.parametrize("name", strategies.names())
def test_requests_larger_than_a_shortlist_are_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("graph_density", "herding", "typiclust"):
        monkeypatch.setattr(f"camera_trap_al.strategies.{module}.MOST_ROWS", 10)
    monkeypatch.setattr("camera_trap_al.strategies.shortlist.MOST_ROWS", 10)
    found = places(name, random_pool(50), 30)
    assert len(set(found)) == 30


@pytest.mark.parametrize("name", strategies.names())
def test_a_shortlist_of_a_larger_pool_is_cut_as_the_pool_likes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (
        "badge",
        "cluster_margin",
        "clusters",
        "graph_density",
        "hierarchical",
        "kcenter",
        "novelty",
    ):
        monkeypatch.setattr(f"camera_trap_al.strategies.{module}.LEAST_ROWS", 0)
    for module in ("herding", "typiclust"):
        monkeypatch.setattr(f"camera_trap_al.strategies.{module}.MOST_ROWS", 60)
    pool = random_pool(200, 30)
    found = pool.paths_of(strategies[name].query(pool, 3, 1))
    for block, order in [(1, 0), (50, 7), (64, 0)]:
        cut = dataclasses.replace(pool, block=block, order=order)
        assert cut.paths_of(strategies[name].query(cut, 3, 1)) == found


def test_margin_asks_for_the_smallest_margins() -> None:
    pool = random_pool()
    ordered = sorted(range(60), key=lambda i: -margins(pool)[i])
    assert places("margin", pool, 10) == ordered[:10]


def test_k_means_agrees_with_plain_loops() -> None:
    points = random_pool(50, seed=4).embeddings
    found = geometry.k_means(points, 5, np.random.default_rng(2))
    centres, in_ = k_means(points.tolist(), 5, np.random.default_rng(2))
    assert found.in_.tolist() == in_
    assert found.centres == pytest.approx(np.array(centres))


def test_equal_vectors_are_at_no_distance_and_tie_wherever_they_lie() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(7, 256)).astype(np.float32) * 50
    twice = np.concatenate([points, rng.normal(size=(90, 256)).astype(np.float32), points])
    squared = geometry.squared_distances(twice, twice)
    assert (squared[np.arange(7), np.arange(97, 104)] == 0).all() and (np.diag(squared) == 0).all()
    assert (squared[:7] == squared[97:]).all() and (squared == squared.T).all()
    assert geometry.nearest(twice, points)[0][[*range(7), *range(97, 104)]].tolist() == [*range(7), *range(7)]


@pytest.mark.parametrize("kind", ["spread", "clouds", "grid", "one place"])
@pytest.mark.parametrize("n_covered", [0, 3])
def test_farthest_first_takes_what_one_at_a_time_would(kind: str, n_covered: int) -> None:
    rng = np.random.default_rng(5)
    points = {
        "spread": rng.normal(size=(300, 16)),
        "clouds": clouds(100, 150, 50),
        "grid": rng.integers(0, 4, (300, 2)),
        "one place": np.ones((300, 3)),
    }[kind].astype(np.float32)
    covered = np.full(300, np.inf, np.float32)
    if n_covered:
        covered = geometry.nearest(points, points[:n_covered])[1]
    left, expected = covered.copy(), []
    for _ in range(200):
        expected.append(int(left.argmax()))
        left = np.minimum(left, geometry.squared_distances(points, points[expected[-1:]])[:, 0])
        left[expected] = -1
    ticks: list[int] = []
    found = geometry.farthest_first(points, covered, 200, lambda: ticks.append(1)).tolist()
    assert found == expected and len(ticks) <= 200
    assert kind != "spread" or len(ticks) < 40, "several are computed at once"
