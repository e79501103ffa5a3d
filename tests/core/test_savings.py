"""Labels needed and labels saved, against plain loops over the curves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camera_trap_al.core.savings import labels_to_reach, needed, saving

ASKED = np.array([0.0, 10.0, 20.0, 40.0])


def slow_labels_to_reach(asked: np.ndarray, scores: np.ndarray, target: float) -> float:
    for i, score in enumerate(scores):
        if score >= target:
            if i == 0:
                return float(asked[0])
            share = (target - scores[i - 1]) / (score - scores[i - 1])
            return float(asked[i - 1] + share * (asked[i] - asked[i - 1]))
    return math.inf


@given(st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4), st.floats(0, 1, width=32))
def test_a_curve_reaches_a_score_where_a_line_drawn_by_hand_does(scores: list[float], target: float) -> None:
    curve = np.array(scores)
    found = labels_to_reach(ASKED, curve, target)
    assert float(found) == pytest.approx(slow_labels_to_reach(ASKED, curve, target))


def test_several_curves_are_read_at_once() -> None:
    curves = np.array([[0.1, 0.5, 0.9, 0.9], [0.9, 0.9, 0.9, 0.9], [0.1, 0.2, 0.3, 0.4]])
    assert labels_to_reach(ASKED, curves, 0.7).tolist() == [15.0, 0.0, math.inf]


def test_the_interval_holds_the_value_and_is_the_same_each_time() -> None:
    curves = np.random.default_rng(3).random((8, 4)) * 0.2 + np.array([0.1, 0.4, 0.6, 0.8])
    found = needed(ASKED, curves, 0.6, seed=1)
    assert found == needed(ASKED, curves, 0.6, seed=1)
    assert found.low < found.value < found.high
    assert found.value == pytest.approx(slow_labels_to_reach(ASKED, curves.mean(axis=0), 0.6))


def test_one_replay_alone_has_no_spread() -> None:
    found = needed(ASKED, np.array([[0.0, 0.5, 1.0, 1.0]]), 0.75, seed=1)
    assert (found.value, found.low, found.high) == (15.0, 15.0, 15.0)


def test_half_of_the_labels_saved_is_one_half() -> None:
    fast, slow = np.array([[0.0, 1.0, 1.0, 1.0]]), np.array([[0.0, 0.5, 1.0, 1.0]])
    found = saving((ASKED, fast), (ASKED, slow), 1.0, seed=1)
    assert found.estimate.value == 0.5 and not found.is_at_least
    assert saving((ASKED, slow), (ASKED, fast), 1.0, seed=1).estimate.value == -1.0


def test_a_method_that_does_not_get_there_counts_with_all_that_it_asked_for() -> None:
    fast, never = np.array([[0.0, 1.0, 1.0, 1.0]]), np.array([[0.0, 0.1, 0.2, 0.3]])
    found = saving((ASKED, fast), (ASKED, never), 1.0, seed=1)
    assert found.is_at_least and found.estimate.value == 0.75
    assert math.isnan(saving((ASKED, never), (ASKED, fast), 1.0, seed=1).estimate.value)


def test_where_no_label_is_needed_nothing_can_be_saved() -> None:
    there = np.array([[1.0, 1.0, 1.0, 1.0]])
    assert math.isnan(saving((ASKED, there), (ASKED, there), 0.5, seed=1).estimate.value)
