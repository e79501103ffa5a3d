"""A Timelapse image database as a file, with the tables and columns that Timelapse gives it."""

from __future__ import annotations

import functools
import sqlite3
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

from camera_trap_al.labels.template import make_template, read_template

CLASSES = ("red", "green", "blue", "unsure")


def write_database(
    path: Path,
    rows: Iterable[Mapping[str, str]],
    *,
    template: Path | None = None,
    version: str = "2.5.0.6",
    default: str = "",
) -> Path:
    """Make a `.ddb` with a row for each mapping from data label to value; other fields have their defaults.

    Parameters
    ----------
    template : the template that Timelapse opened, by default one of ours
    default : the default value of Species, as the template had it when the images were loaded
    """
    content, fields = (template.read_bytes(), _defaults(template)) if template is not None else _ours()
    path.write_bytes(content)
    fields = {**fields, "Species": default}
    columns = ", ".join(f"{name} TEXT DEFAULT '{text.replace(chr(39), chr(39) * 2)}'" for name, text in fields.items())
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA synchronous = OFF")
        database.executescript(
            f"""
            DROP TABLE TemplateInfo;
            CREATE TABLE DataTable (Id INTEGER PRIMARY KEY AUTOINCREMENT, {columns});
            CREATE TABLE ImageSetTable (Id INTEGER PRIMARY KEY AUTOINCREMENT, RootFolder TEXT DEFAULT '',
                Log TEXT DEFAULT '', Row TEXT, VersionCompatabily TEXT, BackwardsCompatibility TEXT);
            CREATE INDEX IndexRelativePathFile ON DataTable (RelativePath, File);
            """
        )
        database.execute("UPDATE TemplateTable SET DefaultValue = ? WHERE DataLabel = 'Species'", (default,))
        database.execute("INSERT INTO ImageSetTable (VersionCompatabily) VALUES (?)", (version,))
        for row in rows:
            values = {**fields, **row}
            places = ", ".join("?" * len(values))
            database.execute(f"INSERT INTO DataTable ({', '.join(values)}) VALUES ({places})", list(values.values()))
    return path


@functools.cache
def _ours() -> tuple[bytes, dict[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.tdb"
        make_template(path, CLASSES)
        return path.read_bytes(), _defaults(path)


def _defaults(template: Path) -> dict[str, str]:
    return {field.data_label: field.default for field in read_template(template).fields}


def answer(path: str, species: str = "", **more: str) -> dict[str, str]:
    r"""Return the row of an image, given its path with `/`, as Timelapse writes it with `\`."""
    folder, _, file = path.rpartition("/")
    return {"File": file, "RelativePath": folder.replace("/", "\\"), "Species": species, **more}
