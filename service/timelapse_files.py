"""What Timelapse reads and writes: its templates, folders of images, and CSV files, by its rules.

For the simulated user in `timelapse_user.py`. Written apart from the code that it tests, so it reads templates itself.
"""

from __future__ import annotations

import codecs
import json
import ntpath
import os
import re
import sqlite3
import stat
import struct
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from camera_trap_al.errors import CameraTrapAlError

LOADED_EXTENSIONS = (".jpg", ".avi", ".mp4", ".asf", ".mov")
SKIPPED_FOLDERS = ("Backups", "DeletedFiles", ".vthumb", "@Recycle")
LONGEST_PATH = 259  # characters
EXIF_BYTES = 1 << 16  # at the start of a file; the EXIF block of a JPEG must lie in its first segments
EXIF_POINTER, DATE_TIME_ORIGINAL = 0x8769, 0x9003

NUMBERS = {
    "Counter": "an integer",
    "IntegerAny": "an integer",
    "IntegerPositive": "a positive integer",
    "DecimalAny": "a decimal",
    "DecimalPositive": "a positive decimal",
}
FIELD_TYPES = ("Note", "MultiLine", "FixedChoice", "Flag", *NUMBERS)
STANDARD_TYPES = ("File", "RelativePath", "DateTime", "DeleteFlag")

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, which starts alike
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
DOTNET_SPACES = " \t\n\v\f\r\x85\xa0\0"  # what .NET passes over around a flag
CELL = re.compile(r' *"(?P<quoted>(?:[^"]|"")*)(?P<rest>"[^,\r\n]*)?|(?P<bare>[^,\r\n]*)')


class TimelapseRefused(CameraTrapAlError):
    """Timelapse would show an error, or its controls would not take the value."""


@dataclass(frozen=True)
class Control:
    """One field of a template, as the image table needs it."""

    data_label: str
    type: str
    default: str
    choices: tuple[str, ...]
    includes_empty: bool
    is_exported: bool

    @property
    def is_settable(self) -> bool:
        """Return whether an import writes it as it stands: not what tells the image, and no date."""
        return self.type not in ("File", "RelativePath", "DateTime")

    def complaint(self, value: str) -> str:
        """Return what an import says of a value it does not take, or ""."""
        if self.type in ("Flag", "DeleteFlag") and value.strip(DOTNET_SPACES).lower() not in ("true", "false"):
            return f"true or false, but is '{value}'"
        if self.type in NUMBERS and value.strip() and not self._is_number(value):
            return f"blank or {NUMBERS[self.type]}, but is '{value}'"
        if self.type == "FixedChoice" and value.strip() and value not in self.choices:
            return f"in the template's choice list, but '{value}' isn't in it."
        return ""

    def _is_number(self, value: str) -> bool:
        is_number = _is_double(value) if self.type.startswith("Decimal") else _is_int32(value)
        return is_number and (not self.type.endswith("Positive") or not float(value.strip(DOTNET_SPACES)) < 0)


def read_controls(template: Path) -> list[Control]:
    """Return the fields of a template in the order of the exported columns.

    Raises
    ------
    TimelapseRefused : Timelapse would not open it, or it has fields that the simulated user does not know
    """
    if not template.is_file() or template.suffix != ".tdb":
        raise TimelapseRefused(f"There is no template (.tdb) {template}.")
    try:
        with closing(sqlite3.connect(f"{template.resolve().as_uri()}?mode=ro", uri=True)) as database:
            tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
            rows = database.execute(
                "SELECT DataLabel, Type, COALESCE(DefaultValue, ''), List, ExportToCSV FROM TemplateTable"
                " ORDER BY SpreadsheetOrder, ControlOrder"
            ).fetchall()
            levels = database.execute("SELECT COUNT(*) FROM FolderDataInfo").fetchone()[0]
    except sqlite3.Error as error:
        raise TimelapseRefused(f"The template {template} is corrupt: {error}.") from error
    types = [row[1] for row in rows]
    unknown = sorted(set(types) - {*FIELD_TYPES, *STANDARD_TYPES})
    if unknown or levels:
        beyond = ", ".join(unknown + ["folder levels"] * bool(levels))
        raise TimelapseRefused(f"The simulated user does not know what {template} uses: {beyond}.")
    if "TemplateInfo" not in tables or any(types.count(type_) != 1 for type_ in STANDARD_TYPES):
        raise TimelapseRefused(f"The template {template} is corrupt or from before Timelapse 2.3.")
    return [_control(*row) for row in rows]


def _control(data_label: str, type_: str, default: str, items: str, exported: str) -> Control:
    try:
        menu = json.loads(items or "{}")
    except ValueError:
        menu = {}
    choices = tuple(menu.get("ChoiceListNonEmpty", ()))
    includes_empty = bool(menu.get("IncludeEmptyChoice"))
    return Control(data_label, type_, default, choices, includes_empty, exported.lower() == "true")


def _is_int32(text: str) -> bool:
    is_number = re.fullmatch(r"[ \t-\r]*[+-]?[0-9]+[ \t-\r\0]*", text) is not None
    return is_number and -(2**31) <= int(text.strip(" \t\n\v\f\r\0")) < 2**31


def _is_double(text: str) -> bool:
    digits = text.strip(" \t\n\v\f\r\0")
    return re.fullmatch(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?", digits) is not None


def find_images(root: Path) -> list[tuple[str, str]]:
    r"""Return `(RelativePath, File)` of what Timelapse loads, in its order, with `\` between folders."""
    found = []
    for folder, subfolders, files in os.walk(root):
        here = Path(folder)
        subfolders[:] = [name for name in subfolders if name not in SKIPPED_FOLDERS and not _is_hidden(here / name)]
        relative_path = "\\".join(here.relative_to(root).parts)
        found += [(relative_path, name) for name in files if _is_loaded(here / name)]
    return sorted(found, key=lambda image: combined(*image).lower())


def combined(relative_path: str, file: str) -> str:
    r"""Return `RelativePath\File` as .NET does, which adds no `\` where one of them is empty."""
    return ntpath.join(relative_path, file) if file else relative_path


def _is_loaded(path: Path) -> bool:
    is_known = path.name.lower().endswith(LOADED_EXTENSIONS) and not path.name.startswith("._")
    return is_known and len(str(path)) <= LONGEST_PATH


def _is_hidden(folder: Path) -> bool:
    if os.name != "nt":
        return folder.name.startswith(".")
    attributes: int = getattr(folder.stat(), "st_file_attributes", 0)
    return bool(attributes & (stat.FILE_ATTRIBUTE_HIDDEN | stat.FILE_ATTRIBUTE_SYSTEM))


def date_taken(path: Path) -> str:
    """Return when an image was taken by its EXIF data, else by the earlier of its file's times."""
    status = path.stat()
    made = status.st_ctime if os.name == "nt" else getattr(status, "st_birthtime", status.st_mtime)
    taken = _exif_date(path) or datetime.fromtimestamp(min(made, status.st_mtime))
    return taken.isoformat(" ", "seconds")


def _exif_date(path: Path) -> datetime | None:
    with path.open("rb") as file:
        head = file.read(EXIF_BYTES)
    before, found, tiff = head.partition(b"Exif\0\0")
    if not found or not before.startswith(b"\xff\xd8"):
        return None
    order = "<" if tiff.startswith(b"II") else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        at = _tag(tiff, order, _tag(tiff, order, start, EXIF_POINTER), DATE_TIME_ORIGINAL)
        return datetime.strptime(tiff[at : at + 19].decode("ascii"), "%Y:%m:%d %H:%M:%S")
    except (struct.error, ValueError, LookupError):
        return None


def _tag(tiff: bytes, order: str, directory: int, wanted: int) -> int:
    (count,) = struct.unpack_from(f"{order}H", tiff, directory)
    for n in range(count):
        tag, _, _, value = struct.unpack_from(f"{order}HHII", tiff, directory + 2 + 12 * n)
        if tag == wanted:
            return int(value)
    raise LookupError(wanted)


def parse_datetime(text: str) -> datetime | None:
    """Return the time that a DateTime cell holds, with a space or a `T` in its middle, or None."""
    return _parsed(text.replace("T", " ", 1), r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "%Y-%m-%d %H:%M:%S")


def parse_date(text: str) -> datetime | None:
    """Return the day that a Date cell such as `3-Jul-2017` holds, or None."""
    return _parsed(text, r"\d{1,2}-[A-Za-z]{3}-\d{4}", "%d-%b-%Y")


def parse_time(text: str) -> datetime | None:
    """Return the time of the day that a Time cell such as `9:05:00` holds, or None."""
    return _parsed(text, r"\d{1,2}:\d\d:\d\d", "%H:%M:%S")


def _parsed(text: str, shape: str, layout: str) -> datetime | None:
    if not re.fullmatch(shape, text, re.ASCII):
        return None
    try:
        return datetime.strptime(text, layout)
    except ValueError:
        return None


def decode_csv(raw: bytes) -> str:
    """Return the text of a CSV file: UTF-8 unless a byte order mark says otherwise; bad bytes become U+FFFD."""
    for mark, encoding in BYTE_ORDER_MARKS:
        if raw.startswith(mark):
            return raw[len(mark) :].decode(encoding, "replace")
    return raw.decode("utf-8", "replace")


def split_csv(text: str) -> list[list[str]]:
    """Return the rows of a CSV text. Empty lines are skipped, spaces around a cell dropped, and nothing is refused."""
    rows = []
    at = _skip_line_ends(text, 0)
    while at < len(text):
        row, more = [], True
        while more:
            cell = CELL.match(text, at)
            assert cell is not None, "the pattern matches the empty text"
            row.append(_cell_value(cell))
            more = text.startswith(",", cell.end())
            at = cell.end() + more
        rows.append(row)
        at = _skip_line_ends(text, at)
    return rows


def _skip_line_ends(text: str, at: int) -> int:
    while text.startswith(("\r", "\n"), at):
        at += 1
    return at


def _cell_value(cell: re.Match[str]) -> str:
    if cell["bare"] is not None:
        return cell["bare"].strip(" ")
    inside = cell["quoted"]
    rest = (cell["rest"] or "").rstrip(" ")
    if not rest:  # the closing quote is missing
        inside = inside.rstrip(" ")
        if not inside.endswith('"'):
            return inside.replace('""', "")
        inside, rest = inside[:-1], '"'
    if rest == '"':
        return re.sub('"("?)', r"\1", inside)
    # Text behind the closing quote: the doubled quotes before it are lost, a slip in the reader that Timelapse uses.
    return inside.replace('""', "") + rest[1:]


def csv_line(cells: Iterable[str]) -> bytes:
    """Return one line as Timelapse writes it: quoted only for a quote, a comma or a line end; CRLF at the end."""
    return (",".join(map(_written, cells)) + "\r\n").encode("utf-8", "replace")


def _written(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if any(mark in cell for mark in '",\r\n') else cell


def rows_by_header(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    """Return each row under the headers, by position; raises `IndexError` for a row that is too short."""
    named = [{header: row[n] for n, header in enumerate(headers)} for row in rows]
    for row in named:
        row["RelativePath"] = row["RelativePath"].replace("/", "\\")
    return named
