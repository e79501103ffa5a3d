"""The nouns of the program as frozen records. No behaviour beyond what names need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

UNLABELLED = "unlabelled"


class ImageKey(NamedTuple):
    """An image as Timelapse knows it, in NFC or not, exactly as the file system spells it.

    `relative_path` has `/` between folders and none at the ends; it is "" for the image root.
    """

    relative_path: str
    file: str

    @property
    def path(self) -> str:
        """Return `relative_path/file`, or `file` for an image in the root."""
        return f"{self.relative_path}/{self.file}" if self.relative_path else self.file

    @classmethod
    def of(cls, path: str) -> ImageKey:
        """Return the key of a `/`-separated path relative to the image root."""
        folder, _, file = path.rpartition("/")
        return cls(folder, file)


class Box(NamedTuple):
    """A crop, as fractions of the image's width and height in [0, 1]."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Item:
    """What is embedded: an image or one crop of it.

    `row` addresses it in arrays. `path` is the absolute path of the image file; `size` (bytes) and `mtime_ns`
    are those of the scan, and tell a changed file from the one that was catalogued.
    """

    row: int
    path: str
    size: int = 0
    mtime_ns: int = 0
    box: Box | None = None


class LabelRow(NamedTuple):
    """One data row of a label file, as text; `line` is its 1-based line number in the file.

    `relative_path` and `file` come trimmed, the other cells as they stand.
    """

    line: int
    relative_path: str
    file: str
    species: str
    confirmed: str = ""
    prediction: str = ""
    delete_flag: str = ""


@dataclass(frozen=True)
class Prediction:
    """What a checkpoint said of an image: the species and its probability in [0, 1]."""

    species: str
    confidence: float


@dataclass(frozen=True)
class Request:
    """The images asked for in one round, as journalled.

    `random` are those that were drawn at random from all that could be asked for, each folder giving its share, whatever
    the strategy wanted: how many of their `predictions` come true says how good the classifier was for images without a
    label.
    """

    round: int
    seq: int
    strategy: str
    seed: int
    learner: int
    checkpoint: int
    keys: tuple[ImageKey, ...]
    predictions: Mapping[ImageKey, Prediction] = field(default_factory=dict)
    random: frozenset[ImageKey] = frozenset()


@dataclass(frozen=True)
class Rejection:
    """A row (or, with `line` 0, a file) that was not taken; `code` is one of the documented codes."""

    line: int
    path: str
    label: str
    code: str
    text: str
    suggest: tuple[str, ...] = ()


class Notice(NamedTuple):
    """Something that a person should know about a label file that was read all the same."""

    text: str
