"""How many animals: in each image, and in each sequence as the most that one of its images shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import numpy as np

from camera_trap_al.core.grouping import NO_TIME, Names, sequence_numbers
from camera_trap_al.core.observed import ANIMAL, Detection, Named, ObservedImage
from camera_trap_al.core.records import ImageKey
from camera_trap_al.core.seeds import key_hash
from camera_trap_al.core.spreadsheets import safe_cell
from camera_trap_al.exporters.certainty import is_sure
from camera_trap_al.exporters.tables import write_table
from camera_trap_al.store import atomic

COLUMNS = ("RelativePath", "File", "DateTime", "Species", "Count", "Sequence", "SequenceImages", "SequenceCount")
UNKNOWN = "unknown"
NOT_COUNTED = -1


class _Counted(NamedTuple):
    """An image and how many of each species it shows; `NOT_COUNTED` where no detector has looked."""

    key: ImageKey
    captured: str
    counts: tuple[tuple[str, int], ...]


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
    images : each once, with the boxes that count; a row is kept for each
    gap_s : images of one folder that follow each other in less are of one sequence (`core.grouping.sequence_numbers`)
    """
    counted = [_Counted(image.key, image.captured, _counts(image, min_confidence)) for image in images]
    sequences = _sequences(counted, gap_s)
    sizes = Counter(sequences)
    most: dict[tuple[int, str], int] = {}
    for image, sequence in zip(counted, sequences, strict=True):
        for species, n in image.counts:
            most[sequence, species] = max(n, most.get((sequence, species), n))

    def rows() -> Iterable[list[str]]:
        for image, sequence in zip(counted, sequences, strict=True):
            for species, n in image.counts or (("", 0),):
                of_sequence = most.get((sequence, species), 0)
                at = [image.key.relative_path, image.key.file, image.captured.replace("T", " "), safe_cell(species)]
                yield [*at, _cell(n), str(sequence), str(sizes[sequence]), _cell(of_sequence)]

    atomic.replace_file(path, lambda file: write_table(file, COLUMNS, rows()))
    return len(sizes)


def _counts(image: ObservedImage, min_confidence: float) -> tuple[tuple[str, int], ...]:
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


def _sequences(images: Sequence[_Counted], gap_s: float) -> list[int]:
    """Return the number of each image's sequence, from 1 in the order in which they come first."""
    paths = [image.key.path for image in images]
    names = Names.of((row, _hash(path), path) for row, path in enumerate(paths))
    taken = np.array([_milliseconds(image.captured) for image in images], dtype=np.int64)
    found, _ = sequence_numbers(names, taken, gap_s=gap_s)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(sequence, len(numbers) + 1) for sequence in found.tolist()]


def _hash(path: str) -> int:
    return key_hash(path.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))


def _milliseconds(captured: str) -> int:
    if not captured:
        return NO_TIME
    return round(datetime.fromisoformat(captured).replace(tzinfo=timezone.utc).timestamp() * 1000)
