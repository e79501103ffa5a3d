"""A simulated Timelapse user: imports a selector, labels what is selected, exports.

It keeps to Timelapse's rules, its silent losses included, so a file that fails there fails here. The demo and the tests
use it; nothing of Timelapse is needed. It stands for another program, hence writes its exports in place, as that does.
"""

from __future__ import annotations

import ntpath
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from pathlib import Path

from camera_trap_al_service.timelapse_files import (
    Control,
    TimelapseRefused,
    combined,
    csv_line,
    date_taken,
    decode_csv,
    find_images,
    parse_date,
    parse_datetime,
    parse_time,
    read_controls,
    rows_by_header,
    split_csv,
)

BACKUP_FOLDER = "Backups"
PASSED_OVER = ("RootFolder", "Folder", "ImageQuality")
DATE_HEADERS = ("DateTime", "Date", "Time")
UNREADABLE_DATE = "1900-01-01 12:00:00"
YEAR_ONE = "0001-01-01 00:00:00"
UNOPENED = "The file could not be opened. The file is likely already open in another program"
TOO_MANY_ERRORS = (
    "- Timelapse only reports data errors for a maximum of 2 rows. Use the information above to start fixing them.",
    "- Use the information above to check the data values in those columns for all rows.",
)
UNDATED = (
    "- the CSV file is missing either a DateTime column or both Date and Time columns (this is ok if it was intended)"
)
ODDLY_DATED = "- some date / time values in the DateTime, Date or Time columns are in an unexpected format (see manual)"


@dataclass
class ImportResult:
    """What an import did.

    `messages` is what the user is shown (without `imported` it tells why nothing was written); the user is not told of
    `unmatched`: the paths of rows that name no image. `rows_changed` counts rows of the image table.
    """

    imported: bool
    messages: list[str] = field(default_factory=list)
    rows_changed: int = 0
    unmatched: list[str] = field(default_factory=list)


@dataclass(eq=False)
class ImageRow:
    """One row of the image table: its number, and its values by data label, as texts."""

    id: int
    values: dict[str, str]

    @property
    def key(self) -> tuple[str, str]:
        """Return `(folder with "/" between its parts, file name)`."""
        return self.values["RelativePath"].replace("\\", "/"), self.values["File"]

    @property
    def path(self) -> str:
        r"""Return the folder and file name with `\` between them."""
        return combined(self.values["RelativePath"], self.values["File"])


class ImageSet:
    """The images below a root folder and what is known of them, held in memory for as long as the object lives.

    Like a Timelapse window, it shows a selection of its rows, at first all of them.
    """

    def __init__(self, root: Path, controls: Sequence[Control]) -> None:
        self.root = root
        self._controls = {control.data_label: control for control in controls}
        self._rows: list[ImageRow] = []
        self._shown: list[ImageRow] = []
        self._shows_selected = False

    @classmethod
    def open(cls, root: Path, template: Path) -> ImageSet:
        """Open a template over a folder of images, as "File > Load template, images…" does.

        Raises
        ------
        TimelapseRefused : the template cannot be opened, or there is no image
        """
        image_set = cls(root, read_controls(template))
        if not image_set.add_images():
            raise TimelapseRefused(f"No images or videos were found in {root} or its subfolders.")
        return image_set

    def add_images(self) -> int:
        """Load the images that are new, as "File > Add images" does; return how many."""
        known = {row.path.lower() for row in self._rows}
        new = [image for image in find_images(self.root) if combined(*image).lower() not in known]
        for relative_path, file in new:
            values = {label: control.default for label, control in self._controls.items()}
            date = date_taken(self.root.joinpath(*relative_path.split("\\"), file))
            self._append(values | {"File": file, "RelativePath": relative_path, "DateTime": date})
        self._refresh()
        return len(new)

    def import_csv(self, path: Path) -> ImportResult:
        """Import values, as "File > Import image/video data from a .csv file" does, then select again."""
        try:
            rows = split_csv(decode_csv(path.read_bytes()))
        except OSError:
            return ImportResult(False, [f"The file '{path.name}' could not be read."])
        if len(rows) < 2:
            fault = "does not contain any data" if rows else "appears to be empty"
            return ImportResult(False, [f"The file '{path.name}' {fault}."])
        headers = list(dict.fromkeys(header for header in rows[0] if header.strip()))
        complaints = self._header_complaints(headers)
        if complaints:
            return ImportResult(False, complaints)
        try:
            named_rows = rows_by_header(headers, rows[1:])
        except IndexError:
            return ImportResult(False, [UNOPENED])
        complaints = self._value_complaints(headers, named_rows)
        if complaints:
            return ImportResult(False, complaints)
        result = _Import(self._rows, self._controls).apply(headers, named_rows)
        self._refresh()
        return result

    def select_selected(self) -> list[ImageRow]:
        """Select `Selected = true`, ignoring case, and return the rows now shown: all, if that selects none."""
        self._shows_selected = True
        return self._refresh()

    def select_all(self) -> list[ImageRow]:
        """Show all rows and return them."""
        self._shows_selected = False
        return self._refresh()

    def set_species(self, row: ImageRow, species: str) -> None:
        """Choose a species from the menu; raises `TimelapseRefused` if the menu lacks it."""
        self.set_value(row, "Species", species)

    def set_value(self, row: ImageRow, data_label: str, value: str) -> None:
        """Enter a value into a field; raises `TimelapseRefused` if its control cannot hold the value.

        The row stays on display, even if it would no longer be selected, until the next selection or import.
        """
        control = self._controls.get(data_label)
        if control is None or control.type in ("File", "RelativePath"):
            raise TimelapseRefused(f"The template has no field {data_label} that can be edited.")
        value = value.strip()
        complaint = control.complaint(value)
        if control.type in ("Flag", "DeleteFlag") and value not in ("true", "false"):
            complaint = f"true or false, but is '{value}'"
        if control.type == "FixedChoice" and not value and not control.includes_empty:
            complaint = "in the template's choice list, which has no empty item."
        if control.type == "DateTime" and parse_datetime(value) is None:
            complaint = f"a date and time, but is '{value}'"
        if complaint:
            raise TimelapseRefused(f"{data_label} values must be {complaint}")
        row.values[data_label] = value

    def duplicate(self, row: ImageRow) -> ImageRow:
        """Make a second row for the same image with the same values, as "Edit > Duplicate this record" does."""
        copy = self._append(dict(row.values))
        self._refresh()
        return copy

    def export_csv(self, path: Path) -> None:
        """Write the rows on display as a CSV, by Timelapse's defaults; one that is there goes to `Backups` beside it.

        Written in place, line by line: another program may see a part of it.
        """
        if path.exists():
            backups = path.parent / BACKUP_FOLDER
            backups.mkdir(exist_ok=True)
            shutil.copy2(path, backups / f"{path.stem}.{datetime.now():%Y-%m-%d.%H-%M-%S}{path.suffix}")
        with path.open("wb", buffering=0) as file:
            for line in self._export_lines():
                file.write(line)

    def label_round(self, selector: Path, truth: Mapping[tuple[str, str], str], export_to: Path) -> int:
        """Play one round: import the selector, label what it selects, export that, and show all images again.

        Parameters
        ----------
        selector : the CSV with the column Selected
        truth : species by `(folder with "/", file name)`; an image that is not in it stays unlabelled
        export_to : the CSV to write; with nothing selected it is not written, as no user would export all images

        Returns
        -------
        how many rows got a species

        Raises
        ------
        TimelapseRefused : the import was refused (the text says why), or the menu lacks a species
        """
        result = self.import_csv(selector)
        if not result.imported:
            raise TimelapseRefused(f"Timelapse imported nothing from {selector}: {' '.join(result.messages)}")
        rows = self.select_selected()
        if not self._shows_selected:
            return 0
        labelled = [row for row in rows if row.key in truth]
        for row in labelled:
            self.set_species(row, truth[row.key])
        self.export_csv(export_to)
        self.select_all()
        return len(labelled)

    def _append(self, values: dict[str, str]) -> ImageRow:
        row = ImageRow(len(self._rows) + 1, values)
        self._rows.append(row)
        return row

    def _refresh(self) -> list[ImageRow]:
        """Run the selection again and return what is shown, in the default order."""
        selected = [row for row in self._rows if row.values.get("Selected", "").lower() == "true"]
        self._shows_selected = self._shows_selected and bool(selected)
        shown = selected if self._shows_selected else self._rows
        self._shown = sorted(shown, key=lambda row: [row.values[k] for k in ("RelativePath", "DateTime", "File")])
        return list(self._shown)

    def _export_lines(self) -> Iterator[bytes]:
        exported = [control for control in self._controls.values() if control.is_exported]
        yield csv_line(["RootFolder", *(control.data_label for control in exported)])
        root_folder = self.root.resolve().name
        for row in self._shown:
            yield csv_line([root_folder, *(_exported(control, row) for control in exported)])

    def _header_complaints(self, headers: Sequence[str]) -> list[str]:
        complaints = []
        if "File" not in headers or "RelativePath" not in headers:
            complaints.append("CSV columns necessary to locate your image or video files are missing: ")
        if "File" not in headers:
            complaints.append("- the 'File' column.")
        if "RelativePath" not in headers:
            needed = "(You still need it even if your files are all in your root folder)"
            complaints.append(f"- the 'RelativePath' column {needed}.")
        unknown = [h for h in headers if h not in (*self._controls, *PASSED_OVER, *DATE_HEADERS)]
        if unknown:
            complaints.append("These CSV column headings do not match any of the template'sDataLabels:")
            complaints += [f"- {header}" for header in unknown]
        return complaints

    def _value_complaints(self, headers: Sequence[str], rows: Sequence[Mapping[str, str]]) -> list[str]:
        """Return what is wrong with the first bad row and the one after it; behind them one cell more is looked at."""
        checked = [control for label, control in self._controls.items() if label in headers and control.is_settable]
        checked.sort(key=lambda control: headers.index(control.data_label))

        def complaints_of(n: int, controls: Sequence[Control]) -> list[str]:
            found = [(control.data_label, control.complaint(rows[n][control.data_label])) for control in controls]
            return [f"- error in row {n + 1} as {label} values must be {text}" for label, text in found if text]

        for n in range(len(rows)):
            complaints = complaints_of(n, checked)
            if complaints and n + 1 < len(rows):
                complaints += complaints_of(n + 1, checked)
            if complaints and n + 2 < len(rows):
                complaints += [*complaints_of(n + 2, checked[:1]), *TOO_MANY_ERRORS]
            if complaints:
                return complaints
        return []


class _Import:
    """The writing half of an import, once all values are checked."""

    def __init__(self, rows: Sequence[ImageRow], controls: Mapping[str, Control]) -> None:
        self._rows = rows
        self._controls = controls
        self._settable = {label for label, control in controls.items() if control.is_settable}
        self._find_places()
        self._duplicated = {combined(*place) for place, found in self._by_place.items() if len(found) > 1}
        self._changed: set[int] = set()
        self._result = ImportResult(True)

    def _find_places(self) -> None:
        self._by_file: dict[str, list[ImageRow]] = {}
        self._by_place: dict[tuple[str, str], list[ImageRow]] = {}
        for row in self._rows:
            place = (row.values["RelativePath"], row.values["File"])
            self._by_file.setdefault(row.values["File"], []).append(row)
            self._by_place.setdefault(place, []).append(row)

    def apply(self, headers: Sequence[str], csv_rows: Sequence[Mapping[str, str]]) -> ImportResult:
        """Write the rows in the order of their paths; a later one wins."""
        ordered = sorted(csv_rows, key=lambda row: (_culture_order(row["RelativePath"]), _culture_order(row["File"])))
        n_left, n_single, n_undated = len(ordered), 0, 0
        for path, group in groupby(ordered, key=lambda row: combined(row["RelativePath"], row["File"])):
            same = list(group)
            n_left -= len(same)
            if len(same) > 1 or (n_left and path in self._duplicated):
                self._set_in_turn(path, same)
            else:
                n_single += 1
                n_undated += not self._set_all(path, same[0])
        if n_undated:
            has_dates = "DateTime" in headers or {"Date", "Time"} <= set(headers)
            self._result.messages += [
                f"The Date/Time was not updated for {n_undated} / {n_single} files. ",
                ODDLY_DATED if has_dates else UNDATED,
            ]
        self._result.rows_changed = len(self._changed)
        return self._result

    def _set_all(self, path: str, csv_row: Mapping[str, str]) -> bool:
        """Write a CSV row to every row of its image; return whether it held a date.

        A blank RelativePath stands for any folder: images of that name in other folders are overwritten.
        """
        date = _date_of(csv_row, YEAR_ONE)
        values = {label: value for label, value in csv_row.items() if label in self._settable}
        values |= {"DateTime": date} if date else {}
        if values:
            place = (csv_row["RelativePath"], csv_row["File"])
            found = self._by_place.get(place, []) if place[0].strip() else self._by_file.get(place[1], [])
            for row in found:
                self._set(row, values)
            if not found:
                self._result.unmatched.append(path)
        return bool(date)

    def _set_in_turn(self, path: str, csv_rows: Sequence[Mapping[str, str]]) -> None:
        """Write the n-th of several CSV rows for an image to its n-th row; what is over on either side is left.

        Unlike a single row, these write every column: a date that cannot be read, and odd spellings of the path too.
        """
        relative_path, file = ntpath.split(path)
        found = self._by_place.get((relative_path, file), [])
        if len(found) != len(csv_rows):
            entries = f"{_entries(len(found), 'database')} vs. {_entries(len(csv_rows), 'CSV')}"
            self._result.messages.append(f"duplicate entry mismatch for {path}: {entries}.")
        if not found:
            self._result.unmatched.append(path)
        for row, csv_row in zip(found, csv_rows, strict=False):
            date = _date_of(csv_row, "")
            values = {label: value for label, value in csv_row.items() if label in self._controls}
            self._set(row, values | ({"DateTime": date} if date else {}))
        if any(row.values["RelativePath"] != relative_path or row.values["File"] != file for row in found):
            self._find_places()

    def _set(self, row: ImageRow, values: Mapping[str, str]) -> None:
        row.values.update(values)
        self._changed.add(row.id)


def _date_of(csv_row: Mapping[str, str], without_time: str) -> str | None:
    """Return the date that a CSV row gives, or None; `without_time` is what a Date without a Time makes of it."""
    when = parse_datetime(csv_row.get("DateTime", ""))
    day, time = parse_date(csv_row.get("Date", "")), parse_time(csv_row.get("Time", ""))
    if day and time:
        when = datetime.combine(day, time.time())
    if when:
        return when.isoformat(" ")
    return without_time if day else None


def _exported(control: Control, row: ImageRow) -> str:
    value = row.values[control.data_label]
    if control.type != "DateTime":
        return value
    return f" {value if parse_datetime(value) else UNREADABLE_DATE}"


def _culture_order(text: str) -> tuple[str, str]:
    """Return a key like .NET's sorting by culture: letters first, lower before upper case where all else agrees."""
    return text.casefold(), text.swapcase()


def _entries(n: int, where: str) -> str:
    return f"{n} {where} {'entry' if n == 1 else 'entries'}"
