"""Accuracy without validation images, what more labels bring, and species not seen: against slow or exact versions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camera_trap_al.core.estimates import (
    FEWEST_JUDGED,
    Accuracy,
    Share,
    drawn_species,
    estimate_accuracy,
    random_shares,
    student_975,
    wilson,
)
from camera_trap_al.core.gains import expected_gain, less_right
from camera_trap_al.core.history import History
from camera_trap_al.core.unseen import estimate_unseen


def share(n_labels: int, confidence: list[float], is_right: list[bool]) -> Share:
    return Share(1, n_labels, np.array(confidence), np.array(is_right))


def drawn(rng: np.random.Generator, n: int, accuracy: float, gap: float, n_labels: int = 100) -> Share:
    """Return n images of which a fraction is right, by a classifier that is surer than right by `-gap`."""
    sure = np.clip(rng.beta(8, 2, n) * accuracy / 0.8, 0.05, 0.99)
    return Share(1, n_labels, np.clip(sure - gap, 0.01, 0.99), rng.random(n) < sure)


@pytest.mark.parametrize(("freedom", "value"), [(4, 2.7764), (9, 2.2622), (30, 2.0423), (120, 1.9799), (1e6, 1.96)])
def test_students_quantile_is_that_of_the_tables(freedom: float, value: float) -> None:
    assert student_975(freedom) == pytest.approx(value, abs=0.01)


@pytest.mark.parametrize(("right", "n"), [(9, 10), (50, 100), (3, 40)])
def test_the_interval_of_plain_draws_is_wilsons(right: int, n: int) -> None:
    p, z = right / n, 1.96
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    found = wilson(p, math.sqrt(p * (1 - p) / n), z, least=1e-9)
    assert found == pytest.approx(((centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)))


@given(
    st.lists(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=12), min_size=1, max_size=8),
    st.lists(st.floats(0, 1), min_size=1, max_size=20),
)
def test_the_interval_holds_the_estimate_whatever_was_drawn(
    rounds: list[list[tuple[float, bool]]], pool: list[float]
) -> None:
    shares = [share(10 * i + 1, [c for c, _ in part], [r for _, r in part]) for i, part in enumerate(rounds)]
    found = estimate_accuracy(shares, np.array(pool), 100)
    if sum(map(len, rounds)) < FEWEST_JUDGED:
        assert found is None
        return
    assert found is not None and found.error > 0
    assert 0 <= found.low <= found.value <= found.high <= 1 and found.low < found.high


def test_few_images_that_are_all_right_do_not_make_it_certain() -> None:
    found = estimate_accuracy([share(20, [0.97] * 10, [True] * 10)], np.full(50, 0.97), 50)
    assert found is not None and found.value > 0.95 and found.low < 0.92


def test_nothing_is_said_of_no_images() -> None:
    shares = [share(20, [0.9] * 30, [True] * 30)]
    assert estimate_accuracy([], np.full(50, 0.9), 50) is None
    assert estimate_accuracy(shares, np.zeros(0), 0) is None


def test_more_images_drawn_narrow_the_interval() -> None:
    rng = np.random.default_rng(1)
    few = estimate_accuracy([drawn(rng, 20, 0.8, 0.0)], np.full(500, 0.8), 500)
    many = estimate_accuracy([drawn(rng, 20, 0.8, 0.0) for _ in range(10)], np.full(500, 0.8), 500)
    assert few is not None and many is not None
    assert many.high - many.low < 0.75 * (few.high - few.low)


def test_confidence_that_is_wrong_by_the_same_amount_is_corrected() -> None:
    rng = np.random.default_rng(2)
    shares = [drawn(rng, 30, 0.8, gap) for gap in [0.15] * 10]
    mean = float(np.mean([s.confidence.mean() for s in shares]))
    found = estimate_accuracy(shares, np.full(500, mean), 500)
    assert found is not None and found.low < mean + 0.15 < found.high and found.low > mean


def test_requests_long_ago_count_less_where_confidence_has_changed() -> None:
    rng = np.random.default_rng(3)
    shares = [drawn(rng, 60, 0.8, 0.25) for _ in range(6)] + [drawn(rng, 60, 0.8, 0.0) for _ in range(6)]
    found = estimate_accuracy(shares, np.full(500, 0.8), 500)
    assert found is not None and abs(found.value - 0.8) < 0.06 and found.value < 0.8 + 0.125


def lines() -> list[dict[str, Any]]:
    def request(seq: int, checkpoint: int, files: str, random: list[int], predictions: list[Any]) -> dict[str, Any]:
        keys = [["", name] for name in files]
        fixed = {"kind": "request", "seq": seq, "round": seq, "strategy": "margin", "seed": 1, "learner": 1}
        return {**fixed, "checkpoint": checkpoint, "keys": keys, "predictions": predictions, "random": random}

    def labels(seq: int, said: dict[str, str], skips: str = "") -> dict[str, Any]:
        rows = [["", name, species, "oracle"] for name, species in said.items()]
        skipped = [["", name, "cannot_tell"] for name in skips]
        file = {"name": f"{seq}.csv", "sha256": "", "mtime_ns": seq, "round": seq}
        return {"kind": "labels", "seq": seq, **file, "rows": rows, "skips": skipped, "unlabels": []}

    return [
        {"kind": "open", "seq": 1, "identity": "x"},
        request(2, 0, "abc", [0, 1, 2], []),
        labels(3, {"a": "fox", "b": "roe", "c": "fox"}),
        request(4, 1, "defg", [0, 1, 2], [["fox", 0.9], ["roe", 0.6], ["roe", 0.5], ["fox", 0.3]]),
        labels(5, {"d": "fox", "e": "owl", "g": "elk"}, skips="f"),
        request(6, 2, "hi", [1], [["fox", 0.8], ["roe", 0.7]]),
        labels(7, {"h": "fox"}),
    ]


def test_only_images_drawn_at_random_predicted_and_labelled_since_count() -> None:
    history = History.of(lines())
    (found,) = random_shares(history, n_others=5)
    assert (found.checkpoint, found.n_labels) == (1, 5 + 3), "three labels were known when it was predicted"
    assert found.confidence.tolist() == [0.9, 0.6] and found.is_right.tolist() == [True, False]
    counts, elsewhere = drawn_species(history)
    assert counts == {"fox": 3, "roe": 1, "owl": 1} and elsewhere == {"elk", "fox"}


def test_of_an_image_drawn_twice_the_last_prediction_counts() -> None:
    again = lines()[:4]
    again.append({**again[3], "seq": 5, "round": 5, "checkpoint": 2, "predictions": [["owl", 0.4]] * 4})
    again.append({**lines()[4], "seq": 6})
    (found,) = random_shares(History.of(again))
    assert (
        found.checkpoint == 2 and found.confidence.tolist() == [0.4, 0.4] and found.is_right.tolist() == [False, True]
    )


def lost_along(a: float, b: float, n: int) -> dict[int, float]:
    """Return how much less is right with a part of n labels, on the curve 1 - a n^-b."""
    return {m: a * m**-b - a * n**-b for m in (n // 4, n // 2, 3 * n // 4)}


@pytest.mark.parametrize(("a", "b"), [(1.5, 0.3), (3.0, 0.5), (6.0, 0.6)])
def test_labels_for_a_point_are_those_of_the_curve(a: float, b: float) -> None:
    now = 1 - a * 1000**-b
    found = expected_gain(1000, Accuracy(now, now - 0.02, now + 0.02, 0.01, 2000), lost_along(a, b, 1000))
    truth = ((1 - now - 0.01) / a) ** (-1 / b) - 1000
    assert found is not None and truth / 1.5 < found.labels < truth * 1.5
    gain = a * 1000**-b - a * 1100**-b
    assert gain / 1.5 < found.points < gain * 1.5
    assert found.labels_low <= truth <= found.labels_high and found.points_low <= gain <= found.points_high
    assert found.labels_low < found.labels < found.labels_high


def test_where_the_last_labels_brought_more_the_next_ones_do() -> None:
    sure = Accuracy(0.8, 0.75, 0.85, 0.025, 60)
    little, much = (expected_gain(400, sure, {100: 2 * x, 200: x, 300: x / 2}) for x in (0.005, 0.05))
    assert little is not None and much is not None
    assert little.points < much.points / 2 and little.labels > 2 * much.labels


def test_what_more_labels_bring_cannot_be_said_of_one_earlier_classifier() -> None:
    sure = Accuracy(0.8, 0.7, 0.9, 0.05, 30)
    assert expected_gain(400, sure, {}) is None and expected_gain(400, sure, {200: 0.1}) is None
    assert expected_gain(400, sure, {200: 0.1, 300: 0.05}) is not None


def test_less_than_a_point_is_left_where_nearly_all_is_right() -> None:
    found = expected_gain(800, Accuracy(0.998, 0.99, 1.0, 0.002, 1600), lost_along(1, 0.9, 800))
    assert found is not None and math.isinf(found.labels) and found.points < 0.002


def test_guesses_are_as_much_less_right_as_the_classifier_thinks() -> None:
    proba = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    assert less_right(proba, np.array([0, 2])) == 0
    assert less_right(proba, np.array([2, 2])) == pytest.approx(0.15)


def test_species_seen_once_tell_of_those_that_were_not() -> None:
    found = estimate_unseen({"fox": 60, "roe": 35, "owl": 1, "elk": 1, "lynx": 1, "boar": 2}, set())
    assert found is not None
    assert found.species == pytest.approx(99 / 100 * 3 * 2 / (2 * 2)) and found.share == 0.03
    assert 0.03 < found.share_high < 0.1


def test_species_known_from_elsewhere_are_no_news() -> None:
    counts = {"fox": 60, "roe": 37, "owl": 1, "elk": 1, "lynx": 1}
    found = estimate_unseen(counts, {"owl", "elk", "bear"})
    assert found is not None and found.species == 0 and found.share == 0.01
    none = estimate_unseen(counts, {"owl", "elk", "lynx"})
    assert none is not None and none.share == 0 and 0 < none.share_high < 0.05


def test_of_too_few_images_nothing_is_said_of_species() -> None:
    assert estimate_unseen({"fox": 19}, set()) is None and estimate_unseen({}, set()) is None
