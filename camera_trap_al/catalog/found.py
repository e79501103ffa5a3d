"""What a scan finds and what the catalogue counts, as records."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

POOL, TRAIN, VALIDATION = "pool", "train", "validation"
ACCEPT_GONE = "accept_gone"
"""The fact that a person said of images which are not there: they are gone for good."""


@dataclass(frozen=True)
class Found:
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


@dataclass(frozen=True)
class PoolCounts:
    """How many images are where; `quarantined` and `missing` are in none of the first five.

    `altered` counts labelled images whose content changed after the label, which are labelled ones too.
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

    @property
    def pool(self) -> int:
        """How many readable images there are to label, whatever became of them."""
        return self.labelled + self.skipped + self.unlabelled + self.not_listed


def key_hash(path: str) -> int:
    """Return a signed 64-bit hash of an image's path, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(path.encode("utf-8"), digest_size=8).digest(), "little", signed=True)
