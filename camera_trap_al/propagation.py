"""Labels that spread along a sequence, for the fit of the classifier only. Derived anew each time, never journalled."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from camera_trap_al.core.acquisition import RowArray
from camera_trap_al.core.grouping import spread
from camera_trap_al.learn.classifier import load_classifier, one_thread
from camera_trap_al.sequences import sequences_of
from camera_trap_al.store.shards import SHARD_ROWS
from camera_trap_al.work import Work

AGAINST = 0.5
"""A model disagrees strongly when it gives another class more than all others together."""
log = logging.getLogger(__name__)


def propagated(work: Work, learner: int, rows: RowArray, species: Sequence[str]) -> tuple[RowArray, list[str]]:
    """Return more rows to fit a classifier on, and the species that each takes from its sequence, if that is configured.

    They are images without any answer, in a sequence told by capture times whose labels all agree, at most four for each
    label, the nearest in time to the first. An image is left out where the newest classifier gives another class more than
    half, and all are while there is none. What a person says later of an image counts instead.

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
    unanswered, _ = work.catalog.askable()
    unanswered = unanswered[vectors.usable(unanswered)]
    classes = sorted(set(species))
    codes = np.searchsorted(classes, np.asarray(species, dtype=object)) if len(species) else np.zeros(0, np.int64)
    places, are_images = found.places(rows)
    others, are_there = found.places(unanswered)
    are_images &= found.by_time[places] if len(found.by_time) else False
    others = others[are_there & (found.by_time[others] if len(found.by_time) else False)]
    more, labels = spread(found.numbers, found.times, places[are_images], codes[are_images], others)
    if checkpoint.manifest["learner"] != learner:
        # A newer network: what the classifier says of its own vectors is what it knows.
        vectors = work.vectors(checkpoint.manifest["learner"])
        good = vectors.usable(found.names.rows[more])
        more, labels = more[good], labels[good]
    classifier, chosen = load_classifier(checkpoint.folder), found.names.rows[more]
    column = {name: i for i, name in enumerate(classifier.classes)}
    wanted = np.array([column.get(classes[code], -1) for code in labels.tolist()], dtype=np.int64)
    agrees = np.zeros(len(chosen), dtype=bool)
    with one_thread():
        for start in range(0, len(chosen), SHARD_ROWS):
            here = slice(start, start + SHARD_ROWS)
            proba = classifier.predict_proba(vectors.read(chosen[here]))
            agrees[here] = (proba.argmax(axis=1) == wanted[here]) | (proba.max(axis=1) <= AGAINST)
    log.info("sequences: %d more images are learned from, by a label of their sequence", np.count_nonzero(agrees))
    return chosen[agrees], [classes[code] for code in labels[agrees].tolist()]
