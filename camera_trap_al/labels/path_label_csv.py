"""A `labels.csv` with `path,label`, as this program and the reference program write it → rows as in a label file."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from camera_trap_al.core.matching import folded
from camera_trap_al.core.records import UNLABELLED
from camera_trap_al.errors import LabelFileError
from camera_trap_al.labels.csv_records import DELIMITERS, CsvRecords
from camera_trap_al.labels.encoding import text_form
from camera_trap_al.labels.species_csv import Limits


@dataclass(frozen=True)
class PathLabels:
    """What such a file says: (path with `/`, label) pairs in its order, and how many rows have no label."""

    pairs: list[tuple[str, str]]
    unlabelled: int

    def below(self, folder: str) -> list[tuple[str, str]]:
        """Return the pairs whose path lies below `folder`, with what comes after it; relative paths lie there."""
        prefix = folder.replace("\\", "/").rstrip("/") + "/"
        start = folded(prefix)
        return [
            (path if _is_relative(path) else path[len(prefix) :], label)
            for path, label in self.pairs
            if _is_relative(path) or folded(path[: len(prefix)]) == start
        ]

    def likely_folder(self, pool: Iterable[str]) -> tuple[str, int]:
        """Return the folder below which most paths are images of the pool, and how many are; ("", 0) for none.

        `pool` holds paths relative to the image root. A proposal for a person, never used unasked.
        """
        known = {folded(path) for path in pool}
        votes: Counter[str] = Counter()
        for path, _ in self.pairs:
            parts = path.split("/")
            votes.update("/".join(parts[:i]) for i in range(1, len(parts)) if folded("/".join(parts[i:])) in known)
        return max(votes.items(), key=lambda vote: (vote[1], -len(vote[0])), default=("", 0))


def _is_relative(path: str) -> bool:
    return not path.startswith("/") and path[1:2] != ":"


def read_path_labels(path: Path) -> PathLabels:
    """Read a `path,label` file; opens nothing else of its folder.

    Raises `LabelFileError` for a file that is no such CSV, `OSError` where it cannot be read.
    """
    limits, form = Limits(), text_form(path, "cp1252")

    def opened(delimiter: str) -> tuple[CsvRecords, list[str]]:
        records = CsvRecords(path, form, delimiter, limits.line_characters, limits.cell_characters)
        return records, [folded(cell) for cell in next(iter(records), (0, []))[1]]

    # A spreadsheet of another language saves it with semicolons.
    records, header = max(map(opened, DELIMITERS), key=lambda of: len({"path", "label"} & set(of[1])))
    if not {"path", "label"} <= set(header):
        raise LabelFileError(
            f"The first line of {path} has no columns 'path' and 'label' but: {', '.join(header[:30])}.",
            code="missing_column",
            hint="Name the data/labels.csv of the other work folder; an export of Timelapse goes into new_labels_bin.",
        )
    at_path, at_label = header.index("path"), header.index("label")
    pairs, unlabelled = [], 0
    for _, cells in records:
        if len(cells) <= max(at_path, at_label) or not cells[at_path].strip():
            continue
        label = cells[at_label].strip()
        if label and folded(label) != UNLABELLED:
            pairs.append((cells[at_path].strip().replace("\\", "/"), label))
        else:
            unlabelled += 1
    return PathLabels(pairs, unlabelled)


def as_label_files(pairs: Iterable[tuple[str, str]], rows: int) -> Iterator[str]:
    """Yield the text of label files with `File,RelativePath,Species`, at most so many rows each."""
    waiting = list(pairs)
    for start in range(0, len(waiting), rows):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\r\n")
        writer.writerow(["File", "RelativePath", "Species"])
        for path, label in waiting[start : start + rows]:
            folder, _, file = path.rpartition("/")
            writer.writerow([file, folder, label])
        yield text.getvalue()
