"""Steps that make what others read: the classifier, the lists, the metrics, the export and the predictions."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from camera_trap_al.advice import read_estimates
from camera_trap_al.calibrating import fit_digest, fit_rows, head_to_use, read_finite, unlabelled_sample
from camera_trap_al.core.durations import in_time
from camera_trap_al.core.grouping import best_in_order, first_of_image, is_single, n_images
from camera_trap_al.core.spreadsheets import is_safe_name
from camera_trap_al.core.steps import Facts
from camera_trap_al.exporters import ExportCheckError, ExportSource, exporters, write_check
from camera_trap_al.labels.lines import LabelLines
from camera_trap_al.labels.prediction_fields import PredictionFields, read_prediction_fields
from camera_trap_al.labels.published import note_published
from camera_trap_al.labels.timelapse import Predictions, write_labels, write_predictions, write_problems
from camera_trap_al.layout import WorkFolder
from camera_trap_al.learn.classifier import fit_classifier, load_classifier, save_classifier
from camera_trap_al.learn.evaluate import evaluate as measure
from camera_trap_al.learn.evaluate import write_learning_curve, write_results
from camera_trap_al.observed_pool import classify, count_and_predict, detections_stamp
from camera_trap_al.propagation import propagated
from camera_trap_al.provenance import learned_from, run_facts
from camera_trap_al.recognising import recognise
from camera_trap_al.reporting import Source, write_report
from camera_trap_al.rounds import askable_pool, selector_lines
from camera_trap_al.space import MB, folder_bytes, require_space, require_space_for_next
from camera_trap_al.store import atomic, embeddings, generations
from camera_trap_al.store.json_files import read_object
from camera_trap_al.work import Work

KEPT_CHECKPOINTS = 2
log = logging.getLogger(__name__)


def fit(work: Work, facts: Facts) -> None:
    """Fit a classifier on all labels the current learner has embedded. Commits: a checkpoint folder."""
    learner = work.learner()
    assert learner is not None
    rows, species = fit_rows(work, learner.number)
    started = time.monotonic()
    head, temperature = head_to_use(work)
    places = np.flatnonzero(first_of_image(work.catalog.images_of(rows)))
    labelled, labels = rows[places], [species[i] for i in places.tolist()]
    log.info("classifier: fitting on %d labels (%s)", len(labels), head)
    vectors = work.vectors(learner.number)
    more, theirs = propagated(work, learner.number, rows, species)
    classifier = fit_classifier(
        read_finite(work, learner.number, np.concatenate([rows, more])),
        [*species, *theirs],
        work.seed("fit", work.journal.end, learner.number),
        head,
        unlabelled=unlabelled_sample(work, learner.number, head),
        temperature=temperature,
    )
    number = generations.next_number(work.folder.checkpoints)
    require_space_for_next(work.folder.checkpoints, work.config.daemon.min_free_mb)
    hidden = generations.hidden_folder_of(work.folder.checkpoints, number)
    atomic.discard_folder(hidden)
    atomic.make_folder(hidden)
    model = generations.folder_of(work.folder.models, learner.number)
    reference = np.load(model / "reference_embeddings.npy", allow_pickle=False)
    assert vectors.scaler is not None
    save_classifier(classifier, hidden, reference=embeddings.scale(reference, vectors.scaler))
    generations.commit(
        work.folder.checkpoints,
        number,
        {
            "kind": "checkpoint",
            "learner": learner.number,
            "learner_id": generations.identity(learner.folder),
            "fit": fit_digest(work, generations.identity(learner.folder), rows, species),
            "n_labels": len(labels),
            "n_propagated": n_images(work.catalog.images_of(more)),
            "journal": work.journal.end,
            "classes": list(classifier.classes),
            "learned_from": learned_from(work, classifier, labelled, labels),
        },
    )
    log.info(
        "classifier: fitted on %d labels of %d classes in %s",
        len(labels),
        len(set(labels)),
        in_time(time.monotonic() - started),
    )
    _collect_garbage(work)


def _collect_garbage(work: Work) -> None:
    kept = [*generations.numbers(work.folder.checkpoints)[:KEPT_CHECKPOINTS], *best_by_validation(work.folder)]
    generations.prune(work.folder.checkpoints, set(kept))
    learners = set()
    for number in kept:
        manifest = generations.read_manifest(generations.folder_of(work.folder.checkpoints, number)) or {}
        learners.add(manifest.get("learner", 0))
    learner, newest = work.learner(), work.newest_model()
    current = learner.number if learner else 0
    model = generations.read_manifest(generations.folder_of(work.folder.models, current)) or {}
    keep = learners | {current, model.get("parent", 0), newest.number if newest else 0}
    keep |= {n for n in generations.numbers(work.folder.models) if n > current}
    work.forget_vectors(keep)
    try:
        generations.prune(work.folder.models, keep)
        generations.prune(work.folder.embedding, keep)
        for parent in (work.folder.models, work.folder.embedding, work.folder.checkpoints):
            generations.forget_damaged(parent)
    except OSError as error:
        log.debug("old generations stay for now: %s", error)


def best_by_validation(folder: WorkFolder) -> list[int]:
    """Return the checkpoint, of those still there, with the best accuracy on the validation images; the newest of equals."""
    measured = []
    for path in folder.test_results.glob("train_set_size_*/metrics.json"):
        try:
            metrics = read_object(path)
            measured.append((float(metrics["accuracy"]), int(metrics["checkpoint"])))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    there = set(generations.numbers(folder.checkpoints))
    best = max(((accuracy, number) for accuracy, number in measured if number in there), default=None)
    return [best[1]] if best else []


def list_all(work: Work, facts: Facts) -> None:
    """Write labels.csv, quarantine.csv, altered.csv and conflicts.csv. Each is replaced whole."""
    folder = work.folder
    problems: tuple[tuple[Path, list[str], Callable[[], Iterable[Iterable[Any]]]], ...] = (
        (folder.quarantine, ["folder", "path", "code", "text", "since"], work.catalog.problems),
        (folder.altered, ["path", "label", "since"], work.catalog.altered),
        (folder.conflicts, ["path", "code", "text", "receipt"], lambda: _conflicts(work)),
    )
    held: list[OSError] = []
    try:
        labels = work.history.labels
        write_labels(folder.labels, _label_lines(work), labels, [label.species for label in labels.values()])
    except OSError as error:
        held.append(error)
    for path, header, rows in problems:
        try:
            write_problems(path, header, rows())
        except OSError as error:
            held.append(error)
    if held:
        # A list that another program holds open does not keep the others from being written.
        raise held[0]
    work.listed = (facts.mark, facts.pool_version)


def _label_lines(work: Work) -> LabelLines:
    """Return the lines of labels.csv, kept while the pool is the same."""
    allow_formula, catalog = work.config.selector.allow_formula_names, work.catalog
    keys = (key for key in catalog.pool_keys() if is_safe_name(key.path, allow_formula=allow_formula))
    return work.cached("label lines", catalog.fact("pool_version", 0), lambda: LabelLines(keys))


def _conflicts(work: Work) -> Iterator[tuple[str, str, str, int]]:
    """Yield where label files contradict themselves or, within a round, each other."""
    history = work.history
    for key, (reason, seq) in sorted(history.skips.items()):
        if reason == "several_species":
            yield key.path, reason, f"{work.journal.lines[seq - 1]['name']} gives it several species", seq
    for seq, later in sorted(history.overruled.items()):
        for other, images in sorted(later.items()):
            names = [work.journal.lines[n - 1]["name"] for n in (seq, other)]
            for key, species in images:
                now = history.label_of(key) or "none"
                text = f"{names[0]} (number {seq}) says {species}, {names[1]} later something else; the label is {now}"
                yield key.path, "files_disagree", text, other


def evaluate(work: Work) -> None:
    """Measure the newest checkpoint on the validation images. Commits: `metrics.json`, last."""
    checkpoint = work.checkpoint()
    assert checkpoint is not None
    rows, truth = work.catalog.validation()
    classifier = load_classifier(checkpoint.folder)
    proba = classifier.predict_proba(work.vectors(checkpoint.manifest["learner"]).read(rows))
    best = best_in_order(work.catalog.images_of(rows), proba.max(axis=1))
    truth, proba = [truth[i] for i in best.tolist()], proba[best]
    predicted = [classifier.classes[i] for i in proba.argmax(axis=1)]
    metrics = measure(truth, predicted, sorted({*work.history.classes, *truth}), proba.max(axis=1))
    n_labels = checkpoint.manifest["n_labels"]
    results = work.folder.test_results / f"train_set_size_{n_labels}"
    facts = {"checkpoint": checkpoint.number, "learner": checkpoint.manifest["learner"], "train_set_size": n_labels}
    write_results(results, metrics, **facts)
    write_learning_curve(work.folder.test_results, read_estimates(work.folder))
    log.info("accuracy: %.3f on %d validation images, with %d labels", metrics["accuracy"], len(truth), n_labels)


def export_source(folder: WorkFolder, checkpoint: generations.Generation, licence: str) -> ExportSource:
    """Return what an export of a checkpoint is made from."""
    learner = checkpoint.manifest["learner"]
    return ExportSource(
        model_folder=generations.folder_of(folder.models, learner),
        checkpoint_folder=checkpoint.folder,
        scaler=embeddings.read_scaler(generations.folder_of(folder.embedding, learner)),
        checkpoint=checkpoint.number,
        learner=learner,
        run=run_facts(folder, checkpoint, licence),
    )


def export(work: Work) -> None:
    """Write and check `export/`. Commits: `check.json`, last, whether it passed or not."""
    checkpoint = work.checkpoint()
    assert checkpoint is not None
    source = export_source(work.folder, checkpoint, work.config.export.licence)
    require_space(work.folder.export, max(work.config.daemon.min_free_mb, 2 * folder_bytes(work.folder.export) / MB))
    atomic.make_folder(work.folder.export)
    try:
        exporters["onnx"].write(source, work.folder.export)
    except ExportCheckError as error:
        write_check(work.folder.export, checkpoint.number, False, str(error))
        log.warning("export: nothing was published: %s", error)
    else:
        write_check(work.folder.export, checkpoint.number, True, "")
        log.info("export: %s is of checkpoint %d", work.folder.export, checkpoint.number)


def report(work: Work) -> None:
    """Write what the newest checkpoint predicts of the images that have no label. Commits: `reported.json`, last."""
    checkpoint, cut = work.checkpoint(), detections_stamp(work)
    assert checkpoint is not None
    if cut is None:
        said, predictions = None, predict_pool(work, checkpoint)
        if "cut" in _reported(work):
            atomic.discard_file(work.folder.counts)
    else:
        said = classify(work, checkpoint)
        predictions = count_and_predict(work, said)
    fields = _prediction_fields(work, predictions)
    for remark in fields.remarks:
        log.info("predictions: %s", remark)
    # First, so that whatever is confirmed of it later is known to be ours.
    note_published(work.folder.published, predictions.key_hashes, predictions.species, predictions.classes)
    if fields.columns:
        write_predictions(work.folder.predictions, selector_lines(work), predictions, fields)
    else:
        atomic.discard_file(work.folder.predictions)
    recognise(work, checkpoint, said)
    write_report(Source.of(work))
    facts = {"format": 1, "checkpoint": checkpoint.number, "learner": checkpoint.manifest["learner"]}
    atomic.replace_json(work.folder.reported, facts | {"remarks": fields.remarks} | ({"cut": cut} if cut else {}))
    work.reported_s = time.monotonic()


def read_remarks(work: Work) -> list[str]:
    """Return what the newest report said of how predictions could be written."""
    remarks = _reported(work).get("remarks")
    return [str(text) for text in remarks] if isinstance(remarks, list) else []


def _reported(work: Work) -> dict[str, Any]:
    try:
        return read_object(work.folder.reported)
    except (OSError, ValueError):
        return {}


def _prediction_fields(work: Work, predictions: Predictions) -> PredictionFields:
    if work.config.labels.tool != "timelapse":
        return PredictionFields()
    return read_prediction_fields(work.pool_root(), predictions.classes, with_count=predictions.counts is not None)


def predict_pool(work: Work, checkpoint: generations.Generation) -> Predictions:
    """Return what a checkpoint says of every embedded image that has no label and can be shown."""
    pool = askable_pool(work, checkpoint)
    n, done = len(pool.rows), 0
    rows, hashes = np.empty(n, np.int64), np.empty(n, np.int64)
    species, confidence = np.empty(n, np.int32), np.empty(n, np.float32)
    for block in pool.unlabelled_blocks():
        here = slice(done, done := done + len(block.rows))
        hashes[here] = block.key_hashes.view(np.int64)
        rows[here] = block.rows
        species[here], confidence[here] = block.proba.argmax(axis=1), block.proba.max(axis=1)
    # Of ascending rows this is quick.
    if is_single(work.catalog.images_of(pool.rows)):
        return Predictions(hashes, species, confidence, pool.classes)
    best = best_in_order(work.catalog.images_of(rows), confidence)
    return Predictions(hashes[best], species[best], confidence[best], pool.classes)


def read_metrics(work: Work) -> dict[str, Any]:
    """Return the metrics of the newest checkpoint, or {} if there are none."""
    checkpoint = work.checkpoint()
    if checkpoint is None:
        return {}
    path = work.folder.test_results / f"train_set_size_{checkpoint.manifest['n_labels']}" / "metrics.json"
    try:
        metrics = read_object(path)
    except (OSError, ValueError):
        return {}
    return metrics if metrics.get("checkpoint") == checkpoint.number else {}
