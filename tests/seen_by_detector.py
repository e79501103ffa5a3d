"""What a detector saw in the pictures of a season, by their numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from camera_trap_al.core.records import ImageKey

ANIMAL, PERSON, VEHICLE = "1", "2", "3"
LEFT, RIGHT, MIDDLE = (0.0, 0.0, 0.5, 0.6), (0.5, 0.3, 0.5, 0.7), (0.25, 0.25, 0.5, 0.5)
SEEN: dict[int, list[tuple[str, float, tuple[float, ...]]]] = {
    0: [(ANIMAL, 0.9, MIDDLE), (ANIMAL, 0.8, LEFT), (ANIMAL, 0.7, RIGHT)],
    1: [(ANIMAL, 0.9, MIDDLE), (PERSON, 0.5, LEFT)],
    2: [(VEHICLE, 0.9, MIDDLE)],
    3: [],
    4: [(ANIMAL, 0.1, MIDDLE)],
    5: [(ANIMAL, 0.9, LEFT), (ANIMAL, 0.3, RIGHT), (ANIMAL, 0.05, MIDDLE), (PERSON, 0.1, LEFT)],
    6: [(ANIMAL, 0.6, RIGHT)],
    7: [(ANIMAL, 0.95, MIDDLE)],
    8: [(ANIMAL, 0.5, LEFT)],
}
"""Boxes by the number of an image, modulo 10; those with 9 are not in the file."""
N_ANIMALS = {0: 3, 3: 0, 4: 0, 5: 2, 6: 1, 7: 1, 8: 1}


def key_of(i: int) -> ImageKey:
    return ImageKey(("", "site a", "site b")[i % 3], f"IMG_{i // 3:04d}.JPG")


def boxes_of(i: int) -> list[Any] | None:
    return SEEN.get(i % 10)


KIND = {key_of(i).path: i % 10 for i in range(60)}


def detections(path: Path, boxes_of: Callable[[int], list[Any] | None]) -> Path:
    images = [
        {"file": key_of(i).path, "detections": [{"category": c, "conf": p, "bbox": [*box]} for c, p, box in boxes]}
        for i in range(60)
        if (boxes := boxes_of(i)) is not None
    ]
    info = {
        "format_version": "1.3",
        "detector": "md_v5a.0.0.pt",
        "detector_metadata": {"megadetector_version": "v5a.0.0"},
    }
    categories = {ANIMAL: "animal", PERSON: "person", VEHICLE: "vehicle"}
    path.write_text(json.dumps({"info": info, "detection_categories": categories, "images": images}), encoding="utf-8")
    return path
