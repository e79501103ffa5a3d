"""Opens SQLite files that belong to Timelapse, which may have them open too. Knows nothing of what they hold."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Literal
from urllib.parse import quote

BUSY_TIMEOUT_S = 5.0
LEFT_BY_WRITERS = ("-journal", "-wal")


def connect(path: Path, mode: Literal["ro", "rw"] = "ro", *, timeout_s: float | None = None) -> sqlite3.Connection:
    """Open a file that is there, without transactions of Python's own; raises `sqlite3.Error`.

    A statement waits `timeout_s` seconds (by default `BUSY_TIMEOUT_S`) for another program to end what it writes.
    """
    # A path on a Windows share starts with `//`, which must stand behind an empty host.
    escaped = quote(os.fsencode(path.absolute().as_posix()), safe="/:")
    host = "file://" if escaped.startswith("/") else "file:///"
    wait_s = BUSY_TIMEOUT_S if timeout_s is None else timeout_s
    return sqlite3.connect(f"{host}{escaped}?mode={mode}", timeout=wait_s, uri=True, isolation_level=None)


def is_in_use(error: BaseException) -> bool:
    """Return whether an error says that another program is writing the file, or keeps others from it."""
    return isinstance(error, sqlite3.Error) and ("locked" in str(error) or "busy" in str(error))


def lacks_repair(error: BaseException) -> bool:
    """Return whether reading failed since what wrote the file was cut off, and only who may write can put that right."""
    return isinstance(error, sqlite3.Error) and "readonly" in str(error)


def unfinished(path: Path) -> Path | None:
    """Return the file beside a database that says that it is being written, or that its writer was cut off, or None."""
    for ending in LEFT_BY_WRITERS:
        beside = path.with_name(path.name + ending)
        try:
            if beside.stat().st_size:
                return beside
        except FileNotFoundError:
            continue
    return None


def quoted(name: str) -> str:
    """Return the name of a column as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def text(value: object) -> str:
    """Return what a cell holds as text; nothing is the empty text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)
