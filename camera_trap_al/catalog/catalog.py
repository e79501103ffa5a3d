"""Which images there are, and their pool: a projection of the folders and the journal that can be made anew."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import URL, Connection, and_, create_engine, event, func, select
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.engine import Engine

from camera_trap_al.catalog import arrays, captures, detections, sightings
from camera_trap_al.catalog.detections import Cutting, ListedImage
from camera_trap_al.catalog.found import (
    ACCEPT_GONE,
    POOL,
    TRAIN,
    VALIDATION,
    Found,
    PoolCounts,
    RowArray,
    Seen,
)
from camera_trap_al.catalog.ordering import read_in_order
from camera_trap_al.catalog.questions import Questions
from camera_trap_al.catalog.schema import (
    absorbed,
    images,
    items,
    meta,
    migrate,
    note_fact,
    parts,
    read_fact,
)
from camera_trap_al.catalog.sightings import Answer, Taken
from camera_trap_al.core.matching import folded
from camera_trap_al.core.records import ImageKey

BUSY_S = 30


class Catalog(Questions):
    """The catalogue of one work folder.

    One process writes (the daemon); others open it with `read_only`.
    """

    def __init__(
        self,
        engine: Engine,
        roots: Sequence[str],
        *,
        people: Collection[str] = (),
        share_label: bool = True,
        read_only: bool = False,
    ) -> None:
        super().__init__(engine, roots)
        self._people, self._share_label = frozenset(map(folded, people)), share_label
        self._is_read_only = read_only
        self._images: tuple[int, arrays.Images] | None = None
        self._answers: tuple[int, arrays.Answers] | None = None
        self._facts: dict[str, str] | None = None  # each turn of the loop asks for a dozen
        self._absorbed: set[str] | None = None

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        roots: Sequence[str] = (TRAIN, VALIDATION, POOL),
        people: Collection[str] = (),
        share_label: bool = True,
        read_only: bool = False,
    ) -> Catalog:
        """Open the catalogue, making it if it is not there.

        Raises SQLAlchemy's errors if it cannot be opened, `ValueError` if a newer version wrote it.

        Parameters
        ----------
        roots : the folders that are configured; images of others are as if they were not there
        people : classes that show people, which neither train nor measure
        share_label : whether the label of an image is that of each of its crops; else those of several train nothing
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

        catalog = cls(engine, roots, people=people, share_label=share_label, read_only=read_only)
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

    def project(self, answers: Iterable[tuple[ImageKey, Answer]], mark: int, *, identity: str) -> None:
        """Take labels and skips in, and move the mark, in one transaction.

        Parameters
        ----------
        answers : images with species or None, reason of a skip or None, journal seq; both None removes the entry,
            as does a skip that ends by itself: such an image is kept back only while it cannot be read
        """
        with self._write() as connection:
            is_answered = False
            for part in parts(answers):
                is_answered = True
                sightings.take_answers(connection, part)
            if is_answered:
                note_fact(connection, "answered", mark)
            note_fact(connection, "mark", mark)
            note_fact(connection, "identity", identity)

    def add_found(self, root: str, found: Sequence[Found], scan: int, seen: Seen) -> Taken:
        """Take in what scan number `scan` saw, and add the images to `seen`. One transaction.

        Returns how many images are new or changed, and the files whose content must be read to say whether they changed:
        give these again, with their `content`.
        """
        n_changed, unread = 0, []
        with self._write() as connection:
            for part in parts(found):
                taken = sightings.take_found(connection, root, part, scan, seen)
                n_changed += taken.n_changed
                unread += taken.unread
            if n_changed:
                # What is computed of the whole pool is computed anew once, when the scan ends; this outlives one that fails.
                note_fact(connection, "pool_changed", True)
        return Taken(n_changed, unread)

    def keep_unseen(self, root: str, paths: Sequence[str], seen: Seen) -> None:
        """Let images and folders (ending in `/`; "" for all) that could not be looked for count as seen."""
        with self._engine.connect() as connection:
            for path in paths:
                sightings.keep_unseen(connection, root, path, seen)

    def note_failed_tries(self, root: str, paths: Sequence[str]) -> None:
        """Count one more try of images that still cannot be reached."""
        with self._write() as connection:
            if sightings.note_failed_tries(connection, root, paths):
                _change_pool(connection)

    def end_scan(
        self, scan: int, seen: Seen, roots: Sequence[str], facts: Mapping[str, Any], *, elapsed_s: float
    ) -> dict[str, float]:
        """Count what scan number `scan` did not see, and note that it ended. One transaction.

        Parameters
        ----------
        seen : the images that it saw
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
                fraction, lost = sightings.count_missed(connection, root, seen, elapsed_s, accept=accept)
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
        self,
        shard: str,
        problems: Mapping[int, tuple[str, str]],
        hashes: Mapping[int, str] | None = None,
        times: Mapping[int, int] | None = None,
    ) -> None:
        """Take in what a shard says of its images: row → why it could not be decoded, → hash, → time. One transaction."""
        with self._write() as connection:
            sightings.take_problems(connection, problems)
            altered = sightings.take_hashes(connection, hashes or {})
            captures.take_times(connection, times or {})
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

    def forget_shards(self, there: Set[str]) -> None:
        """Forget which shards were taken in that are not there any more: their names may be given again."""
        with self._write() as connection:
            for part in parts(sorted(self.absorbed_shards() - there)):
                connection.execute(absorbed.delete().where(absorbed.c.shard.in_(part)))

    def counts(self) -> PoolCounts:
        """Return how many images are where."""
        with self._engine.connect() as connection:
            return arrays.count(connection, *self._read(connection))

    def labelled(self) -> tuple[RowArray, list[str]]:
        """Return the rows that may train, in the order of their key hashes, and their species."""
        with self._engine.connect() as connection:
            found, answers = self._read(connection)
            return arrays.labelled(
                connection,
                found,
                answers,
                train=TRAIN in self._roots,
                people=self._people,
                share_label=self._share_label,
            )

    def validation(self) -> tuple[RowArray, list[str]]:
        """Return the rows of the validation folder, in the order of their key hashes, and their species."""
        with self._engine.connect() as connection:
            found, _ = self._read(connection)
            return arrays.classified(connection, found, *({VALIDATION} & set(self._roots)), people=self._people)

    def askable(self) -> tuple[RowArray, npt.NDArray[np.uint64]]:
        """Return rows and key hashes of pool images that need an answer and can be shown, in ascending order."""
        with self._engine.connect() as connection:
            return arrays.askable(*self._read(connection), *self._roots)

    def images_of(self, rows: RowArray) -> RowArray:
        """Return the numbers of the images of (b,) rows, also of rows that are no longer live."""
        with self._engine.connect() as connection:
            found, _ = self._read(connection)
        places, there = found.places(rows)
        numbers = np.zeros(len(rows), dtype=np.int64)
        numbers[there] = found.images[places[there]]
        older = self._of_rows(rows[~there], "items.row, items.image")
        numbers[~there] = [image for _, image in older]
        return numbers

    def have_animals(self, rows: RowArray) -> arrays.Mask:
        """Return of which (b,) live rows the detector saw animals in the image."""
        with self._engine.connect() as connection:
            found, _ = self._read(connection)
        places, there = found.places(rows)
        has_animal = np.zeros(len(rows), dtype=bool)
        has_animal[there] = found.have(arrays.HAS_ANIMAL)[places[there]]
        return has_animal

    def take_detections(
        self,
        content: str,
        categories: Sequence[str],
        found: Iterable[ListedImage],
        on_progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        """Know what one file of detections says, with this hash, and no other; `cut` then gives the items."""
        detections.replace_all(self._write, content, categories, found, on_progress)

    def cut(self, cutting: Cutting, on_progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Let the items be those that the detections give; images whose items change get new rows."""
        detections.cut_all(self._write, str(self.fact(detections.DETECTIONS, "")), cutting, on_progress)

    def newest_row(self) -> int:
        """Return the last row that was given to an image, 0 for none."""
        with self._engine.connect() as connection:
            return connection.scalar(select(func.max(items.c.row))) or 0

    def live_rows(self, *roots: str, in_order: bool = True) -> RowArray:
        """Return the rows of readable, present images of these folders, in the order of their key hashes, or in any."""
        with self._engine.connect() as connection:
            found, _ = self._read(connection)
            usable = found.usable(*(root for root in roots if root in self._roots))
            return found.by_hash(usable) if in_order else found.rows[usable]

    def _read(self, connection: Connection) -> tuple[arrays.Images, arrays.Answers]:
        version, answered = read_fact(connection, "pool_version", 0), read_fact(connection, "answered", 0)
        if self._images is None or self._images[0] != version:
            self._images, self._answers = (version, arrays.Images.read(connection)), None
        found = self._images[1]
        if self._answers is None or self._answers[0] != answered:
            self._answers = (answered, arrays.Answers.read(connection, found))
        return found, self._answers[1]

    def in_order(self, seed: int, *roots: str) -> RowArray:
        """Return the rows of `live_rows` in the order in which they are embedded: `stratified_order` by directory."""
        with self._engine.connect() as connection:
            return read_in_order(connection, [root for root in roots if root in self._roots], seed)

    def note_times(self, times: Mapping[int, int]) -> None:
        """Note the capture times, in milliseconds, of rows."""
        with self._write() as connection:
            captures.take_times(connection, times)

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        finally:
            self._facts = self._absorbed = None


def _change_pool(connection: Connection) -> None:
    note_fact(connection, "pool_version", read_fact(connection, "pool_version", 0) + 1)
