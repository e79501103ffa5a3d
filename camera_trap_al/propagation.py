"""Labels that spread along a sequence, for the fit of the classifier only. Derived anew each time, never journalled."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from camera_trap_al.core.acquisition import RowArray
from camera_trap_al.core.grouping import Mask, best_of_image, first_of_image, n_images, spread
from camera_trap_al.core.seeds import key_hash
from camera_trap_al.learn.classifier import load_classifier, one_thread
from camera_trap_al.observed_pool import detections_stamp
from camera_trap_al.sequences import Sequences, sequences_of
from camera_trap_al.store.shards import SHARD_ROWS
from camera_trap_al.work import Work

AGAINST = 0.5
"""A model disagrees strongly when it gives another class more than all others together."""
log = logging.getLogger(__name__)


def propagated(work: Work, learner: int, rows: RowArray, species: Sequence[str]) -> tuple[RowArray, list[str]]:
    """Return more rows to fit a classifier on, and the species that each takes from its sequence, if that is configured.

    They are images without any answer, in a sequence told by capture times whose labels all agree, at most four for each
    label, the nearest in time to the first. An image is left out where the newest classifier gives another class more than
    half, and all are while there is none; of several items of an image the one of which it is surest counts, and all take
    the label, unless items do not share one (`items.share_label`). What a person says later of an image counts instead.

    Parameters
    ----------
    learner : whose vectors the rows must have
    rows, species : (n,) rows that have a label, and n species
    """
    nothing = np.zeros(0, dtype=np.int64), list[str]()
    checkpoint = work.checkpoint() if work.config.sequences.propagate else None
    if checkpoint is None:
        return nothing
    found, vectors = sequences_of(work), work.vectors(learner)
    items, _ = work.catalog.askable()
    images = work.catalog.images_of(items)
    may_take = vectors.usable(items)
    if not work.config.items.share_label:
        _, of_each, counts = np.unique(images, return_inverse=True, return_counts=True)
        may_take &= counts[of_each.reshape(-1)] == 1
    items, images = items[may_take], images[may_take]
    classes = sorted(set(species))
    codes = np.searchsorted(classes, np.asarray(species, dtype=object)) if len(species) else np.zeros(0, np.int64)
    places, are_images = found.places(rows)
    others, are_there = found.places(items)
    is_timed = found.by_time if len(found.by_time) else np.zeros(1, dtype=bool)
    are_images &= is_timed[places] & first_of_image(work.catalog.images_of(rows))
    others = others[are_there & is_timed[others] & first_of_image(images)]
    more, labels = spread(found.numbers, found.times, places[are_images], codes[are_images], others)
    if work.config.classes.person or detections_stamp(work) is not None:
        agrees = ~_contradicted(work, found, rows, classes, found.numbers[more], labels)
        more, labels = more[agrees], labels[agrees]
    of_more = work.catalog.images_of(found.names.rows[more])
    # All items of an image take the label that the first of them was given.
    order = np.argsort(of_more)
    takes = np.isin(images, of_more)
    chosen, images = items[takes], images[takes]
    labels = labels[order][np.searchsorted(of_more[order], images)]
    if checkpoint.manifest["learner"] != learner:
        # A newer network: what the classifier says of its own vectors is what it knows.
        vectors = work.vectors(checkpoint.manifest["learner"])
        good = vectors.usable(chosen)
        chosen, images, labels = chosen[good], images[good], labels[good]
    classifier = load_classifier(checkpoint.folder)
    column = {name: i for i, name in enumerate(classifier.classes)}
    wanted = np.array([column.get(classes[code], -1) for code in labels.tolist()], dtype=np.int64)
    sure, agrees = np.zeros(len(chosen), dtype=np.float32), np.zeros(len(chosen), dtype=bool)
    with one_thread():
        for start in range(0, len(chosen), SHARD_ROWS):
            here = slice(start, start + SHARD_ROWS)
            proba = classifier.predict_proba(vectors.read(chosen[here]))
            sure[here] = proba.max(axis=1)
            agrees[here] = (proba.argmax(axis=1) == wanted[here]) | (sure[here] <= AGAINST)
    best = best_of_image(images, sure)
    agrees = np.isin(images, images[best[agrees[best]]])
    n_more = n_images(images[agrees])
    log.info("sequences: %d more images are learned from, by a label of their sequence", n_more)
    return chosen[agrees], [classes[code] for code in labels[agrees].tolist()]


def _contradicted(
    work: Work, found: Sequences, rows: RowArray, classes: Sequence[str], sequences: RowArray, labels: RowArray
) -> Mask:
    """Return which labels, each for a sequence, an image of the sequence contradicts that has a label but trains nothing.

    Such as one with people, or with several animals where those share no label.
    """
    if not len(sequences):
        return np.zeros(0, dtype=bool)
    trained, code_of = set(work.catalog.keys_of(rows)), {name: code for code, name in enumerate(classes)}
    silent = [(key, label.species) for key, label in work.history.labels.items() if key not in trained]
    hashes = np.array([key_hash(key.path) for key, _ in silent], dtype=np.int64)
    codes = np.array([code_of.get(name, -1) for _, name in silent], dtype=np.int64)
    known = found.names.key_hashes.view(np.int64)
    order = np.argsort(known, kind="stable")
    at = np.minimum(np.searchsorted(known[order], hashes), len(known) - 1)
    there = known[order][at] == hashes
    said = zip(found.numbers[order][at][there].tolist(), codes[there].tolist(), strict=True)
    given = dict(zip(sequences.tolist(), labels.tolist(), strict=True))
    return np.isin(sequences, [sequence for sequence, code in said if given.get(sequence, code) != code])
