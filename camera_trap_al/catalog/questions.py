"""What the catalogue says of single images, and its lists for people: read anew for each question."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Engine

from camera_trap_al.catalog import captures, detections
from camera_trap_al.catalog.found import POOL, TRAIN, VALIDATION, RowArray
from camera_trap_al.catalog.schema import images, labels, marks, parts, read_fact, rows_of
from camera_trap_al.catalog.sightings import is_quarantined
from camera_trap_al.core.grouping import Names
from camera_trap_al.core.observed import Detection
from camera_trap_al.core.records import Box, ImageKey, Item


class Questions:
    """What can be asked of the catalogue without holding all of it.

    Parameters
    ----------
    roots : the folders that are configured; images of others are as if they were not there
    """

    def __init__(self, engine: Engine, roots: Sequence[str]) -> None:
        self._engine = engine
        self._roots = tuple(roots)

    def items(self, rows: Iterable[int], folders: Mapping[str, str]) -> list[Item]:
        """Return the items of rows, in the order given; `folders` maps train, validation and pool to absolute paths."""
        prefixes = {root: str(Path(folder) / "_")[:-1] for root, folder in folders.items()}
        found = self._of_rows(rows, "items.row, root, path, size, mtime_ns, left, top, width, height")
        return [
            Item(row, prefixes[root] + path.replace("/", os.sep), size, mtime_ns, _box(box))
            for row, root, path, size, mtime_ns, *box in found
        ]

    def keys_of(self, rows: Iterable[int]) -> list[ImageKey]:
        """Return the image keys of pool rows, in the order given."""
        return [ImageKey.of(path) for _, path in self._of_rows(rows, "items.row, path")]

    def boxes_of(self, rows: Iterable[int]) -> list[Box | None]:
        """Return the crops of rows, in the order given; None for those that are whole images."""
        return [_box(box) for _, *box in self._of_rows(rows, "items.row, left, top, width, height")]

    def detections_of(self, keys: Sequence[ImageKey]) -> list[tuple[Detection, ...] | None]:
        """Return all boxes of pool images, in the order given; None where the detector did not look, or failed."""
        with self._engine.connect() as connection:
            known = detections.read_of(connection, [key.path for key in keys])
        return [known.get(key.path) for key in keys]

    def names(self) -> Names:
        """Return what the paths of all live pool images say of their order."""
        with self._engine.connect() as connection:
            return captures.read_names(connection)

    def times(self, rows: RowArray) -> RowArray:
        """Return the capture times of rows, in ascending order, in milliseconds; `NO_TIME` where none is known."""
        with self._engine.connect() as connection:
            return captures.read_times(connection, rows)

    def _of_rows(self, rows: Iterable[int], columns: str) -> list[Any]:
        """Return columns of rows, the first of which is the row, in the order given."""
        wanted = [int(row) for row in rows]
        query = f"SELECT {columns} FROM items JOIN images ON images.id = items.image WHERE items.row IN "
        found: dict[int, Any] = {}
        with self._engine.connect() as connection:
            for part in parts(wanted):
                found |= {values[0]: values for values in rows_of(connection, query + marks(part), *part)}
        return [found[row] for row in wanted]

    def pool_keys(self, *, listed_only: bool = False, with_missing: bool = False) -> Iterator[ImageKey]:
        """Yield the keys of pool images in order of their path; missing ones only if asked for."""
        where = ("" if with_missing else " AND NOT missing") + (" AND listed" if listed_only else "")
        with self._engine.connect() as connection:
            for (path,) in rows_of(connection, f"SELECT path FROM images WHERE root = ?{where} ORDER BY path", POOL):
                yield ImageKey.of(path)

    def unusable(self, keys: Sequence[ImageKey]) -> dict[ImageKey, str]:
        """Return those of the pool images that cannot be asked for now, with the reason."""
        reasons: dict[str, str] = {}
        with self._engine.connect() as connection:
            scanned = read_fact(connection, "scanned", False)
            for part in parts(key.path for key in keys):
                query = select(images.c.path, images.c.missing, is_quarantined, images.c.detected)
                query = query.where(images.c.root == POOL, images.c.path.in_(part))
                for path, missing, quarantined, detected in connection.execute(query):
                    reasons[path] = "unreadable" if quarantined else "missing" if missing else _kept_back(detected)
        # Before the first scan has ended, an image that is not known yet is not missing.
        unknown = "missing" if scanned else ""
        return {key: reason for key in keys if (reason := reasons.get(key.path, unknown))}

    def sample(self, root: str, n: int) -> list[tuple[str, int]]:
        """Return path and size of up to n images of one kind of folder, in the order of their key hashes."""
        query = select(images.c.path, images.c.size).where(images.c.root == root).order_by(images.c.key_hash).limit(n)
        with self._engine.connect() as connection:
            return [(path, size) for path, size in connection.execute(query)]

    def problems(self) -> list[tuple[str, str, str, str, str]]:
        """Return the quarantined images: folder, path, code, text, since when."""
        columns = (images.c.root, images.c.path, images.c.problem, images.c.problem_text, images.c.problem_since)
        query = select(*columns).where(is_quarantined).order_by(images.c.root, images.c.path)
        with self._engine.connect() as connection:
            return [(root, path, code, text, since) for root, path, code, text, since in connection.execute(query)]

    def altered(self) -> list[tuple[str, str, str]]:
        """Return the labelled images whose content changed after the label: path, species, since when."""
        query = select(images.c.path, labels.c.species, images.c.altered_since)
        query = query.join(labels, labels.c.path == images.c.path).order_by(images.c.path)
        query = query.where(images.c.root == POOL, images.c.altered_since != "", labels.c.species.is_not(None))
        with self._engine.connect() as connection:
            return [(path, species, since) for path, species, since in connection.execute(query)]

    def folder_classes(self) -> list[str]:
        """Return the classes of images in the training and validation folders, sorted."""
        named = sorted({TRAIN, VALIDATION} & set(self._roots))  # images to label have none
        query = select(images.c.class_name).where(images.c.class_name != "", images.c.root.in_(named)).distinct()
        with self._engine.connect() as connection:
            return sorted(connection.scalars(query))


def _box(numbers: Sequence[float | None]) -> Box | None:
    left, top, width, height = numbers
    if left is None or top is None or width is None or height is None:
        return None
    return Box(left, top, width, height)


def _kept_back(detected: int) -> str:
    """Return why an image is kept back for what a detector saw in it, or ""."""
    if detected & detections.PRIVATE:
        return "person"
    return "without_animal" if detected & detections.LEFT_OUT else ""
