"""How many animals: in each image, and in each sequence as the most that one of its images shows."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from camera_trap_al.core.grouping import NO_TIME, Names, numbered_from_first, sequence_numbers
from camera_trap_al.core.observed import ANIMAL, Detection, Named, ObservedImage
from camera_trap_al.core.seeds import key_hash
from camera_trap_al.core.spreadsheets import safe_cell
from camera_trap_al.exporters.certainty import is_sure
from camera_trap_al.exporters.tables import write_table
from camera_trap_al.store import atomic

COLUMNS = ("RelativePath", "File", "DateTime", "Species", "Count", "Sequence", "SequenceImages", "SequenceCount")
UNKNOWN = "unknown"
NOT_COUNTED = -1
# No file name holds it.
_SEPARATOR = "\0"


Counts = tuple[tuple[str, int], ...]
"""How many of each species an image shows; `NOT_COUNTED` where no detector has looked."""


def write_counts(path: Path, images: Iterable[ObservedImage], gap_s: float, *, min_confidence: float = 0.0) -> int:
    """Write counts of each image and of its sequence to a CSV; durable on return. Return the number of sequences.

    The CSV has one row for each species of each image, and one row with the count 0 and no species for an image without a
    box: RelativePath, File, DateTime (empty where not known), Species, Count, Sequence (a number, from 1), SequenceImages
    and SequenceCount, the largest Count of that species in an image of that sequence. So the animals that passed are the
    sum of SequenceCount over the different pairs of Sequence and Species.

    Each box counts as the species that the classifier sees in it, else as what the detector calls it; as `unknown` where
    the species is less certain than `min_confidence`. An image that no detector has looked at has an empty Count, and takes
    no part in SequenceCount.

    Parameters
    ----------
    path : replaced whole; its folder is there
    images : each once, with the boxes that count; of each some hundred bytes are kept
    gap_s : images of one folder that follow each other in less are of one sequence (`core.grouping.sequence_numbers`)
    """
    kept = _Kept()
    names = Names.of(kept.named(images, min_confidence))
    sequences = numbered_from_first(sequence_numbers(names, np.frombuffer(kept.taken, np.int64), gap_s=gap_s)[0])
    sizes = np.bincount(sequences)
    counts, most = list(kept.counts), dict[tuple[int, str], int]()
    for sequence, kind in zip(sequences.tolist(), kept.kinds, strict=True):
        for species, n in counts[kind]:
            most[sequence, species] = max(n, most.get((sequence, species), n))

    def rows() -> Iterable[list[str]]:
        for sequence, kind, cells in zip(sequences.tolist(), kept.kinds, kept.cells(), strict=True):
            of_all = [str(sequence + 1), str(sizes[sequence])]
            for species, n in counts[kind] or (("", 0),):
                of_sequence = most.get((sequence, species), 0)
                yield [*cells, safe_cell(species), _cell(n), *of_all, _cell(of_sequence)]

    atomic.replace_file(path, lambda file: write_table(file, COLUMNS, rows()))
    return len(sizes)


class _Kept:
    """What is kept of images while they are counted.

    Attributes
    ----------
    counts : those that occur, by their numbers; `kinds` says which of them each image has
    taken : when each image was taken, in milliseconds, or `NO_TIME`
    """

    def __init__(self) -> None:
        self.kinds, self.taken = array("i"), array("q")
        self.counts: dict[Counts, int] = {}
        self._text, self._ends = bytearray(), array("q")

    def named(self, images: Iterable[ObservedImage], min_confidence: float) -> Iterator[tuple[int, int, str]]:
        """Yield images as `Names.of` takes them, and keep the rest."""
        for row, image in enumerate(images):
            key = image.key
            self.kinds.append(self.counts.setdefault(_counts(image, min_confidence), len(self.counts)))
            self.taken.append(_milliseconds(image.captured))
            self._text += _SEPARATOR.join((key.relative_path, key.file, image.captured)).encode(
                "utf-8", "surrogateescape"
            )
            self._ends.append(len(self._text))
            yield row, _hash(key.path), key.path

    def cells(self) -> Iterator[list[str]]:
        """Yield RelativePath, File and DateTime of each image."""
        start = 0
        for end in self._ends:
            path, file, captured = self._text[start:end].decode("utf-8", "surrogateescape").split(_SEPARATOR)
            yield [path, file, captured.replace("T", " ")]
            start = end


def _counts(image: ObservedImage, min_confidence: float) -> Counts:
    if image.detections is None:
        best = image.named[0] if image.named else None
        return ((_name(best, min_confidence) if best else "", NOT_COUNTED),)
    return tuple(sorted(Counter(_species(box, min_confidence) for box in image.detections).items()))


def _species(box: Detection, min_confidence: float) -> str:
    if box.category != ANIMAL or not box.named:
        return box.category
    return _name(box.named[0], min_confidence)


def _name(named: Named, min_confidence: float) -> str:
    return named.species if is_sure(named, min_confidence) else UNKNOWN


def _cell(count: int) -> str:
    return "" if count == NOT_COUNTED else str(count)


def _hash(path: str) -> int:
    return key_hash(path.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))


def _milliseconds(captured: str) -> int:
    if not captured:
        return NO_TIME
    return round(datetime.fromisoformat(captured).replace(tzinfo=timezone.utc).timestamp() * 1000)
