"""The step that chooses the head and calibrates it, and what a fit takes from that."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from typing import Any

import numpy as np

from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.catalog.found import POOL, TRAIN, VALIDATION
from camera_trap_al.core.durations import in_time
from camera_trap_al.core.grouping import best_in_order, first_of_image, n_images
from camera_trap_al.errors import ModelError
from camera_trap_al.giving_way import give_way
from camera_trap_al.learn.calibration import HIGHEST, LOWEST, Calibration, looked_at
from camera_trap_al.learn.calibration import calibrate as cross_validate
from camera_trap_al.learn.classifier import Classifier
from camera_trap_al.learn.heads import AUTO, heads
from camera_trap_al.sequences import sequences_of
from camera_trap_al.store import atomic, embeddings, generations
from camera_trap_al.store.json_files import read_object
from camera_trap_al.store.shards import FloatArray, RowArray
from camera_trap_al.work import Work

FORMAT = 1
# Compared where the choice is "auto"; the first is used until there are enough labels to compare. What the last can do
# that the others cannot, few labels do not show, and comparing it takes ten times as long.
COMPARED, MANY_LABELS = ("semi", "logistic", "mlp"), 500
USE_UNLABELLED = frozenset({"semi", "logistic"})
# Images without a label that are looked at, and at most how many items of them; items that a head learns from too.
SAMPLE_IMAGES, MOST_ITEMS, TAUGHT_ROWS = 4096, 16_384, 2048
# Choice and temperature change slowly: they are looked at again with a tenth more or fewer labels.
GROWTH = 1.1
MIXER = np.uint64(0x9E3779B97F4A7C15)
log = logging.getLogger(__name__)


def calibrate(work: Work) -> None:
    """Choose the head and its temperature for the next fit. Commits: `calibration.json`.

    By cross-validation on the labels; images of one folder are left out together, of one sequence where that leaves too
    little to learn from. Classes of a training folder are no sites, so its images count each for itself. Between two fits
    it raises `GaveWay` and `StopRequested`, as `give_way` says.
    """
    checkpoint = work.checkpoint()
    assert checkpoint is not None
    learner, started, tick = checkpoint.manifest["learner"], time.monotonic(), give_way(work)
    seed = work.seed("calibration", learner)
    rows, species = fit_rows(work, learner)
    images = work.catalog.images_of(rows)
    places = looked_at(images, seed)
    rows, species, images = rows[places], [species[i] for i in places.tolist()], images[places]
    choice, before = work.config.classifier.head, head_to_use(work)[0]
    names = heads_to_compare(choice, n_images(images))
    found = Calibration(names[0], 1.0, {}, 0, "group")
    if len(set(species)) >= 2:
        found = cross_validate(
            read_finite(work, learner, rows),
            species,
            sequences_of(work).groups(rows),
            names,
            seed,
            unlabelled=unlabelled_sample(work, learner, *names),
            images=images,
            tick=tick,
        )
    noted = {"format": FORMAT, **_due_facts(work, checkpoint), "n_labels": checkpoint.manifest["n_labels"]}
    atomic.replace_json(work.folder.calibration, {**noted, **found.facts()})
    for name, score in found.scores.items():
        log.info(
            "head %s: accuracy %.3f, macro F1 %.3f on %d labels that it had not seen (by %s)",
            *(name, score.accuracy, score.macro_f1, found.n_judged, found.by),
        )
    if found.scores:
        log.info(
            "classifier: the next is fitted by %s%s, temperature %.2f, expected calibration error %.3f (%s)",
            *(found.head, "" if found.head == before else f" instead of {before}", found.temperature),
            *(found.scores[found.head].error, in_time(time.monotonic() - started)),
        )


def is_calibrated(work: Work, checkpoint: generations.Generation) -> bool:
    """Return whether the last calibration is of this checkpoint, or of one with about as many labels of these classes."""
    noted = _noted(work)
    n_labels, then = checkpoint.manifest["n_labels"], noted.get("n_labels")
    if not isinstance(then, int) or {name: noted.get(name) for name in ("of", "choice", "classes")} != _due_facts(
        work, checkpoint
    ):
        return False
    return bool(then / GROWTH < n_labels < then * GROWTH or n_labels == then)


def head_to_use(work: Work) -> tuple[str, float]:
    """Return the head and the temperature for a fit now, by the last calibration."""
    choice, noted = work.config.classifier.head, _noted(work)
    head, temperature = noted.get("head"), noted.get("temperature")
    if choice != AUTO and head != choice:
        return choice, 1.0
    if head not in heads.names() or not isinstance(temperature, float) or not LOWEST <= temperature <= HIGHEST:
        return (COMPARED[0] if choice == AUTO else choice), 1.0
    return head, temperature


def heads_to_compare(choice: str, n_labels: int) -> tuple[str, ...]:
    """Return the heads among which labels decide: all of them from 500 labels on, where the choice is `auto`."""
    if choice != AUTO:
        return (choice,)
    return COMPARED if n_labels >= MANY_LABELS else COMPARED[:2]


def unlabelled_sample(work: Work, learner: int, *names: str) -> FloatArray | None:
    """Return the (m, d) vectors of at most 2,048 items without a label, drawn evenly, or None if no head uses them."""
    if USE_UNLABELLED.isdisjoint(names):
        return None
    rows = _evenly(work, learner)[0][:TAUGHT_ROWS]
    return read_finite(work, learner, rows) if len(rows) else None


def pool_sample(work: Work, learner: int, classifier: Classifier) -> tuple[FloatArray, FloatArray, int]:
    """Return a sample of the images without a label, drawn evenly: (m, d) vectors, how sure a classifier is, of how many.

    Of an image with several items the one of which the classifier is surest stands for it.
    """
    rows, images = _evenly(work, learner)
    n = int(np.searchsorted(np.cumsum(first_of_image(images)), SAMPLE_IMAGES, side="right"))
    n = min(n, MOST_ITEMS)
    vectors = read_finite(work, learner, rows[:n])
    sure = classifier.predict_proba(vectors).max(axis=1) if len(vectors) else np.zeros(0, dtype=np.float32)
    best = best_in_order(images[:n], sure)
    return vectors[best], sure[best], n_images(images)


def _evenly(work: Work, learner: int) -> tuple[RowArray, RowArray]:
    """Return the embedded rows without a label, and their images, in an order of which each beginning is an even sample."""
    rows, hashes = work.catalog.askable()
    covered = work.vectors(learner).usable(rows)
    rows, hashes = rows[covered], hashes[covered]
    # Drawn by the images' own hashes, so that the sample changes little while the pool grows and is labelled.
    mixed = (hashes ^ np.uint64(work.seed("sample"))) * MIXER
    order = np.argsort(mixed, kind="stable")
    return rows[order], work.catalog.images_of(rows)[order]


def read_finite(work: Work, learner: int, rows: RowArray) -> FloatArray:
    """Return the (n, d) scaled vectors of rows, as `read_numbers` does."""
    return read_numbers(work.vectors(learner), rows, work.catalog)


def read_numbers(vectors: embeddings.Vectors, rows: RowArray, catalog: Catalog) -> FloatArray:
    """Return the (n, d) scaled vectors of rows. Raises `ModelError`, naming the image, where one holds no number."""
    found = vectors.read(rows)
    good = np.isfinite(found).all(axis=1)
    if not good.all():
        (item,) = catalog.items([int(rows[~good][0])], {TRAIN: TRAIN, VALIDATION: VALIDATION, POOL: POOL})
        n_others = int((~good).sum()) - 1
        others = f" So do those of {n_others} others." if n_others else ""
        raise ModelError(
            f"The embedding of {item.path} holds something that is no number.{others}",
            hint=f"Set {vectors.folder} aside, so that all images are embedded again.",
        )
    return found


def fit_rows(work: Work, learner: int) -> tuple[RowArray, list[str]]:
    """Return the labelled rows that a learner has embedded, in the order of their key hashes, and their species."""
    rows, species = work.cached("labelled", work.catalog.pool_stamp, work.catalog.labelled)
    classes = set(work.history.classes)
    usable = work.vectors(learner).usable(rows) & np.array([name in classes for name in species], dtype=bool)
    return rows[usable], [name for name, good in zip(species, usable, strict=True) if good]


def fit_digest(work: Work, learner_id: str, rows: RowArray, species: list[str]) -> str:
    """Return what a classifier is made from, as a short text."""
    facts = [learner_id, work.config.classifier.head, work.history.classes, rows.tolist(), species]
    facts += [vars(work.config.sequences)] if work.config.sequences.propagate else []
    return hashlib.sha256(json.dumps(facts, ensure_ascii=False).encode("utf-8")).hexdigest()[:32]


def _due_facts(work: Work, checkpoint: generations.Generation) -> dict[str, Any]:
    """Return what a calibration is of: another learner, choice or list of classes needs another."""
    manifest = checkpoint.manifest
    return {"of": manifest["learner_id"], "choice": work.config.classifier.head, "classes": manifest["classes"]}


def _noted(work: Work) -> dict[str, Any]:
    try:
        return read_object(work.folder.calibration)
    except (OSError, ValueError):
        return {}
