"""A label file read to its end, for the tests of the reader."""

from __future__ import annotations

from pathlib import Path

from camera_trap_al.core.records import LabelRow, Notice, Rejection
from camera_trap_al.labels.species_csv import read_species_csv

HEADER = "File,RelativePath,Species"


class Reading:
    """A label file read to its end, sorted by kind."""

    def __init__(self, path: Path, **options: object) -> None:
        file = read_species_csv(path, **options)  # type: ignore[arg-type]
        self.header = file.header
        self.items = list(file.rows)
        self.label_rows = [item for item in self.items if isinstance(item, LabelRow)]
        self.rejections = [item for item in self.items if isinstance(item, Rejection)]
        self.warnings = [item.text for item in self.items if isinstance(item, Notice)]
        self.rows = [(row.relative_path, row.file, row.species) for row in self.label_rows]
        self.codes = [(rejection.line, rejection.code) for rejection in self.rejections]
