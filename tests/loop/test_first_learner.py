"""The first learner is there as soon as a sample of the images is embedded; the rest comes later, in the same order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from season import Season, is_quiet

from camera_trap_al import embed_jobs, jobs
from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.core.order import ORDER_SEED
from camera_trap_al.core.records import Item
from camera_trap_al.errors import ImageUnreadableError, ModelError, StopRequested
from camera_trap_al.facts import read_facts
from camera_trap_al.learn.settings import SAVED, Progress
from camera_trap_al.loop import Loop
from camera_trap_al.reading import ImageReader
from camera_trap_al.store import generations, shards
from camera_trap_al.work import Work

pytestmark = pytest.mark.usefixtures("no_torch")
FIRST, SHARD = 12, 5


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """60 images stand for a hundred thousand."""
    monkeypatch.setattr(embed_jobs, "FIRST_ROWS", FIRST)
    monkeypatch.setattr(jobs, "FIRST_ROWS", FIRST)
    monkeypatch.setattr(embed_jobs, "FIRST_SHARD_ROWS", SHARD)


@pytest.fixture
def work(new_season: Callable[..., Season]) -> Iterator[Work]:
    """A season without a training folder, its images known and its first round asked for."""
    season = new_season(folders=("validation",), classes__names=["red", "green", "blue"])
    season.turn()
    work = Work.open(season.work)
    yield work
    work.close()


def do(work: Work, name: str, tick: Callable[[Progress], None] = lambda progress: None) -> None:
    jobs.run_job(work.folder, work.config, name, tick)


def rows_of_shards(work: Work, learner: int = 1) -> list[list[int]]:
    folder = generations.folder_of(work.folder.embedding, learner)
    return [shards.read_shard_facts(folder, name).rows.tolist() for name in shards.shard_names(folder)]


def facts_of(work: Work) -> Any:
    return read_facts(work, worker_runs=True, rounds_left=float("inf"), resting=frozenset())


def label(work: Work, n: int, species: tuple[str, ...] = ("red", "green"), *, first: int = -1) -> list[int]:
    """Let a person label n images in order from `first` on, or the last; return their rows."""
    order = work.catalog.in_order(work.seed(ORDER_SEED), "pool")
    rows = order[first : first + n].tolist() if first >= 0 else order[-n:].tolist()
    keys = work.catalog.keys_of(rows)
    file = {
        "name": f"{n} from {first}.csv",
        "sha256": "0",
        "mtime_ns": n,
        "round": 1,
        "skips": [],
        "unlabels": [],
        "new_classes": [],
    }
    work.append("labels", {**file, "rows": [[*key, species[i % 2], "oracle"] for i, key in enumerate(keys)]})
    Loop(work).run(until=lambda facts, step: facts.mark == facts.journal_end)
    return rows


def test_a_sample_of_the_pool_is_enough_and_the_rest_is_embedded_in_the_same_order(work: Work) -> None:
    order = work.catalog.in_order(work.seed(ORDER_SEED), "train", "validation", "pool")
    pool = order[np.isin(order, work.catalog.askable()[0])].tolist()
    do(work, "TRAIN")
    do(work, "EMBED_NEXT")
    assert sum(rows_of_shards(work), []) == pool[:FIRST], "the first learner is embedded in order"
    facts = facts_of(work)
    assert (facts.learner, facts.askable, facts.coming, facts.uncovered) == (1, FIRST, 60 - FIRST, 72 - FIRST)
    do(work, "EMBED")
    found = rows_of_shards(work)
    assert sorted(sum(found, [])) == sorted(order.tolist()), "each image once"
    assert [len(rows) for rows in found] == [5, 5, 2, 12, 24, 24], "as many as there are already"
    assert [row for row in sum(found, []) if row in pool] == pool
    assert facts_of(work).uncovered == 0


def test_what_was_asked_for_before_has_a_vector_as_soon_as_there_is_a_learner(work: Work) -> None:
    (request,) = work.history.requests
    do(work, "TRAIN")
    do(work, "EMBED_NEXT")
    assert set(work.catalog.keys_of(sum(rows_of_shards(work), []))) >= set(request.keys)


def test_where_nothing_can_be_asked_for_a_learner_is_made_all_the_same(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = np.zeros(0, np.int64), np.zeros(0, np.uint64)
    monkeypatch.setattr(Catalog, "askable", lambda self: nothing)
    do(work, "TRAIN")
    do(work, "EMBED_NEXT")
    assert facts_of(work).learner == 1 and len(sum(rows_of_shards(work), [])) == FIRST


def test_where_no_image_is_left_it_is_said_so(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Catalog, "in_order", lambda self, seed, *roots: np.zeros(0, np.int64))
    with pytest.raises(ModelError, match="None of the images can be read"):
        do(work, "TRAIN")


def test_a_model_is_made_though_the_first_images_cannot_be_read(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    order = work.catalog.in_order(work.seed(ORDER_SEED), "validation", "pool").tolist()
    read = ImageReader.__call__

    def damaged(self: ImageReader, item: Item) -> Any:
        if order.index(item.row) < len(order) - 4:
            raise ImageUnreadableError("It cannot be read.", code="unreadable")
        return read(self, item)

    monkeypatch.setattr(ImageReader, "__call__", damaged)
    do(work, "TRAIN")
    assert facts_of(work).candidate == 1


@pytest.mark.slow
def test_labels_that_come_while_the_rest_is_embedded_are_embedded_next(work: Work) -> None:
    do(work, "TRAIN")
    do(work, "EMBED_NEXT")
    n_before = len(rows_of_shards(work))
    wanted: list[int] = []

    def tick(progress: Progress) -> None:
        if progress.phase == SAVED and not wanted:
            wanted.extend(label(work, 4))

    do(work, "EMBED", tick)
    after = rows_of_shards(work)[n_before + 1]
    assert set(after[:4]) == set(wanted)


@pytest.mark.slow
def test_many_labels_do_not_hold_up_the_first_learner(work: Work) -> None:
    label(work, 40)
    do(work, "TRAIN")
    model = generations.newest(work.folder.models)
    assert model is not None and not model.manifest["trained"], "a long training comes later"
    assert facts_of(work).job == "EMBED_NEXT"
    do(work, "EMBED_NEXT")
    assert len(sum(rows_of_shards(work), [])) == 2 * FIRST
    facts = facts_of(work)
    assert facts.fittable and facts.job == "TRAIN"
    do(work, "TRAIN")
    model = generations.newest(work.folder.models)
    assert model is not None and model.manifest["trained"] and model.number == 2
    do(work, "EMBED_NEXT")
    known = set(sum(rows_of_shards(work, 2), []))
    assert known > set(sum(rows_of_shards(work, 1), [])), "a later one has all that the current one has"
    assert known >= set(work.catalog.labelled()[0].tolist())


@pytest.mark.slow
def test_who_has_answered_all_that_is_embedded_does_not_wait_for_a_long_training(work: Work) -> None:
    label(work, 40)
    for name in ("TRAIN", "EMBED_NEXT"):
        do(work, name)
    assert facts_of(work).job == "TRAIN"
    label(work, FIRST, first=0)
    facts = facts_of(work)
    assert (facts.askable, facts.coming, facts.job) == (0, 60 - 40 - FIRST, "EMBED")
    no_more = read_facts(work, worker_runs=True, rounds_left=0, resting=frozenset())
    assert no_more.job == "TRAIN", "nobody is to be asked"
    do(work, "EMBED")
    assert facts_of(work).job == "TRAIN"


@pytest.mark.slow
def test_a_short_training_comes_first(work: Work) -> None:
    label(work, FIRST)
    do(work, "TRAIN")
    model = generations.newest(work.folder.models)
    assert model is not None and model.manifest["trained"]


@pytest.mark.slow
def test_a_training_that_was_begun_goes_on_whatever_labels_came_meanwhile(work: Work) -> None:
    label(work, FIRST)

    def stop(progress: Progress) -> None:
        if progress.phase == "training":
            raise StopRequested

    with pytest.raises(StopRequested):
        do(work, "TRAIN", stop)
    label(work, 40)
    do(work, "TRAIN")
    model = generations.newest(work.folder.models)
    assert model is not None and model.manifest["trained"]


@pytest.mark.parametrize("after", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_job_goes_on_after_its_last_shard(work: Work, after: int) -> None:
    do(work, "TRAIN")
    saved: list[Progress] = []

    def stop(progress: Progress) -> None:
        saved.extend([progress] * (progress.phase == SAVED))
        if len(saved) == after:
            raise StopRequested

    with pytest.raises(StopRequested):
        do(work, "EMBED_NEXT", stop)
    kept = rows_of_shards(work)
    assert len(kept) == after and facts_of(work).job == "EMBED_NEXT"
    do(work, "EMBED_NEXT")
    assert rows_of_shards(work)[:after] == kept
    assert len(sum(rows_of_shards(work), [])) == FIRST, "nothing twice"


@pytest.mark.slow
def test_a_learner_begun_by_another_order_is_completed_without_embedding_anything_twice(work: Work) -> None:
    do(work, "TRAIN")
    rows = work.catalog.live_rows("pool")[:20]
    mark = jobs.embeddings.made_by(work.folder.models, 1, work.catalog_id)
    folder = generations.folder_of(work.folder.embedding, 1)
    shards.write_shard(folder, rows, np.ones((20, 8), np.float32), {}, mark)
    do(work, "EMBED_NEXT")
    do(work, "EMBED")
    every = sum(rows_of_shards(work), [])
    assert rows_of_shards(work)[0] == rows.tolist() and len(every) == len(set(every)) == 72


@pytest.mark.slow
def test_rounds_go_on_while_the_pool_grows(new_season: Callable[..., Season]) -> None:
    season = new_season(folders=(), classes__names=["red", "green", "blue"], query__batch=6, finetune__epochs=0)
    season.turn()
    person = season.person()
    person()
    work = Work.open(season.work)
    try:
        for name in ("TRAIN", "EMBED_NEXT"):
            do(work, name)
        loop = Loop(work)
        loop.worker.start = lambda job, stop: None  # type: ignore[method-assign]
        loop.run(until=lambda facts, step: is_quiet(facts, step) or step.name == "PREPARING")
        first, second = work.history.requests
        assert json.loads(work.folder.request.read_text(encoding="utf-8"))["round"] == 2
        covered = set(work.catalog.keys_of(sum(rows_of_shards(work), [])))
        assert covered >= {*first.keys, *second.keys} and work.checkpoint() is not None
    finally:
        work.close()
