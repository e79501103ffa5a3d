"""Before there is a classifier: which strategies choose by embeddings alone, and that they do."""

from __future__ import annotations

import numpy as np
import pytest
from slow_strategies import MadePool, random_pool

from camera_trap_al.errors import UnknownNameError
from camera_trap_al.strategies import UNIFORM, WITHOUT_CLASSES, strategies, usable_strategy

MARKED = [name for name in strategies.names() if strategies.has(name, WITHOUT_CLASSES)]


def clouds() -> MadePool:
    """Return a pool of 8 kinds of picture, one of which is most of it."""
    rng = np.random.default_rng(3)
    kinds = np.concatenate([np.arange(8).repeat(6), np.zeros(152, np.int64)])
    embeddings = (np.eye(8)[kinds] * 5 + rng.normal(size=(200, 8)) * 0.1).astype(np.float32)
    return MadePool(np.zeros((200, 0), np.float32), embeddings, np.zeros((0, 8), np.float32), classes=())


def kinds_found(name: str, seed: int) -> int:
    pool = clouds()
    rows = strategies[name].query(pool, 12, seed)
    return len(set(pool.embeddings[rows - 100].argmax(axis=1).tolist()))


def test_some_strategies_are_marked() -> None:
    assert set(MARKED) >= {"typiclust", "uncertainty_herding"} and not {"margin", UNIFORM} & set(MARKED)


@pytest.mark.parametrize("name", MARKED)
def test_by_embeddings_alone_a_marked_one_finds_more_kinds_than_a_uniform_draw(name: str) -> None:
    seeds = range(5)
    assert sum(kinds_found(name, s) for s in seeds) > sum(kinds_found(UNIFORM, s) for s in seeds)


@pytest.mark.parametrize(
    ("name", "classifier", "embeddings", "used"),
    [
        ("margin", True, True, "margin"),
        ("margin", False, True, UNIFORM),
        ("typiclust", True, True, "typiclust"),
        ("typiclust", False, True, "typiclust"),
        ("typiclust", False, False, UNIFORM),
        (UNIFORM, False, True, UNIFORM),
    ],
)
def test_what_is_asked_for_before_there_is_a_classifier(
    name: str, classifier: bool, embeddings: bool, used: str
) -> None:
    assert usable_strategy(name, has_classifier=classifier, has_embeddings=embeddings) == used


def test_an_unknown_strategy_has_no_marks() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'margin'"):
        strategies.has("margn", WITHOUT_CLASSES)


def test_a_pool_without_labels_and_with_labels_of_one_class_is_chosen_from() -> None:
    for pool in (random_pool(60, 0, k=0), random_pool(60, 20, k=0)):
        for name in MARKED:
            rows = strategies[name].query(pool, 9, 1)
            assert len(set(rows.tolist())) == 9
