"""Predictions as CSV: one for people and spreadsheets, one that Timelapse imports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from camera_trap_al.core.observed import ANIMAL, PERSON, VEHICLE, Detection, ObservedImage
from camera_trap_al.core.records import ImageKey
from camera_trap_al.core.spreadsheets import safe_cell
from camera_trap_al.exporters.tables import write_table
from camera_trap_al.store import atomic

COLUMNS = ("RelativePath", "File", "Species", "Confidence")
TIMELAPSE_COLUMNS = ("File", "RelativePath", "Prediction", "Confidence")
COUNT = "Count"
PROBLEM_COLUMNS = ("RelativePath", "File", "Problem")
UNKNOWN = "unknown"
PROBABILITY_PREFIX = "p_"
DECIMALS, TIMELAPSE_DECIMALS = 4, 3

Row = Sequence[str]


@dataclass(frozen=True)
class Columns:
    """Which columns there are besides those that always are.

    Parameters
    ----------
    with_count : the number of animals; of images that were looked at by a detector
    classes : a probability for each of them; () for none
    empty : the species of an image that shows none
    """

    with_count: bool = False
    classes: Sequence[str] = ()
    empty: str = "empty"


def write_csv(path: Path, images: Iterable[ObservedImage], columns: Columns) -> None:
    """Write `RelativePath,File,Species,Confidence`, then `Count` and `p_NAME`; whole or not at all, durable on return.

    Species that a spreadsheet would take for a formula get a leading `'`. Images with a problem have no row. Of images that
    the classifier was not asked about (no animal, a person, a vehicle) confidence and probabilities are empty.
    """
    header = [*COLUMNS, *_count(columns), *(f"{PROBABILITY_PREFIX}{name}" for name in columns.classes)]
    _write(path, header, images, lambda image: None if image.problem else _row(image, columns))


def write_timelapse_csv(path: Path, images: Iterable[ObservedImage], columns: Columns) -> None:
    r"""Write `File,RelativePath,Prediction,Confidence`, then `Count`, for fields of those names in a template.

    Whole or not at all, durable on return. Images with a problem have a row with empty cells: Timelapse takes a row of its
    top folder for all files of that name that have no row of their own.
    """
    _write(path, [*TIMELAPSE_COLUMNS, *_count(columns)], images, lambda image: _timelapse_row(image, columns))


def write_unreadable(path: Path, problems: Iterable[tuple[ImageKey, str]]) -> None:
    """Write `RelativePath,File,Problem`; whole or not at all, durable on return."""

    rows = ([safe_cell(cell) for cell in (key.relative_path, key.file, problem)] for key, problem in problems)
    atomic.replace_file(path, lambda file: write_table(file, PROBLEM_COLUMNS, rows))


def species_of(image: ObservedImage, empty: str) -> str:
    """Return what an image is taken for: a species, `person`, `vehicle`, `unknown` (something else is in it), or `empty`."""
    for category in (PERSON, VEHICLE):
        if any(d.category == category for d in image.detections or ()):
            return category
    return image.named[0].species if image.named else UNKNOWN if image.detections else empty


def n_animals(detections: Iterable[Detection] | None) -> str:
    """Return how many animals a detector saw; "" where it was not asked."""
    return "" if detections is None else str(sum(d.category == ANIMAL for d in detections))


def _count(columns: Columns) -> tuple[str, ...]:
    return (COUNT,) if columns.with_count else ()


def _row(image: ObservedImage, columns: Columns) -> Row:
    named = dict(image.named)
    confidence = f"{image.named[0].probability:.{DECIMALS}f}" if image.named else ""
    count = [n_animals(image.detections)] if columns.with_count else []
    each = [f"{named[name]:.{DECIMALS}f}" if named else "" for name in columns.classes]
    return [
        image.key.relative_path,
        image.key.file,
        safe_cell(species_of(image, columns.empty)),
        confidence,
        *count,
        *each,
    ]


def _timelapse_row(image: ObservedImage, columns: Columns) -> Row:
    folder = image.key.relative_path.replace("/", "\\")
    confidence = f"{image.named[0].probability:.{TIMELAPSE_DECIMALS}f}" if image.named else ""
    species = "" if image.problem else safe_cell(species_of(image, columns.empty))
    count = [n_animals(image.detections)] if columns.with_count else []
    return [image.key.file, folder, species, confidence, *count]


def _write(
    path: Path, header: Row, images: Iterable[ObservedImage], row_of: Callable[[ObservedImage], Row | None]
) -> None:
    rows = (row for image in images if (row := row_of(image)) is not None)
    atomic.replace_file(path, lambda file: write_table(file, header, rows))
