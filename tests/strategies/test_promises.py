"""What every query strategy promises, whatever its name."""

from __future__ import annotations

import dataclasses
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_strategies import MadePool, random_pool

from camera_trap_al.core.acquisition import Scored, best_first, confidence_score, entropy_score, margin_score, top_n
from camera_trap_al.core.seeds import key_hash
from camera_trap_al.errors import NotANumberError, UnknownNameError
from camera_trap_al.strategies import LabelledBlock, PoolBlock, strategies

NAMES = strategies.names()
SIZE = 60


def tied(pool: MadePool) -> MadePool:
    same = np.ones_like(pool.embeddings)
    proba = np.tile(pool.proba[:1], (SIZE, 1))
    return dataclasses.replace(pool, proba=proba, embeddings=same, labelled=same[:5], labels=pool.labels[:5])


def doubled(pool: MadePool) -> MadePool:
    half = np.arange(SIZE) // 2
    return dataclasses.replace(
        pool, proba=pool.proba[half], embeddings=pool.embeddings[half], labelled=pool.embeddings[:20]
    )


POOLS = {
    "plain": random_pool(SIZE),
    "no labels": random_pool(SIZE, 0),
    "more labels than rows": random_pool(SIZE, 300),
    "one class": random_pool(SIZE, k=1),
    "no classifier": random_pool(SIZE, 0, k=0),
    "no classifier, no embedding": random_pool(SIZE, 0, d=0, k=0),
    "labels, but no classifier": random_pool(SIZE, k=0),
    "embeddings of one number": random_pool(SIZE, d=1),
    "all the same": tied(random_pool(SIZE)),
    "every picture twice": doubled(random_pool(SIZE)),
    "labels of unknown classes": dataclasses.replace(random_pool(SIZE), labels=np.full(20, -1)),
    "one row": random_pool(1, 2),
    "two rows": random_pool(2, 0),
}


def picked(name: str, pool: MadePool, n: int, seed: int = 3) -> list[str]:
    with np.errstate(all="raise", under="ignore"):
        rows = strategies[name].query(pool, n, seed)
    assert rows.dtype == np.int64
    return pool.paths_of(rows)


def test_the_nine_strategies_of_the_reference_program_are_there() -> None:
    assert set(NAMES) >= {
        "confidence",
        "entropy",
        "graph_density",
        "hierarchical",
        "informative_diverse",
        "kcenter",
        "margin",
        "margin_cluster_mean",
        "uniform",
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_it_returns_n_unique_rows_or_all_that_are_left(name: str, pool: MadePool) -> None:
    for n in (0, 7, SIZE, 10**12):
        found = picked(name, pool, n)
        assert len(found) == len(set(found)) == min(n, len(pool.proba))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_the_answer_depends_on_pictures_and_seed_only(name: str, pool: MadePool) -> None:
    first = picked(name, pool, 9)
    assert picked(name, pool, 9) == first
    for block in (1, 7):
        assert picked(name, dataclasses.replace(pool, block=block), 9) == first, "not on how the pool is cut"
    assert picked(name, dataclasses.replace(pool, order=5, block=7), 9) == first, "not on rows or file order"


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_where_nothing_else_does(name: str) -> None:
    assert picked(name, POOLS["all the same"], 9, seed=3) != picked(name, POOLS["all the same"], 9, seed=4)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_small_pools_with_many_ties_keep_all_promises(name: str, data: st.DataObject) -> None:
    def grid(rows: int, columns: int) -> np.ndarray:
        numbers = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=rows * columns, max_size=rows * columns)
        return np.array(data.draw(numbers), np.float32).reshape(rows, columns)

    size, n_labelled, d = data.draw(st.integers(0, 12)), data.draw(st.integers(0, 6)), data.draw(st.integers(1, 3))
    proba = grid(size, 2) + np.float32(0.25)
    pool = MadePool(
        proba / proba.sum(axis=1, keepdims=True),
        grid(size, d),
        grid(n_labelled, d),
        np.array(data.draw(st.lists(st.integers(-1, 1), min_size=n_labelled, max_size=n_labelled)), np.int64),
        classes=("a", "b"),
    )
    n, seed = data.draw(st.integers(0, 14)), data.draw(st.integers(0, 2**64))
    found = picked(name, pool, n, seed)
    assert len(found) == len(set(found)) == min(n, size)
    cut = dataclasses.replace(pool, block=data.draw(st.integers(1, 5)), order=data.draw(st.integers(0, 3)))
    assert picked(name, cut, n, seed) == found


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_pool_gives_nothing(name: str) -> None:
    assert picked(name, random_pool(0), 5) == []
    assert picked(name, random_pool(0, 0, d=0, k=0), 5) == []


class LongPool:
    """A pool of 60 blocks of which one is there at a time: as arrays it would take 63 MB."""

    classes = ("a", "b", "c")

    def unlabelled_blocks(self) -> Iterator[PoolBlock]:
        for number in range(60):
            rng = np.random.default_rng(number)
            rows = np.arange(number * 4096, (number + 1) * 4096)
            embeddings = rng.random((4096, 64), np.float32)
            yield PoolBlock(rows, rng.integers(0, 2**64, 4096, np.uint64), embeddings[:, :3], embeddings)

    def labelled_blocks(self) -> Iterator[LabelledBlock]:
        for number in range(8):
            rng = np.random.default_rng(1000 + number)
            yield LabelledBlock(rng.random((1024, 64), np.float32), rng.integers(0, 3, 1024))

    def tick(self) -> None:
        pass


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_pool_is_never_in_memory(name: str) -> None:
    strategies[name].query(random_pool(), 5, 1)  # imports what it needs
    tracemalloc.start()
    rows = strategies[name].query(LongPool(), 20, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(np.unique(rows)) == 20
    assert peak < 52e6


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("where", ["embeddings", "proba"])
def test_what_is_no_number_ends_it_and_the_row_is_named(name: str, where: str) -> None:
    pool = random_pool(SIZE)
    values = getattr(pool, where).copy()
    values[33, 1] = np.nan if where == "proba" else np.inf
    with pytest.raises(NotANumberError, match="row 133 hold something that is no number") as caught:
        strategies[name].query(dataclasses.replace(pool, **{where: values}), 5, 1)
    assert caught.value.row == 133


def test_uniform_is_uniform() -> None:
    counts: dict[str, int] = {}
    pool = random_pool(12)
    for seed in range(600):
        for path in picked("uniform", pool, 3, seed):
            counts[path] = counts.get(path, 0) + 1
    assert len(counts) == 12 and max(counts.values()) < 1.35 * 150 and min(counts.values()) > 0.65 * 150


def test_an_unknown_name_says_what_it_may_have_meant() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'kcenter'"):
        strategies.check("kcentre")


@given(
    scores=st.lists(st.sampled_from([0.0, 0.25, 0.5]), min_size=1, max_size=40), n=st.integers(1, 20), data=st.data()
)
def test_the_best_n_do_not_depend_on_how_blocks_are_cut(scores: list[float], n: int, data: st.DataObject) -> None:
    hashes = np.array([key_hash(str(i)) for i in range(len(scores))], np.int64).view(np.uint64)
    whole = Scored(np.arange(len(scores)), hashes, np.array(scores))
    cut = data.draw(st.integers(0, len(scores)))
    parts = [whole.take(np.arange(cut)), whole.take(np.arange(cut, len(scores)))]
    assert top_n([whole], n, 7).tolist() == top_n(parts, n, 7).tolist() == best_first(whole, n, 7).tolist()


def test_a_coin_toss_scores_highest() -> None:
    proba = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.4, 0.3, 0.3]])
    assert margin_score(proba).tolist() == pytest.approx([0.0, -1.0, -0.1])
    assert confidence_score(proba).tolist() == pytest.approx([-0.5, -1.0, -0.4])
    assert entropy_score(proba).tolist() == pytest.approx([0.6931, 0.0, 1.0889], abs=1e-4)


@pytest.mark.parametrize("score", [margin_score, confidence_score, entropy_score])
@pytest.mark.parametrize("k", [0, 1])
def test_without_a_second_class_no_row_is_preferred(score: object, k: int) -> None:
    assert callable(score)
    assert len(set(score(np.ones((5, k))).tolist())) == 1
