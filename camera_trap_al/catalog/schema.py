"""Tables of the catalogue, and the numbered migrations that lead to them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    insert,
    select,
    text,
)
from sqlalchemy import inspect as inspect_database
from sqlalchemy.dialects.sqlite import insert as upsert

BATCH = 500
metadata = MetaData()

meta = Table("meta", metadata, Column("key", String, primary_key=True), Column("value", String, nullable=False))
"""Single facts as JSON: format, identity, mark, scanned, pool_version, scan, …."""

images = Table(
    "images",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("root", String, nullable=False),
    Column("path", String, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("class_name", String, nullable=False),
    Column("listed", Boolean, nullable=False),
    Column("key_hash", BigInteger, nullable=False),
    Column("seen", Integer, nullable=False),
    Column("missed", Integer, nullable=False, default=0),
    Column("problem", String, nullable=False, default=""),
    Column("problem_text", String, nullable=False, default=""),
    Column("problem_since", String, nullable=False, default=""),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("hash", String, nullable=False, server_default=""),
    Column("missing", Boolean, nullable=False, server_default="0"),
    Column("away_s", Float, nullable=False, server_default="0"),
    Column("altered_since", String, nullable=False, server_default=""),
    Column("taken", BigInteger),
    Column("detected", Integer, nullable=False, server_default="0"),
    Index("images_by_path", "root", "path", unique=True),
)
"""Files of the three folders (`root`: train, validation, pool).

`listed`: the labelling tool can show it. `seen`: the scan that saw it first. `missed` scans in a row did not, over `away_s`
seconds; `missing`: it was given up until it is back. `problem`: why it cannot be read, tried `tries` times where that may
pass. `hash`: of the content that was embedded or found damaged, "" before. `altered_since`: its content changed after it
was labelled. `taken`: when, in milliseconds since 1970 by the camera's own clock, NULL while that is not known. `detected`:
what a detector saw in it, as bits of `detections.py`.
"""

items = Table(
    "items",
    metadata,
    Column("row", Integer, primary_key=True),
    Column("image", Integer, nullable=False, index=True),
    Column("live", Boolean, nullable=False),
    Column("left", Float),
    Column("top", Float),
    Column("width", Float),
    Column("height", Float),
)
"""Rows, each an image or a crop of it; without a box it is the whole image.

A row is never used again: an image whose content changed gets a new one, and the old one is not live.
"""

detections = Table(
    "detections",
    metadata,
    Column("path", String, primary_key=True),
    Column("boxes", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
"""What a detector saw in pool images by path in NFC, whether the image is known or not; boxes packed by `detections.py`."""

labels = Table(
    "labels",
    metadata,
    Column("path", String, primary_key=True),
    Column("species", String),
    Column("skip", String),
    Column("seq", Integer, nullable=False),
)
"""Labels and skips of pool images by path, projected from the journal, whether the image is known or not."""

absorbed = Table("absorbed", metadata, Column("shard", String, primary_key=True))
"""Embedding shards whose facts were taken in."""


def _create(connection: Connection) -> None:
    metadata.create_all(connection)


def _add_content(connection: Connection) -> None:
    """Format 2 tells contents apart, and skips that end by themselves are no longer kept."""
    for column in (
        "tries INTEGER NOT NULL DEFAULT 0",
        "hash VARCHAR NOT NULL DEFAULT ''",
        "missing BOOLEAN NOT NULL DEFAULT 0",
        "away_s FLOAT NOT NULL DEFAULT 0",
        "altered_since VARCHAR NOT NULL DEFAULT ''",
    ):
        connection.execute(text(f"ALTER TABLE images ADD COLUMN {column}"))
    connection.execute(text("UPDATE images SET missing = 1 WHERE missed >= 3"))
    connection.execute(text("DELETE FROM labels WHERE species IS NULL AND skip IN ('missing', 'unreadable')"))


def _add_time(connection: Connection) -> None:
    """Format 3 knows when images were taken."""
    connection.execute(text("ALTER TABLE images ADD COLUMN taken BIGINT"))


def _add_boxes(connection: Connection) -> None:
    """Format 4 knows what a detector saw, and crops."""
    connection.execute(text("ALTER TABLE images ADD COLUMN detected INTEGER NOT NULL DEFAULT 0"))
    for column in ("left", "top", "width", "height"):
        connection.execute(text(f"ALTER TABLE items ADD COLUMN {column} FLOAT"))
    detections.create(connection)


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_create, _add_content, _add_time, _add_boxes)
"""The n-th leads from format n to format n + 1; each runs in one transaction with the note of it.

The first makes the newest format at once.
"""


def migrate(connection: Connection) -> None:
    """Bring an older or empty catalogue to this format, in the caller's transaction.

    Raises `ValueError` for a newer one.
    """
    known = inspect_database(connection).has_table("meta")
    found = connection.scalar(select(meta.c.value).where(meta.c.key == "format")) if known else None
    version = int(found) if found else 0
    if version > len(MIGRATIONS):
        raise ValueError(f"catalogue format {version} is newer than this program")
    for step in MIGRATIONS[version:] if version else MIGRATIONS[:1]:
        step(connection)
    if version < len(MIGRATIONS):
        connection.execute(meta.delete().where(meta.c.key == "format"))
        connection.execute(insert(meta).values(key="format", value=str(len(MIGRATIONS))))


def parts(values: Iterable[Any]) -> Iterator[list[Any]]:
    """Cut values into parts of at most `BATCH`."""
    left = iter(values)
    while part := list(islice(left, BATCH)):
        yield part


def marks(values: Sequence[Any]) -> str:
    """Return the place holders of values in a query in the driver's own words, such as "(?, ?)"."""
    return f"({', '.join('?' * len(values))})"


def rows_of(connection: Connection, query: str, *values: Any) -> Iterator[Any]:
    """Yield the rows of a query in the driver's own words, as plain tuples: for what is asked of a million images."""
    cursor: Any = connection.exec_driver_sql(query, values).cursor
    try:
        yield from cursor
    finally:
        cursor.close()  # one that was left half read would keep others from writing


def read_fact(connection: Connection, key: str, default: Any) -> Any:
    """Return a single fact of `meta`, or `default`."""
    value = connection.scalar(select(meta.c.value).where(meta.c.key == key))
    return default if value is None else json.loads(value)


def note_fact(connection: Connection, key: str, value: Any) -> None:
    """Keep a single fact in `meta`, in the caller's transaction."""
    statement = upsert(meta).values(key=key, value=json.dumps(value))
    connection.execute(
        statement.on_conflict_do_update(index_elements=["key"], set_={"value": statement.excluded.value})
    )
