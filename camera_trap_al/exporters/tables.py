"""CSV tables for other programs: UTF-8, commas, lines that end as RFC 4180 says."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO

WriteRow = Callable[[Sequence[str]], Any]


@contextlib.contextmanager
def table(file: BinaryIO, header: Sequence[str]) -> Iterator[WriteRow]:
    """Write a header and lend a function that writes a row; file names that are no valid Unicode as the bytes they are."""
    text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(header)
    yield writer.writerow
    text.flush()
    text.detach()


def write_table(file: BinaryIO, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a header and rows, one by one."""
    with table(file, header) as write_row:
        for row in rows:
            write_row(row)
