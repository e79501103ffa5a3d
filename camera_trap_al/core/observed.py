"""What was seen in an image, by a detector and by a classifier: what every format of predictions is written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from camera_trap_al.core.records import Box, ImageKey

ANIMAL, PERSON, VEHICLE = "animal", "person", "vehicle"
WHOLE_IMAGE = Box(0.0, 0.0, 1.0, 1.0)
# Other programs' words for these: a person must never count as something else.
WORDS = {
    ANIMAL: ("animal", "animals", "wildlife"),
    PERSON: ("person", "persons", "people", "human", "humans", "pedestrian", "homo sapiens"),
    VEHICLE: ("vehicle", "vehicles", "car", "truck"),
}
_CATEGORY_OF = {word: category for category, words in WORDS.items() for word in words}


def category_of(name: str) -> str:
    """Return `animal`, `person` or `vehicle` for a name that means it in any case, else the name in lower case."""
    folded = name.strip().lower()
    return _CATEGORY_OF.get(folded, folded)


class Named(NamedTuple):
    """A species and its probability in [0, 1]."""

    species: str
    probability: float


@dataclass(frozen=True)
class Detection:
    """One box of a detector.

    `category` is its word (`animal`, `person`, `vehicle` or another one), `confidence` in [0, 1]; `named` are the species
    that the classifier sees in it, the likeliest first; empty for what was not classified.
    """

    category: str
    confidence: float
    box: Box = WHOLE_IMAGE
    named: tuple[Named, ...] = ()


@dataclass(frozen=True)
class ObservedImage:
    """One image: what was detected in it, and what it is taken for.

    Attributes
    ----------
    detections : boxes of the detector; None where none was asked, and then `named` is of the whole image; empty where
        it saw nothing
    named : the species of the image, the likeliest first; empty where it shows none, or cannot be read
    captured : local time without a zone, such as "2026-11-22T10:00:00", or "" where it is not known
    problem : why it could not be classified, or ""
    """

    key: ImageKey
    detections: tuple[Detection, ...] | None = None
    named: tuple[Named, ...] = ()
    captured: str = ""
    problem: str = ""

    @property
    def is_private(self) -> bool:
        """Return whether a person or a vehicle is in it: it is classified and shown nowhere."""
        return any(d.category in (PERSON, VEHICLE) for d in self.detections or ())


@dataclass(frozen=True)
class DetectorInfo:
    """What a file says of its detector.

    Parameters
    ----------
    name : such as `md_v5a.0.0`, or ""
    completed : when it was done, as the file spells it, or ""
    metadata : of the detector, with numbers and texts alone, such as `typical_detection_threshold`
    """

    name: str = ""
    completed: str = ""
    metadata: Mapping[str, str | float] = field(default_factory=dict)
