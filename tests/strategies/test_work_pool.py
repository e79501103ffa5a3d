"""The pool as the program shows it to strategies: hashes go with their rows, and whoever stops need not wait long."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from camera_trap_al.core import geometry
from camera_trap_al.errors import ModelError, NotANumberError, StopRequested
from camera_trap_al.learn.classifier import Classifier
from camera_trap_al.pool import WorkPool, ahead
from camera_trap_al.store.embeddings import Vectors
from camera_trap_al.store.shards import write_shard
from camera_trap_al.strategies import strategies

N, D = 400, 6


@pytest.fixture
def pool(tmp_path: Path) -> WorkPool:
    """Return 400 rows in 8 shards that hold them in random order; those above 300 are labelled."""
    rng = np.random.default_rng(0)
    order = rng.permutation(N)
    for part in np.split(order, 8):
        write_shard(tmp_path, part, rng.normal(size=(len(part), D)).astype(np.float32), {}, "m")
    classifier = Classifier((rng.normal(size=(D, 3)).astype(np.float32),), (np.zeros(3, np.float32),), ("a", "b", "c"))
    rows, labelled = np.arange(300), np.arange(300, N)
    hashes = rng.integers(0, 2**64, 300, np.uint64)
    scaler = np.stack([np.full(D, -3.0), np.full(D, 6.0)])
    vectors = Vectors(tmp_path, "m", scaler)
    return WorkPool(rows, hashes, vectors, classifier, lambda: (labelled, ["abc"[i % 3] for i in range(100)]))


def test_each_row_comes_once_with_its_hash_vector_and_probabilities(pool: WorkPool) -> None:
    assert pool.vectors is not None and pool.classifier is not None
    seen: list[int] = []
    for block in pool.unlabelled_blocks():
        assert (block.key_hashes == pool.key_hashes[block.rows]).all()
        assert (block.embeddings == pool.vectors.read(block.rows)).all()
        np.testing.assert_allclose(block.proba, pool.classifier.predict_proba(block.embeddings), atol=1e-6)
        seen += block.rows.tolist()
    assert sorted(seen) == pool.rows.tolist()


def test_a_request_does_not_depend_on_the_order_of_rows_in_shards(pool: WorkPool, tmp_path: Path) -> None:
    assert pool.vectors is not None
    raw = Vectors(tmp_path, "m").read(np.arange(N))
    other = tmp_path / "other"
    for part in np.split(np.arange(N), [3, 250]):
        write_shard(other, part, raw[part], {}, "m")
    twin = replace(pool, vectors=Vectors(other, "m", pool.vectors.scaler))
    for name in strategies.names():
        assert strategies[name].query(pool, 9, 1).tolist() == strategies[name].query(twin, 9, 1).tolist(), name


@pytest.mark.parametrize("name", strategies.names())
def test_whoever_stops_the_program_does_not_wait_for_a_pass_over_the_pool(pool: WorkPool, name: str) -> None:
    looks: list[int] = []
    stopped = replace(pool, stop=lambda: bool(looks.append(1)) or len(looks) > 2)
    with pytest.raises(StopRequested):
        strategies[name].query(stopped, 9, 1)
    assert len(looks) == 3, "of eight blocks"


@pytest.mark.parametrize("name", ["kcenter", "margin_cluster_mean"])
def test_a_large_request_looks_often_whether_the_program_is_to_end(
    pool: WorkPool, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geometry, "MOST_AT_ONCE", 4)
    looks: list[int] = []
    strategies[name].query(replace(pool, stop=lambda: bool(looks.append(1))), 100, 1)
    assert len(looks) > 25 + 8


def test_before_there_is_a_classifier_embeddings_are_there_and_no_probabilities(pool: WorkPool) -> None:
    blocks = list(replace(pool, classifier=None).unlabelled_blocks())
    assert {block.proba.shape[1] for block in blocks} == {0} and {block.embeddings.shape[1] for block in blocks} == {D}
    labelled = list(replace(pool, classifier=None).labelled_blocks())
    assert np.concatenate([block.labels for block in labelled]).tolist() == [-1] * 100


def test_a_labelled_row_that_holds_no_number_is_named(pool: WorkPool, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Vectors.read

    def broken(self: Vectors, rows: np.ndarray) -> np.ndarray:
        found = read(self, rows)
        found[rows == 307] = np.nan
        return found

    monkeypatch.setattr(Vectors, "read", broken)
    with pytest.raises(NotANumberError, match="row 307"):
        strategies["kcenter"].query(pool, 9, 1)


def test_a_damaged_shard_ends_the_query_and_leaves_no_thread(pool: WorkPool, tmp_path: Path) -> None:
    path = tmp_path / "shard-000003.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    before = threading.active_count()
    with pytest.raises(ModelError, match="shard-000003"):
        strategies["margin"].query(pool, 9, 1)
    assert threading.active_count() == before
    assert pool.vectors is not None and not pool.vectors.covers(pool.rows).all()


def test_work_ahead_comes_in_order_and_never_far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("camera_trap_al.pool.usable_cores", lambda: 3)
    begun: list[int] = []

    def task(i: int) -> int:
        time.sleep(0.002 * (i % 3))
        return i

    def tasks() -> Iterator[tuple[int]]:
        for i in range(20):
            begun.append(i)
            yield (i,)

    for i, found in enumerate(ahead(task, tasks())):
        assert found == i and len(begun) <= i + 5
    assert len(begun) == 20
