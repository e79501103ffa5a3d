"""The sequences of a work folder's images, computed once for each change, and requests that hold few images of each."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from camera_trap_al.catalog.captures import TAKEN
from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.core.composition import Askable, compose, n_random
from camera_trap_al.core.grouping import NO_TIME, Mask, Names, first_of_image, rank_within, sequence_numbers
from camera_trap_al.pool import WorkPool
from camera_trap_al.strategies import UNIFORM, strategies
from camera_trap_al.work import Work

RowArray = npt.NDArray[np.int64]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sequences:
    """Of which sequence and folder each image to label is, or each item of one.

    Parameters
    ----------
    names : of n items, in ascending order of rows
    times : (n,) capture times in milliseconds, or `NO_TIME`
    numbers : (n,) of the sequences
    by_time : (n,) whether the capture time said so
    """

    names: Names
    times: RowArray
    numbers: RowArray
    by_time: Mask

    def places(self, rows: RowArray) -> tuple[RowArray, Mask]:
        """Return where rows stand in these arrays, and which are there at all; places of others mean nothing."""
        known = self.names.rows
        places = np.minimum(np.searchsorted(known, rows), max(len(known) - 1, 0))
        return places, known[places] == rows if len(known) else np.zeros(len(rows), dtype=bool)

    def of(self, rows: RowArray) -> tuple[RowArray, RowArray]:
        """Return sequences and folders of rows; those that a scan under way has replaced are by themselves."""
        places, there = self.places(rows)
        if not len(self.numbers):
            return np.arange(len(rows)), np.zeros(len(rows), dtype=np.int64)
        by_itself = int(self.numbers.max()) + 1 + np.arange(len(rows))
        return np.where(there, self.numbers[places], by_itself), np.where(there, self.names.folders[places], 0)

    def groups(self, rows: RowArray) -> RowArray:
        """Return (n, 2) numbers of what belongs together: by folder, by sequence. Other images than these are by themselves."""
        sequences, folders = self.of(rows)
        by_itself = int(folders.max(initial=0)) + 1 + np.arange(len(rows))
        return np.stack([np.where(self.places(rows)[1], folders, by_itself), sequences], axis=1)


def sequences_in(catalog: Catalog, gap_s: float, names: Names | None = None) -> Sequences:
    """Return the sequences of all images to label, by what a catalogue knows of them; `names` are its `names()`."""
    names = catalog.names() if names is None else names
    times = catalog.times(names.rows)
    images = catalog.images_of(names.rows)
    return Sequences(names, times, *sequence_numbers(names, times, gap_s=gap_s, images=images))


def sequences_of(work: Work) -> Sequences:
    """Return the sequences of all images to label, by what is known of them now."""
    version, gap_s = work.catalog.fact("pool_version", 0), work.config.sequences.gap_s
    names = work.cached("names", version, work.catalog.names)
    stamp = (version, work.catalog.fact(TAKEN, 0), gap_s)
    return work.cached("sequences", stamp, lambda: sequences_in(work.catalog, gap_s, names))


def compose_request(work: Work, pool: WorkPool, name: str, n: int, seed: int) -> tuple[RowArray, int]:
    """Return a row of each of n images to ask for, and how many of them, the first ones, were drawn at random.

    With the strategy `uniform` all are. Raises `StopRequested`, and what the strategy raises.
    """
    part, found, images = work.config.query, sequences_of(work), work.catalog.images_of(pool.rows)
    sequences, folders = found.of(pool.rows)
    if part.per_sequence:
        _say_how(work, found, pool.rows[first_of_image(images)])
    askable = Askable(pool.rows, pool.key_hashes, sequences, folders, images)
    vectors = pool.vectors
    return compose(
        askable,
        n,
        n_drawn=n if name == UNIFORM else n_random(n, part.random_share, seed),
        per_sequence=part.per_sequence,
        seed=seed,
        choose=lambda may, wanted: strategies[name].query(pool.only(may), wanted, seed),
        read=None if vectors is None else vectors.read,
    )


def in_turns(work: Work, rows: RowArray) -> RowArray:
    """Return rows in such an order that each sequence has its turn before any has another; else as they were."""
    cap = work.config.query.per_sequence
    if not cap:
        return rows
    return rows[np.argsort(rank_within(sequences_of(work).of(rows)[0]) // min(cap, len(rows) + 1), kind="stable")]


class Crowd:
    """Images taken shortly after one another, told as they are decoded: before that, only names are known.

    Parameters
    ----------
    most : how many of them there is room for; 0 for any number
    gap_s : as `sequences.gap_s`
    """

    def __init__(self, most: int, gap_s: float) -> None:
        self._most, self._gap_ms = most, gap_s * 1000
        self._times: dict[str, list[int]] = {}

    def has_room(self, path: str, taken: int) -> bool:
        """Return whether there is room for an image; it takes it."""
        if not self._most or taken == NO_TIME:
            return True
        times = self._times.setdefault(os.path.dirname(path), [])  # noqa: PTH120 - of the system's own separator
        if sum(abs(taken - other) < self._gap_ms for other in times) >= self._most:
            return False
        times.append(taken)
        return True


def _say_how(work: Work, found: Sequences, rows: RowArray) -> None:
    """Say, once, of which of the askable rows the capture times say nothing."""
    places, there = found.places(rows)
    places = places[there]
    is_timed = found.times[places] != NO_TIME
    untimed, copied = places[~is_timed], places[is_timed & ~found.by_time[places]]
    for what, which in (("no capture time", untimed), ("a capture time that looks copied", copied)):
        if len(which):
            folder = found.names.folder_names[int(found.names.folders[which].min())] or "the folder of images itself"
            text = f"{len(which)} images have {what}, such as those in {folder}; their names say what belongs together"
            work.cached(
                f"said: {what}",
                True,
                partial(log.info, "sequences: %s", text),
            )
