"""Embedding shards: up to 4,096 vectors in one `.npy`, with a small `.json` that is renamed last and names their rows.

A learner is a model plus its shards, its scaler and the manifest that makes it current. Shards and manifest say what
they were made by: that very model, for the rows of that very catalogue. Others of the same number are never used.
"""

from __future__ import annotations

import json
import re
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from camera_trap_al.store import atomic, generations

SHARD_ROWS = 4096
OPEN_SHARDS = 16
SCALER = "scaler.npy"
FloatArray = npt.NDArray[np.float32]
RowArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ShardFacts:
    """One shard as its `.json` describes it.

    `problems` maps a row that could not be decoded to (code, text); `hashes` a row whose file could be read, decoded or
    not, to the hash of its content (`images.content_hash`). Shards of 0.1.0 have no hashes.
    """

    name: str
    rows: RowArray
    problems: Mapping[int, tuple[str, str]]
    hashes: Mapping[int, str]


def write_shard(
    folder: Path,
    rows: RowArray,
    vectors: FloatArray,
    problems: Mapping[int, tuple[str, str]],
    made_by: str,
    *,
    hashes: Mapping[int, str] | None = None,
) -> str:
    """Write the next shard of a learner; durable on return. Returns its name.

    Parameters
    ----------
    folder : of the learner, made if it is not there
    rows : (n,) int64, n <= 4,096, none of them in another shard of this learner
    vectors : (n, d) float, zeros where a row is in `problems`; stored as float32
    made_by : as `made_by` returns it
    hashes : of the contents that were decoded, or found damaged
    """
    atomic.make_folder(folder)
    names = shard_names(folder)
    name = f"shard-{int(names[-1][6:]) + 1 if names else 0:06d}"
    data = np.ascontiguousarray(vectors, dtype=np.float32)
    atomic.replace_file(folder / f"{name}.npy", lambda file: np.save(file, data, allow_pickle=False))
    facts = {
        "format": generations.FORMAT,
        "made_by": made_by,
        "rows": rows.tolist(),
        "crc32": f"{zlib.crc32(data.tobytes()):08x}",
        "problems": {str(row): list(problem) for row, problem in problems.items()},
        "hashes": {str(row): digest for row, digest in (hashes or {}).items()},
    }
    atomic.replace_json(folder / f"{name}.json", facts)
    return name


def made_by(models: Path, number: int, catalog_id: str) -> str:
    """Return what shards of model `number` for the rows of this catalogue are marked with, "" without the model."""
    model = generations.identity(generations.folder_of(models, number))
    return f"{model}-{catalog_id[:16]}" if model else ""


def shard_names(folder: Path) -> list[str]:
    """Return the names of the whole shards of a learner, in order."""
    found = folder.glob("shard-*.json") if folder.is_dir() else ()
    return sorted(path.stem for path in found if re.fullmatch(r"shard-\d{6}", path.stem))


def read_shard_facts(folder: Path, name: str) -> ShardFacts:
    """Return what a shard says of itself."""
    facts = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    problems = {int(row): (code, text) for row, (code, text) in facts["problems"].items()}
    hashes = {int(row): str(digest) for row, digest in facts.get("hashes", {}).items()}
    return ShardFacts(name, np.array(facts["rows"], dtype=np.int64), problems, hashes)


def is_foreign(folder: Path, expected: str) -> bool:
    """Return whether anything in a learner's folder was made by another model or for another catalogue."""
    manifest = generations.read_manifest(folder)
    marks = {_marked_by(folder, name) for name in shard_names(folder)}
    if manifest is not None:
        marks.add(manifest.get("made_by"))
    return not expected or bool(marks - {expected})


def _marked_by(folder: Path, name: str) -> str | None:
    try:
        mark = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["made_by"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(mark)


def damaged_shards(folder: Path) -> list[str]:
    """Return the names of shards whose content does not fit their checksum."""
    damaged = []
    for name in shard_names(folder):
        try:
            facts = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
            data = np.load(folder / f"{name}.npy", allow_pickle=False)
            good = len(facts["rows"]) == len(data) and facts["crc32"] == f"{zlib.crc32(data.tobytes()):08x}"
        except (OSError, ValueError, KeyError, TypeError):
            good = False
        if not good:
            damaged.append(name)
    return damaged


def set_damaged_shards_aside(folder: Path) -> list[str]:
    """Rename damaged shards, so that their rows count as uncovered again; return sentences that say so."""
    said = []
    for name in damaged_shards(folder):
        atomic.rename_aside(folder / f"{name}.json", f".bad-{name}.json")
        said.append(f"{folder / name} is damaged and was set aside; its images are embedded again.")
    return said


class Vectors:
    """The embeddings of one learner, read from memory-mapped shards and scaled.

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
        self._shard_of = np.zeros(0, dtype=np.int32)
        self._offset_of = np.zeros(0, dtype=np.int32)
        self._names: list[str] = []
        self._open: OrderedDict[int, FloatArray] = OrderedDict()
        self.unreadable: set[int] = set()
        self.refresh()

    def refresh(self) -> None:
        """Take in shards written since the last look."""
        for name in shard_names(self.folder)[len(self._names) :]:
            if _marked_by(self.folder, name) == self.made_by:
                shard = read_shard_facts(self.folder, name)
                self._grow(int(shard.rows.max(initial=-1)) + 1)
                self._shard_of[shard.rows] = len(self._names)
                self._offset_of[shard.rows] = np.arange(len(shard.rows), dtype=np.int32)
                self.unreadable.update(shard.problems)
            self._names.append(name)

    def covers(self, rows: RowArray) -> npt.NDArray[np.bool_]:
        """Return, for each row, whether a shard holds it (also where its image could not be decoded)."""
        known = rows < len(self._shard_of)
        covered = np.zeros(len(rows), dtype=bool)
        covered[known] = self._shard_of[rows[known]] >= 0
        return covered

    def read(self, rows: RowArray) -> FloatArray:
        """Return the (n, d) scaled float32 vectors of covered rows, in the order given."""
        assert self.covers(rows).all(), "a row without a vector was read"
        shards = self._shard_of[rows]
        out: FloatArray | None = None
        for shard in np.unique(shards):
            here = shards == shard
            vectors = self._shard(int(shard))
            if out is None:
                out = np.empty((len(rows), vectors.shape[1]), dtype=np.float32)
            out[here] = vectors[self._offset_of[rows[here]]]
        if out is None:
            return np.zeros((0, 0), dtype=np.float32)
        return scale(out, self.scaler) if self.scaler is not None else out

    def _shard(self, number: int) -> FloatArray:
        """Return a memory-mapped shard; only a few stay open, since each takes a file handle."""
        if number not in self._open:
            path = self.folder / f"{self._names[number]}.npy"
            self._open[number] = np.load(path, mmap_mode="r", allow_pickle=False)
            if len(self._open) > OPEN_SHARDS:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        return self._open[number]

    def blocks(self, rows: RowArray, size: int = SHARD_ROWS) -> Iterator[tuple[RowArray, FloatArray]]:
        """Yield the rows and their vectors a block at a time."""
        for start in range(0, len(rows), size):
            block = rows[start : start + size]
            yield block, self.read(block)

    def _grow(self, n: int) -> None:
        if n > len(self._shard_of):
            more = np.full(n - len(self._shard_of), -1, dtype=np.int32)
            self._shard_of = np.concatenate([self._shard_of, more])
            self._offset_of = np.concatenate([self._offset_of, np.zeros_like(more)])


def fit_scaler(blocks: Iterator[tuple[RowArray, FloatArray]], *, normalize: bool) -> npt.NDArray[np.float64]:
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
    scaled: FloatArray = ((vectors - scaler[0].astype(np.float32)) / scaler[1].astype(np.float32)).astype(np.float32)
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
