"""Embedding shards: up to 4,096 vectors in one `.npy`, with a small `.json` that is renamed last and names their rows.

A shard says what it was made by: that very model, for the rows of that very catalogue.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from camera_trap_al.errors import DivergedError, ModelError
from camera_trap_al.store import atomic, generations

SHARD_ROWS = 4096
SHARD_FILE = re.compile(r"(\.bad-)?(shard-\d{6})\.json")
# Below this a float16 loses digits.
LEAST_HALF = float(np.finfo(np.float16).smallest_normal)
# Of vectors farther apart than this each is read by itself.
SCATTERED = 16
FloatArray = npt.NDArray[np.float32]
RowArray = npt.NDArray[np.int64]
Places = npt.NDArray[np.intp] | slice


@dataclass(frozen=True)
class ShardFacts:
    """One shard as its `.json` describes it.

    `made_by`: as `embeddings.made_by` returns it. `problems` maps a row that could not be decoded to (code, text);
    `hashes` a row whose file could be read, decoded or not, to the hash of its content (`images.content_hash`). Shards of
    0.1.0 have no hashes. `times` maps a row to its capture time; shards up to 0.4.0 have none.
    """

    name: str
    made_by: str
    rows: RowArray
    problems: Mapping[int, tuple[str, str]]
    hashes: Mapping[int, str]
    times: Mapping[int, int]


def write_shard(
    folder: Path,
    rows: RowArray,
    vectors: FloatArray,
    problems: Mapping[int, tuple[str, str]],
    made_by: str,
    *,
    hashes: Mapping[int, str] | None = None,
    times: Mapping[int, int] | None = None,
) -> str:
    """Write the next shard of a learner; durable on return. Returns its name.

    Parameters
    ----------
    folder : of the learner, made if it is not there
    rows : (n,) int64, n <= 4,096, none of them in another shard of this learner
    vectors : (n, d) float, zeros where a row is in `problems`; stored as `stored_as` says
    made_by : as `embeddings.made_by` returns it
    hashes : of the contents that were decoded, or found damaged
    times : capture times, in milliseconds

    Raises
    ------
    DivergedError
        A vector holds something that is no number; nothing was written.
    """
    data = stored_as(np.asarray(vectors))
    if not np.isfinite(data).all():
        bad = rows[~np.isfinite(data).all(axis=1)]
        raise DivergedError(
            f"The network gave something that is no number for {len(bad)} of {len(rows)} images, so nothing of them is kept"
            f" (row {bad[0]} is the first).",
            hint="Set its folder in models aside, so that it is made anew; a smaller train.lr or finetune.lr may help.",
        )
    atomic.make_folder(folder)
    # A name that was set aside is not given again: the catalogue has taken in what the old shard said.
    last = max((int(match[2][6:]) for match in _shard_files(folder)), default=-1)
    name = f"shard-{last + 1:06d}"
    atomic.replace_file(folder / f"{name}.npy", lambda file: np.save(file, data, allow_pickle=False))
    facts = {
        "format": generations.FORMAT,
        "made_by": made_by,
        "rows": rows.tolist(),
        "crc32": _crc32(data),
        "problems": {str(row): list(problem) for row, problem in problems.items()},
        # One text is read several times faster than thousands of entries, and at each start it is read of every shard.
        "contents": ",".join((hashes or {}).get(row, "") for row in rows.tolist()),
        "times": ",".join(str((times or {}).get(row, "")) for row in rows.tolist()),
    }
    facts["facts_crc32"] = _facts_crc32(facts, rows)
    atomic.replace_json(folder / f"{name}.json", facts)
    return name


def stored_as(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Return (n, d) vectors as float16, or float32 if some are too large for that, or most numbers too small."""
    with np.errstate(over="ignore"):
        half = np.ascontiguousarray(vectors, dtype=np.float16)
    too_small = (np.abs(half) < LEAST_HALF) & (vectors != 0)
    fits = np.isfinite(half).all() and 2 * np.count_nonzero(too_small) <= np.count_nonzero(vectors)
    return half if fits else np.ascontiguousarray(vectors, dtype=np.float32)


def widened(half: npt.NDArray[np.float16]) -> FloatArray:
    """Return finite float16 numbers as float32, the very same; twice as fast as numpy, which does it one by one.

    The sign and the other 15 bits go to their places in a float32, whose exponent then is too small by 112.
    """
    bits = half.view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= -0x70000001
    numbers = bits.view(np.float32)
    numbers *= np.float32(2.0**112)
    return numbers


def _crc32(array: npt.NDArray[Any]) -> str:
    return f"{zlib.crc32(np.ascontiguousarray(array).data):08x}"


def _facts_crc32(facts: Mapping[str, Any], rows: RowArray) -> str:
    names = ("made_by", "crc32", "problems", "contents", *(["times"] if "times" in facts else []))
    said = json.dumps([facts.get(name) for name in names])
    return f"{zlib.crc32(said.encode('ascii'), zlib.crc32(rows.data)):08x}"


def _shard_files(folder: Path) -> list[re.Match[str]]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as listing:
        return [match for entry in listing if (match := SHARD_FILE.match(entry.name))]


def shard_names(folder: Path) -> list[str]:
    """Return the names of the whole shards of a learner, in order."""
    return sorted(match[2] for match in _shard_files(folder) if match[0] == match.string and not match[1])


def read_facts(folder: Path, name: str) -> dict[str, Any]:
    """Return what a shard's `.json` holds, its rows as an array; {} if it is damaged or gone.

    Raises `OSError` where the disk does not answer.
    """
    try:
        facts = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        facts["rows"] = np.array(facts["rows"], dtype=np.int64)
        good = {"made_by", "crc32", "problems"} <= facts.keys()
        good = good and facts.get("facts_crc32") in (None, _facts_crc32(facts, facts["rows"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError, OverflowError, AttributeError):
        return {}
    return facts if good else {}


def read_shard_facts(folder: Path, name: str) -> ShardFacts:
    """Return what a shard says of itself. Raises `ModelError` if its `.json` is damaged, `OSError` as `read_facts` does."""
    facts = read_facts(folder, name)
    if not facts:
        raise ModelError(f"{folder / name}.json is damaged.", hint="Its images are embedded again. Is the disk sound?")
    problems = {int(row): (code, text) for row, (code, text) in facts["problems"].items()}
    each = zip(facts["rows"].tolist(), facts.get("contents", "").split(","), strict=False)
    # Up to 0.3.0 they were entries of their own.
    hashes = {int(row): str(digest) for row, digest in facts.get("hashes", {}).items()}
    hashes |= {row: digest for row, digest in each if digest}
    of_each = zip(facts["rows"].tolist(), facts.get("times", "").split(","), strict=False)
    times = {row: int(time) for row, time in of_each if time}
    return ShardFacts(name, str(facts["made_by"]), facts["rows"], problems, hashes, times)


class Glance(NamedTuple):
    """What the files of a shard say without its vectors: `made_by` is "" where they are damaged, `newest_row` 0 then."""

    name: str
    made_by: str
    newest_row: int
    is_whole: bool


def glance(folder: Path, *, verify: bool = False) -> list[Glance]:
    """Look at all shards of a learner, in order: each `.json` is read, and the size of the vectors compared with it.

    With `verify` all vectors are read, and compared with their checksums.
    """
    return [_glance_at(folder, name, verify) for name in shard_names(folder)]


def _glance_at(folder: Path, name: str, verify: bool) -> Glance:
    facts: dict[str, Any] = {}
    try:
        facts = read_facts(folder, name)
        stored = Stored.of(folder, name, len(facts["rows"])) if facts else None
        is_whole = stored is not None and (not verify or stored.fits(facts["crc32"]))
    except OSError:
        is_whole = False
    newest_row = int(facts["rows"].max(initial=0)) if facts else 0
    return Glance(name, str(facts.get("made_by", "")), newest_row, is_whole)


def is_foreign(
    folder: Path, expected: str, newest_row: float = float("inf"), *, seen: Iterable[Glance] | None = None
) -> bool:
    """Return whether anything in a learner's folder was made by another model or for another catalogue.

    Rows after `newest_row` were given by a catalogue that was replaced by an older copy, which gives them to other images.
    `seen` is what `glance` returned, if that is known.
    """
    manifest = generations.read_manifest(folder)
    shards = glance(folder) if seen is None else seen
    marks = {"a newer catalogue" if shard.newest_row > newest_row else shard.made_by for shard in shards} - {""}
    if manifest is not None:
        marks.add(str(manifest.get("made_by")))
    return not expected or bool(marks - {expected})


@dataclass(frozen=True)
class Stored:
    """Where the (n, d) vectors of a shard lie: in `path` from byte `offset` on.

    They are read, not memory-mapped: the system ends a process that touches a map of a file which was cut short since, or
    whose disk went away, and Windows lets nobody remove a file that is mapped.
    """

    path: Path
    shape: tuple[int, int]
    dtype: np.dtype[np.floating]
    offset: int

    @classmethod
    def of(cls, folder: Path, name: str, n_rows: int) -> Stored | None:
        """Return where the vectors of a shard of so many rows lie; None if the file is gone, cut short or of another form.

        Raises `OSError` where the disk does not answer.
        """
        path = folder / f"{name}.npy"
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        except (FileNotFoundError, ValueError, EOFError):
            return None
        fits = found.ndim == 2 and found.dtype in (np.float16, np.float32) and len(found) == n_rows
        return cls(path, found.shape, found.dtype, found.offset) if fits and found.flags.c_contiguous else None

    def fits(self, crc32: str) -> bool:
        """Return whether all vectors together have this checksum."""
        every = self.read(slice(0, self.shape[0]))
        return every is not None and crc32 == _crc32(every)

    def read(self, places: Places) -> npt.NDArray[np.floating] | None:
        """Return the (b, d) vectors at b > 0 places; None if the file is gone or ends before. Raises `OSError`."""
        try:
            if isinstance(places, slice):
                return self._read_range(places.start, places.stop)
            first, last = int(places.min()), int(places.max()) + 1
            if last - first <= SCATTERED * len(places):
                within = self._read_range(first, last)
                return None if within is None else within[places - first]
            return self._read_each(places)
        except FileNotFoundError:
            return None

    def _read_range(self, first: int, last: int) -> npt.NDArray[np.floating] | None:
        n = (last - first) * self.shape[1]
        found = np.fromfile(self.path, self.dtype, n, offset=self.offset + first * self._row_bytes)
        return found.reshape(-1, self.shape[1]) if len(found) == n else None

    def _read_each(self, places: npt.NDArray[np.intp]) -> npt.NDArray[np.floating] | None:
        found = np.empty((len(places), self.shape[1]), dtype=self.dtype)
        with self.path.open("rb") as file:
            for vector, place in zip(found, places.tolist(), strict=True):
                file.seek(self.offset + place * self._row_bytes)
                if file.readinto(vector.data) != self._row_bytes:
                    return None
        return found

    @property
    def _row_bytes(self) -> int:
        return self.shape[1] * self.dtype.itemsize


def damaged_shards(folder: Path) -> list[str]:
    """Return the names of damaged shards: cut short, or of another content than their checksum's. Reads all vectors."""
    return [shard.name for shard in glance(folder, verify=True) if not shard.is_whole]


def set_damaged_shards_aside(folder: Path, *, seen: Iterable[Glance] | None = None) -> list[str]:
    """Rename damaged shards, so that their rows count as uncovered again; return sentences that say so.

    With `seen`, which `glance` returned, only those that are not whole: `Vectors` verifies each one whose vectors it reads.
    """
    said = []
    for shard in glance(folder, verify=True) if seen is None else seen:
        if not shard.is_whole:
            set_aside(folder, shard.name)
            said.append(f"{folder / shard.name} is damaged and was set aside; its images are embedded again.")
    return said


def set_aside(folder: Path, name: str) -> None:
    """Rename a shard's `.json`, so that its rows count as uncovered again; another process may have done it by now."""
    if name in shard_names(folder):
        atomic.rename_aside(folder / f"{name}.json", f".bad-{name}.json")
