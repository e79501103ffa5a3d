"""A season labelled again: what is asked for, what is known then, and what cannot be replayed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from made_season import made_season

from camera_trap_al.errors import UnknownNameError, UsageError
from camera_trap_al.replay import (
    RECIPE,
    Method,
    ReplayPool,
    Rules,
    choose,
    default_method,
    drawn,
    fit,
    methods_of,
    replay,
)
from camera_trap_al.replay_season import Season

MARGIN, UNIFORM = Method("margin", "margin", "logistic"), Method("uniform", "uniform", "logistic")


def points(season: Season, method: Method = MARGIN, seed: int = 0, **rules: Any) -> list[dict[str, Any]]:
    return list(replay(season, method, seed, Rules(**{"batch": 10, "budget": 40, **rules})))


def test_each_request_adds_its_images_until_the_budget_is_spent() -> None:
    found = points(made_season(), budget=35)
    assert [point["asked"] for point in found] == [0, 10, 20, 30, 35]
    assert [point["labels"] for point in found] == [12, 22, 32, 42, 47]


def test_the_whole_pool_is_asked_for_where_the_budget_is_larger() -> None:
    found = points(made_season(n_pool=30), budget=1000)
    assert [point["asked"] for point in found] == [0, 10, 20, 24], "four fifths of the images"


def test_each_seed_labels_other_images_and_each_method_the_same() -> None:
    season = made_season(n_pool=50)
    of_seed = [set(drawn(season, seed).tolist()) for seed in range(6)]
    assert all(len(rows) == 40 and rows <= set(range(12, 62)) for rows in of_seed)
    assert len({frozenset(rows) for rows in of_seed}) == 6
    assert set.union(*of_seed) == set(range(12, 62))


def test_the_same_seed_gives_the_same_points_and_another_one_others() -> None:
    season = made_season(n_train=0)
    assert points(season, UNIFORM, 3) == points(season, UNIFORM, 3)
    assert points(season, UNIFORM, 3) != points(season, UNIFORM, 4)


def test_a_replay_without_training_images_begins_after_its_first_request() -> None:
    found = points(made_season(n_train=0))
    assert [point["asked"] for point in found] == [10, 20, 30, 40]


def test_hits_are_the_images_of_each_class_that_were_recognised() -> None:
    season = made_season()
    for point in points(season):
        assert sum(point["hits"]) == round(point["accuracy"] * 30)
        assert all(
            hit <= n for hit, n in zip(point["hits"], np.bincount(season.labels[season.validation]), strict=True)
        )


def test_a_first_request_of_one_class_alone_is_measured_as_if_all_were_of_it() -> None:
    season = made_season(n_train=3)
    season.labels[:3] = 0
    first = points(season)[0]
    of_it = int((season.labels[season.validation] == 0).sum())
    assert first["hits"] == [of_it, 0, 0] and first["accuracy"] == pytest.approx(of_it / 30, abs=1e-6)


def test_labels_of_the_validation_images_change_no_request() -> None:
    season = made_season()
    other = season.labels.copy()
    other[season.validation] = (other[season.validation] + 1) % 3
    pool = np.arange(12, 102)
    known = np.arange(12)

    def asked(of: Season) -> list[int]:
        fitted = fit(of, known, pool, "logistic", 1)
        return choose(ReplayPool(of, pool, known, fitted), MARGIN, 20, 1, Rules(20, 20)).tolist()

    assert asked(season) == asked(replace(season, labels=other))


def test_of_one_sequence_no_more_is_asked_for_than_may_be() -> None:
    season = made_season(n_pool=60)
    season = replace(season, sequences=np.arange(len(season.labels)) // 6)
    pool, known = np.arange(12, 72), np.arange(12)
    fitted = fit(season, known, pool, "logistic", 1)
    rows = choose(ReplayPool(season, pool, known, fitted), MARGIN, 8, 1, Rules(8, 8, per_sequence=1, random_share=0.0))
    assert len(set(season.sequences[rows].tolist())) == len(rows) == 8


@pytest.mark.slow
def test_the_reference_program_s_recipe_does_not_depend_on_how_embeddings_are_scaled() -> None:
    season = made_season(n_pool=30)
    scaled = replace(season, vectors=(season.vectors * 8 + 32).astype(np.float32))
    ours = [(point["asked"], point["labels"]) for point in points(season, RECIPE, budget=20)]
    assert ours == [(point["asked"], point["labels"]) for point in points(scaled, RECIPE, budget=20)]
    assert all(
        abs(a["accuracy"] - b["accuracy"]) <= 0.1
        for a, b in zip(points(season, RECIPE, budget=20), points(scaled, RECIPE, budget=20), strict=True)
    )


def test_a_season_is_read_as_it_was_saved(tmp_path: Any) -> None:
    season = made_season()
    season.save(tmp_path)
    read = Season.load(tmp_path)
    assert points(read) == points(season) and read.classes == season.classes


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"labels": np.zeros(132, np.int64)}, "All images to learn from are 'bird'"),
        ({"labels": np.array([0, 1] * 51 + [2] * 30)}, "No class of the validation images occurs"),
        ({"n_train": 0, "n_pool": 0}, "No image to label has a true label"),
        ({"n_pool": 120}, "no readable validation image"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_plain_words(change: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        replace(made_season(), **change).check()


def test_the_default_a_uniform_draw_and_the_reference_program_are_always_compared() -> None:
    names = [method.name for method in methods_of([], [])]
    assert {default_method().name, "uniform", "seed_recipe"} <= set(names)
    both = methods_of(["entropy"], ["logistic", "mlp"])
    assert {"entropy+logistic", "entropy+mlp", "uniform+logistic", "uniform+mlp"} <= {method.name for method in both}
    assert len({method.name for method in both}) == len(both)


def test_a_strategy_may_come_with_a_head_of_its_own_and_so_does_a_uniform_draw() -> None:
    names = {method.name for method in methods_of(["entropy+mlp", "margin"], [])}
    assert names == {default_method().name, "entropy+mlp", "margin", "uniform", "uniform+mlp", "seed_recipe"}
    with pytest.raises(UnknownNameError, match="Did you mean 'logistic'"):
        methods_of(["entropy+logistics"], [])


def test_a_misspelt_name_is_said_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'entropy'"):
        methods_of(["entropie"], [])
    with pytest.raises(UnknownNameError, match="Did you mean 'logistic'"):
        methods_of([], ["logistics"])


def test_before_a_classifier_embeddings_are_chosen_by_where_the_program_waits_for_them() -> None:
    season = made_season(n_train=0)
    nothing, pool = np.arange(0), np.arange(90)

    def asked(strategy: str, first: str, known: np.ndarray = nothing) -> list[int]:
        rules = Rules(9, 9, per_sequence=0, random_share=0.0, first=first)
        left = ReplayPool(season, np.setdiff1d(pool, known), known, None)
        return choose(left, Method(strategy, strategy, "logistic"), 9, 1, rules).tolist()

    assert asked("typiclust", "now") == asked("margin", "now") == asked("margin", "embedded")
    assert asked("typiclust", "embedded") != asked("typiclust", "now")
    one_class = np.flatnonzero(season.labels[:90] == 0)[:3]
    assert asked("typiclust", "now", one_class) == asked("typiclust", "embedded", one_class)
