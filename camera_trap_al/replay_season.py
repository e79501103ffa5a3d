"""A season whose labels are known, as arrays: what is replayed. Embedded elsewhere."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from camera_trap_al.errors import UsageError
from camera_trap_al.store import atomic

FACTS = "season.json"
ARRAYS = ("vectors", "key_hashes", "labels", "sequences", "folders")
FORMAT = 1

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Season:
    """A season as a replay sees it: the embeddings of all its images and what is on them.

    Parameters
    ----------
    vectors : (n, d) float32 scaled embeddings: first those of the training images, then of the images to label, then of
        the validation images; may be mapped from a file
    key_hashes : (n,) uint64
    labels : (n,) int64, places in `classes`
    sequences, folders : (n,) int64 >= 0, of which sequence and folder each is; only which are alike counts
    n_train, n_pool : how many training images and images to label there are
    classes : sorted by code point
    """

    vectors: FloatArray
    key_hashes: npt.NDArray[np.uint64]
    labels: IntArray
    sequences: IntArray
    folders: IntArray
    n_train: int
    n_pool: int
    classes: tuple[str, ...]

    @property
    def n_known(self) -> int:
        """Return how many images are not for validation."""
        return self.n_train + self.n_pool

    @property
    def validation(self) -> slice:
        """Return the rows of the validation images."""
        return slice(self.n_known, len(self.labels))

    def names_of(self, rows: IntArray | slice) -> list[str]:
        """Return what is on images."""
        return [self.classes[i] for i in self.labels[rows].tolist()]

    def check(self) -> None:
        """Raise `UsageError` for a season of which nothing can be learned or measured."""
        if not self.n_pool:
            raise UsageError(
                "No image to label has a true label.", hint="Does the truth file belong to this folder of images?"
            )
        if len(self.labels) == self.n_known:
            raise UsageError("There is no readable validation image, so nothing can be measured.")
        known = sorted(set(self.names_of(slice(0, self.n_known))))
        if len(known) < 2:
            raise UsageError(
                f"All images to learn from are '{known[0]}', so there is nothing to tell apart.",
                hint="Use a season with two classes or more.",
            )
        if not set(known) & set(self.names_of(self.validation)):
            raise UsageError(
                "No class of the validation images occurs among the images to label.",
                hint="Are the classes spelled alike in the truth file and in the folders?",
            )

    def save(self, folder: Path) -> None:
        """Write the season into a folder that is there, `season.json` last; durable on return."""
        for name in ARRAYS:
            atomic.replace_file(folder / f"{name}.npy", partial(np.save, arr=getattr(self, name), allow_pickle=False))
        facts = {"format": FORMAT, "n_train": self.n_train, "n_pool": self.n_pool, "classes": list(self.classes)}
        atomic.replace_json(folder / FACTS, facts)

    @classmethod
    def load(cls, folder: Path) -> Season:
        """Return what `save` wrote; the vectors stay on the disk and are read as they are needed."""
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        vectors = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
        rest = [np.load(folder / f"{name}.npy", allow_pickle=False) for name in ARRAYS[1:]]
        return cls(vectors, *rest, facts["n_train"], facts["n_pool"], tuple(facts["classes"]))
