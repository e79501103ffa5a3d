"""Adds classes to the menu of a Timelapse template that is closed: the one change that is ever made to a template."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

from camera_trap_al.errors import TemplateError
from camera_trap_al.labels import sqlite_files
from camera_trap_al.labels.template import CHOICES, check_choices, in_use, menu_text, read_menu, read_template
from camera_trap_al.store import atomic
from camera_trap_al.store.links import is_link

MENU = "FixedChoice"
# Timelapse holds nothing open between two strokes of a key, so that it runs is seen only by what it writes.
QUIET_S = 60.0
WAIT_S = 1.0


def add_choices(path: Path, data_label: str, names: Sequence[str]) -> Path:
    """Append items to the menu of a field; durable on return. Nothing else of the template is changed.

    Timelapse takes added choices over without a question when it opens the template again. What the template was before
    is beside it as `NAME.2026-11-22.10-30-00.tdb.bak`: no name that Timelapse, or `find_templates`, takes for a template,
    and not in Timelapse's folder Backups, where it removes old files.

    Parameters
    ----------
    path : the template
    data_label : the field, a FixedChoice
    names : what the menu lacks, at least one; in the order in which they are put behind the items that are there

    Returns
    -------
    The copy of the template as it was

    Raises
    ------
    TemplateError : it is open or was a minute ago, damaged, foreign, write-protected, or a name cannot be an item; nothing
        was changed
    """
    _refuse_open(path)
    field = read_template(path).field(data_label)
    if field is None or field.type != MENU:
        raise TemplateError(
            f"The template {path} has no Choice with the data label {data_label}, so it has no menu to add to.",
            hint="Add one in Timelapse's Template Editor.",
        )
    check_choices(names)
    _refuse_link(path)
    with _explained(path):
        # Read before it is locked: to close the file again would drop SQLite's own lock on Linux and macOS.
        before, content = _stamp(path), path.read_bytes()
        with closing(sqlite_files.connect(path, "rw", timeout_s=WAIT_S)) as database:
            # Also the end of the transaction is durable: after a power cut the old menu does not come back.
            database.execute("PRAGMA synchronous = EXTRA")
            database.execute("BEGIN EXCLUSIVE")
            if _stamp(path) != before:
                raise in_use(path)
            row, menu = _menu_of(database, path, data_label, names)
            return _change(database, path, content, (menu, row))


def _change(database: sqlite3.Connection, path: Path, content: bytes, values: tuple[str, int]) -> Path:
    """Put a copy of the template beside it, then set the menu of a row and commit; return the copy, none on failure."""
    backup = _put_beside(path, content)
    try:
        database.execute("UPDATE TemplateTable SET List = ? WHERE Id = ?", values)
        if database.total_changes != 1:
            raise TemplateError(
                f"The template {path} holds triggers, as no Timelapse makes them, so it was left as it is.",
                hint="Add the classes in Timelapse's Template Editor.",
            )
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
            atomic.discard_file(backup)
        raise
    return backup


def _menu_of(database: sqlite3.Connection, path: Path, data_label: str, names: Sequence[str]) -> tuple[int, str]:
    """Return the row of a field and its menu with the names behind its items, as a List column holds it."""
    rows = database.execute("SELECT Id, List FROM TemplateTable WHERE DataLabel = ?", (data_label,)).fetchall()
    menu = read_menu(sqlite_files.text(rows[0][1])) if len(rows) == 1 else None
    if menu is None:
        raise TemplateError(
            f"The list of {data_label} in {path} cannot be read, so nothing was added to it.",
            hint="Define the list anew in Timelapse's Template Editor.",
        )
    items = [str(item) for item in menu.get(CHOICES, ())]
    return rows[0][0], menu_text({"IncludeEmptyChoice": True, **menu, CHOICES: [*items, *names]})


def _refuse_link(path: Path) -> None:
    if is_link(path):
        raise TemplateError(
            f"The template {path} is a link to another place, so it was left as it is.",
            hint="Put the template itself there, or add the classes in Timelapse's Template Editor.",
        )


def _refuse_open(path: Path) -> None:
    """Raise where anything tells that Timelapse or its editor has the template or its images open."""
    databases = sorted(p for p in path.parent.iterdir() if p.suffix.lower() == ".ddb" and p.is_file())
    for file in (path, *databases):
        beside = sqlite_files.unfinished(file)
        if beside is not None:
            raise TemplateError(
                f"{beside} is there: {file.name} is being written, or what wrote it was cut off. Nothing was changed.",
                hint="Open the images in Timelapse, which puts that right, close it, and try again.",
            )
    for database in databases:
        age_s = time.time() - database.stat().st_mtime
        if abs(age_s) < QUIET_S:
            raise TemplateError(
                f"Timelapse wrote into {database} less than {QUIET_S:.0f} seconds ago, so it seems to be open. Nothing was"
                " changed.",
                hint="Close Timelapse and its Template Editor, and try again in a minute.",
            )


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _put_beside(path: Path, content: bytes) -> Path:
    """Write what the template was under a name that is free; return it."""
    stem = f"{path.stem}.{datetime.now():%Y-%m-%d.%H-%M-%S}"
    backup, n = path.with_name(f"{stem}.tdb.bak"), 1
    while os.path.lexists(backup):
        n += 1
        backup = path.with_name(f"{stem}-{n}.tdb.bak")
    with atomic.permitted(path.parent):
        atomic.replace_bytes(backup, content)
    return backup


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what SQLite and the disk raise while a template is changed into words for a person."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        if sqlite_files.is_in_use(error):
            raise in_use(path) from error
        raise TemplateError(
            f"The classes could not be added to {path}: {error}. It was left as it was.",
            hint="See that the file is not write-protected, that you may write into its folder, and that there is room.",
        ) from error
