"""Recognitions in MegaDetector's format, as Timelapse and other programs import them (docs/timelapse-files.md 5.6)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from camera_trap_al.core.observed import (
    ANIMAL,
    PERSON,
    VEHICLE,
    WHOLE_IMAGE,
    Detection,
    DetectorInfo,
    Named,
    ObservedImage,
    category_of,
)
from camera_trap_al.store import atomic

FORMAT_VERSION = "1.4"
PROGRAM, UNKNOWN = "camera_trap_al", "unknown"
TYPICAL, CONSERVATIVE = "typical_detection_threshold", "conservative_detection_threshold"
DETECTOR_METADATA = {"megadetector_version": "vUnknown", TYPICAL: 0.2, CONSERVATIVE: 0.05}
# Timelapse keeps the best classification from two fifths of this on.
TYPICAL_CLASSIFICATION = 0.05
# Timelapse shows one; other programs show a few.
MOST_NAMED, LEAST_PROBABILITY = 5, 0.05
DECIMALS = 4
OWN_DETECTOR = DetectorInfo(PROGRAM)


class Written(NamedTuple):
    """How many images a file of recognitions has, and how many were left out since nothing is known of them."""

    n: int
    left_out: int


def write_recognitions(
    path: Path,
    images: Iterable[ObservedImage],
    classes: Sequence[str],
    *,
    detector: DetectorInfo | None,
    classifier: str,
    written_at: str,
    empty: str = "",
) -> Written:
    """Write what is seen in images as one JSON file, an image a line; whole or not at all, durable on return.

    Boxes stay as the detector gave them, with the likeliest species of those that were classified. An image that was
    classified whole gets one box around it all, with confidence 1; one that shows no animal gets no box, which Timelapse
    calls Empty. Images of which nothing is known are left out, so that Timelapse keeps what it has of them.

    Parameters
    ----------
    images : read once; memory does not grow with their number
    classes : of the classifier; a box whose likeliest species is none of them gets no species
    detector : what is known of the detector; None where images were classified whole
    classifier : its name and number, such as `camera_trap_al checkpoint 7`
    written_at : "2026-11-22 10:00:00"
    empty : the class that means no animal, "" for none
    """
    writer = _Writer(classes, empty)

    def write(file: BinaryIO) -> None:
        info = _info(detector or OWN_DETECTOR, classifier, written_at)
        head = _json({"info": info, "classification_categories": writer.numbered})
        file.write(f"{head[:-1]},\n".encode())
        file.write(b'"images": [')
        for image in images:
            entry = writer.entry(image)
            if entry is not None:
                file.write(f"{',' if writer.n else ''}\n{_json(entry)}".encode())
                writer.n += 1
            else:
                writer.left_out += 1
        categories = {number: name for name, number in writer.categories.items()}
        file.write(f'],\n"detection_categories": {_json(categories)}}}\n'.encode())

    atomic.replace_file(path, write)
    return Written(writer.n, writer.left_out)


class _Writer:
    def __init__(self, classes: Sequence[str], empty: str) -> None:
        self.n = self.left_out = 0
        self.categories = {ANIMAL: "1", PERSON: "2", VEHICLE: "3"}
        # Timelapse asks whether the file is another program's where the first class is called as a category.
        ordered = sorted((name for name in classes if name != empty), key=lambda name: name in self.categories)
        self.numbered = {str(i): name for i, name in enumerate([*ordered, *([empty] if empty in classes else [])])}
        self._number_of = {name: number for number, name in self.numbered.items()}
        self._empty = empty

    def entry(self, image: ObservedImage) -> dict[str, Any] | None:
        """Return an image as the file has it; None where nothing is known of it."""
        detections = image.detections
        if detections is None:
            detections = self._whole(image)
        if detections is None or not _is_text(image.key.path):
            return None
        return {"file": image.key.path, "detections": [self._detection(d) for d in detections]}

    def _whole(self, image: ObservedImage) -> tuple[Detection, ...] | None:
        if image.problem or (image.named and image.named[0].species not in self._number_of):
            return None
        if not image.named or image.named[0].species == self._empty:
            return ()
        category = category_of(image.named[0].species)
        return (Detection(category if category in (PERSON, VEHICLE) else ANIMAL, 1.0, WHOLE_IMAGE, image.named),)

    def _detection(self, detection: Detection) -> dict[str, Any]:
        category = self.categories.setdefault(detection.category, str(len(self.categories) + 1))
        found: dict[str, Any] = {"category": category, "conf": detection.confidence, "bbox": list(detection.box)}
        named = detection.named[:MOST_NAMED]
        if named and named[0].species in self._number_of:
            found["classifications"] = self._classifications(named)
        return found

    def _classifications(self, named: Sequence[Named]) -> list[list[str | float]]:
        sure = [one for one in named[1:] if one.probability >= LEAST_PROBABILITY]
        return [[self._number_of[one.species], round(one.probability, DECIMALS)] for one in (named[0], *sure)]


def _is_text(path: str) -> bool:
    """Return whether a name can be written as UTF-8; on Linux there are others."""
    return path.encode("utf-8", "ignore").decode() == path


def _info(detector: DetectorInfo, classifier: str, written_at: str) -> dict[str, Any]:
    metadata = {**DETECTOR_METADATA, **detector.metadata}
    # Timelapse reads these two as numbers, and refuses the file where they are none.
    metadata |= {name: DETECTOR_METADATA[name] for name in (TYPICAL, CONSERVATIVE) if isinstance(metadata[name], str)}
    return {
        "detector": detector.name or UNKNOWN,
        "detection_completion_time": detector.completed or (written_at if detector is OWN_DETECTOR else UNKNOWN),
        "classifier": classifier,
        "classification_completion_time": written_at,
        "format_version": FORMAT_VERSION,
        "detector_metadata": metadata,
        "classifier_metadata": {"typical_classification_threshold": TYPICAL_CLASSIFICATION},
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
