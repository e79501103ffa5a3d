"""Which labels look wrong: against a slow version, and against mistakes that were planted."""

from __future__ import annotations

import functools
import math
import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camera_trap_al.core.suspects import find_suspects
from camera_trap_al.learn.calibration import predict_left_out
from camera_trap_al.learn.classifier import one_thread

PLANTED = 0.1


def slow_suspects(proba: list[list[float]], labels: list[int]) -> list[tuple[int, int, float]]:
    k, n = len(proba[0]), len(labels)
    mean = functools.reduce(operator.add, [p[label] for p, label in zip(proba, labels, strict=True)], 0.0) / n
    usual = {}
    for c in range(k):
        own = [p[c] for p, label in zip(proba, labels, strict=True) if label == c]
        if own:
            usual[c] = (functools.reduce(operator.add, own, 0.0) + 5 * mean) / (len(own) + 5)
    found = []
    for i, (p, label) in enumerate(zip(proba, labels, strict=True)):
        others = [(p[c], -c) for c in usual if c != label]
        if others and max(others)[0] > p[label]:
            other = -max(others)[1]
            there, here = (math.log((p[c] + 0.02) / (usual[c] + 0.02)) for c in (other, label))
            found.append((i, other, there - here))
    return sorted(found, key=lambda s: -s[2])


@given(st.lists(st.tuples(st.tuples(*[st.integers(1, 64)] * 3), st.integers(0, 2)), min_size=1, max_size=30))
def test_they_are_ranked_by_how_much_more_probable_than_usual_another_class_is(
    rows: list[tuple[tuple[int, ...], int]],
) -> None:
    proba = np.array([part for part, _ in rows], dtype=np.float64)
    proba /= proba.sum(axis=1, keepdims=True)
    labels = np.array([label for _, label in rows])
    found, wanted = find_suspects(proba, labels), slow_suspects(proba.tolist(), labels.tolist())
    assert len(found.rows) == len(wanted)
    assert found.doubt == pytest.approx(np.array([doubt for *_, doubt in wanted]))
    assert sorted(found.rows.tolist()) == sorted(i for i, *_ in wanted)
    assert (np.diff(found.doubt) <= 0).all()
    assert (proba[found.rows, found.looks_like] > proba[found.rows, labels[found.rows]]).all()


def test_without_rows_or_with_one_class_nothing_is_suspect() -> None:
    assert len(find_suspects(np.zeros((0, 3)), np.zeros(0, dtype=np.int64)).rows) == 0
    assert len(find_suspects(np.ones((4, 1)), np.zeros(4, dtype=np.int64)).rows) == 0


def test_a_class_that_is_always_unsure_is_not_suspected_for_that() -> None:
    proba = np.array([[0.45, 0.55]] * 10 + [[0.1, 0.9]] * 10 + [[0.05, 0.95]])
    labels = np.array([0] * 10 + [1] * 10 + [0])
    found = find_suspects(proba, labels)
    assert found.rows[0] == 20 and found.is_likely[0] and not found.is_likely[1:].any()


@pytest.mark.slow
@pytest.mark.parametrize("skew", [1.0, 2.0])
@pytest.mark.parametrize("seed", range(2))
def test_planted_mistakes_are_found(seed: int, skew: float) -> None:
    """With a skew of 2 six of ten images are of one class, and mistakes are a good part of the labels of the rarest."""
    rng = np.random.default_rng(seed)
    n, k, sites = 1500, 10, 25
    common = 1 / np.arange(1, k + 1) ** skew
    true = rng.choice(k, n, p=common / common.sum())
    folders = rng.integers(sites, size=n)
    vectors = (
        rng.normal(size=(k, 32))[true] + rng.normal(size=(sites, 32))[folders] * 0.4 + rng.normal(size=(n, 32)) * 0.8
    )
    given = true.copy()
    planted = rng.permutation(n)[: int(PLANTED * n)]
    given[planted] = (true[planted] + rng.integers(1, k, size=len(planted))) % k
    names = [f"{label:02d}" for label in given]
    with one_thread():
        left = predict_left_out(vectors.astype(np.float32), names, folders.tolist(), "logistic", seed, balanced=False)
    assert left.by == "group" and left.judged.mean() > 0.95
    judged = np.flatnonzero(left.judged)
    found = judged[find_suspects(left.proba[judged], left.targets[judged]).rows]
    worst = found[: n // 10]
    assert np.isin(worst, planted).mean() >= 0.7
    assert np.isin(planted, worst).mean() >= 0.6
