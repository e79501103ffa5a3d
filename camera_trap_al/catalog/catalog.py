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
from sqlalchemy import URL, Connection, Select, and_, case, create_engine, event, func, select, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.engine import Engine

from camera_trap_al.catalog import sightings
from camera_trap_al.catalog.found import ACCEPT_GONE, POOL, TRAIN, VALIDATION, Found, PoolCounts
from camera_trap_al.catalog.schema import absorbed, images, items, labels, meta, migrate, note_fact, read_fact
from camera_trap_al.catalog.sightings import Taken, is_present, is_quarantined, parts
from camera_trap_al.core.history import LASTING_SKIPS
from camera_trap_al.core.records import ImageKey, Item

BUSY_S = 30
RowArray = npt.NDArray[np.int64]


class Catalog:
    """The catalogue of one work folder.

    One process writes (the daemon); others open it with `read_only`.
    """

    def __init__(self, engine: Engine, roots: Sequence[str], *, read_only: bool = False) -> None:
        self._engine = engine
        self._roots = tuple(roots)
        self._is_read_only = read_only
        # Read anew only when the pool changes: of hundreds of thousands of images, each round answers a hundred.
        self._shown: tuple[int, RowArray, npt.NDArray[np.uint64]] | None = None
        self._facts: dict[str, str] | None = None  # each turn of the loop asks for a dozen
        self._absorbed: set[str] | None = None

    @classmethod
    def open(cls, path: Path, *, roots: Sequence[str] = (TRAIN, VALIDATION, POOL), read_only: bool = False) -> Catalog:
        """Open the catalogue, making it if it is not there.

        `roots` are the folders that are configured; images of others are as if they were not there. Raises SQLAlchemy's
        errors if it cannot be opened, `ValueError` if a newer version wrote it.
        """
        engine = create_engine(URL.create("sqlite", database=str(path)), connect_args={"timeout": BUSY_S})

        @event.listens_for(engine, "connect")
        def _prepare(connection: Any, _record: Any) -> None:
            # The driver's own transactions would leave out changes of tables.
            connection.isolation_level = None
            connection.execute(f"PRAGMA query_only = {'ON' if read_only else 'OFF'}")

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN")

        catalog = cls(engine, roots, read_only=read_only)
        try:
            if not read_only:
                with catalog._write() as connection:
                    migrate(connection)
                    if read_fact(connection, "catalog_id", None) is None:
                        note_fact(connection, "catalog_id", uuid.uuid4().hex)
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
        if self._facts is None or self._is_read_only:
            with self._engine.connect() as connection:
                self._facts = dict(connection.execute(select(meta.c.key, meta.c.value)).tuples().all())
        return json.loads(self._facts[key]) if key in self._facts else default

    def note(self, key: str, value: Any) -> None:
        """Keep a single fact; durable on return."""
        with self._write() as connection:
            note_fact(connection, key, value)

    @property
    def mark(self) -> int:
        """The journal `seq` up to which labels are projected."""
        return int(self.fact("mark", 0))

    @property
    def pool_stamp(self) -> tuple[int, int]:
        """What changes whenever images or their answers do, and with no other journal line."""
        return int(self.fact("answered", 0)), int(self.fact("pool_version", 0))

    def project(
        self, answers: Mapping[ImageKey, tuple[str | None, str | None, int]], mark: int, *, identity: str
    ) -> None:
        """Take labels and skips in, and move the mark, in one transaction.

        Parameters
        ----------
        answers : image → (species or None, reason of a skip or None, journal seq); both None removes the entry, as does a
            skip that ends by itself: such an image is kept back only while it cannot be read
        """
        kept = [
            {"path": key.path, "species": species, "skip": skip, "seq": seq}
            for key, (species, skip, seq) in answers.items()
            if species is not None or skip in LASTING_SKIPS
        ]
        gone = {key.path for key in answers} - {row["path"] for row in kept}
        with self._write() as connection:
            for part in parts(sorted(gone)):
                connection.execute(labels.delete().where(labels.c.path.in_(part)))
            for part in parts(key.path for key in answers):
                reviewed = and_(images.c.root == POOL, images.c.path.in_(part), images.c.altered_since != "")
                connection.execute(update(images).where(reviewed).values(altered_since=""))
            for rows in parts(kept):
                statement = upsert(labels)
                changed = {c: statement.excluded[c] for c in ("species", "skip", "seq")}
                connection.execute(statement.on_conflict_do_update(index_elements=["path"], set_=changed), rows)
            if answers:
                note_fact(connection, "answered", mark)
            note_fact(connection, "mark", mark)
            note_fact(connection, "identity", identity)

    def add_found(self, root: str, found: Sequence[Found], scan: int) -> Taken:
        """Take in what scan number `scan` saw. One transaction.

        Returns how many images are new or changed, and the files whose content must be read to say whether they changed:
        give these again, with their `content`.
        """
        n_changed, unread = 0, []
        with self._write() as connection:
            for part in parts(found):
                taken = sightings.take_found(connection, root, part, scan)
                n_changed += taken.n_changed
                unread += taken.unread
            if n_changed:
                # What is computed of the whole pool is computed anew once, when the scan ends; this outlives one that fails.
                note_fact(connection, "pool_changed", True)
        return Taken(n_changed, unread)

    def keep_unseen(self, root: str, paths: Sequence[str], scan: int) -> None:
        """Let images and folders (ending in `/`; "" for all) that could not be looked for count as seen."""
        with self._write() as connection:
            for path in paths:
                sightings.keep_unseen(connection, root, path, scan)

    def note_failed_tries(self, root: str, paths: Sequence[str]) -> None:
        """Count one more try of images that still cannot be reached."""
        with self._write() as connection:
            if sightings.note_failed_tries(connection, root, paths):
                _change_pool(connection)

    def end_scan(
        self, scan: int, roots: Sequence[str], facts: Mapping[str, Any], *, elapsed_s: float
    ) -> dict[str, float]:
        """Count what scan number `scan` did not see, and note that it ended. One transaction.

        Parameters
        ----------
        facts : what else is to be remembered of the scan
        elapsed_s : seconds since the scan before

        Returns
        -------
        of each folder that must itself be away, since more than a fifth of its images are: which fraction was not seen
        """
        away = {}
        with self._write() as connection:
            changed = read_fact(connection, "pool_changed", False)
            for root in roots:
                accept = bool(read_fact(connection, ACCEPT_GONE, False))
                fraction, lost = sightings.count_missed(connection, root, scan, elapsed_s, accept=accept)
                changed = changed or lost
                if fraction:
                    away[root] = fraction
            if changed:
                _change_pool(connection)
                note_fact(connection, "pool_changed", False)
            note_fact(connection, ACCEPT_GONE, False)
            note_fact(connection, "scan", scan)
            note_fact(connection, "scanned", True)
            note_fact(connection, "scan_facts", dict(facts))
            note_fact(connection, "scan_ended", time.time())
            note_fact(connection, "away", sorted(away))
        return away

    def give_up(self, keys: Sequence[ImageKey]) -> None:
        """Let pool images count as missing until a scan sees them again. One transaction."""
        with self._write() as connection:
            sightings.give_up(connection, [key.path for key in keys])
            _change_pool(connection)

    def absorb(
        self, shard: str, problems: Mapping[int, tuple[str, str]], hashes: Mapping[int, str] | None = None
    ) -> None:
        """Take in what a shard says of its images: row → why it could not be decoded, row → hash. One transaction."""
        with self._write() as connection:
            sightings.take_problems(connection, problems)
            altered = sightings.take_hashes(connection, hashes or {})
            connection.execute(upsert(absorbed).values(shard=shard).on_conflict_do_nothing())
            if problems or altered:
                _change_pool(connection)

    def quarantine(self, row: int, code: str, text: str, content: str = "") -> None:
        """Note that a row's image, with that hash, cannot be read; durable on return."""
        with self._write() as connection:
            sightings.take_problems(connection, {row: (code, text)})
            sightings.take_hashes(connection, {row: content} if content else {})
            _change_pool(connection)

    def retry_damaged(self) -> int:
        """Let all images that could not be decoded be tried again, as new rows; return how many. One transaction."""
        damaged = and_(images.c.problem != "", images.c.problem.not_in(sightings.TRANSIENT_PROBLEMS))
        with self._write() as connection:
            ids = list(connection.scalars(select(images.c.id).where(damaged)))
            for part in parts(ids):
                sightings.give_new_rows(connection, part)
            if ids:
                _change_pool(connection)
        return len(ids)

    def absorbed_shards(self) -> set[str]:
        """Return the shards whose facts were taken in."""
        if self._absorbed is None or self._is_read_only:
            with self._engine.connect() as connection:
                self._absorbed = set(connection.scalars(select(absorbed.c.shard)))
        return self._absorbed

    def counts(self) -> PoolCounts:
        """Return how many images are where."""
        joined = images.outerjoin(labels, and_(images.c.root == POOL, labels.c.path == images.c.path))
        good, pool = and_(~is_quarantined, is_present), images.c.root == POOL
        unlabelled = and_(good, pool, labels.c.path.is_(None))
        kinds = {
            "train": and_(good, images.c.root == TRAIN),
            "validation": and_(good, images.c.root == VALIDATION),
            "labelled": and_(good, pool, labels.c.species.is_not(None)),
            "skipped": and_(good, pool, labels.c.skip.is_not(None)),
            "unlabelled": and_(unlabelled, images.c.listed),
            "not_listed": and_(unlabelled, ~images.c.listed),
            "quarantined": is_quarantined,
            "missing": ~is_present,
            "altered": images.c.altered_since != "",
        }
        sums = [func.coalesce(func.sum(case((where, 1), else_=0)), 0).label(name) for name, where in kinds.items()]
        with self._engine.connect() as connection:
            return PoolCounts(**connection.execute(select(*sums).select_from(joined)).mappings().one())

    def labelled(self) -> tuple[RowArray, list[str]]:
        """Return the rows that may train, in the order of their key hashes, and their species."""
        # Outer joins make SQLite begin with the labels, of which there are few, rather than with the whole pool.
        image = and_(images.c.root == POOL, images.c.path == labels.c.path, images.c.problem == "", is_present)
        pool = select(items.c.row, images.c.key_hash, labels.c.species).select_from(labels).outerjoin(images, image)
        pool = pool.outerjoin(items, and_(items.c.image == images.c.id, items.c.live)).where(
            labels.c.species.is_not(None)
        )
        train = self._usable(images.c.key_hash, images.c.class_name).where(images.c.root == TRAIN)
        return self._rows_and_text(pool, train)

    def validation(self) -> tuple[RowArray, list[str]]:
        """Return the rows of the validation folder, in the order of their key hashes, and their species."""
        query = self._usable(images.c.key_hash, images.c.class_name)
        return self._rows_and_text(query.where(images.c.root == VALIDATION))

    def _rows_and_text(self, *queries: Select[Any]) -> tuple[RowArray, list[str]]:
        with self._engine.connect() as connection:
            every = ((key, text, row) for query in queries for row, key, text in connection.execute(query))
            found = sorted(entry for entry in every if entry[2] is not None)
        return np.array([row for _, _, row in found], dtype=np.int64), [text for _, text, _ in found]

    def askable(self) -> tuple[RowArray, npt.NDArray[np.uint64]]:
        """Return rows and key hashes of pool images that need an answer and can be shown, in ascending order."""
        answered = select(items.c.row).select_from(labels)
        answered = answered.join(images, and_(images.c.root == POOL, images.c.path == labels.c.path))
        answered = answered.join(items, items.c.image == images.c.id)
        with self._engine.connect() as connection:
            version = read_fact(connection, "pool_version", 0)
            if self._shown is None or self._shown[0] != version:
                self._shown = (version, *self._read_shown(connection))
            _, rows, hashes = self._shown
            is_open = ~np.isin(rows, np.array(list(connection.scalars(answered)), dtype=np.int64))
        return rows[is_open], hashes[is_open]

    def _read_shown(self, connection: Connection) -> tuple[RowArray, npt.NDArray[np.uint64]]:
        query = self._usable(images.c.key_hash).where(images.c.root == POOL, images.c.listed)
        pairs = np.array([tuple(pair) for pair in connection.execute(query)], dtype=np.int64).reshape(-1, 2)
        pairs = pairs[np.argsort(pairs[:, 0])]
        return pairs[:, 0].copy(), pairs[:, 1].copy().view(np.uint64)

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
            for part in parts(wanted):
                joined = query.join(images, images.c.id == items.c.image).where(items.c.row.in_(part))
                for row, root, path, size, mtime_ns in connection.execute(joined):
                    found[row] = Item(row, str(Path(folders[root], *path.split("/"))), size, mtime_ns)
        return [found[row] for row in wanted]

    def keys_of(self, rows: Iterable[int]) -> list[ImageKey]:
        """Return the image keys of pool rows, in the order given."""
        wanted = [int(row) for row in rows]
        found: dict[int, ImageKey] = {}
        with self._engine.connect() as connection:
            for part in parts(wanted):
                query = select(items.c.row, images.c.path).join(images, images.c.id == items.c.image)
                query = query.where(items.c.row.in_(part))
                found |= {row: ImageKey.of(path) for row, path in connection.execute(query)}
        return [found[row] for row in wanted]

    def pool_keys(self, *, listed_only: bool = False, with_missing: bool = False) -> Iterator[ImageKey]:
        """Yield the keys of pool images in order of their path; missing ones only if asked for."""
        query = select(images.c.path).where(images.c.root == POOL)
        if not with_missing:
            query = query.where(is_present)
        if listed_only:
            query = query.where(images.c.listed)
        with self._engine.connect() as connection:
            for path in connection.scalars(query.order_by(images.c.path)):
                yield ImageKey.of(path)

    def unusable(self, keys: Sequence[ImageKey]) -> dict[ImageKey, str]:
        """Return those of the pool images that cannot be asked for now, with the reason."""
        reasons: dict[str, str] = {}
        with self._engine.connect() as connection:
            scanned = read_fact(connection, "scanned", False)
            for part in parts(key.path for key in keys):
                query = select(images.c.path, images.c.missing, is_quarantined)
                query = query.where(images.c.root == POOL, images.c.path.in_(part))
                for path, missing, quarantined in connection.execute(query):
                    reasons[path] = "unreadable" if quarantined else "missing" if missing else ""
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
        query = select(images.c.class_name).where(images.c.class_name != "", images.c.root.in_(self._roots)).distinct()
        with self._engine.connect() as connection:
            return sorted(connection.scalars(query))

    def _usable(self, *columns: Any) -> Select[Any]:
        query = select(items.c.row, *columns).join_from(items, images, images.c.id == items.c.image)
        good = and_(items.c.live, images.c.problem == "", is_present)
        return query.where(good, images.c.root.in_(self._roots))

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        finally:
            self._facts = self._absorbed = None


def _change_pool(connection: Connection) -> None:
    note_fact(connection, "pool_version", read_fact(connection, "pool_version", 0) + 1)
