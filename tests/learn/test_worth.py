"""Whether training helped, by labels on which neither classifier was fitted."""

from __future__ import annotations

import numpy as np

from camera_trap_al.learn import calibration
from camera_trap_al.learn.worth import Worth, compare_embeddings

RNG = np.random.default_rng(0)
CLASSES = RNG.integers(0, 3, 120)
SPECIES = [("deer", "fox", "owl")[c] for c in CLASSES.tolist()]
SITES = (np.arange(120) // 6).tolist()
GOOD = (np.eye(3)[CLASSES] * 3 + RNG.normal(size=(120, 3)) * 0.3).astype(np.float32)
NOISE = RNG.normal(size=(120, 3)).astype(np.float32)


def compared(after: np.ndarray, before: np.ndarray) -> Worth:
    worth = compare_embeddings(after, before, SPECIES, SITES, "logistic", 1)
    assert worth is not None
    return worth


def test_better_embeddings_helped_and_worse_ones_did_not() -> None:
    better, worse = compared(GOOD, NOISE), compared(NOISE, GOOD)
    assert (better.helped, worse.helped, better.by, better.n_judged) == ("yes", "no", "group", 120)
    assert (better.accuracy, better.before) == (worse.before, worse.accuracy)
    assert better.accuracy > 0.95 > 0.6 > better.before
    assert "it helped (accuracy" in str(better) and better.facts()["helped"] == "yes"


def test_the_same_embeddings_did_not_help_and_a_few_labels_more_are_unclear() -> None:
    assert compared(GOOD, GOOD).helped == "no"
    spoiled = GOOD.copy()
    spoiled[:3] = -GOOD[:3]
    found = compared(GOOD, spoiled)
    assert found.accuracy > found.before and found.helped == "unclear"


def test_too_few_labels_say_nothing() -> None:
    assert compare_embeddings(GOOD[:10], NOISE[:10], SPECIES[:10], SITES[:10], "logistic", 1) is None
    assert compare_embeddings(GOOD, NOISE, ["deer"] * 120, SITES, "logistic", 1) is None


def test_of_many_labels_a_sample_is_judged_the_same_each_time(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(calibration, "MOST_ROWS", 60)
    first, again = compared(GOOD, NOISE), compared(GOOD, NOISE)
    assert first == again and first.n_judged == 60


def test_whoever_stops_the_program_is_asked_before_each_fit() -> None:
    ticks: list[int] = []
    compare_embeddings(GOOD, NOISE, SPECIES, SITES, "logistic", 1, tick=lambda: ticks.append(1))
    assert len(ticks) == 10, "five folds, twice"
