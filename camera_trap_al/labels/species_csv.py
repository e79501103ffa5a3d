"""Bytes of a label file → text rows: delimiter, header, limits. Streams the file and guesses no types."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from camera_trap_al.core.matching import folded, has_control, shown
from camera_trap_al.core.records import LabelRow, Notice, Rejection
from camera_trap_al.errors import LabelFileError
from camera_trap_al.labels.csv_records import DELIMITERS, CsvRecords, sep_line
from camera_trap_al.labels.encoding import TextForm, text_form

_SHOWN_COLUMNS = 30


@dataclass(frozen=True)
class Limits:
    """What a label file may be at most, so that memory stays bounded whatever it holds."""

    file_bytes: int = 1_000_000_000
    rows: int = 5_000_000
    cell_characters: int = 1_000_000
    line_characters: int = 4_000_000


@dataclass(frozen=True)
class SpeciesFile:
    """A label file whose header has been read.

    `rows` reads the rest, once: rows; `Rejection`s for rows that cannot be used; `Notice`s, the last ones at the end.
    It raises `LabelFileError` where the file turns out to be unusable after all, so decide nothing before its end.
    """

    header: tuple[str, ...]
    rows: Iterator[LabelRow | Rejection | Notice]


def read_species_csv(
    path: Path,
    *,
    column: str = "Species",
    fallback_encoding: str = "cp1252",
    limits: Limits | None = None,
    knows: Callable[[str, str], bool] = lambda relative_path, file: False,
) -> SpeciesFile:
    """Open a label file.

    Parameters
    ----------
    path : the private copy; it must not change while `rows` is read
    column : name of the column that holds the class
    fallback_encoding : what a file that is not UTF-8 is read as
    knows : (relative path, file) → whether the pool has that image; tells how a line that lacks folder levels is meant

    Raises
    ------
    LabelFileError
        with a code of `receipts.CODES`: it is no CSV file, its delimiter is unknown, a column is missing, …
    """
    limits = limits or Limits()
    size = path.stat().st_size
    if size > limits.file_bytes:
        raise too_big(size, limits.file_bytes)
    form = text_form(path, fallback_encoding)
    delimiter = _delimiter(path, form, column, limits)
    records = CsvRecords(path, form, delimiter, limits.line_characters, limits.cell_characters)
    header = next(iter(records), (0, []))[1]
    layout = _Layout.of(header, column)
    return SpeciesFile(tuple(header), _Rows(records, layout, limits, knows).read())


def too_big(size: int, most: int) -> LabelFileError:
    """Return the error for a file of `size` bytes where at most `most` are read."""
    return LabelFileError(
        f"The file has {size / 1e6:,.0f} MB; at most {most / 1e6:,.0f} MB are read.",
        code="too_big",
        hint="Export a selection instead of all images.",
    )


def _delimiter(path: Path, form: TextForm, column: str, limits: Limits) -> str:
    """Return the delimiter that the `sep=` line names, else the one under which the header has the columns we need."""
    with path.open(encoding=form.encoding, errors=form.errors, newline=form.newline) as file:
        line = "\n"
        while line and not line.strip(" \t\r\n,;\x1a\ufeff"):
            line = file.readline(limits.line_characters)
        named = sep_line(line)
        if named:
            line = file.readline(limits.line_characters)
    if not line:
        raise LabelFileError("The file holds no text.", code="empty_file", hint="Export it again.")
    _refuse_binary(line)
    if named and named not in DELIMITERS:
        raise _unknown_delimiter(line, "")
    needed = {folded(name) for name in ("File", "RelativePath", column)}
    found = {d: len(needed & {_column_name(cell) for cell in line.split(d)}) for d in DELIMITERS}
    best = named or max(DELIMITERS, key=lambda d: (found[d], line.count(d)))
    if not found[best] and all(name in folded(line) for name in needed):
        raise _unknown_delimiter(line, named)
    return best


def _refuse_binary(line: str) -> None:
    if has_control(line.rstrip("\r\n").replace("\t", " ")):
        raise LabelFileError(
            f"The file is no text; it begins with '{shown(line, 40)}'.", code="not_text", hint="Export it again as CSV."
        )


def _unknown_delimiter(line: str, named: str) -> LabelFileError:
    first = f"reads '{shown(line.strip())}'."
    return LabelFileError(
        f"The line 'sep={shown(named)}' names a separator that the next line does not have; it {first}"
        if named
        else f"The columns are not separated by comma, semicolon or tab. The first line {first}",
        code="unknown_delimiter",
        hint="Remove the line 'sep=…', or export again." if named else "Save it with commas.",
    )


def _column_name(cell: str) -> str:
    return folded(cell.strip().strip('"\ufeff'))


@dataclass(frozen=True)
class _Layout:
    """Where the columns are. `width` counts cells up to the last named column, `n_levels` the folder levels."""

    width: int
    n_header: int
    n_levels: int
    file: int
    relative_path: int
    label: int
    twins: tuple[tuple[int, int, str], ...]
    confirmed: int
    prediction: int
    delete_flag: int

    @classmethod
    def of(cls, header: Sequence[str], column: str) -> _Layout:
        """Find the columns; raises `LabelFileError` for a missing one."""
        names = [_column_name(cell) for cell in header]
        places: dict[str, list[int]] = {}
        for at, name in enumerate(names):
            places.setdefault(name, []).append(at)
        needed = {name: places.get(folded(name), []) for name in ("File", "RelativePath", column)}
        missing = [name for name, at in needed.items() if not at]
        if missing:
            raise _missing(missing, header, is_selector=missing == [column] and "selected" in places)
        first = {name: at[0] for name, at in needed.items()}
        levels = min(at[0] for at in (places.get("rootfolder"), places["file"]) if at)
        optional = {name: places.get(name, [-1])[0] for name in ("confirmed", "prediction", "deleteflag")}
        return cls(
            width=max(at for at, name in enumerate(names) if name) + 1,
            n_header=len(names),
            n_levels=levels if min(first.values()) >= levels else 0,
            file=first["File"],
            relative_path=first["RelativePath"],
            label=first[column],
            twins=tuple((at[0], other, name) for name, at in needed.items() for other in at[1:]),
            confirmed=optional["confirmed"],
            prediction=optional["prediction"],
            delete_flag=optional["deleteflag"],
        )


def _missing(missing: Sequence[str], header: Sequence[str], *, is_selector: bool) -> LabelFileError:
    found = ", ".join(shown(cell.strip(), 60) for cell in header[:_SHOWN_COLUMNS])
    if is_selector:
        return LabelFileError(
            f"There is no {missing[0]} column: is this the selector itself? Its columns are: {found}.",
            code="selector",
            hint="Import the selector into Timelapse, label there, and export from Timelapse.",
            columns=tuple(missing),
        )
    if len(header) == 1 and any(delimiter in header[0] for delimiter in DELIMITERS):
        return LabelFileError(
            f"Each line is one single cell, as some spreadsheets save a CSV file. The first one reads '{found}'.",
            code="unknown_delimiter",
            hint="Export from Timelapse again and put in that file, not saved by a spreadsheet.",
        )
    names = " or ".join(f"'{name}'" for name in missing)
    return LabelFileError(
        f"There is no column called {names}. The first line has: {found}.",
        code="missing_column",
        hint="Put File, RelativePath and the label column into the template, and export again.",
        columns=tuple(missing),
    )


class _Rows:
    """The data rows of one file, read once."""

    def __init__(self, records: CsvRecords, layout: _Layout, limits: Limits, knows: Callable[[str, str], bool]) -> None:
        self.records, self.layout, self.limits, self.knows = records, layout, limits, knows

    def read(self) -> Iterator[LabelRow | Rejection | Notice]:
        """Yield what the file says, in its order, then what a person should know of it."""
        layout = self.layout
        last: LabelRow | Rejection | None = None
        n_rows = line = 0
        for line, cells in self.records:
            if len(cells) != layout.n_header or layout.twins or self.records.is_long:
                row = self.unusual(line, cells)
            else:
                row = self.row(line, cells)
            if row is None:
                continue
            n_rows += 1
            if n_rows > self.limits.rows:
                raise LabelFileError(
                    f"The file has more than {self.limits.rows:,} rows.",
                    code="too_many_rows",
                    hint="Export a selection instead of all images.",
                )
            last = row
            yield row
        yield from self.notices(last if last is not None and last.line == line else None)

    def row(self, line: int, cells: list[str]) -> LabelRow | Rejection | None:
        """Return what a row with enough cells says, or None for one that says nothing."""
        layout = self.layout
        file, folder, label = cells[layout.file].strip(), cells[layout.relative_path].strip(), cells[layout.label]
        if not (file.isprintable() and folder.isprintable() and label.isprintable()) and (
            has_control(file) or has_control(folder) or has_control(label.strip())
        ):
            return self.reject(line, cells, "control_character", "a cell holds a line break or a control character")
        if not file and not any(cell.strip() for cell in cells):
            return None
        if len(file) <= len("\ufeffFile ") and _column_name(file) == "file" and _column_name(folder) == "relativepath":
            return None
        return LabelRow(
            line,
            folder,
            file,
            label,
            cells[layout.confirmed] if layout.confirmed >= 0 else "",
            cells[layout.prediction] if layout.prediction >= 0 else "",
            cells[layout.delete_flag] if layout.delete_flag >= 0 else "",
        )

    def unusual(self, line: int, cells: list[str]) -> LabelRow | Rejection | None:
        """Return what a row says that has too few or many cells, large ones, or columns named twice."""
        layout = self.layout
        if not any(cell.strip().strip("\x1a") for cell in cells):
            return None
        if max(map(len, cells)) > self.limits.cell_characters:
            text = f"a cell has more than {self.limits.cell_characters:,} characters"
            return self.reject(line, cells, "long_cell", text)
        if any(cell.strip() for cell in cells[layout.n_header :]):
            text = f"the row has {len(cells)} cells, the header {layout.n_header}"
            return self.reject(line, cells, "extra_cells", text)
        if len(cells) < layout.width:
            aligned = [""] * (layout.n_header - len(cells)) + cells
            if not self.lacks_levels(aligned, len(cells)):
                text = f"the row has {len(cells)} cells, the header {layout.n_header}"
                return self.reject(line, cells, "short_row", text)
            cells = aligned
        for one, other, name in layout.twins:
            if cells[one].strip() != cells[other].strip():
                raise LabelFileError(
                    f"The column '{name}' is there twice, and line {line} has '{shown(cells[one])}' in one and"
                    f" '{shown(cells[other])}' in the other.",
                    code="double_column",
                    hint="Remove one of them.",
                )
        return self.row(line, cells + [""] * (layout.n_header - len(cells)))

    def lacks_levels(self, aligned: list[str], n_cells: int) -> bool:
        """Return whether a short row is one of Timelapse's, which leave out the levels an image is too shallow for."""
        layout = self.layout
        if layout.n_header - n_cells > layout.n_levels:
            return False
        return self.knows(aligned[layout.relative_path].strip(), aligned[layout.file].strip())

    def reject(self, line: int, cells: list[str], code: str, text: str) -> Rejection:
        """Return the rejection of a row, with what can be shown of it."""
        layout = self.layout
        padded = cells + [""] * (layout.width - len(cells))
        folder, file = padded[layout.relative_path].strip(), padded[layout.file].strip()
        path = (f"{folder}/{file}" if folder else file).replace("\\", "/")
        return Rejection(line, shown(path), shown(padded[layout.label].strip()), code, text)

    def notices(self, last: LabelRow | Rejection | None) -> Iterator[Notice]:
        """Yield what a person should know of the whole file."""
        records = self.records
        if records.form.is_fallback:
            lines = ", ".join(map(str, records.foreign_lines))
            name = "Windows-1252" if records.form.encoding.casefold() == "cp1252" else records.form.encoding
            yield Notice(f"The file was read as {name}; save it as UTF-8. See line {lines}.")
        if records.is_cut and last is not None:
            image, label = (
                (last.path, last.label)
                if isinstance(last, Rejection)
                else (f"{last.relative_path}/{last.file}".lstrip("/"), last.species)
            )
            yield Notice(
                f"The last line does not end in a line break; is it whole? Line {last.line}: {shown(image)},"
                f" '{shown(label)}'."
            )
