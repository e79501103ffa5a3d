"""Images in the order in which they are embedded."""

from __future__ import annotations

from collections.abc import Collection
from itertools import chain

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection

from camera_trap_al.catalog.detections import PRIVATE
from camera_trap_al.catalog.schema import rows_of
from camera_trap_al.core.order import stratified_order

USABLE = f"""
SELECT items.row, images.key_hash, images.root, images.path FROM images JOIN items ON items.image = images.id
WHERE items.live AND NOT images.missing AND images.problem = '' AND images.detected < {PRIVATE}
"""


def read_in_order(connection: Connection, roots: Collection[str], seed: int) -> npt.NDArray[np.int64]:
    """Return the rows of readable, present images of these folders in the order of `stratified_order`, by directory."""
    numbers: dict[tuple[str, str], int] = {}
    found = (
        (row, key_hash, numbers.setdefault((root, path[: path.rfind("/") + 1]), len(numbers)))
        for row, key_hash, root, path in rows_of(connection, USABLE)
        if root in roots
    )
    rows, hashes, directories = np.fromiter(chain.from_iterable(found), dtype=np.int64).reshape(-1, 3).T.copy()
    in_order: npt.NDArray[np.int64] = rows[stratified_order(hashes.view(np.uint64), directories, seed)]
    return in_order
