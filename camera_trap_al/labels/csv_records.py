"""Text of a CSV file → lines cut into cells, streamed, in linear time, without losing lines to a stray quote."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from camera_trap_al.errors import LabelFileError
from camera_trap_al.labels.encoding import TextForm, incomplete

DELIMITERS = (",", ";", "\t")
_SEP_LINE = re.compile(r'\ufeff?"?sep=(.)"?[,;\t]*\s*', re.IGNORECASE)
_N_FOREIGN_LINES = 3


def sep_line(line: str) -> str:
    """Return the delimiter that a first line such as `sep=;` names, or ""."""
    found = _SEP_LINE.fullmatch(line.rstrip("\r\n"))
    return found.group(1) if found else ""


class CsvRecords:
    """The records of a CSV file, each with the number of its first line (the first is 1); can be read once.

    Blank lines before the header and a `sep=` line are left out. A quoted cell may hold line breaks. Quotes that do not
    close just before a delimiter or line end are ordinary characters of their cell; where the closing one would be on a
    later line, the opening one is stray, and both lines are read as lines.

    Attributes
    ----------
    is_long : the record just read may hold a cell of more than `cell_characters`
    is_cut : the file does not end in a line end (known after the last record)
    foreign_lines : in a file that is no UTF-8, the numbers of the first 3 lines that are not ASCII

    Raises
    ------
    LabelFileError
        while iterating: `long_line`, `open_quote` or `incomplete` (the file ends inside a quoted cell)
    """

    def __init__(self, path: Path, form: TextForm, delimiter: str, line_characters: int, cell_characters: int) -> None:
        self.form = form
        self.is_long = False
        self.is_cut = False
        self.foreign_lines: dict[int, None] = {}
        self._path, self._delimiter = path, delimiter
        self._line_characters, self._cell_characters = line_characters, cell_characters
        self._pending: deque[str] = deque()
        self._number = 0
        self._iterator = self._read()

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        return self._iterator

    def _read(self) -> Iterator[tuple[int, list[str]]]:
        form, delimiter = self.form, self._delimiter
        has_header = False
        with self._path.open(encoding=form.encoding, errors=form.errors, newline=form.newline) as file:
            while line := self._next_line(file):
                number, text = self._number, line.rstrip("\r\n")
                if not has_header:
                    if not text.strip(" \t,;\x1a\ufeff") or sep_line(text):
                        continue
                    has_header = True
                self.is_long = len(text) > self._cell_characters
                if '"' not in text:
                    yield number, text.split(delimiter)
                    continue
                try:
                    yield number, next(csv.reader((text,), delimiter=delimiter, strict=True))
                except csv.Error:
                    yield number, self._cells(file, line)

    def _next_line(self, file: TextIO) -> str:
        """Return the next line with its end, without the Ctrl-Z that old programs end a file with; "" at the end."""
        line = self._pending.popleft() if self._pending else file.readline(self._line_characters + 1)
        if not line:
            return ""
        self._number += 1
        if len(line) > self._line_characters:
            raise LabelFileError(
                f"Line {self._number} has more than {self._line_characters:,} characters; this is no table of labels.",
                code="long_line",
                hint="Export it again.",
            )
        if line[-1] not in "\r\n":
            self.is_cut = not line.endswith("\x1a")
            line = line if self.is_cut else line.rstrip("\x1a") + "\n"
        if self.form.is_fallback and len(self.foreign_lines) < _N_FOREIGN_LINES and not line.isascii():
            self.foreign_lines[self._number] = None
        return line

    def _cells(self, file: TextIO, line: str) -> list[str]:
        """Return the cells of a record with quotes that need care; takes more lines where a quoted cell has them."""
        cells: list[str] = []
        opened = self._split(line.rstrip("\r\n"), 0, cells)
        while opened >= 0:
            ahead, end = self._lines_to_closing_quote(file, line)
            body = ahead[-1].rstrip("\r\n")
            if not self._is_closed_at(body, end):
                self._pending.extendleft(reversed(ahead))
                self._number -= len(ahead)
                return self._with_stray_quote(line.rstrip("\r\n"), opened, cells)
            cells.append("".join([line[opened + 1 :], *ahead[:-1], body[:end]]).replace('""', '"'))
            self.is_long = True
            line, start = ahead[-1], body.find(self._delimiter, end)
            opened = self._split(body, start + 1, cells) if start >= 0 else -1
        return cells

    def _with_stray_quote(self, text: str, opened: int, cells: list[str]) -> list[str]:
        # After `opened` quotes come in pairs only, so no other cell of this line can open one.
        end = text.find(self._delimiter, opened)
        cells.append(text[opened:] if end < 0 else text[opened:end])
        if end >= 0:
            self._split(text, end + 1, cells)
        return cells

    def _split(self, text: str, start: int, cells: list[str]) -> int:
        """Add the cells of `text` from `start` on; return where a cell begins whose quote is still open, or -1."""
        while True:
            if text.startswith('"', start):
                close = _closing_quote(text, start + 1)
                if close < 0:
                    return start
                end = text.find(self._delimiter, close)
                end = len(text) if end < 0 else end
                is_closed = not text[close + 1 : end].strip()
                cells.append(text[start + 1 : close].replace('""', '"') if is_closed else text[start:end])
            else:
                end = text.find(self._delimiter, start)
                end = len(text) if end < 0 else end
                cells.append(text[start:end])
            if end == len(text):
                return -1
            start = end + 1

    def _lines_to_closing_quote(self, file: TextIO, line: str) -> tuple[list[str], int]:
        """Return the lines up to the next lone quote, and where in the last of them it is."""
        first, ahead, size = self._number, [], len(line)
        while following := self._next_line(file):
            ahead.append(following)
            close = _closing_quote(following, 0)
            if close >= 0:
                return ahead, close
            size += len(following)
            if size > self._cell_characters:
                raise LabelFileError(
                    f"The quotation mark that opens a cell in line {first} is never closed.",
                    code="open_quote",
                    hint="Remove it, or export again.",
                )
        raise incomplete(f"the quotation mark that opens a cell in line {first} is never closed")

    def _is_closed_at(self, body: str, close: int) -> bool:
        end = body.find(self._delimiter, close)
        return not body[close + 1 : len(body) if end < 0 else end].strip()


def _closing_quote(text: str, start: int) -> int:
    """Return where the quoted cell that goes on at `start` is closed, or -1 if not in `text`."""
    while (at := text.find('"', start)) >= 0:
        if not text.startswith('"', at + 1):
            return at
        start = at + 2
    return -1
