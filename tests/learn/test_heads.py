"""Every head: what it promises, against slow and obvious versions, and what becomes of labels that say little."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camera_trap_al.errors import ModelError, UnknownNameError, UsageError
from camera_trap_al.learn.classifier import Classifier, fit_classifier
from camera_trap_al.learn.heads import heads
from camera_trap_al.learn.heads.dense import class_weights
from camera_trap_al.learn.heads.lbfgs import minimise
from camera_trap_al.learn.heads.logistic import STRENGTH, scaling_of
from camera_trap_al.learn.heads.semi import NEIGHBOURS, ROUNDS, SHARPNESS, SPREAD, directions_of, spread_labels

NAMES = heads.names()


def blobs(n: int, k: int, seed: int, noise: float = 0.5) -> tuple[np.ndarray, list[str]]:
    """Return n vectors of k classes around points in 8 dimensions, and their classes in turn."""
    centres = np.random.default_rng(1).normal(size=(k, 8))
    which = np.arange(n) % k
    vectors = centres[which] + noise * np.random.default_rng(seed).normal(size=(n, 8))
    return (vectors / 8 + 0.5).astype(np.float32), [f"class {c}" for c in which]


def accuracy(fitted: Classifier, vectors: np.ndarray, species: list[str]) -> float:
    named = np.array(fitted.classes)[fitted.predict_proba(vectors).argmax(axis=1)]
    return float(np.mean(named == np.array(species)))


@pytest.mark.parametrize("head", NAMES)
def test_a_head_learns_what_can_be_learned_and_says_which_it_is(head: str) -> None:
    fitted = fit_classifier(*blobs(60, 3, 1), 0, head, unlabelled=blobs(200, 3, 2)[0])
    assert fitted.head == head and fitted.temperature == 1.0
    assert accuracy(fitted, *blobs(300, 3, 3)) > 0.9
    assert all(array.dtype == np.float32 for array in (*fitted.weights, *fitted.biases))


@pytest.mark.parametrize("head", NAMES)
def test_equal_labels_and_seed_give_equal_arrays(head: str) -> None:
    one, two = (fit_classifier(*blobs(20, 3, 1), 5, head, unlabelled=blobs(50, 3, 2)[0]) for _ in range(2))
    assert all((a == b).all() for a, b in zip(one.weights + one.biases, two.weights + two.biases, strict=True))


@pytest.mark.parametrize("head", NAMES)
@pytest.mark.parametrize("unlabelled", [0, 1, 30])
def test_labels_that_say_little_still_give_probabilities(head: str, unlabelled: int) -> None:
    draw = np.random.default_rng(0)
    constant = draw.random((6, 4), dtype=np.float32)
    constant[:, 1:3] = 0.25
    cases = {
        "two labels": (draw.random((2, 4), dtype=np.float32), ["a", "b"]),
        "all equal": (np.full((6, 4), 0.3, np.float32), ["a", "b", "c"] * 2),
        "constant features": (constant, ["a", "b"] * 3),
        "one image a class": (draw.random((5, 4), dtype=np.float32), list("abcde")),
        "one dimension": (np.array([[0.0], [1.0], [0.1]], np.float32), ["a", "b", "a"]),
    }
    for name, (vectors, species) in cases.items():
        sample = np.repeat(vectors[:1], unlabelled, axis=0)
        fitted = fit_classifier(vectors, species, 0, head, unlabelled=sample)
        proba = fitted.predict_proba(vectors)
        assert np.isfinite(proba).all() and np.allclose(proba.sum(axis=1), 1, atol=1e-5), name
        if name == "all equal":
            assert np.allclose(proba, 1 / 3, atol=0.1), "nothing tells the classes apart"
        else:
            assert accuracy(fitted, vectors, species) >= 0.5, name


@pytest.mark.parametrize("head", NAMES)
def test_one_class_alone_is_refused_in_words(head: str) -> None:
    with pytest.raises(UsageError, match="at least two classes; only 'deer' has any"):
        fit_classifier(np.ones((3, 4), np.float32), ["deer"] * 3, 0, head)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("head", NAMES)
def test_a_value_that_is_no_number_stops_the_fit_and_is_named(head: str, bad: float) -> None:
    vectors, species = blobs(9, 3, 1)
    vectors[4, 2] = bad
    with pytest.raises(ModelError, match="labelled image 4 holds something that is no number"):
        fit_classifier(vectors, species, 0, head)
    with pytest.raises(ModelError, match="unlabelled image 4 "):
        fit_classifier(*blobs(9, 3, 1), 0, head, unlabelled=vectors)


def test_an_unknown_head_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="no head called 'logistc'. Did you mean 'logistic'"):
        fit_classifier(*blobs(9, 3, 1), 0, "logistc")


@given(st.integers(0, 1000), st.integers(2, 5), st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_the_least_of_a_quadratic_is_found(seed: int, n: int, condition: int) -> None:
    draw = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(draw.normal(size=(n, n)))
    matrix = turn @ np.diag(np.geomspace(1, 10.0**-condition, n)) @ turn.T
    least = draw.normal(size=n)
    found = minimise(
        lambda x: (float((x - least) @ matrix @ (x - least)), 2 * matrix @ (x - least)), np.zeros(n), tolerance=1e-9
    )
    assert np.allclose(found, least, atol=0.02)


def test_logistic_ends_where_the_slope_of_its_loss_is_flat() -> None:
    """By numerical derivatives of the loss, written out plainly, in the scaled space."""
    vectors, species = blobs(40, 3, 1, noise=1.0)
    fitted = fit_classifier(vectors, species, 0, "logistic")
    scaling = scaling_of(vectors)
    inputs = scaling(vectors).astype(np.float64)
    targets = np.array([fitted.classes.index(s) for s in species])
    weights = class_weights(targets, 3).astype(np.float64)
    table = np.linalg.pinv(scaling.matrix.astype(np.float64)) @ fitted.weights[0]
    bias = fitted.biases[0] + scaling.centre @ fitted.weights[0]

    def loss(numbers: np.ndarray) -> float:
        scores = inputs @ numbers[:-1] + numbers[-1]
        logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        mean = -(weights * logs[np.arange(40), targets]).sum() / weights.sum()
        return float(mean + STRENGTH / 2 * (numbers[:-1] ** 2).sum())

    here = np.vstack([table, bias])
    for place in np.ndindex(here.shape):
        step = np.zeros(here.shape)
        step[place] = 1e-4
        assert abs(loss(here + step) - loss(here - step)) / 2e-4 < 2e-3, place


def test_classes_weigh_alike_whatever_their_number_of_labels() -> None:
    weights = class_weights(np.array([0, 0, 0, 1, 2, 2]), 3)
    assert np.allclose([weights[:3].sum(), weights[3], weights[4:].sum()], 1)


def test_the_scaling_keeps_no_direction_in_which_nothing_differs() -> None:
    vectors = np.random.default_rng(0).random((50, 4), dtype=np.float32)
    vectors[:, 2] = 0.5
    scaled = scaling_of(vectors)(vectors)
    assert scaled.shape == (50, 3)
    assert np.mean((scaled**2).sum(axis=1)) == pytest.approx(1, abs=1e-3)
    assert np.allclose(scaled.mean(axis=0), 0, atol=1e-5)


def slow_spread(vectors: np.ndarray, targets: np.ndarray, n_classes: int) -> np.ndarray:
    """The definition: a dense symmetric matrix of weights, normalised, and beliefs passed on round by round."""
    directions = directions_of(vectors).astype(np.float64)
    n = len(vectors)
    edges = np.zeros((n, n))
    for i in range(n):
        alike = [(directions[i] @ directions[j], j) for j in range(n) if j != i]
        for cosine, j in sorted(alike, reverse=True)[:NEIGHBOURS]:
            edges[i, j] += max(cosine, 0) ** SHARPNESS
            edges[j, i] += max(cosine, 0) ** SHARPNESS
    root = np.sqrt(edges.sum(axis=1))
    edges = edges / root[:, None] / root[None, :]
    given = np.zeros((n, n_classes))
    for i, target in enumerate(targets):
        given[i, target] = np.sum(targets == target) ** -0.5
    belief = given
    for _ in range(ROUNDS):
        belief = given + SPREAD * edges @ belief
    belief = belief[len(targets) :]
    return belief / belief.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(3))
def test_labels_spread_as_the_definition_says(seed: int) -> None:
    vectors, _ = blobs(60, 3, seed, noise=1.0)
    targets = np.arange(9) % 3
    guesses, certainty = spread_labels(vectors, targets, 3)
    assert guesses.shape == (51, 3) and certainty.shape == (51,)
    assert np.allclose(guesses, slow_spread(vectors, targets, 3), atol=1e-4)
    assert ((certainty >= 0) & (certainty <= 1)).all()
    assert certainty[guesses.max(axis=1).argmax()] == certainty.max()


def test_images_without_a_label_help_where_labels_are_few() -> None:
    """Two long thin clouds, one label at an end of each: the labels alone would cut both clouds across."""
    draw = np.random.default_rng(3)
    along = draw.random((400, 1)) * 2 - 1
    upper = (draw.random((400, 1)) < 0.5) * 2.0 - 1
    vectors = np.hstack([along, 0.5 * upper + 0.03 * draw.normal(size=(400, 1))]).astype(np.float32)
    truth = ["up" if u > 0 else "down" for u in upper[:, 0]]
    first = [int(np.flatnonzero(upper[:, 0] > 0)[along[upper[:, 0] > 0, 0].argmax()])]
    first += [int(np.flatnonzero(upper[:, 0] < 0)[along[upper[:, 0] < 0, 0].argmin()])]
    others = np.setdiff1d(np.arange(400), first)
    known = [truth[i] for i in first]
    alone = fit_classifier(vectors[first], known, 0, "logistic", unlabelled=vectors[others])
    helped = fit_classifier(vectors[first], known, 0, "semi", unlabelled=vectors[others])
    assert accuracy(helped, vectors, truth) > 0.95 > accuracy(alone, vectors, truth)


def test_semi_without_other_images_is_logistic() -> None:
    semi, logistic = (fit_classifier(*blobs(20, 3, 1), 0, head) for head in ("semi", "logistic"))
    assert (semi.weights[0] == logistic.weights[0]).all()
