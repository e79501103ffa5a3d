"""What a detector saw in images, and what an export takes it for: crops of animals, or whole images, classified."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from camera_trap_al.core.crops import looked_at
from camera_trap_al.core.grouping import local_time
from camera_trap_al.core.observed import Detection, Named, ObservedImage
from camera_trap_al.core.records import Box, ImageKey
from camera_trap_al.learn.predict import ExportedModel, FloatArray, Looking, OnProgress, Outcome, classify

Seen = tuple[Detection, ...]
DetectionsOf = Callable[[ImageKey], Seen | None]


def observe(
    model: ExportedModel,
    root: Path,
    keys: Sequence[ImageKey],
    detections_of: DetectionsOf,
    *,
    padding: float = 1.0,
    with_times: bool = False,
    on_progress: OnProgress = lambda done, total: None,
) -> Iterator[ObservedImage]:
    """Yield what is seen in each image below `root`, in the order given; memory does not grow with their number.

    Of an image with detections the crops of its animals are classified (the 100 surest of them), and its species is that of
    the crop with the highest probability. One with a person or a vehicle is not looked at, and neither is one without an
    animal. An image that `detections_of` knows nothing of is classified whole.

    Parameters
    ----------
    detections_of : the boxes of an image that count; None where it was not looked at by a detector
    padding : of the squares that are cut out, as `core.crops` has it
    with_times : also learn when the images were taken that are not classified, from their headers
    on_progress : called with (done, total) images
    """
    looking = Looking(lambda key: _boxes(detections_of(key)), padding, with_times)
    for outcome in classify(model, root, keys, on_progress, looking):
        yield _observed(outcome, detections_of(outcome.key), model.classes)


def _boxes(detections: Seen | None) -> tuple[Box, ...] | None:
    if detections is None:
        return None
    return tuple(detections[i].box for i in _looked_at(detections))


def _looked_at(detections: Seen) -> list[int]:
    """Return which detections are classified."""
    return looked_at([(d.category, d.confidence) for d in detections]) or []


def _observed(outcome: Outcome, detections: Seen | None, classes: Sequence[str]) -> ObservedImage:
    image = ObservedImage(outcome.key, detections, captured=local_time(outcome.taken), problem=outcome.problem)
    if outcome.proba is None:
        return image
    if detections is None:
        return replace(image, named=_named(outcome.proba, classes))
    named = {i: _named(proba, classes) for i, proba in zip(_looked_at(detections), outcome.proba, strict=True)}
    return replace(
        image,
        detections=tuple(replace(d, named=named.get(i, ())) for i, d in enumerate(detections)),
        named=max(named.values(), key=lambda one: one[0].probability),
    )


def _named(proba: FloatArray, classes: Sequence[str]) -> tuple[Named, ...]:
    order = np.argsort(-proba, kind="stable")
    return tuple(Named(classes[i], float(proba[i])) for i in order)
