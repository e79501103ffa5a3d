"""The jobs that embed: what a candidate needs to become current, and what the current learner still lacks.

Imports torch inside the functions that need it.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from camera_trap_al.catalog.found import VALIDATION
from camera_trap_al.core.durations import in_time
from camera_trap_al.errors import ModelError
from camera_trap_al.job import Job
from camera_trap_al.learn.calibration import FOLDS
from camera_trap_al.learn.classifier import fit_classifier
from camera_trap_al.learn.settings import SAVED, Progress
from camera_trap_al.learn.worth import compare_embeddings
from camera_trap_al.sequences import sequences_in
from camera_trap_al.space import require_space, require_space_for_next
from camera_trap_al.store import atomic, embeddings, generations, shards
from camera_trap_al.store.embeddings import RowArray, Vectors

if TYPE_CHECKING:
    from camera_trap_al.learn.embedding import Embedder

FIRST_ROWS = 1024
FIRST_SHARD_ROWS = 512
log = logging.getLogger(__name__)


def embed_next(job: Job) -> None:
    """Embed what a candidate needs to become current. Commits shards, then scaler, verdict and manifest."""
    newest = embeddings.candidate(job.folder.embedding, job.folder.models, job.catalog_id)
    if newest is None:
        raise ModelError("There is no model to embed with.", hint="It is made first.")
    current = job.learner()
    folder = generations.folder_of(job.folder.embedding, newest.number)
    rows = _needed_rows(job, None if current is None else Vectors(current.folder, job.mark(current.number)))
    require_space_for_next(job.folder.embedding, job.config.daemon.min_free_mb)
    _embed(job, newest, folder, rows)
    vectors = Vectors(folder, job.mark(newest.number))
    readable = rows[vectors.usable(rows)]
    if len(readable) == 0:
        raise ModelError("None of the images can be read.", hint="See data/quarantine.csv.")
    scaler = embeddings.fit_scaler(vectors.blocks(readable), normalize=job.config.embedding.normalize)
    verdict = _verdict(job, current, Vectors(folder, job.mark(newest.number), scaler))
    facts = {"kind": "learner", "model": newest.number, "made_by": job.mark(newest.number), **verdict}
    embeddings.commit_learner(folder, scaler, facts)
    if verdict["kept_back"]:
        log.info(
            "model %d is kept back: accuracy %.3f, now %.3f", newest.number, verdict["accuracy"], verdict["current"]
        )
    else:
        log.info("model %d is current", newest.number)


def embed_uncovered(job: Job) -> None:
    """Embed rows that the current learner lacks, labelled ones first. Commits a shard at a time."""
    current = job.learner()
    if current is None:
        raise ModelError("There is no learner.", hint="It is made first.")
    model = generations.Generation(
        current.number, generations.folder_of(job.folder.models, current.number), current.manifest
    )
    _embed(job, model, current.folder, job.rows_in_order())


def _needed_rows(job: Job, current: Vectors | None) -> RowArray:
    """Return the rows that a candidate must embed: all that the current learner has, or enough for a first one."""
    order = job.rows_in_order()
    if current is None and len(order) <= 2 * FIRST_ROWS:
        return order
    is_labelled = np.isin(order, job.catalog.labelled()[0])
    if current is not None:
        return order[current.covers(order) | is_labelled]
    askable = order[np.isin(order, job.catalog.askable()[0])]
    first = np.concatenate([order[is_labelled][:FIRST_ROWS], askable[:FIRST_ROWS]])
    return first if len(first) else order[:FIRST_ROWS]


def _embed(job: Job, model: generations.Generation, folder: Path, rows: RowArray) -> None:
    """Embed those of the rows that have no vector yet: labelled ones first, then validation, then the others in order.

    Each shard holds as many rows as there are already, from 512 to 4,096, so that what can be asked for soon grows.
    """
    from camera_trap_al.learn.embedding import Embedder, embed_items

    mark = job.mark(model.number)
    if shards.is_foreign(folder, mark):
        atomic.discard_folder(folder)
    vectors = Vectors(folder, mark)
    missing = rows[~vectors.covers(rows)]
    if len(missing) == 0:
        return
    embedder: Embedder = Embedder(model.folder, batch_size=job.config.embedding.batch_size)
    read = job.reader_for(model.number)
    done, total, n_before = 0, len(missing), int(vectors.covers(rows).sum())
    validation, started = job.catalog.live_rows(VALIDATION), time.monotonic()
    log.info("Extracting embedding... (%d images)", total)
    while len(missing):
        # Labels that came meanwhile are wanted first.
        urgency = np.isin(missing, validation) + 2 * np.isin(missing, job.catalog.labelled()[0])
        size = min(max(FIRST_SHARD_ROWS, n_before + done), shards.SHARD_ROWS)
        part = missing[np.argsort(-urgency, kind="stable")[:size]]
        require_space(folder, job.config.daemon.min_free_mb)

        def tick(progress: Progress, done: int = done) -> None:
            job.tick(Progress(progress.phase, done + progress.done, total))

        items = job.catalog.items(part, job.folders)
        read.take_hashes(), read.take_times()
        found, problems = embed_items(embedder, items, read=read, tick=tick)
        hashes, times = read.take_hashes(), read.take_times()
        shards.write_shard(folder, part, found, problems, mark, hashes=hashes, times=times)
        done, missing = done + len(part), missing[~np.isin(missing, part)]
        job.tick(Progress(SAVED, done, total))
    log.info("Finished extracting embedding (%d images in %s)", total, in_time(time.monotonic() - started))


def _verdict(job: Job, current: generations.Generation | None, candidate: Vectors) -> dict[str, Any]:
    """Return whether a candidate is kept back, with both accuracies on the validation images where they were measured.

    `training` is what the labels say of the last training (`learn/worth.py`), where there are enough of them.
    """
    if current is None:
        return {"kept_back": False}
    now = Vectors(current.folder, job.mark(current.number), embeddings.read_scaler(current.folder))
    labelled, species = job.catalog.labelled()
    usable = candidate.usable(labelled) & now.usable(labelled)
    names = [s for s, good in zip(species, usable, strict=True) if good]
    # Without the images that have no label "semi" is "logistic", and of "auto" either will do to compare two networks.
    head = "mlp" if job.config.classifier.head == "mlp" else "logistic"
    verdict = {"kept_back": False, "training": _worth(job, candidate, now, labelled[usable], names, head)}
    rows, truth = job.catalog.validation()
    measured = candidate.usable(rows) & now.usable(rows)
    if job.config.finetune.promote == "always" or not measured.any() or len(set(names)) < 2:
        return verdict
    wanted = [t for t, good in zip(truth, measured, strict=True) if good]
    scores = [
        _accuracy(v, labelled[usable], names, rows[measured], wanted, job.seed(0), head) for v in (candidate, now)
    ]
    return {**verdict, "kept_back": scores[0] < scores[1], "accuracy": scores[0], "current": scores[1]}


def _worth(
    job: Job, candidate: Vectors, now: Vectors, rows: RowArray, species: list[str], head: str
) -> dict[str, Any] | None:
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        job.tick(Progress("comparing", done, max(done, 2 * FOLDS)))

    vectors = candidate.read(rows), now.read(rows)
    groups = sequences_in(job.catalog, job.config.sequences.gap_s).groups(rows)
    images = job.catalog.images_of(rows)
    worth = compare_embeddings(*vectors, species, groups, head, job.seed(0), images=images, tick=tick)
    if worth is None:
        return None
    log.info("what the labels say of the last training: %s", worth)
    return worth.facts()


def _accuracy(
    vectors: Vectors, rows: RowArray, species: list[str], test: RowArray, truth: list[str], seed: int, head: str
) -> float:
    classifier = fit_classifier(vectors.read(rows), species, seed, head)
    best = classifier.predict_proba(vectors.read(test)).argmax(axis=1)
    return float(np.mean([classifier.classes[b] == t for b, t in zip(best, truth, strict=True)]))
