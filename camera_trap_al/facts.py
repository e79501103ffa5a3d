"""Reads what is durable now, and what the folders show, into the facts that decide the next step."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import compress
from typing import Any

import numpy as np

from camera_trap_al.calibrating import fit_digest, fit_rows, is_calibrated
from camera_trap_al.catalog.found import POOL, TRAIN, VALIDATION
from camera_trap_al.core.grouping import Mask, first_of_image, n_images
from camera_trap_al.core.matching import class_name_problem, folded
from camera_trap_al.core.steps import Facts, next_job, waits_for_embeddings
from camera_trap_al.embed_jobs import FIRST_ROWS
from camera_trap_al.lock import is_held
from camera_trap_al.observed_pool import detections_stamp
from camera_trap_al.store import embeddings, generations
from camera_trap_al.store.json_files import read_object
from camera_trap_al.store.shards import RowArray
from camera_trap_al.taking import bin_files
from camera_trap_al.wishes import pending
from camera_trap_al.work import Work, all_shards, is_online

REPORT_ROWS = 100_000
RESCAN_AWAY_S = 60.0
REPORT_EVERY_S = 3600.0
NOT_NOTED = frozenset({"report", "log", "notify"})


def read_facts(work: Work, *, worker_runs: bool, rounds_left: float, resting: frozenset[str]) -> Facts:
    """Return the facts as of now.

    Parameters
    ----------
    worker_runs : whether a child of this process is at work
    rounds_left : requests that may still be made; with none left nothing is askable, and nothing finishes
    resting : names of steps and jobs at rest
    """
    facts = _journal_facts(work)
    facts = _learner_facts(work, facts)
    facts = _round_facts(work, facts, rounds_left)
    facts = _result_facts(work, facts)
    facts = replace(facts, worker=worker_runs or is_held(work.folder.worker_lock))
    waits = _is_pool_empty(work) or POOL in work.catalog.fact("away", [])
    return replace(facts, job="" if waits else next_job(facts, resting))


def _journal_facts(work: Work) -> Facts:
    files = bin_files(work)
    scanned = bool(work.catalog.fact("scanned", False))
    unabsorbed = pending_shards(work)
    absorbed = len(work.catalog.absorbed_shards())
    every_s = work.config.daemon.rescan_s
    every_s = min(every_s, RESCAN_AWAY_S) if _is_pool_empty(work) or work.catalog.fact("away", []) else every_s
    quiet_s = max(every_s, 9 * work.scan_took_s)
    rest_over = time.monotonic() - work.scan_ended_s > quiet_s
    return Facts(
        online=is_online(work.pool_root(), work.catalog.fact("top", [])),
        scanned=scanned,
        unregistered=bool(unregistered_classes(work)) or work.history.settings != noted_settings(work),
        mark=work.catalog.mark,
        journal_end=work.journal.end,
        absorbed=absorbed,
        shards=absorbed + len(unabsorbed),
        unanswered=files.unanswered,
        untaken=files.untaken,
        unsettled=files.unsettled,
        wishes=pending(work.folder.wishes),
        pool_version=int(work.catalog.fact("pool_version", 0)),
        listed=work.listed,
        scan_due=scanned and (work.scan is not None or rest_over),
    )


def _is_pool_empty(work: Work) -> bool:
    """Return whether no image to label was ever seen: the folder may be where a disk is not mounted yet."""
    version = work.catalog.fact("pool_version", 0)
    return work.cached("empty", version, lambda: not any(True for _ in work.catalog.pool_keys(with_missing=True)))


def _learner_facts(work: Work, facts: Facts) -> Facts:
    newest, learner, checkpoint = work.newest_model(), work.learner(), work.checkpoint()
    upcoming = embeddings.candidate(work.folder.embedding, work.folder.models, work.catalog_id)
    stamp = work.catalog.pool_stamp
    rows, species = work.cached("labelled", stamp, work.catalog.labelled)
    counts = work.cached("classes with labels", stamp, lambda: _labels_by_class(work, rows, species))
    model_seq = newest.manifest["journal"] if newest else 0
    facts = replace(
        facts,
        newest=newest.number if newest else 0,
        learner=learner.number if learner else 0,
        untrained=bool(newest) and not newest.manifest["trained"] if newest else False,
        trainable=sum(counts) >= work.config.train.min_labels and sum(n >= 2 for n in counts) >= 2,
        candidate=upcoming.number if upcoming else 0,
        new_labels=work.cached(
            "new labels", (facts.journal_end, model_seq), lambda: work.history.labels_since(model_seq)
        ),
        train_epochs=work.config.train.epochs,
        finetune_epochs=work.config.finetune.epochs,
        period=work.config.finetune.period,
        checkpoint=checkpoint.number if checkpoint else 0,
        fitted=checkpoint.manifest["fit"] if checkpoint else "",
    )
    if learner is None:
        return facts
    embedded = (learner.number, work.vectors(learner.number).changes)
    fit_stamp = (*stamp, *embedded, *work.history.classes)
    fit, fittable = work.cached("fit", fit_stamp, lambda: _fit(work, learner.number))
    pool_stamp = (facts.pool_version, *embedded)
    uncovered = work.cached("uncovered", pool_stamp, lambda: count_uncovered(work, learner.number))
    return replace(facts, fit=fit, fittable=fittable, uncovered=uncovered)


def _fit(work: Work, learner: int) -> tuple[str, bool]:
    rows, species = fit_rows(work, learner)
    learner_id = generations.identity(generations.folder_of(work.folder.embedding, learner))
    return fit_digest(work, learner_id, rows, species), len(set(species)) >= 2


def count_images(work: Work, rows: RowArray) -> int:
    """Return of how many images some rows are."""
    return n_images(work.catalog.images_of(rows))


def _labels_by_class(work: Work, rows: RowArray, species: Sequence[str]) -> Collection[int]:
    """Return how many images have a label of each class, in any order."""
    is_first = first_of_image(work.catalog.images_of(rows))
    return Counter(compress(species, is_first.tolist())).values()


def count_uncovered(work: Work, learner: int) -> int:
    """Return how many readable, present rows a learner has not embedded."""
    rows = work.catalog.live_rows(TRAIN, VALIDATION, POOL, in_order=False)
    return int((~work.vectors(learner).covers(rows)).sum())


def _round_facts(work: Work, facts: Facts, rounds_left: float) -> Facts:
    open_round = work.history.open_round(work.config.query.min_answered)
    stamp = work.catalog.pool_stamp
    rows, _ = work.cached("askable", stamp, work.catalog.askable)
    every = work.cached("askable images", stamp, lambda: count_images(work, rows))
    askable, coming, starved = every, 0, False
    if facts.learner:
        vectors = work.vectors(facts.learner)
        covered_stamp = (*stamp, facts.learner, vectors.changes)
        askable = work.cached("covered", covered_stamp, lambda: count_images(work, rows[vectors.usable(rows)]))
        coming = every - askable
        if facts.uncovered and detections_stamp(work) is not None:
            enough = work.cached("enough", covered_stamp, lambda: _are_enough(work, rows, vectors.usable(rows)))
            askable, coming = (askable, coming) if enough else (0, every)
        starved = coming > 0 and not askable and facts.uncovered > 0 and rounds_left > 0
    first = work.config.query.first
    if (first == "wait" and not facts.checkpoint) or (waits_for_embeddings(first, every) and not facts.learner):
        askable, coming = 0, askable + coming
    if rounds_left <= 0:
        askable, coming = 0, 1
    budget = work.config.query.budget
    spent = work.cached("spent", facts.journal_end, work.history.spent) if budget else 0
    unusable = work.catalog.unusable(work.history.awaited()) if open_round else {}
    return replace(
        facts,
        open=open_round,
        unusable=len(unusable),
        placed=work.selector.placed(work.history.kept_back()),
        shown=work.selector.shown(work.history.kept_back()),
        askable=askable,
        coming=coming,
        starved=starved,
        budget=budget - spent if budget else float("inf"),
    )


def _are_enough(work: Work, rows: RowArray, is_embedded: Mask) -> bool:
    """Return whether enough is embedded to choose from: a first share of the images, and of those with animals.

    After detections came or went, what is embedded already may be a few images, or those in which nothing was seen.
    """
    for some in (np.ones(len(rows), dtype=bool), work.catalog.have_animals(rows)):
        if count_images(work, rows[some & is_embedded]) < min(count_images(work, rows[some]), FIRST_ROWS):
            return False
    return True


def _result_facts(work: Work, facts: Facts) -> Facts:
    checkpoint = work.checkpoint()
    if checkpoint is None:
        return facts
    folder, n_labels = work.folder, checkpoint.manifest["n_labels"]
    reported = _json(folder.reported)
    exported = _json(folder.export / "check.json").get("checkpoint")
    metrics = _json(folder.test_results / f"train_set_size_{n_labels}" / "metrics.json")
    rows = len(work.cached("askable", work.catalog.pool_stamp, work.catalog.askable)[0])
    is_of_these_crops = reported.get("cut") == detections_stamp(work)
    due = rows <= REPORT_ROWS or reported.get("learner") != checkpoint.manifest["learner"]
    return replace(
        facts,
        calibrated=checkpoint.number if is_calibrated(work, checkpoint) else 0,
        estimated=_json(folder.estimates).get("checkpoint", 0),
        validated=checkpoint.number if _is_validated(work, facts, checkpoint) else 0,
        evaluated=metrics.get("checkpoint", 0),
        exported=checkpoint.number if checkpoint.number == exported else 0,
        # What was published and is not known to be ours could not be confirmed, so it is published again; and so it is
        # where other crops are looked at.
        reported=reported.get("checkpoint", 0) if folder.published.exists() and is_of_these_crops else 0,
        report_due=due or time.monotonic() - work.reported_s > REPORT_EVERY_S,
    )


def _is_validated(work: Work, facts: Facts, checkpoint: generations.Generation) -> bool:
    if not work.config.validation.enabled:
        return False
    rows, _ = work.cached("validation", facts.pool_version, work.catalog.validation)
    return len(rows) > 0 and bool(work.vectors(checkpoint.manifest["learner"]).covers(rows).all())


def _json(path: Any) -> dict[str, Any]:
    try:
        return read_object(path)
    except (OSError, ValueError):
        return {}


def pending_shards(work: Work) -> list[tuple[int, str]]:
    """Return (learner, shard) of the shards whose facts the catalogue has not taken in."""
    known = work.catalog.absorbed_shards()
    return [shard for name, shard in all_shards(work.folder).items() if name not in known]


def unregistered_classes(work: Work) -> list[str]:
    """Return the classes of folders and configuration that no journal line holds."""
    config = work.config.classes
    version = work.catalog.fact("pool_version", 0) if work.catalog.fact("scanned", False) else -1
    folders = work.cached("folder classes", version, work.catalog.folder_classes) if version >= 0 else []
    named = {*folders, *config.named()}
    known = {folded(name) for name in work.history.classes}
    new = sorted(name for name in named - set(work.history.classes) if not class_name_problem(name, config.reserved))
    first = {folded(name): name for name in reversed(new)}
    return sorted(name for fold, name in first.items() if fold not in known)


def noted_settings(work: Work) -> dict[str, Any]:
    """Return the settings as the journal holds them, without those that no label and no request depends on."""
    return {key: value for key, value in work.config.flat().items() if key.partition(".")[0] not in NOT_NOTED}
