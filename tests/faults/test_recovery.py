"""A work folder of 100,000 labels: killed and started again, it is at work at once and makes nothing anew."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from kit import SPECIES, Daemon, all_ended, command, environment, fast_folder, make_season, status
from season import Season

from camera_trap_al import upkeep
from camera_trap_al.core.records import ImageKey
from camera_trap_al.facts import fit_digest, fit_rows
from camera_trap_al.learn.classifier import fit_classifier, save_classifier
from camera_trap_al.loop import Loop
from camera_trap_al.store import atomic, embeddings, generations, shards
from camera_trap_al.work import Work

pytestmark = pytest.mark.faults

IMAGES = 100_000
ROUND = 100
IMPORTS = "import camera_trap_al_service.daemon, camera_trap_al_service.cli"


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Building the season need not survive a power cut."""
    monkeypatch.setattr(atomic, "sync", lambda descriptor: None)
    monkeypatch.setattr(atomic, "_sync_names", lambda path: None)
    yield


@pytest.fixture
def long_season(tmp_path: Path, unsynced: None, long: int) -> Iterator[Season]:
    """A season whose images are all embedded and labelled, as after years of work."""
    with fast_folder(tmp_path) as root:
        yield make_long_season(root, long)


def make_long_season(root: Path, long: int) -> Season:
    season = make_season(root, 30, train__min_labels=6, finetune__period=10 * IMAGES * long, query__batch=ROUND)
    with all_ended() as daemons:
        daemons.append(Daemon(season.work, "--until", "idle"))
        daemons[-1].end()
    for n in range(IMAGES * long // ROUND):
        folder = season.root / "pool" / f"camera {n // 10:04d}" / f"card {n % 10}"
        folder.mkdir(parents=True)
        for i in range(ROUND):
            (folder / f"IMG_{i:04d}.JPG").write_bytes(b"x")
    work = Work.open(season.work)
    try:
        while not work.scan_ended_s > 0:
            upkeep.catalogue(work)
        label_all(work)
        upkeep.project(work)
        embed_all(work)
        fit_some(work)
        loop = Loop(work)
        loop.run(until=lambda facts, step: step.name in ("WAITING", "EXPORTING"))
    finally:
        work.close()
    return season


def label_all(work: Work) -> None:
    keys = list(work.catalog.pool_keys())
    rng = np.random.default_rng(3)
    done = work.history.newest_round()
    for start in range(0, len(keys), ROUND):
        part = keys[start : start + ROUND]
        number = done + start // ROUND + 1
        common = {"round": number, "strategy": "uniform", "seed": 1, "learner": 1, "checkpoint": 0}
        work.append("request", {**common, "keys": [[*key] for key in part], "predictions": []})
        work.append("labels", label_line(part, number, rng))


def label_line(keys: list[ImageKey], number: int, rng: np.random.Generator) -> dict[str, object]:
    rows = [[*key, SPECIES[n], "oracle"] for key, n in zip(keys, rng.integers(0, 3, len(keys)), strict=True)]
    counts = {"rows": len(rows), "accepted": len(rows)}
    answer = {"verdict": "accepted", "counts": counts, "was": [], "rejected": [], "warnings": []}
    answer |= {"normalised": {"count": 0, "examples": []}, "requested_left": 0}
    file = {"name": f"week {number}.csv", "sha256": f"{number:064x}", "mtime_ns": number, "round": number}
    return {**file, "rows": rows, "skips": [], "unlabels": [], "new_classes": [], "answer": answer}


def embed_all(work: Work) -> None:
    learner = work.learner()
    assert learner is not None
    rows = work.catalog.live_rows("train", "pool")
    left = rows[~work.vectors(learner.number).covers(rows)]
    mark = embeddings.made_by(work.folder.models, learner.number, work.catalog_id)
    rng = np.random.default_rng(4)
    for start in range(0, len(left), shards.SHARD_ROWS):
        part = left[start : start + shards.SHARD_ROWS]
        vectors = rng.normal(size=(len(part), 8)).astype(np.float32)
        hashes = {int(row): f"{row:032x}" for row in part}
        shards.write_shard(learner.folder, part, vectors, {}, mark, hashes=hashes)


def fit_some(work: Work) -> None:
    """Commit a checkpoint for all labels, fitted on a few of them."""
    learner = work.learner()
    assert learner is not None
    rows, species = fit_rows(work, learner.number)
    vectors = work.vectors(learner.number)
    classifier = fit_classifier(vectors.read(rows[:300]), species[:300], 1)
    number = generations.next_number(work.folder.checkpoints)
    hidden = generations.hidden_folder_of(work.folder.checkpoints, number)
    atomic.make_folder(hidden)
    model = generations.folder_of(work.folder.models, learner.number)
    reference = np.load(model / "reference_embeddings.npy", allow_pickle=False)
    assert vectors.scaler is not None
    save_classifier(classifier, hidden, reference=embeddings.scale(reference, vectors.scaler))
    learner_id = generations.identity(learner.folder)
    facts = {"kind": "checkpoint", "learner": learner.number, "learner_id": learner_id, "n_labels": len(rows)}
    facts["fit"] = fit_digest(work, learner_id, rows, species)
    facts |= {"journal": work.journal.end, "classes": list(classifier.classes)}
    generations.commit(work.folder.checkpoints, number, facts)


def results(work: Path) -> dict[Path, int]:
    """Return when each file of models, embeddings and checkpoints, and the worker's note, was written."""
    files = [path for name in ("models", "embedding", "checkpoints") for path in (work / name).rglob("*")]
    return {path: path.stat().st_mtime_ns for path in [*files, work / "worker.json"] if path.is_file()}


def test_a_killed_daemon_of_many_labels_is_at_work_at_once_and_makes_nothing_anew(
    long_season: Season, long: int, figure: Callable[[str, str], None]
) -> None:
    work = long_season.work
    n = IMAGES * long
    with all_ended() as daemons:
        daemons.append(Daemon(work))
        daemons[-1].wait_for(
            lambda: status(work).get("pid") == daemons[-1].pid and status(work).get("state") == "waiting"
        )
        assert status(work)["labels"] >= n
        before = results(work)
        daemons[-1].kill()
        began = time.monotonic()
        daemons.append(Daemon(work))
        daemons[-1].wait_for(
            lambda: status(work).get("pid") == daemons[-1].pid and status(work).get("state") not in ("", "starting")
        )
        act_s = time.monotonic() - began
        daemons[-1].wait_for(lambda: status(work).get("state") == "waiting")
        waiting_s = time.monotonic() - began
        assert status(work)["labels"] >= n and not status(work)["problems"]
    assert results(work) == before, "something was made anew"
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, 'tests'); import conftest; {IMPORTS}"],
        cwd=Path(__file__).parents[2],
        env=environment(),
        check=True,
    )
    import_s = time.monotonic() - began
    times = {}
    for verb in ("status", "check"):
        began = time.monotonic()
        code, said = command(work, verb)
        times[verb] = time.monotonic() - began
        assert code == 0, said
    figure(
        "recovery",
        f"{n} labels: at work {act_s:.1f} s after the start (of these about {import_s:.1f} s are imports), waiting after"
        f" {waiting_s:.1f} s; status {times['status']:.1f} s, check {times['check']:.1f} s; 0 files made anew",
    )
