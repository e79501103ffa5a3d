"""Reads what people answered out of a Timelapse image database (`.ddb`), read-only, also while Timelapse has it open."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camera_trap_al.core.matching import has_control
from camera_trap_al.core.records import LabelRow
from camera_trap_al.errors import TimelapseDatabaseError, UsageError
from camera_trap_al.labels import sqlite_files
from camera_trap_al.labels.sqlite_files import quoted, text

OLDEST = (2, 3)
NEEDED = ("File", "RelativePath")
FLAGS = ("Confirmed", "DeleteFlag")
PIECE_ROWS = 50_000
FURTHER = (*FLAGS, "Prediction")


@dataclass(frozen=True)
class ImageDatabase:
    """What an image database says.

    `rows` are those with an answer: a species, Confirmed or DeleteFlag; sorted by folder and name, so that all rows of one
    image are together; `line` is their Id. `n_rows` counts all. `defaults` are the values that the species field has before
    anybody looks at an image; `is_confirmed_before`: so is Confirmed on. `version` is that of the Timelapse that wrote it.
    """

    rows: tuple[LabelRow, ...]
    n_rows: int
    defaults: frozenset[str]
    version: str
    is_confirmed_before: bool = False

    def looked_at(self) -> tuple[tuple[LabelRow, ...], int]:
        """Return the rows without what is a default, and how many rows have such a species, or such a Confirmed for one."""
        blanked = [row._replace(species="") if row.species in self.defaults else row for row in self.rows]
        n = sum(row.species in self.defaults for row in self.rows)
        if self.is_confirmed_before:
            n += sum(not row.species and row.confirmed.lower() == "true" for row in self.rows)
            blanked = [row._replace(confirmed="") for row in blanked]
        return tuple(row for row in blanked if row.species or _says_more(row)), n


def read_image_database(path: Path, column: str) -> ImageDatabase:
    r"""Read a database in short statements, since a long one would make Timelapse lose what it writes meanwhile.

    Parameters
    ----------
    path : the `.ddb`
    column : the data label of the field that holds the species

    Returns
    -------
    Its answers; folders with `/` between them, cells trimmed, characters that no label file may hold replaced

    Raises
    ------
    UsageError : there is none of that name
    TimelapseDatabaseError : it is damaged, something else, from before Timelapse 2.3, locked, or lacks a field
    """
    if not path.is_file():
        raise UsageError(
            f"There is no file {path}.", hint="Timelapse keeps its image database, a .ddb, beside its template."
        )
    with _explained(path), closing(sqlite_files.connect(path)) as database:
        version = _checked_version(database, path)
        columns = _columns_of(database, path, column)
        n_rows = database.execute("SELECT COUNT(*) FROM DataTable").fetchone()[0]
        defaults = _defaults(database, column)
        is_confirmed_before = "true" in map(str.lower, _defaults(database, "Confirmed"))
        rows = [_row(cells) for cells in _answers(database, columns, column)]
    rows.sort(key=lambda row: (row.relative_path, row.file, row.line))
    answered = tuple(row for row in rows if row.species or _says_more(row))
    return ImageDatabase(answered, n_rows, defaults, version, is_confirmed_before)


def _checked_version(database: sqlite3.Connection, path: Path) -> str:
    """Return the version of Timelapse that wrote the database, or refuse what is none that it would open."""
    tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "DataTable" not in tables or "TemplateTable" not in tables:
        is_template = "TemplateTable" in tables
        raise TimelapseDatabaseError(
            f"{path} is no image database of Timelapse{' but a template' if is_template else ''}.",
            hint="Name the .ddb, such as TimelapseData.ddb, in the folder of the images.",
        )
    versions = []
    if "ImageSetTable" in tables and "VersionCompatabily" in _names(database, "ImageSetTable"):
        versions = database.execute("SELECT VersionCompatabily FROM ImageSetTable ORDER BY Id LIMIT 1").fetchall()
    version = text(versions[0][0]).strip() if versions else ""
    numbers = tuple(int(number) for number in re.findall(r"[0-9]{1,9}", version)[:2])
    if numbers < OLDEST or "UtcOffset" in _names(database, "DataTable"):
        raise TimelapseDatabaseError(
            f"The image database {path} is from a Timelapse before 2.3.",
            hint="Open it once in Timelapse 2.3 or later, which offers to upgrade it, then try again.",
        )
    return version


def _columns_of(database: sqlite3.Connection, path: Path, column: str) -> list[str]:
    """Return the fields to read, the needed ones first, spelled as they are there."""
    there = _names(database, "DataTable")
    missing = [name for name in (*NEEDED, column) if name not in there]
    if missing:
        fields = ", ".join(name for name in there if name != "Id")
        raise TimelapseDatabaseError(
            f"{path} has no field {' and no field '.join(missing)}. It has: {fields}.",
            hint="Set labels.column in config.toml to the field that holds the species." if missing == [column] else "",
        )
    return [*NEEDED, column, *(name for name in FURTHER if name in there and name != column)]


def _answers(database: sqlite3.Connection, columns: Sequence[str], column: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows with an answer by Id; between two pieces Timelapse may write."""
    flags = [f"lower(trim({quoted(name)})) = 'true'" for name in FLAGS if name in columns]
    where = " OR ".join([f"trim({quoted(column)}) <> ''", *flags])
    further = ", ".join(quoted(name) if name in columns else "''" for name in ("Confirmed", "Prediction", "DeleteFlag"))
    query = (
        f'SELECT Id, "RelativePath", "File", {quoted(column)}, {further} FROM DataTable'
        f" WHERE Id > ? AND ({where}) ORDER BY Id LIMIT ?"
    )
    piece = database.execute(query, (-1, PIECE_ROWS)).fetchall()
    while piece:
        yield from piece
        piece = database.execute(query, (piece[-1][0], PIECE_ROWS)).fetchall()


def _row(cells: Sequence[object]) -> LabelRow:
    number, *values = cells
    folder, file, species, confirmed, prediction, delete_flag = (_cell(value) for value in values)
    line = number if isinstance(number, int) else 0
    return LabelRow(line, folder.replace("\\", "/"), file, species, confirmed, prediction, delete_flag)


def _cell(value: object) -> str:
    cell = text(value).strip()
    if has_control(cell):
        # A label file that holds one of these somewhere might be refused whole; like this its row alone is.
        return "".join("\ufffd" if has_control(character) else character for character in cell)
    return cell


def _says_more(row: LabelRow) -> bool:
    """Return whether a row says something beside its species."""
    return "true" in (row.confirmed.lower(), row.delete_flag.lower())


def _defaults(database: sqlite3.Connection, column: str) -> frozenset[str]:
    """Return the values of a field that nobody has to choose: that of the template, and that of new rows."""
    query = "SELECT DefaultValue FROM TemplateTable WHERE DataLabel = ?"
    found = {text(row[0]).strip() for row in database.execute(query, (column,))}
    for _, name, _, _, literal, *_ in database.execute("PRAGMA table_info(DataTable)"):
        written = re.fullmatch(r"'((?:[^']|'')*)'", text(literal)) if name == column else None
        if written:
            found.add(written[1].replace("''", "'").strip())
    return frozenset(found - {""})


def _names(database: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in database.execute(f"PRAGMA table_info({table})")]


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what SQLite and the disk raise into words for a person."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        if sqlite_files.is_in_use(error):
            text_, hint = f"Another program is writing into {path}.", "Wait until Timelapse is done, and try again."
        elif sqlite_files.lacks_repair(error):
            text_ = f"What wrote {path} was cut off; {path.name}-journal beside it tells how to mend that."
            hint = "Open the images once in Timelapse, which does so, then try again."
        else:
            text_ = f"{path} cannot be read as an image database of Timelapse: {error}."
            hint = "Name the .ddb in the folder of the images; if that is damaged, Timelapse keeps copies in Backups there."
        raise TimelapseDatabaseError(text_, hint=hint) from error
