"""What each of the strategies beyond the reference program's nine is for, and the arithmetic that they share."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_strategies import MadePool, margins, random_pool

from camera_trap_al.core import acquisition, geometry
from camera_trap_al.strategies import strategies
from camera_trap_al.strategies.mixed import MixedSampling


def places(name: str, pool: MadePool, n: int, seed: int = 3) -> list[int]:
    return (strategies[name].query(pool, n, seed) - 100).tolist()


def clouds(*sizes: int) -> np.ndarray:
    centres = np.array([[20.0 * i, 0.0] for i in range(len(sizes))]).repeat(sizes, axis=0)
    return (centres + np.random.default_rng(0).normal(size=centres.shape)).astype(np.float32)


def unsure(size: int, k: int = 2) -> np.ndarray:
    return np.full((size, k), 1 / k, np.float32)


@pytest.mark.parametrize("name", ["typiclust", "uncertainty_herding", "coverage_then_margin"])
def test_the_first_ones_asked_for_are_one_of_each_cloud_near_its_middle(name: str) -> None:
    points = clouds(60, 30, 15)
    found = places(name, MadePool(np.zeros((105, 0), np.float32), points, classes=()), 3)
    assert sorted(np.searchsorted([60, 90], found, side="right").tolist()) == [0, 1, 2]
    assert all(abs(points[i, 1]) < 1.2 for i in found)


@pytest.mark.parametrize("name", ["typiclust", "uncertainty_herding"])
def test_a_cloud_that_has_labels_comes_last(name: str) -> None:
    points = clouds(60, 20, 20)
    pool = MadePool(unsure(100), points, clouds(10), np.zeros(10, np.int64), classes=("a", "b"))
    assert all(i >= 60 for i in places(name, pool, 2))


def test_uncertainty_herding_covers_what_is_uncertain() -> None:
    proba = np.concatenate([np.tile([0.99, 0.01], (60, 1)), unsure(20), unsure(20)]).astype(np.float32)
    found = places("uncertainty_herding", MadePool(proba, clouds(60, 20, 20), classes=("a", "b")), 2)
    assert sorted(i // 20 for i in found) == [3, 4]


@pytest.mark.parametrize("most", [40, 20])
def test_uncertainty_herding_of_a_large_pool_asks_as_of_all_of_it(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("camera_trap_al.strategies.herding.MOST_ROWS", most)
    proba = np.concatenate([np.tile([0.98, 0.02], (900, 1)), unsure(100)]).astype(np.float32)
    pool = MadePool(proba, clouds(900, 50, 50), classes=("a", "b"))
    by_cloud = np.zeros(3)
    for seed in range(8):
        np.add.at(by_cloud, np.searchsorted([900, 950], places("uncertainty_herding", pool, 2, seed), side="right"), 1)
    assert by_cloud[1] > 4 and by_cloud[2] > 4, "though nine of ten rows are in the first"


def test_class_balanced_asks_as_many_of_a_rare_class_as_of_a_common_one() -> None:
    proba = np.array([[0.6, 0.3, 0.1]] * 90 + [[0.1, 0.8, 0.1]] * 7 + [[0.0, 0.1, 0.9]] * 3, np.float32)
    found = places("class_balanced", MadePool(proba, clouds(100)), 12)
    assert np.bincount(np.searchsorted([90, 97], found, side="right")).tolist() == [5, 4, 3]


def test_cluster_margin_asks_of_small_clusters_too() -> None:
    points = clouds(80, 10, 10)
    proba = np.random.default_rng(1).dirichlet([1, 1, 1], 100).astype(np.float32)
    proba[:80] = [0.34, 0.33, 0.33]  # margin alone would ask for the first cloud only
    found = places("cluster_margin", MadePool(proba, points), 20)
    assert len({int(i) for i in np.searchsorted([80, 90], found, side="right")}) == 3


def test_novelty_finds_what_is_unlike_all_labels_though_not_all_are_looked_at_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("camera_trap_al.strategies.novelty.MOST_LABELLED", 2)
    pool = MadePool(unsure(90), clouds(40, 40, 10), clouds(20, 20), np.zeros(40, np.int64), classes=("a", "b"))
    assert all(i >= 80 for i in places("novelty", pool, 10))


def test_coverage_then_margin_asks_by_margin_once_there_are_four_labels_a_class() -> None:
    few, many = random_pool(60, 11), random_pool(60, 12)
    assert places("coverage_then_margin", few, 9) == places("typiclust", few, 9) != places("margin", few, 9)
    assert places("coverage_then_margin", many, 9) == places("margin", many, 9) != places("typiclust", many, 9)


def test_badge_asks_for_uncertain_rows_that_differ() -> None:
    points = clouds(40, 40, 40) + 10
    proba = np.array([[0.5, 0.5, 0]] * 40 + [[0, 0.5, 0.5]] * 40 + [[0, 0, 1]] * 40, np.float32)
    found = places("badge", MadePool(proba, points), 6)
    assert {0, 1} <= {i // 40 for i in found}
    assert sum(i >= 80 for i in found) <= 1, "nothing can be learned from these, so they are all alike"


def test_mixed_asks_by_each_strategy_for_its_share_from_the_first_on() -> None:
    pool = random_pool(200, 30)
    found, up_to = places("mixed", pool, 40), 0.0
    for share, strategy in MixedSampling().shares:
        up_to += share
        theirs = (strategy.query(pool, round(up_to * 40), 3) - 100).tolist()
        for end in (10, 20, 40):
            assert len(set(theirs) & set(found[:end])) >= share * end - 1
    assert up_to == 1 and len(set(found)) == 40


def test_mixed_draws_its_random_share_from_each_predicted_class_by_its_size() -> None:
    _, stratified = MixedSampling().shares[-1]
    proba = np.array([[0.9, 0.1]] * 90 + [[0.1, 0.9]] * 10, np.float32)
    pool = MadePool(proba, clouds(100), classes=("a", "b"))
    chosen = [(stratified.query(pool, 20, seed) - 100).tolist() for seed in range(5)]
    assert [sum(i >= 90 for i in found) for found in chosen] == [2] * 5
    assert len({tuple(sorted(found)) for found in chosen}) == 5


@given(st.lists(st.integers(0, 3), max_size=12), st.lists(st.integers(0, 4), min_size=4, max_size=4))
def test_turns_count_the_rows_of_the_same_group_before(groups: list[int], begun: list[int]) -> None:
    expected = [begun[g] + groups[:i].count(g) for i, g in enumerate(groups)]
    assert acquisition.turns(np.array(groups, np.int64), np.array(begun)).tolist() == expected


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_cover_takes_what_adds_most_each_time(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    size = data.draw(st.integers(1, 60))
    points, weights = rng.normal(size=(size, 2)), rng.random(size)
    squared = np.where(rng.random(size) < 0.3, rng.random(size), np.inf)
    by = np.exp(geometry.squared_distances(points, points).astype(float) / -0.5)
    covered, expected = np.exp(squared / -0.5), []
    for _ in range(size):
        added = np.maximum(by - covered, 0) @ weights
        added[expected] = -1
        if added.max() < 1e-9:
            break
        expected.append(int(added.argmax()))
        covered = np.maximum(covered, by[expected[-1]])
    found = geometry.cover(points, weights, squared, 0.25, size).tolist()
    assert found[: len(expected)] == expected and sorted(found) == list(range(size))


def test_distances_of_outer_products_are_those_of_the_products() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(30, 4)), rng.normal(size=(30, 7))
    a[7], b[7] = a[3], b[3]
    whole = np.einsum("ik,id->ikd", a, b).reshape(30, -1)
    found = geometry.product_distances(a, b)(3)
    assert found == pytest.approx(((whole - whole[3]) ** 2).sum(axis=1), rel=1e-5) and found[7] == 0


def test_a_pool_of_one_kind_of_image_is_asked_of_by_margin_where_nothing_else_differs() -> None:
    pool = dataclasses.replace(random_pool(40), embeddings=np.ones((40, 4), np.float32))
    ranked = sorted(range(40), key=lambda i: -margins(pool)[i])
    for name in ("cluster_margin", "coverage_then_margin"):
        assert places(name, pool, 9) == ranked[:9]
