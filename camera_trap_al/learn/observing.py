"""What a detector saw in images, and what an export takes it for: crops of animals, or whole images, classified."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from camera_trap_al.core.observed import ANIMAL, PERSON, VEHICLE, Detection, Named, ObservedImage
from camera_trap_al.core.records import Box, ImageKey
from camera_trap_al.images import NO_TIME
from camera_trap_al.learn.predict import ExportedModel, FloatArray, Looking, OnProgress, Outcome, classify

Seen = tuple[Detection, ...]
DetectionsOf = Callable[[ImageKey], Seen | None]
# A flock has fewer; a file that lists more boxes would only fill the memory.
MOST_CROPS = 100


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
    if any(d.category in (PERSON, VEHICLE) for d in detections):
        return []
    animals = [i for i, d in enumerate(detections) if d.category == ANIMAL]
    return sorted(sorted(animals, key=lambda i: -detections[i].confidence)[:MOST_CROPS])


def _observed(outcome: Outcome, detections: Seen | None, classes: Sequence[str]) -> ObservedImage:
    image = ObservedImage(outcome.key, detections, captured=captured(outcome.taken), problem=outcome.problem)
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


def captured(taken: int) -> str:
    """Return an `images.capture_time` as `ObservedImage` has it."""
    if taken == NO_TIME:
        return ""
    return datetime.fromtimestamp(taken // 1000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
