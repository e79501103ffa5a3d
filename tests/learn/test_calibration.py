"""Cross-validation by groups: the head that it chooses, and the temperature; slow and obvious versions beside."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_heads import blobs

from camera_trap_al.learn import calibration
from camera_trap_al.learn.calibration import HIGHEST, LOWEST, calibrate, fit_temperature
from camera_trap_al.learn.classifier import Classifier, fit_classifier
from camera_trap_al.learn.heads.dense import softmax


def log_loss(scores: np.ndarray, targets: np.ndarray, temperature: float) -> float:
    """The log loss that the temperature is fitted to, plainly."""
    n, k = scores.shape
    total = 0.0
    for row, target in zip(scores.astype(np.float64) / temperature, targets, strict=True):
        logs = row - np.log(np.exp(row).sum())
        wanted = np.full(k, 1 / (n + 2) / k)
        wanted[target] += 1 - 1 / (n + 2)
        total -= float(wanted @ logs)
    return total


@given(st.integers(0, 10_000), st.integers(5, 60), st.integers(2, 5), st.floats(0.2, 8))
@settings(max_examples=30, deadline=None)
def test_no_temperature_has_a_smaller_loss(seed: int, n: int, k: int, size: float) -> None:
    draw = np.random.default_rng(seed)
    scores, targets = (size * draw.normal(size=(n, k))).astype(np.float32), draw.integers(0, k, n)
    found = fit_temperature(scores, targets)
    assert LOWEST * 0.99 <= found <= HIGHEST * 1.01
    others = np.geomspace(LOWEST, HIGHEST, 60)
    assert log_loss(scores, targets, found) <= min(log_loss(scores, targets, t) for t in others) + 1e-3


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(true: float) -> None:
    draw = np.random.default_rng(0)
    scores = (3 * draw.normal(size=(20_000, 4))).astype(np.float32)
    proba = softmax(scores / np.float32(true))
    targets = (proba.cumsum(axis=1) > draw.random((20_000, 1))).argmax(axis=1)
    assert fit_temperature(scores, targets) == pytest.approx(true, rel=0.05)


def test_what_could_not_be_known_does_not_count() -> None:
    draw = np.random.default_rng(0)
    scores, targets = (2 * draw.normal(size=(50, 3))).astype(np.float32), draw.integers(0, 3, 50)
    more = np.hstack([scores, np.full((50, 1), -np.inf, np.float32)])
    assert fit_temperature(more, targets) == pytest.approx(fit_temperature(scores, targets), rel=1e-3)


def test_rows_that_are_all_right_do_not_make_it_certain_of_everything() -> None:
    scores = np.tile(np.eye(2, dtype=np.float32), (10, 1))
    temperature = fit_temperature(scores, np.arange(20) % 2)
    sure = softmax(scores / np.float32(temperature)).max()
    assert 0.9 < sure < 0.99


def test_a_temperature_is_folded_into_the_last_layer() -> None:
    vectors, species = blobs(30, 3, 1, noise=1.5)
    plain, warm = (fit_classifier(vectors, species, 0, "mlp", temperature=t) for t in (1.0, 2.5))
    assert warm.temperature == 2.5
    assert np.allclose(warm.predict_proba(vectors), softmax(plain.scores(vectors) / np.float32(2.5)), atol=1e-5)


def test_images_of_one_group_are_never_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, species = blobs(120, 3, 1)
    groups = np.arange(120) // 6 % 9
    at = {row.tobytes(): i for i, row in enumerate(vectors)}
    fitted_on: list[set[int]] = []

    def spying(taught: np.ndarray, *given: object, **more: object) -> Classifier:
        fitted_on.append({int(groups[at[row.tobytes()]]) for row in taught})
        return fit_classifier(taught, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(calibration, "fit_classifier", spying)
    found = calibrate(vectors, species, groups.tolist(), ["logistic"], 0)
    assert found.by == "group" and found.n_judged == 120
    assert len(fitted_on) == 5
    left_out = [set(range(9)) - groups for groups in fitted_on]
    assert sorted(group for groups in left_out for group in groups) == list(range(9))


@pytest.mark.slow
def test_the_better_head_is_chosen_and_of_equal_ones_the_first() -> None:
    draw = np.random.default_rng(0)
    vectors = draw.random((400, 2), dtype=np.float32)
    ring = np.hypot(*(vectors - 0.5).T)
    species = ["in" if r < 0.3 else "out" for r in ring]
    found = calibrate(vectors, species, list(range(400)), ["logistic", "mlp"], 0)
    assert found.head == "mlp" and found.scores["mlp"].merit > found.scores["logistic"].merit + 0.1
    assert found.temperature == found.scores["mlp"].temperature
    far = blobs(60, 2, 1, noise=0.01)
    for names in (["logistic", "semi"], ["semi", "logistic"]):
        assert calibrate(*far, list(range(60)), names, 0).head == names[0]


def test_a_class_of_one_group_only_is_not_judged_by_it() -> None:
    vectors, species = blobs(90, 3, 1)
    groups = [7 if name == "class 0" else i % 5 + 10 for i, name in enumerate(species)]
    found = calibrate(vectors, species, groups, ["logistic"], 0)
    assert found.by == "group" and found.n_judged == 60


def test_where_groups_leave_nothing_to_learn_from_each_image_counts_for_itself() -> None:
    vectors, species = blobs(60, 3, 1)
    for groups in ([1] * 60, [int(name[-1]) for name in species]):
        found = calibrate(vectors, species, groups, ["logistic"], 0)
        assert found.by == "image" and found.n_judged == 60 and found.scores["logistic"].accuracy > 0.9


def test_where_folders_leave_nothing_to_learn_from_sequences_are_left_out_together() -> None:
    vectors, species = blobs(60, 3, 1)
    vectors[:] += np.repeat(np.random.default_rng(3).normal(size=(20, 8)), 3, axis=0).astype(np.float32) / 8
    bursts = [i // 3 for i in range(60)]
    found = calibrate(vectors, species, np.stack([np.ones(60), bursts], axis=1), ["logistic"], 0)
    assert found.by == "group" and found == calibrate(vectors, species, bursts, ["logistic"], 0)
    by_folder = calibrate(vectors, species, np.stack([np.arange(60) % 7, bursts], axis=1), ["logistic"], 0)
    assert by_folder == calibrate(vectors, species, np.arange(60) % 7, ["logistic"], 0)


@pytest.mark.parametrize("n", [2, 3, 8])
def test_few_labels_choose_the_first_head_and_no_temperature(n: int) -> None:
    found = calibrate(*blobs(n, 2, 1), list(range(n)), ["semi", "mlp"], 0)
    assert (found.head, found.temperature, found.scores, found.n_judged) == ("semi", 1.0, {}, 0)


def test_of_many_labels_a_sample_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "MOST_ROWS", 50)
    assert calibrate(*blobs(500, 2, 1), list(range(500)), ["logistic"], 0).n_judged == 50


def test_it_ends_where_it_is_told_to() -> None:
    class Ended(Exception):
        pass

    def tick() -> None:
        raise Ended

    with pytest.raises(Ended):
        calibrate(*blobs(60, 3, 1), list(range(60)), ["mlp"], 0, tick=tick)


def test_calibrated_probabilities_say_how_often_they_are_right() -> None:
    """An overconfident head becomes more honest, by the labels alone."""
    labelled, unseen = blobs(150, 4, 1, noise=2.0), blobs(3000, 4, 2, noise=2.0)
    found = calibrate(*labelled, list(range(150)), ["logistic"], 0)
    before, after = (fit_classifier(*labelled, 0, "logistic", temperature=t) for t in (1.0, found.temperature))

    def error(fitted: Classifier) -> float:
        proba = fitted.predict_proba(unseen[0])
        named = np.array(fitted.classes)[proba.argmax(axis=1)]
        return calibration.calibration_error(proba.max(axis=1), named == np.array(unseen[1]))

    assert found.temperature > 1.2 and error(after) < 0.7 * error(before)
