"""A request around a strategy: what it never has, and that it is never short."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camera_trap_al.core.composition import MOST_PASSES, Askable, compose, n_random

Read = Callable[[np.ndarray], np.ndarray]


def pool(sequences: list[int], folders: list[int] | None = None) -> Askable:
    n = len(sequences)
    hashes = np.random.default_rng(4).integers(0, 2**64, n, np.uint64)
    return Askable(np.arange(n) * 3, hashes, np.array(sequences), np.array(folders or [0] * n, np.int64))


class Ranking:
    """A strategy that wants rows in a fixed order, and remembers how often it was asked."""

    def __init__(self, askable: Askable, order: list[int]) -> None:
        self._askable, self._order, self.asked = askable, order, 0

    def __call__(self, may: np.ndarray, n: int) -> np.ndarray:
        self.asked += 1
        assert 0 < n <= may.sum()
        return self._askable.rows[[place for place in self._order if may[place]][:n]]


def composed(
    askable: Askable, n: int, order: list[int] | None = None, read: Read | None = None, **options: int
) -> list[int]:
    choose = Ranking(askable, order or list(range(len(askable.rows))))
    given_ = {"n_drawn": 0, "per_sequence": 1, "seed": 1, **options}
    rows, drawn = compose(askable, n, choose=choose, read=read, **given_)
    assert drawn == min(given_["n_drawn"], n, len(askable.rows)) and choose.asked <= MOST_PASSES
    return (rows // 3).tolist()


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 8), min_size=1, max_size=60),
    st.integers(0, 70),
    st.integers(0, 20),
    st.integers(0, 3),
    st.randoms(),
    st.booleans(),
)
def test_it_is_never_short_and_takes_more_of_a_sequence_only_when_all_have_as_many(
    sequences: list[int], n: int, n_drawn: int, cap: int, random: object, has_vectors: bool
) -> None:
    askable, order = pool(sequences), list(range(len(sequences)))
    random.shuffle(order)  # type: ignore[attr-defined]
    points = np.random.default_rng(1).integers(0, 3, (len(order), 2))
    read = (lambda rows: points[rows // 3]) if has_vectors else None
    found = composed(askable, n, order, read, n_drawn=n_drawn, per_sequence=cap)
    assert len(set(found)) == len(found) == min(n, len(order))
    count, sizes = Counter(sequences[place] for place in found), Counter(sequences)
    if cap:
        reached = cap
        while sum(min(size, reached) for size in sizes.values()) < min(n, len(order)):
            reached *= 2
        assert max(count.values(), default=0) <= reached
    if not cap and not n_drawn:
        assert found == order[:n], "nothing is left out"


def test_a_strategy_whose_wishes_are_no_copies_gets_them_and_is_asked_once() -> None:
    askable = pool(list(range(50)))
    choose = Ranking(askable, list(range(49, -1, -1)))
    rows, _ = compose(askable, 10, n_drawn=0, per_sequence=1, seed=1, choose=choose)
    assert (rows // 3).tolist() == list(range(49, 39, -1)) and choose.asked == 1


def test_the_best_of_each_sequence_is_asked_for_and_a_giant_one_starves_nothing() -> None:
    sequences = [0] * 900 + list(range(1, 101))
    askable = pool(sequences)
    choose = Ranking(askable, list(range(1000)))
    rows, _ = compose(askable, 50, n_drawn=0, per_sequence=1, seed=1, choose=choose)
    assert (rows // 3).tolist() == [0, *range(900, 949)] and choose.asked == 2
    rest = pool([0] * 900 + [1] * 3)
    found = Counter(sequence > 0 for sequence in np.array([0] * 900 + [1] * 3)[composed(rest, 50)])
    assert found == {False: 47, True: 3}, "nothing else was left"


def test_near_copies_of_other_sequences_are_left_out_while_there_are_others() -> None:
    rng = np.random.default_rng(2)
    places = np.concatenate([np.repeat(rng.normal(size=(5, 8)), 4, axis=0), rng.normal(size=(300, 8))])
    places += rng.normal(size=places.shape) * 1e-4
    askable = pool(list(range(320)))
    found = composed(askable, 40, read=lambda rows: places[rows // 3])
    assert [place for place in found if place < 20] == [0, 4, 8, 12, 16] and len(found) == 40
    assert len({place // 4 for place in composed(askable, 40, per_sequence=0) if place < 20}) == 5
    everything = composed(askable, 320, read=lambda rows: places[rows // 3])
    assert sorted(everything) == list(range(320))


def test_embeddings_that_are_all_equal_are_still_asked_for() -> None:
    assert len(composed(pool(list(range(2000))), 100, read=lambda rows: np.ones((len(rows), 3)))) == 100


def test_the_random_share_takes_each_folder_by_its_part_and_owes_nothing_to_the_strategy() -> None:
    askable = pool(list(range(400)), [0] * 300 + [1] * 100)
    one = composed(askable, 100, n_drawn=40)
    other = composed(askable, 100, list(range(399, -1, -1)), n_drawn=40)
    assert one[:40] == other[:40] and 28 <= sum(place < 300 for place in one[:40]) <= 32
    assert composed(askable, 100, n_drawn=40, seed=2)[:40] != one[:40]
    assert one[40:] == [place for place in range(400) if place not in one[:40]][:60]


def test_every_image_is_drawn_as_often_as_any_other() -> None:
    askable = pool(list(range(60)), [0] * 40 + [1] * 15 + [2] * 5)
    count = Counter(place for seed in range(600) for place in composed(askable, 12, n_drawn=12, seed=seed))
    assert min(count.values()) > 80 and max(count.values()) < 165, "each 120 times, give or take"


@pytest.mark.parametrize("n", [1, 5, 9, 100])
def test_over_many_requests_the_share_is_the_one_that_is_set(n: int) -> None:
    drawn = [n_random(n, 0.1, seed) for seed in range(2000)]
    assert set(drawn) <= {int(0.1 * n), int(0.1 * n) + 1} and abs(np.mean(drawn) - 0.1 * n) < 0.05
    assert {n_random(n, 0, seed) for seed in range(50)} == {0} and {n_random(n, 1, s) for s in range(50)} == {n}


def test_nothing_to_ask_for() -> None:
    assert composed(pool([]), 5) == []
