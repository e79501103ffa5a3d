"""When images were taken, and what their paths say of their order."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection

from camera_trap_al.catalog.found import POOL
from camera_trap_al.catalog.schema import note_fact, read_fact, rows_of
from camera_trap_al.core.grouping import NO_TIME, Names

RowArray = npt.NDArray[np.int64]
LIVE = f"""
SELECT items.row, key_hash, path FROM images JOIN items ON items.image = images.id
WHERE root = '{POOL}' AND items.live ORDER BY items.row
"""
TIMES = (
    "SELECT items.row, taken FROM images JOIN items ON items.image = images.id WHERE taken IS NOT NULL AND items.live"
)
TAKEN = "taken_version"
"""The fact that changes whenever a capture time does."""


def read_names(connection: Connection) -> Names:
    """Return what the paths of all live pool images say."""
    return Names.of(rows_of(connection, LIVE))


def read_times(connection: Connection, rows: RowArray) -> RowArray:
    """Return the capture times of (n,) ascending rows; `NO_TIME` where none is known."""
    known = np.fromiter(chain.from_iterable(rows_of(connection, TIMES)), dtype=np.int64).reshape(-1, 2)
    times = np.full(len(rows), NO_TIME, dtype=np.int64)
    if len(rows):
        places = np.minimum(np.searchsorted(rows, known[:, 0]), len(rows) - 1)
        found = rows[places] == known[:, 0]
        times[places[found]] = known[found, 1]
    return times


def take_times(connection: Connection, times: Mapping[int, int]) -> None:
    """Note when rows were taken, in the caller's transaction; writes nothing of those that are known."""
    update = (
        "UPDATE images SET taken = ? WHERE id = (SELECT image FROM items WHERE row = ? AND live) AND taken IS NOT ?"
    )
    values = [(taken, row, taken) for row, taken in sorted(times.items())]
    if values:
        cursor = connection.exec_driver_sql(update, values)
        if cursor.rowcount:
            note_fact(connection, TAKEN, int(read_fact(connection, TAKEN, 0)) + 1)
