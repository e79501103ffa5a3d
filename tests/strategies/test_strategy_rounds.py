"""Each strategy asks through the whole program, round after round, and sees there what it needs."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from security.small_world import answer, make_world, run
from slow_strategies import random_pool

from camera_trap_al.errors import NotANumberError
from camera_trap_al.facts import read_facts
from camera_trap_al.learn.classifier import Classifier
from camera_trap_al.pool import WorkPool
from camera_trap_al.rounds import query
from camera_trap_al.store.embeddings import Vectors
from camera_trap_al.store.shards import write_shard
from camera_trap_al.strategies import strategies
from camera_trap_al.work import Work


@pytest.mark.slow
@pytest.mark.parametrize("name", strategies.names())
@pytest.mark.usefixtures("no_torch")
def test_it_asks_for_every_picture_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("camera_trap_al.learn.evaluate.confusion_figure", lambda *given: b"figure")
    monkeypatch.setattr("camera_trap_al.learn.evaluate.curve_figure", lambda *given: b"figure")
    work = make_world(tmp_path, query__strategy=name)
    for round_ in range(2):
        run(work)
        answer(work, f"round{round_}.csv")
    run(work)
    opened = Work.open(work)
    requests = opened.history.requests
    opened.close()
    assert [request.strategy for request in requests] == [name] * 2, "a training folder makes a classifier first"
    assert len({key for request in requests for key in request.keys}) == 8


@pytest.mark.slow
@pytest.mark.parametrize("name", ["uniform", "margin"])
@pytest.mark.usefixtures("no_torch")
def test_a_prediction_that_is_no_number_ends_the_query_and_the_picture_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("camera_trap_al.learn.evaluate.confusion_figure", lambda *given: b"figure")
    monkeypatch.setattr("camera_trap_al.learn.evaluate.curve_figure", lambda *given: b"figure")
    work = make_world(tmp_path, query__strategy=name)
    run(work)
    monkeypatch.setattr(Classifier, "predict_proba", lambda self, scaled: np.full((len(scaled), 2), np.nan))
    with closing(Work.open(work)) as opened:
        facts = read_facts(opened, worker_runs=False, rounds_left=9, resting=frozenset())
        with pytest.raises(NotANumberError, match=r"of (site/)?(red|green)\d.jpg hold something that is no number"):
            query(opened, facts)
        assert len(opened.history.requests) == 1


def test_all_strategies_choose_from_what_the_program_shows_them(tmp_path: Path) -> None:
    """Rows 0 to 39 are asked for, 40 to 57 labelled, but 44 cannot be read, and 58 and 59 have no vector yet."""
    made = random_pool(40, 18)
    vectors = np.concatenate([made.embeddings, made.labelled]).astype(np.float16).astype(np.float32)
    for start in (0, 30):
        rows = np.arange(start, min(start + 30, 58))
        problems = {44: ("truncated", "It ends too early.")} if start else {}
        write_shard(tmp_path, rows, vectors[rows], problems, "mark")
    species = ["abcx"[label] for label in [*made.labels.tolist()[:-1], 3, 0, 0]]
    classifier = Classifier((np.eye(4, 3, dtype=np.float32),), (np.zeros(3, np.float32),), ("a", "b", "c"))
    hashes = np.arange(40, dtype=np.uint64)
    pool = WorkPool(np.arange(40), hashes, Vectors(tmp_path, "mark"), classifier, lambda: (np.arange(40, 60), species))
    labelled = list(pool.labelled_blocks())
    seen = [i for i in range(18) if i != 4]
    assert np.concatenate([block.labels for block in labelled]).tolist() == [*made.labels[seen[:-1]].tolist(), -1]
    assert (np.concatenate([block.embeddings for block in labelled]) == vectors[40:][seen]).all()
    for name in strategies.names():
        chosen = strategies[name].query(pool, 9, 1).tolist()
        assert len(set(chosen)) == 9 and set(chosen) <= set(range(40)), name
    before = WorkPool(np.arange(40), hashes, None, None, lambda: (np.arange(40, 60), species))
    assert list(before.labelled_blocks()) == []
