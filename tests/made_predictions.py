"""What a checkpoint says of a few images, as the writers of predictions take it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from camera_trap_al.core.records import ImageKey
from camera_trap_al.core.seeds import key_hash
from camera_trap_al.labels.timelapse import Predictions


def predictions(said: Mapping[ImageKey, tuple[str, float]]) -> Predictions:
    """Return predictions of images: species and confidence."""
    classes = sorted({species for species, _ in said.values()})
    hashes = np.array([key_hash(key.path) for key in said], dtype=np.int64)
    numbers = np.array([classes.index(species) for species, _ in said.values()], dtype=np.int32)
    return Predictions(hashes, numbers, np.array([p for _, p in said.values()], dtype=np.float32), classes)
