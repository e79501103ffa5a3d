"""What a scan finds and what the catalogue counts, as records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

POOL, TRAIN, VALIDATION = "pool", "train", "validation"
RowArray = npt.NDArray[np.int64]
ACCEPT_GONE = "accept_gone"
"""The fact that a person said of images which are not there: they are gone for good."""


class Found(NamedTuple):
    """A file that a scan saw.

    `path` is relative to its folder, with `/`; `listed`: the labelling tool can show it; `content`: the hash of what is
    in it, "" while it was not read.
    """

    path: str
    size: int
    mtime_ns: int
    class_name: str = ""
    listed: bool = True
    content: str = ""


class Seen:
    """Which images, by their number in the catalogue, a scan has seen so far: a byte for each image that there is."""

    def __init__(self) -> None:
        self._flags = bytearray()

    def add(self, image: int) -> None:
        """Take note of one image."""
        if image >= len(self._flags):
            self._flags.extend(bytes(image + 1 - len(self._flags)))
        self._flags[image] = 1

    def __contains__(self, image: int) -> bool:
        return image < len(self._flags) and bool(self._flags[image])


@dataclass(frozen=True)
class PoolCounts:
    """How many images are where; `quarantined` and `missing` are in none of the others but the next two.

    `altered` counts labelled images whose content changed after the label, which are labelled ones too. `private` are those
    with people or vehicles, `without_animal` those that are left out since the detector saw no animal: they count among none
    of the first six, labelled or not. Of the other images of the pool, `with_animals` are used crop by crop. The detector
    has looked at `looked_at` images of the pool, whatever it saw.
    """

    train: int
    validation: int
    labelled: int
    skipped: int
    unlabelled: int
    not_listed: int
    quarantined: int
    missing: int
    altered: int
    private: int = 0
    without_animal: int = 0
    with_animals: int = 0
    looked_at: int = 0

    @property
    def pool(self) -> int:
        """How many readable images there are to label, whatever became of them."""
        return self.labelled + self.skipped + self.unlabelled + self.not_listed
