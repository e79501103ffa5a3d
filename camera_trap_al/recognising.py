"""Part of REPORTING: what the newest checkpoint sees in images, as Timelapse's recognitions."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from camera_trap_al.core.observed import DetectorInfo, Named, ObservedImage
from camera_trap_al.detecting import DETECTOR
from camera_trap_al.exporters.recognitions import LEAST_PROBABILITY, MOST_NAMED, write_recognitions
from camera_trap_al.observed_pool import Classified, observed
from camera_trap_al.pool import WorkPool
from camera_trap_al.rounds import askable_pool
from camera_trap_al.store import atomic, generations
from camera_trap_al.strategies import PoolBlock
from camera_trap_al.work import Work

MOST_BY_DEFAULT = 100_000
CLASSIFIER = "camera_trap_al checkpoint {number}"


def recognise(work: Work, checkpoint: generations.Generation, said: Classified | None) -> None:
    """Write `timelapse_recognitions.json`, or remove an older one where none is wanted (`report.recognitions`).

    Images that a detector has looked at have its boxes, all of them, with the species of those that are items. Each other
    image without a label has one box around it all; one that is taken for `classes.empty` has none. A block of images is
    held at a time. Raises `StopRequested`.

    Parameters
    ----------
    said : what the checkpoint says of items; None where no detector has looked at any image
    """
    path, wanted = work.folder.recognitions, work.config.report.recognitions
    pool = askable_pool(work, checkpoint)
    n = len(pool.rows) if said is None else len(said.images)
    if wanted == "never" or wanted == "auto" and n > MOST_BY_DEFAULT:
        atomic.discard_file(path)
        return
    write_recognitions(
        path,
        _observed(work, pool) if said is None else _known(work, said),
        pool.classes,
        detector=None if said is None else _detector(work),
        classifier=CLASSIFIER.format(number=checkpoint.number),
        written_at=time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
        empty=work.config.classes.empty,
    )


def _known(work: Work, said: Classified) -> Iterator[ObservedImage]:
    """Yield the images of which something is known."""
    return (image for image in observed(work, said) if image.detections is not None or image.named)


def _detector(work: Work) -> DetectorInfo:
    noted = work.catalog.fact(DETECTOR)
    return DetectorInfo(**noted)


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
