"""What a detector saw in pool images, by their paths, and which items are cut out for it.

Like labels, detections are kept whether an image is known or not, so that one which a scan finds later meets them.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import chain, islice
from typing import Any, NamedTuple

from sqlalchemy import Connection

from camera_trap_al.catalog.found import POOL
from camera_trap_al.catalog.schema import marks, note_fact, parts, read_fact, rows_of
from camera_trap_al.core.crops import looked_at
from camera_trap_al.core.matching import nfc
from camera_trap_al.core.observed import Detection
from camera_trap_al.core.records import Box

LOOKED_AT, HAS_ANIMAL, PRIVATE, LEFT_OUT = 1, 2, 4, 8
"""Bits of `images.detected`. From `PRIVATE` on an image is neither asked for nor trained, embedded or classified."""
DETECTIONS, CATEGORIES, CUT = "detections", "detection_categories", "cut"
"""Facts: what the table holds, by its hash, and "" while that is being replaced; its words; what rows were made from."""
ROWS_AT_ONCE = 20_000
_ONE = struct.Struct("<Hddddd")

Seen = tuple[Detection, ...]
Write = Callable[[], AbstractContextManager[Connection]]
Corners = tuple[float, float, float, float]
"""A `Box`, or what stands for one in a table: left, top, width and height."""
Whole = tuple[None, None, None, None]
_WHOLE: Whole = (None, None, None, None)
"""The box of an item that is a whole image, as the table has it."""
_Found = tuple[str, float, Corners]
"""Category, confidence and box."""


class Cutting(NamedTuple):
    """Which boxes become items: `items.detection_threshold`, `items.padding` and `items.without_detection`."""

    threshold: float = 0.2
    padding: float = 1.0
    without_detection: str = "whole"


class ListedImage(NamedTuple):
    """What a file of detections says of one image: its path, and boxes as (index of the category, confidence, *box)."""

    path: str
    boxes: Sequence[Sequence[float]]


def cut_out(seen: Seen | None, cutting: Cutting) -> tuple[list[Corners], int]:
    """Return the crops of an image, none for the whole of it, and its bits.

    Parameters
    ----------
    seen : all boxes; None where the detector did not look, or failed
    """
    if seen is None:
        return [], 0
    return _cut([(d.category, d.confidence, d.box) for d in seen], cutting)


def _cut(found: Iterable[_Found], cutting: Cutting) -> tuple[list[Corners], int]:
    counted = [box for box in found if box[1] >= cutting.threshold]
    animals = looked_at(counted)
    if animals is None:
        return [], LOOKED_AT | PRIVATE
    if not animals:
        return [], LOOKED_AT | (0 if cutting.without_detection == "whole" else LEFT_OUT)
    return list(dict.fromkeys(counted[i][2] for i in animals)), LOOKED_AT | HAS_ANIMAL


def replace_all(
    write: Write,
    content: str,
    categories: Sequence[str],
    found: Iterable[ListedImage],
    on_progress: Callable[[int], None],
) -> None:
    """Put what one file says in the place of all that was known. Many transactions; until the last, nothing is."""
    with write() as connection:
        note_fact(connection, DETECTIONS, "")
        note_fact(connection, CATEGORIES, list(categories))
        connection.exec_driver_sql("DELETE FROM detections")
    left, n = iter(found), 0
    while some := list(islice(left, ROWS_AT_ONCE)):
        values = [(path, b"".join(_ONE.pack(*box) for box in boxes)) for path, boxes in some]
        with write() as connection:
            connection.exec_driver_sql("INSERT OR REPLACE INTO detections (path, boxes) VALUES (?, ?)", values)
        n += len(some)
        on_progress(n)
    with write() as connection:
        note_fact(connection, DETECTIONS, content)


def read_of(connection: Connection, paths: Iterable[str]) -> dict[str, Seen]:
    """Return the boxes of those of the images that detections are known of, by the paths as given."""
    found = _found_of(connection, paths)
    return {path: tuple(Detection(word, conf, Box(*box)) for word, conf, box in seen) for path, seen in found.items()}


def _found_of(connection: Connection, paths: Iterable[str]) -> dict[str, list[_Found]]:
    words = read_fact(connection, CATEGORIES, None)
    if words is None:
        return {}
    spelled: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        spelled[nfc(path)].append(path)
    query, unpack = "SELECT path, boxes FROM detections WHERE path IN ", _ONE.iter_unpack
    found: dict[str, list[_Found]] = {}
    for part in parts(spelled):
        for name, packed in rows_of(connection, query + marks(part), *part):
            seen = [
                (words[n], conf, (left, top, width, height)) for n, conf, left, top, width, height in unpack(packed)
            ]
            for path in spelled[name]:
                found[path] = seen
    return found


def cut_all(write: Write, content: str, cutting: Cutting, on_progress: Callable[[int, int], None]) -> None:
    """Bring the items of all pool images in line with the detections. Many transactions; the last one notes that it is done.

    An item whose box stays keeps its row, unless the padding is another.
    """
    with write() as connection:
        before = read_fact(connection, CUT, None)
        last = int(next(rows_of(connection, "SELECT MAX(id) FROM images"))[0] or 0)
        is_padded_anew = before is not None and before[2] != cutting.padding
        if before is not None:
            # Interrupted, the rows are of neither; and where the padding changes, of some it is not known.
            note_fact(connection, CUT, [None, before[1], None if is_padded_anew else before[2], before[3]])
    for first in range(1, last + 1, ROWS_AT_ONCE):
        with write() as connection:
            _cut_some(connection, first, min(first + ROWS_AT_ONCE, last + 1), cutting, anew=is_padded_anew)
        on_progress(min(first + ROWS_AT_ONCE - 1, last), last)
    with write() as connection:
        note_fact(connection, CUT, [content, *cutting])
        note_fact(connection, "pool_version", read_fact(connection, "pool_version", 0) + 1)


def add_items(connection: Connection, root: str, numbered: Mapping[int, str]) -> None:
    """Give new images, number → path, their first rows."""
    made_from = read_fact(connection, CUT, None) if root == POOL else None
    known = _found_of(connection, numbered.values()) if made_from is not None else {}
    if not known:
        insert = "INSERT INTO items (image, live) VALUES (?, 1)"
        connection.exec_driver_sql(insert, [(image,) for image in numbered])
        return
    assert made_from is not None
    cutting, rows = Cutting(*made_from[1:]), []
    ids_by_bits: dict[int, list[int]] = defaultdict(list)
    for image, path in numbered.items():
        boxes, detected = _cut(known[path], cutting) if path in known else ([], 0)
        rows += [(image, *box) for box in boxes or (_WHOLE,)]
        ids_by_bits[detected].append(image)
    _insert(connection, rows)
    _note_bits(connection, ids_by_bits)


def renew_items(connection: Connection, ids: Sequence[int]) -> None:
    """Give images new rows, with the boxes that they have; at most `BATCH`."""
    numbers = list(dict.fromkeys(ids))
    boxes: dict[int, list[Any]] = defaultdict(list)
    live = "SELECT image, left, top, width, height FROM items WHERE live AND image IN "
    for image, *box in rows_of(connection, f"{live}{marks(numbers)} ORDER BY row", *numbers):
        boxes[image].append(box)
    connection.exec_driver_sql(f"UPDATE items SET live = 0 WHERE image IN {marks(numbers)}", tuple(numbers))
    _insert(connection, [(image, *box) for image in numbers for box in boxes.get(image, [_WHOLE])])


def _cut_some(connection: Connection, first: int, end: int, cutting: Cutting, *, anew: bool) -> None:
    """Bring the items of the images with numbers in [first, end) in line."""
    query = "SELECT id, path, detected FROM images WHERE root = ? AND id >= ? AND id < ?"
    some = list(rows_of(connection, query, POOL, first, end))
    known = _found_of(connection, (path for _, path, _ in some))
    rows = _rows_by_box(connection, first, end)
    old: list[int] = []
    new: list[tuple[Any, ...]] = []
    ids_by_bits: dict[int, list[int]] = defaultdict(list)
    for image, path, before in some:
        boxes, detected = _cut(known[path], cutting) if path in known else ([], 0)
        has = rows[image]
        wants: Sequence[Corners | Whole] = boxes or (_WHOLE,)
        is_other = {box for box in has if anew and box != _WHOLE or box not in wants}
        old += [row for box, row in has.items() if box in is_other]
        new += [(image, *box) for box in wants if box not in has or box in is_other]
        if detected != before:
            ids_by_bits[detected].append(image)
    for part in parts(old):
        connection.exec_driver_sql(f"UPDATE items SET live = 0 WHERE row IN {marks(part)}", tuple(part))
    _insert(connection, new)
    _note_bits(connection, ids_by_bits)


def _rows_by_box(connection: Connection, first: int, end: int) -> dict[int, dict[tuple[Any, ...], int]]:
    query = "SELECT image, row, left, top, width, height FROM items WHERE live AND image >= ? AND image < ?"
    rows: dict[int, dict[tuple[Any, ...], int]] = defaultdict(dict)
    for image, row, *box in rows_of(connection, query, first, end):
        rows[image][tuple(box)] = row
    return rows


def _note_bits(connection: Connection, ids_by_bits: Mapping[int, Sequence[int]]) -> None:
    for detected, ids in ids_by_bits.items():
        for part in parts(ids):
            update = f"UPDATE images SET detected = ? WHERE id IN {marks(part)}"
            connection.exec_driver_sql(update, (detected, *part))


def _insert(connection: Connection, rows: Iterable[tuple[Any, ...]]) -> None:
    # Many rows in one statement take half the time of a statement for each.
    for part in parts(rows):
        values = ", ".join(["(?, 1, ?, ?, ?, ?)"] * len(part))
        insert = f"INSERT INTO items (image, live, left, top, width, height) VALUES {values}"
        connection.exec_driver_sql(insert, tuple(chain.from_iterable(part)))
