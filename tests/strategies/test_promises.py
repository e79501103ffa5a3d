"""What every query strategy promises, whatever its name."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camera_trap_al.catalog.found import key_hash
from camera_trap_al.core.acquisition import Scored, margin_score, top_n
from camera_trap_al.errors import UnknownNameError
from camera_trap_al.strategies import PoolBlock, strategies

NAMES = strategies.names()


class ListPool:
    """A pool of made-up rows, cut into blocks anywhere."""

    classes = ("a", "b", "c")

    def __init__(self, paths: list[str], proba: np.ndarray, rows: np.ndarray, block: int) -> None:
        hashes = np.array([key_hash(p) for p in paths], dtype=np.int64).view(np.uint64)
        self.parts = [
            PoolBlock(rows[i : i + block], hashes[i : i + block], proba[i : i + block], proba[i : i + block])
            for i in range(0, len(paths), block)
        ]

    def unlabelled_blocks(self) -> Iterator[PoolBlock]:
        yield from self.parts


def made(n: int, seed: int = 0, ties: bool = False) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet([0.5, 0.5, 0.5], n).astype(np.float32)
    if ties:
        proba = np.tile(np.array([0.5, 0.25, 0.25], np.float32), (n, 1))
    return [f"site{i % 7}/IMG_{i:05d}.JPG" for i in range(n)], proba


def picked(
    name: str, n: int, seed: int, *, ties: bool = False, block: int = 1000, order: int = 0, size: int = 60
) -> list[str]:
    paths, proba = made(size, ties=ties)
    shuffle = np.random.default_rng(order).permutation(size) if order else np.arange(size)
    rows = np.arange(100, 100 + size)
    pool = ListPool([paths[i] for i in shuffle], proba[shuffle], rows, block)
    by_row = dict(zip(rows.tolist(), [paths[i] for i in shuffle], strict=True))
    return [by_row[row] for row in strategies[name].query(pool, n, seed).tolist()]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [1, 7, 60, 100])
def test_it_returns_n_unique_rows_or_all_that_are_left(name: str, ties: bool, n: int) -> None:
    found = picked(name, n, 3, ties=ties)
    assert len(found) == len(set(found)) == min(n, 60)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ties", [False, True])
def test_the_answer_depends_on_pictures_and_seed_only(name: str, ties: bool) -> None:
    first = picked(name, 9, 3, ties=ties)
    assert picked(name, 9, 3, ties=ties, block=7) == first, "not on how the pool is cut"
    assert picked(name, 9, 3, ties=ties, order=5) == first, "not on rows or file order"
    if ties or name == "uniform":
        assert picked(name, 9, 4, ties=ties) != first, "but on the seed, where there is a choice"


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_pool_gives_nothing(name: str) -> None:
    assert picked(name, 5, 1, size=0) == []


def test_margin_agrees_with_sorting_everything() -> None:
    paths, proba = made(60)
    ordered = sorted(range(60), key=lambda i: sorted(proba[i])[-1] - sorted(proba[i])[-2])
    assert picked("margin", 10, 0) == [paths[i] for i in ordered[:10]]


def test_uniform_is_uniform() -> None:
    counts: dict[str, int] = {}
    for seed in range(600):
        for path in picked("uniform", 3, seed, size=12):
            counts[path] = counts.get(path, 0) + 1
    assert len(counts) == 12 and max(counts.values()) < 1.35 * 150 and min(counts.values()) > 0.65 * 150


def test_names_of_later_versions_say_so() -> None:
    with pytest.raises(UnknownNameError, match="'kcenter' is not in this version yet"):
        strategies.check("kcenter")
    with pytest.raises(UnknownNameError, match="Did you mean 'margin'"):
        strategies.check("marginn")


@given(
    scores=st.lists(st.sampled_from([0.0, 0.25, 0.5]), min_size=1, max_size=40), n=st.integers(1, 20), data=st.data()
)
def test_the_best_n_do_not_depend_on_how_blocks_are_cut(scores: list[float], n: int, data: st.DataObject) -> None:
    hashes = np.array([key_hash(str(i)) for i in range(len(scores))], np.int64).view(np.uint64)
    whole = Scored(np.arange(len(scores)), hashes, np.array(scores))
    cut = data.draw(st.integers(0, len(scores)))
    parts = [whole.take(np.arange(cut)), whole.take(np.arange(cut, len(scores)))]
    assert top_n([whole], n, 7).tolist() == top_n(parts, n, 7).tolist()


def test_a_coin_toss_scores_highest() -> None:
    scores = margin_score(np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.4, 0.3, 0.3]]))
    assert scores.tolist() == pytest.approx([0.0, -1.0, -0.1])
