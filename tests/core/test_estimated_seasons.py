"""A hundred made-up seasons, labelled without a person: what was estimated on the way against what was true."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from camera_trap_al.core.estimates import Accuracy, Share, estimate_accuracy
from camera_trap_al.core.gains import EARLIER, Gain, expected_gain, less_right
from camera_trap_al.learn.calibration import fit_temperature
from camera_trap_al.learn.classifier import Classifier, fit_classifier, one_thread

SEASONS = 100
IMAGES, HELD, DIMENSIONS, SPECIES, CLUSTERS = 5000, 2000, 32, 10, 2
ROUNDS, BATCH, AT_RANDOM = 16, 60, 12
LOOKED_AT = (4, 8, 12)


@dataclass
class Course:
    """One season as it went: labels and true accuracy of each round, and what was estimated in some.

    `truth` is on the images that are left, `held` on others, which stay the same.
    """

    labels: list[int] = field(default_factory=list)
    truth: list[float] = field(default_factory=list)
    held: list[float] = field(default_factory=list)
    accuracy: dict[int, Accuracy] = field(default_factory=dict)
    gain: dict[int, Gain | None] = field(default_factory=dict)


def made_season(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors and species: each species in a few clusters, common and rare ones."""
    common = 1 / np.arange(1, SPECIES + 1)
    species = rng.choice(SPECIES, IMAGES, p=common / common.sum())
    centres = rng.normal(size=(SPECIES, CLUSTERS, DIMENSIONS)) * rng.uniform(0.5, 0.8)
    vectors = centres[species, rng.integers(CLUSTERS, size=IMAGES)] + rng.normal(size=(IMAGES, DIMENSIONS))
    return vectors.astype(np.float32), species


def play(seed: int) -> Course:
    rng = np.random.default_rng(seed)
    vectors, species = made_season(rng)
    order = rng.permutation(IMAGES)
    held, known, open_ = order[:HELD], order[HELD : HELD + BATCH], order[HELD + BATCH :]
    course, shares = Course(), list[Share]()
    for n in range(ROUNDS):
        fitted = fit(vectors, species, known)
        proba = fitted.predict_proba(vectors[open_])
        sure, guess = proba.max(axis=1), guesses(fitted, vectors[open_])
        is_right = guess == species[open_]
        course.labels.append(len(known))
        course.truth.append(float(is_right.mean()))
        course.held.append(float((guesses(fitted, vectors[held]) == species[held]).mean()))
        if n in LOOKED_AT:
            found = estimate_accuracy(shares, sure, len(open_))
            assert found is not None
            course.accuracy[n] = found
            course.gain[n] = expected_gain(len(known), found, lost(fitted, vectors, species, known, proba, open_))
        drawn = rng.permutation(len(open_))[:AT_RANDOM]
        shares.append(Share(n, len(known), sure[drawn].astype(np.float64), is_right[drawn]))
        best = np.sort(proba, axis=1)
        unsure = np.argsort(best[:, -1] - best[:, -2])
        asked = np.concatenate([drawn, unsure[~np.isin(unsure, drawn)][: BATCH - AT_RANDOM]])
        known, open_ = np.concatenate([known, open_[asked]]), np.delete(open_, asked)
    return course


def guesses(fitted: Classifier, vectors: np.ndarray) -> np.ndarray:
    return np.array([int(name) for name in fitted.classes])[fitted.predict_proba(vectors).argmax(axis=1)]


def lost(
    fitted: Classifier,
    vectors: np.ndarray,
    species: np.ndarray,
    known: np.ndarray,
    proba: np.ndarray,
    open_: np.ndarray,
) -> dict[int, float]:
    found = {}
    for part in EARLIER:
        first = known[: int(part * len(known))]
        earlier = fit_classifier(vectors[first], [str(name) for name in species[first]], 0, "logistic")
        columns = np.array([fitted.classes.index(str(name)) for name in guesses(earlier, vectors[open_]).tolist()])
        found[len(first)] = less_right(proba, columns)
    return found


def fit(vectors: np.ndarray, species: np.ndarray, known: np.ndarray) -> Classifier:
    """Fit on what is known, with the temperature that suits a fourth of it, left out: the program's calibration made cheap."""
    names = [str(name) for name in species[known]]
    left_out = np.arange(len(known)) % 4 == 0
    taught = [name for name, out in zip(names, left_out, strict=True) if not out]
    first = fit_classifier(vectors[known[~left_out]], taught, 0, "logistic")
    judged = [i for i in np.flatnonzero(left_out) if names[i] in first.classes]
    targets = np.array([first.classes.index(names[i]) for i in judged])
    temperature = fit_temperature(first.scores(vectors[known[judged]]), targets)
    return fit_classifier(vectors[known], names, 0, "logistic", temperature=temperature)


def labels_for_a_point(course: Course, n: int) -> float:
    """Return how many more labels a point takes after round n, by a straight line of log error against log labels around it."""
    near = slice(n // 2, min(ROUNDS, 2 * n))
    x, y = np.log(course.labels[near]), np.log(1 - np.array(course.held[near]))
    slope, level = np.polyfit(x, y, 1)
    error = np.exp(level + slope * np.log(course.labels[n]))
    return float(np.exp((np.log(error - 0.01) - level) / slope) - course.labels[n])


@pytest.fixture(scope="module")
def courses() -> list[Course]:
    with one_thread():
        return [play(seed) for seed in range(SEASONS)]


@pytest.mark.slow
def test_the_intervals_hold_the_true_accuracy_as_often_as_they_say(courses: list[Course]) -> None:
    held = [c.accuracy[n].low <= c.truth[n] <= c.accuracy[n].high for c in courses for n in LOOKED_AT]
    assert 0.9 <= np.mean(held) <= 0.98
    widths = [np.mean([c.accuracy[n].high - c.accuracy[n].low for c in courses]) for n in LOOKED_AT]
    assert widths[0] > widths[-1] and widths[-1] < 0.2, "what is known grows"


@pytest.mark.slow
def test_the_labels_advised_are_within_a_factor_of_two(courses: list[Course]) -> None:
    for n in LOOKED_AT[1:]:
        advised = [(course.gain[n], labels_for_a_point(course, n)) for course in courses]
        held = [gain.labels_low <= true <= gain.labels_high for gain, true in advised if gain is not None and true > 0]
        assert 0.7 <= np.mean(held) <= 0.99
        ratios = [gain.labels / true for gain, true in advised if gain is not None and true > 0]
        assert len(ratios) >= 0.9 * SEASONS
        factors = np.exp(np.abs(np.log(ratios)))
        assert np.median(factors) <= 2
