"""The embeddings of a learner: its shards, read as one array; its scaler; the manifest that makes it current.

Shards and manifest say what they were made by: that very model, for the rows of that very catalogue. Others of the same
number are never used.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from camera_trap_al.errors import ModelError
from camera_trap_al.store import atomic, generations, shards
from camera_trap_al.store.shards import SHARD_ROWS, FloatArray, Places, RowArray, Stored

SCALER = "scaler.npy"


def made_by(models: Path, number: int, catalog_id: str) -> str:
    """Return what shards of model `number` for the rows of this catalogue are marked with, "" without the model."""
    model = generations.identity(generations.folder_of(models, number))
    return f"{model}-{catalog_id[:16]}" if model else ""


def is_of_catalog(mark: str, catalog_id: str) -> bool:
    """Return whether what `made_by` returned is for the rows of this catalogue."""
    return mark.endswith(f"-{catalog_id[:16]}")


@dataclass
class _Shard:
    name: str
    rows: npt.NDArray[np.int32]
    n_rows: int
    crc32: str
    stored: Stored | None = None  # once it is verified


class Vectors:
    """The embeddings of one learner, read from its shards and scaled. Threads may read at the same time.

    A shard is verified when it is first read. If it is damaged, all damaged ones are set aside, so that their rows count
    as uncovered and are embedded again, and the reader gets a `ModelError`.

    Parameters
    ----------
    folder : of the learner
    made_by : shards with another mark are passed over
    scaler : (2, d) float64, minimum and range of each dimension, or None for raw vectors
    """

    def __init__(self, folder: Path, made_by: str, scaler: npt.NDArray[np.float64] | None = None) -> None:
        self.folder = folder
        self.made_by = made_by
        self.scaler = scaler
        self.changes = 0
        # Of each row, SHARD_ROWS times the number of its shard plus its place there; -1 where there is none.
        self._place_of = np.zeros(0, dtype=np.int64)
        self._shards: list[_Shard] = []
        self._number_of: dict[str, int] = {}
        self._lock = threading.Lock()
        self.unreadable: set[int] = set()
        self.refresh()

    def refresh(self) -> None:
        """Take in shards written since the last look, and let go of those set aside; `changes` counts both."""
        names = shards.shard_names(self.folder)
        for name in self._number_of.keys() - set(names):
            self._let_go(self._number_of.pop(name))
        for name in names:
            if name not in self._number_of:
                self._take_in(name)

    def _take_in(self, name: str) -> None:
        try:
            facts, number = shards.read_facts(self.folder, name), len(self._shards)
        except OSError:
            return  # a disk that stumbles: looked at again next time
        rows = facts["rows"] if facts and facts["made_by"] == self.made_by else np.zeros(0, np.int64)
        self._number_of[name] = number
        self._shards.append(_Shard(name, rows.astype(np.int32), len(rows), str(facts.get("crc32"))))
        self._grow(int(rows.max(initial=-1)) + 1)
        self._place_of[rows] = number * SHARD_ROWS + np.arange(len(rows))
        if len(rows):
            self.unreadable.update(int(row) for row in facts["problems"])
            self.changes += 1

    def _let_go(self, number: int) -> None:
        rows = self._shards[number].rows
        self._place_of[rows[self._place_of[rows] // SHARD_ROWS == number]] = -1
        self.unreadable.difference_update(rows.tolist())
        self._shards[number].rows = rows[:0]
        self.changes += 1

    def covers(self, rows: RowArray) -> npt.NDArray[np.bool_]:
        """Return, for each row, whether a shard holds it (also where its image could not be decoded)."""
        known = rows < len(self._place_of)
        if known.all():
            return self._place_of[rows] >= 0
        covered = np.zeros(len(rows), dtype=bool)
        covered[known] = self._place_of[rows[known]] >= 0
        return covered

    def usable(self, rows: RowArray) -> npt.NDArray[np.bool_]:
        """Return, for each row, whether a shard holds a vector of it, its image being one that could be decoded."""
        return self.covers(rows) & ~np.isin(rows, list(self.unreadable))

    def read(self, rows: RowArray) -> FloatArray:
        """Return the (n, d) scaled float32 vectors of covered rows, in the order given. Raises `ModelError`."""
        assert self.covers(rows).all(), "a row without a vector was read"
        places = self._place_of[rows]
        order = np.argsort(places, kind="stable")
        numbers, starts = np.unique(places[order] // SHARD_ROWS, return_index=True)
        out: FloatArray = np.zeros((0, 0), dtype=np.float32)
        for number, here in zip(numbers.tolist(), np.split(order, starts)[1:], strict=True):
            vectors = self._load(number, places[here] % SHARD_ROWS)
            out = out if len(out) else np.empty((len(rows), vectors.shape[1]), dtype=np.float32)
            out[here] = vectors
        return out

    def pieces(self, rows: RowArray) -> Iterator[tuple[Places, Callable[[], FloatArray]]]:
        """Yield, for each shard that holds any of these different, covered rows, their places and how to read them.

        Places are those in `rows`, a slice where they follow each other. Reading returns their (b, d) scaled float32
        vectors, or raises `ModelError`; it may be done in another thread.
        """
        assert self.covers(rows).all(), "a row without a vector was read"
        asked = np.full(len(self._place_of), -1, dtype=np.int64)
        asked[rows] = np.arange(len(rows))
        for number, shard in enumerate(list(self._shards)):
            places = asked[shard.rows]
            there = np.flatnonzero(places >= 0)
            if len(there):
                yield as_slice(places[there]), partial(self._load, number, as_slice(there))
                asked[shard.rows] = -1

    def blocks(self, rows: RowArray) -> Iterator[tuple[Places, FloatArray]]:
        """Yield the places in `rows` and the vectors of a shard at a time, as `pieces` does."""
        for places, load in self.pieces(rows):
            yield places, load()

    def _load(self, number: int, places: Places) -> FloatArray:
        part = self._read_verified(self._shards[number], places)
        vectors = shards.widened(part) if part.dtype == np.float16 else np.array(part, dtype=np.float32)
        return scale(vectors, self.scaler) if self.scaler is not None else vectors

    def _read_verified(self, shard: _Shard, places: Places) -> npt.NDArray[np.floating]:
        if shard.stored is None:
            stored = Stored.of(self.folder, shard.name, shard.n_rows)
            is_other = stored is None or self.scaler is not None and stored.shape[1] != self.scaler.shape[1]
            if stored is None or is_other or not stored.fits(shard.crc32):
                raise self._damaged(shard)
            shard.stored = stored
        found = shard.stored.read(places)
        if found is None:
            raise self._damaged(shard)
        return found

    def _damaged(self, shard: _Shard) -> ModelError:
        with self._lock:
            shards.set_aside(self.folder, shard.name)
            n = 1 + len(shards.set_damaged_shards_aside(self.folder))
            self.refresh()
        return ModelError(
            f"{n} files of vectors in {self.folder} are damaged, {shard.name} is the first; they were set aside.",
            hint="Their images are embedded again. Is the disk sound?",
        )

    def _grow(self, n: int) -> None:
        if n > len(self._place_of):
            more = np.full(max(n, len(self._place_of) * 5 // 4) - len(self._place_of), -1, dtype=np.int64)
            self._place_of = np.concatenate([self._place_of, more])


def as_slice(places: npt.NDArray[np.intp]) -> Places:
    """Return (n,) places, n > 0, as a slice if they follow each other."""
    first, last = int(places[0]), int(places[-1])
    follow = last - first == len(places) - 1 and bool((np.diff(places) == 1).all())
    return slice(first, last + 1) if follow else places


def fit_scaler(blocks: Iterable[tuple[Places, FloatArray]], *, normalize: bool) -> npt.NDArray[np.float64]:
    """Return the (2, d) minimum and range over blocks of raw vectors; with `normalize` off, zeros and ones."""
    low: npt.NDArray[np.float64] | None = None
    high: npt.NDArray[np.float64] | None = None
    for _, vectors in blocks:
        if len(vectors):
            block = vectors.astype(np.float64)
            low = block.min(axis=0) if low is None else np.minimum(low, block.min(axis=0))
            high = block.max(axis=0) if high is None else np.maximum(high, block.max(axis=0))
    assert low is not None and high is not None, "a scaler needs at least one vector"
    spread = np.where(high > low, high - low, 1.0)
    return np.stack([low, spread]) if normalize else np.stack([np.zeros_like(low), np.ones_like(low)])


def scale(vectors: FloatArray, scaler: npt.NDArray[np.float64]) -> FloatArray:
    """Return (x - minimum) / range as float32."""
    scaled: FloatArray = (vectors - scaler[0].astype(np.float32)).astype(np.float32, copy=False)
    scaled /= scaler[1].astype(np.float32)
    return scaled


def commit_learner(folder: Path, scaler: npt.NDArray[np.float64], facts: Mapping[str, Any]) -> None:
    """Write scaler and manifest, which makes the learner current (or keeps it back); durable on return.

    The manifest covers the scaler only: shards carry their own checksums and go on growing.
    """
    atomic.replace_file(folder / SCALER, lambda file: np.save(file, scaler, allow_pickle=False))
    noted = {"bytes": (folder / SCALER).stat().st_size, "sha256": generations.file_sha256(folder / SCALER)}
    atomic.replace_json(
        folder / generations.MANIFEST, {"format": generations.FORMAT, "files": {SCALER: noted}, **facts}
    )


def read_scaler(folder: Path) -> npt.NDArray[np.float64]:
    """Return the (2, d) scaler of a learner."""
    scaler: npt.NDArray[np.float64] = np.load(folder / SCALER, allow_pickle=False)
    return scaler


def current_learner(embedding: Path, models: Path, catalog_id: str) -> generations.Generation | None:
    """Return the newest learner that is whole, not kept back, and of that very model and catalogue."""
    for number in generations.numbers(embedding):
        folder = generations.folder_of(embedding, number)
        manifest = generations.read_manifest(folder)
        expected = made_by(models, number, catalog_id)
        if manifest is not None and not manifest.get("kept_back") and expected and manifest.get("made_by") == expected:
            return generations.Generation(number, folder, manifest)
    return None


def candidate(embedding: Path, models: Path, catalog_id: str) -> generations.Generation | None:
    """Return the newest model that is neither current nor kept back nor older than the current one, if there is one."""
    for number in generations.numbers(models):
        model = generations.read_manifest(generations.folder_of(models, number))
        if model is None:
            continue
        learner = generations.read_manifest(generations.folder_of(embedding, number))
        is_whole = learner is not None and learner.get("made_by") == made_by(models, number, catalog_id)
        if is_whole and learner is not None and learner.get("kept_back"):
            continue
        return None if is_whole else generations.Generation(number, generations.folder_of(models, number), model)
    return None
