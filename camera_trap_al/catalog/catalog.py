"""Which images there are, and their pool: a projection of the folders and the journal that can be made anew."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import URL, Connection, Select, and_, create_engine, event, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.engine import Engine

from camera_trap_al.catalog.found import POOL, TRAIN, VALIDATION, Found, PoolCounts, key_hash
from camera_trap_al.catalog.schema import absorbed, images, items, labels, meta, migrate
from camera_trap_al.core.records import ImageKey, Item

MISSING_AFTER_SCANS = 3
TRANSIENT_PROBLEMS = frozenset({"missing", "no_permission"})
_BATCH = 500
BUSY_S = 30
RowArray = npt.NDArray[np.int64]


class Catalog:
    """The catalogue of one work folder.

    One process writes (the daemon); others open it with `read_only`.
    """

    def __init__(self, engine: Engine, roots: Sequence[str]) -> None:
        self._engine = engine
        self._roots = tuple(roots)

    @classmethod
    def open(cls, path: Path, *, roots: Sequence[str] = (TRAIN, VALIDATION, POOL), read_only: bool = False) -> Catalog:
        """Open the catalogue, making it if it is not there.

        `roots` are the folders that are configured; images of others are as if they were not there. Raises SQLAlchemy's
        errors if it cannot be opened, `ValueError` if a newer version wrote it.
        """
        engine = create_engine(URL.create("sqlite", database=str(path)), connect_args={"timeout": BUSY_S})

        @event.listens_for(engine, "connect")
        def _prepare(connection: Any, _record: Any) -> None:
            connection.execute(f"PRAGMA query_only = {'ON' if read_only else 'OFF'}")

        catalog = cls(engine, roots)
        try:
            if not read_only:
                with catalog._write() as connection:
                    migrate(connection)
                    if _read(connection, "catalog_id", None) is None:
                        _note(connection, "catalog_id", uuid.uuid4().hex)
        except BaseException:
            engine.dispose()
            raise
        return catalog

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def is_sound(self) -> bool:
        """Return whether SQLite finds no damage."""
        with self._engine.connect() as connection:
            return str(connection.exec_driver_sql("PRAGMA quick_check").scalar()) == "ok"

    def fact(self, key: str, default: Any = None) -> Any:
        """Return a single fact, or `default`."""
        with self._engine.connect() as connection:
            value = connection.scalar(select(meta.c.value).where(meta.c.key == key))
        return default if value is None else json.loads(value)

    def note(self, key: str, value: Any) -> None:
        """Keep a single fact; durable on return."""
        with self._write() as connection:
            _note(connection, key, value)

    @property
    def mark(self) -> int:
        """The journal `seq` up to which labels are projected."""
        return int(self.fact("mark", 0))

    def project(
        self, answers: Mapping[ImageKey, tuple[str | None, str | None, int]], mark: int, *, identity: str
    ) -> None:
        """Take labels and skips in, and move the mark, in one transaction.

        Parameters
        ----------
        answers : image → (species or None, reason of a skip or None, journal seq); both None removes the entry
        """
        gone = [key.path for key, (species, skip, _) in answers.items() if species is None and skip is None]
        kept = [
            {"path": key.path, "species": species, "skip": skip, "seq": seq}
            for key, (species, skip, seq) in answers.items()
            if species is not None or skip is not None
        ]
        with self._write() as connection:
            for part in _parts(gone):
                connection.execute(labels.delete().where(labels.c.path.in_(part)))
            for rows in _parts(kept):
                statement = upsert(labels)
                changed = {c: statement.excluded[c] for c in ("species", "skip", "seq")}
                connection.execute(statement.on_conflict_do_update(index_elements=["path"], set_=changed), rows)
            _note(connection, "mark", mark)
            _note(connection, "identity", identity)

    def add_found(self, root: str, found: Sequence[Found], scan: int) -> int:
        """Take in what scan number `scan` saw; return how many images are new or changed. One transaction."""
        changed = 0
        with self._write() as connection:
            for part in _parts(list(found)):
                changed += self._add_part(connection, root, part, scan)
            if changed:
                _note(connection, "pool_version", _read(connection, "pool_version", 0) + 1)
        return changed

    def _add_part(self, connection: Connection, root: str, found: Sequence[Found], scan: int) -> int:
        known = {
            row.path: row
            for row in connection.execute(
                select(images).where(images.c.root == root, images.c.path.in_([f.path for f in found]))
            )
        }
        new = [f for f in found if f.path not in known]
        altered = [f for f in found if f.path in known and _is_altered(known[f.path], f)]
        back = sum(known[f.path].missed >= MISSING_AFTER_SCANS for f in found if f.path in known)
        relisted = [f for f in found if f.path in known and known[f.path].listed != f.listed]
        ids = [known[f.path].id for f in found if f.path in known]
        connection.execute(update(images).where(images.c.id.in_(ids)).values(seen=scan, missed=0))
        if new:
            connection.execute(insert(images), [_image_values(root, f, scan) for f in new])
            fresh = select(images.c.id).where(images.c.root == root, images.c.path.in_([f.path for f in new]))
            new_ids = list(connection.scalars(fresh.order_by(images.c.path)))
            connection.execute(insert(items), [{"image": i, "live": True} for i in new_ids])
        for f in altered:
            image = known[f.path].id
            fields = {"size": f.size, "mtime_ns": f.mtime_ns, "problem": "", "problem_text": "", "problem_since": ""}
            connection.execute(update(images).where(images.c.id == image).values(**fields))
            connection.execute(update(items).where(items.c.image == image).values(live=False))
            connection.execute(insert(items).values(image=image, live=True))
        for f in relisted:
            connection.execute(update(images).where(images.c.id == known[f.path].id).values(listed=f.listed))
        n: int = len(new) + len(altered) + back + len(relisted)
        return n

    def end_scan(self, scan: int, roots: Sequence[str], changed: bool, facts: Mapping[str, Any]) -> float:
        """Count what scan number `scan` did not see, and note that it ended. One transaction.

        Returns the fraction of known, present images that were not seen; above 0.2 nothing is counted as missed, since
        the folder rather than the images must be away.
        """
        present = and_(images.c.root.in_(roots), images.c.missed < MISSING_AFTER_SCANS)
        with self._write() as connection:
            known = connection.scalar(select(func.count()).where(present)) or 0
            unseen = connection.scalar(select(func.count()).where(present, images.c.seen < scan)) or 0
            away = unseen / known if known else 0.0
            if unseen and away <= 0.2:
                about_to = and_(present, images.c.seen < scan, images.c.missed == MISSING_AFTER_SCANS - 1)
                changed = changed or bool(connection.scalar(select(func.count()).where(about_to)))
                missed = update(images).where(present, images.c.seen < scan).values(missed=images.c.missed + 1)
                connection.execute(missed)
            if changed:
                _note(connection, "pool_version", _read(connection, "pool_version", 0) + 1)
            _note(connection, "scan", scan)
            _note(connection, "scanned", True)
            _note(connection, "scan_facts", dict(facts))
        return away

    def absorb(self, shard: str, problems: Mapping[int, tuple[str, str]]) -> None:
        """Take in what a shard says of images that could not be decoded. One transaction."""
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with self._write() as connection:
            for row, (code, text) in sorted(problems.items()):
                self._quarantine(connection, row, code, text, since)
            connection.execute(upsert(absorbed).values(shard=shard).on_conflict_do_nothing())
            if problems:
                _note(connection, "pool_version", _read(connection, "pool_version", 0) + 1)

    def quarantine(self, row: int, code: str, text: str) -> None:
        """Note that a row's image cannot be read; durable on return."""
        with self._write() as connection:
            self._quarantine(connection, row, code, text, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
            _note(connection, "pool_version", _read(connection, "pool_version", 0) + 1)

    def _quarantine(self, connection: Connection, row: int, code: str, text: str, since: str) -> None:
        image = select(items.c.image).where(items.c.row == row, items.c.live).scalar_subquery()
        values = {"problem": code, "problem_text": text, "problem_since": since}
        connection.execute(update(images).where(images.c.id == image, images.c.problem == "").values(**values))

    def absorbed_shards(self) -> set[str]:
        """Return the shards whose facts were taken in."""
        with self._engine.connect() as connection:
            return set(connection.scalars(select(absorbed.c.shard)))

    def counts(self) -> PoolCounts:
        """Return how many images are where."""
        labelled = and_(images.c.root == POOL, labels.c.species.is_not(None))
        skipped = and_(images.c.root == POOL, labels.c.skip.is_not(None))
        with self._engine.connect() as connection:

            def count(*where: Any) -> int:
                joined = images.outerjoin(labels, and_(images.c.root == POOL, labels.c.path == images.c.path))
                return connection.scalar(select(func.count()).select_from(joined).where(*where)) or 0

            good = and_(images.c.problem == "", images.c.missed < MISSING_AFTER_SCANS)
            return PoolCounts(
                train=count(good, images.c.root == TRAIN),
                validation=count(good, images.c.root == VALIDATION),
                labelled=count(good, labelled),
                skipped=count(good, skipped),
                unlabelled=count(good, images.c.root == POOL, images.c.listed, labels.c.path.is_(None)),
                quarantined=count(images.c.problem != ""),
                missing=count(images.c.missed >= MISSING_AFTER_SCANS),
                not_listed=count(good, images.c.root == POOL, ~images.c.listed, labels.c.path.is_(None)),
            )

    def labelled(self) -> tuple[RowArray, list[str]]:
        """Return the rows that may train, in the order of their key hashes, and their species."""
        pool = self._usable(images.c.key_hash, labels.c.species).join(labels, labels.c.path == images.c.path)
        pool = pool.where(images.c.root == POOL, labels.c.species.is_not(None))
        train = self._usable(images.c.key_hash, images.c.class_name).where(images.c.root == TRAIN)
        return self._rows_and_text(pool, train)

    def validation(self) -> tuple[RowArray, list[str]]:
        """Return the rows of the validation folder, in the order of their key hashes, and their species."""
        return self._rows_and_text(
            self._usable(images.c.key_hash, images.c.class_name).where(images.c.root == VALIDATION)
        )

    def _rows_and_text(self, *queries: Select[Any]) -> tuple[RowArray, list[str]]:
        with self._engine.connect() as connection:
            found = sorted((key, text, row) for query in queries for row, key, text in connection.execute(query))
        return np.array([row for _, _, row in found], dtype=np.int64), [text for _, text, _ in found]

    def askable(self) -> tuple[RowArray, npt.NDArray[np.uint64]]:
        """Return rows and key hashes of pool images that need an answer and can be shown, in ascending order."""
        query = self._usable(images.c.key_hash).outerjoin(labels, labels.c.path == images.c.path)
        query = query.where(images.c.root == POOL, images.c.listed, labels.c.path.is_(None)).order_by(items.c.row)
        with self._engine.connect() as connection:
            pairs = connection.execute(query).all()
        rows = np.array([row for row, _ in pairs], dtype=np.int64)
        return rows, np.array([value for _, value in pairs], dtype=np.int64).view(np.uint64)

    def live_rows(self, *roots: str) -> RowArray:
        """Return the rows of readable, present images of these folders, in the order of their key hashes."""
        query = self._usable().where(images.c.root.in_(roots)).order_by(images.c.key_hash, images.c.root)
        with self._engine.connect() as connection:
            return np.array(list(connection.scalars(query)), dtype=np.int64)

    def items(self, rows: Iterable[int], folders: Mapping[str, str]) -> list[Item]:
        """Return the items of rows, in the order given; `folders` maps train, validation and pool to absolute paths."""
        wanted = [int(row) for row in rows]
        query = select(items.c.row, images.c.root, images.c.path, images.c.size, images.c.mtime_ns)
        found: dict[int, Item] = {}
        with self._engine.connect() as connection:
            for part in _parts(wanted):
                joined = query.join(images, images.c.id == items.c.image).where(items.c.row.in_(part))
                for row, root, path, size, mtime_ns in connection.execute(joined):
                    found[row] = Item(row, str(Path(folders[root], *path.split("/"))), size, mtime_ns)
        return [found[row] for row in wanted]

    def keys_of(self, rows: Iterable[int]) -> list[ImageKey]:
        """Return the image keys of pool rows, in the order given."""
        wanted = [int(row) for row in rows]
        found: dict[int, ImageKey] = {}
        with self._engine.connect() as connection:
            for part in _parts(wanted):
                query = select(items.c.row, images.c.path).join(images, images.c.id == items.c.image)
                found |= {
                    row: ImageKey.of(path) for row, path in connection.execute(query.where(items.c.row.in_(part)))
                }
        return [found[row] for row in wanted]

    def pool_keys(self, *, listed_only: bool = False, with_missing: bool = False) -> Iterator[ImageKey]:
        """Yield the keys of pool images in order of their path; missing ones only if asked for."""
        query = select(images.c.path).where(images.c.root == POOL)
        if not with_missing:
            query = query.where(images.c.missed < MISSING_AFTER_SCANS)
        if listed_only:
            query = query.where(images.c.listed)
        with self._engine.connect() as connection:
            for path in connection.scalars(query.order_by(images.c.path)):
                yield ImageKey.of(path)

    def unusable(self, keys: Sequence[ImageKey]) -> dict[ImageKey, str]:
        """Return those of the pool images that cannot be asked for now, with the reason."""
        found: dict[str, tuple[str, int]] = {}
        with self._engine.connect() as connection:
            for part in _parts([key.path for key in keys]):
                query = select(images.c.path, images.c.problem, images.c.missed)
                query = query.where(images.c.root == POOL, images.c.path.in_(part))
                found |= {path: (problem, missed) for path, problem, missed in connection.execute(query)}
        out = {}
        for key in keys:
            problem, missed = found.get(key.path, ("", MISSING_AFTER_SCANS))
            if problem or missed >= MISSING_AFTER_SCANS:
                out[key] = "unreadable" if problem else "missing"
        return out

    def sample_of_pool(self, n: int) -> list[tuple[str, int]]:
        """Return path and size of up to n pool images, in the order of their key hashes."""
        query = select(images.c.path, images.c.size).where(images.c.root == POOL).order_by(images.c.key_hash).limit(n)
        with self._engine.connect() as connection:
            return [(path, size) for path, size in connection.execute(query)]

    def problems(self) -> list[tuple[str, str, str, str, str]]:
        """Return the quarantined images: folder, path, code, text, since when."""
        columns = (images.c.root, images.c.path, images.c.problem, images.c.problem_text, images.c.problem_since)
        query = select(*columns).where(images.c.problem != "").order_by(images.c.root, images.c.path)
        with self._engine.connect() as connection:
            return [(root, path, code, text, since) for root, path, code, text, since in connection.execute(query)]

    def folder_classes(self) -> list[str]:
        """Return the classes of images in the training and validation folders, sorted."""
        query = select(images.c.class_name).where(images.c.class_name != "", images.c.root.in_(self._roots)).distinct()
        with self._engine.connect() as connection:
            return sorted(connection.scalars(query))

    def _usable(self, *columns: Any) -> Select[Any]:
        query = select(items.c.row, *columns).join_from(items, images, images.c.id == items.c.image)
        good = and_(items.c.live, images.c.problem == "", images.c.missed < MISSING_AFTER_SCANS)
        return query.where(good, images.c.root.in_(self._roots))

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            yield connection


def _image_values(root: str, f: Found, scan: int) -> dict[str, Any]:
    return {
        "root": root,
        "path": f.path,
        "size": f.size,
        "mtime_ns": f.mtime_ns,
        "class_name": f.class_name,
        "listed": f.listed,
        "key_hash": key_hash(f.path),
        "seen": scan,
    }


def _is_altered(image: Any, f: Found) -> bool:
    """Return whether an image changed, or could not be had when it was last tried and is tried again."""
    return (image.size, image.mtime_ns) != (f.size, f.mtime_ns) or image.problem in TRANSIENT_PROBLEMS


def _note(connection: Connection, key: str, value: Any) -> None:
    statement = upsert(meta).values(key=key, value=json.dumps(value))
    connection.execute(
        statement.on_conflict_do_update(index_elements=["key"], set_={"value": statement.excluded.value})
    )


def _read(connection: Connection, key: str, default: Any) -> Any:
    value = connection.scalar(select(meta.c.value).where(meta.c.key == key))
    return default if value is None else json.loads(value)


def _parts(values: Sequence[Any]) -> Iterator[Any]:
    for start in range(0, len(values), _BATCH):
        yield values[start : start + _BATCH]
