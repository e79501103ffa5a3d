"""Part of REPORTING: what the newest checkpoint sees in the images without a label, as Timelapse's recognitions."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from camera_trap_al.core.observed import Named, ObservedImage
from camera_trap_al.exporters.recognitions import LEAST_PROBABILITY, MOST_NAMED, write_recognitions
from camera_trap_al.pool import WorkPool
from camera_trap_al.rounds import askable_pool
from camera_trap_al.store import atomic, generations
from camera_trap_al.strategies import PoolBlock
from camera_trap_al.work import Work

MOST_BY_DEFAULT = 100_000
CLASSIFIER = "camera_trap_al checkpoint {number}"


def recognise(work: Work, checkpoint: generations.Generation) -> None:
    """Write `timelapse_recognitions.json`, or remove an older one where none is wanted (`report.recognitions`).

    Each image has one box around it all; one that is taken for `classes.empty` has none. A block of images is held at a
    time. Raises `StopRequested`.
    """
    pool, path = askable_pool(work, checkpoint), work.folder.recognitions
    wanted = work.config.report.recognitions
    if wanted == "never" or wanted == "auto" and len(pool.rows) > MOST_BY_DEFAULT:
        atomic.discard_file(path)
        return
    write_recognitions(
        path,
        _observed(work, pool),
        pool.classes,
        detector=None,
        classifier=CLASSIFIER.format(number=checkpoint.number),
        written_at=time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
        empty=work.config.classes.empty,
    )


def _observed(work: Work, pool: WorkPool) -> Iterator[ObservedImage]:
    for block in pool.unlabelled_blocks():
        for key, named in zip(work.catalog.keys_of(block.rows), likeliest(block, pool), strict=True):
            yield ObservedImage(key, named=named)


def likeliest(block: PoolBlock, pool: WorkPool) -> Iterator[tuple[Named, ...]]:
    """Yield the likeliest species of each image of a block: five at most, and beside the first none below 0.05."""
    order = np.argsort(-block.proba, axis=1, kind="stable")[:, :MOST_NAMED]
    proba = np.take_along_axis(block.proba, order, axis=1)
    for places, values in zip(order.tolist(), proba.tolist(), strict=True):
        yield tuple(
            Named(pool.classes[place], value)
            for i, (place, value) in enumerate(zip(places, values, strict=True))
            if i == 0 or value >= LEAST_PROBABILITY
        )
