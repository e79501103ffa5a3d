"""A request around what a strategy wants: a random share, few images of one sequence, no near-copies, and never too few."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camera_trap_al.core.acquisition import HashArray, RowArray, key_priority
from camera_trap_al.core.geometry import Vectors
from camera_trap_al.core.grouping import Mask, first_of_image, is_single, within_cap
from camera_trap_al.core.near_copies import SAMPLE_ROWS, Apart, near_copy_distance
from camera_trap_al.core.order import stratified_order

Places = npt.NDArray[np.intp]
Choose = Callable[[Mask, int], RowArray]
"""Maps which of the rows a strategy may choose from, and how many it shall, to rows, the best first."""
MOST_PASSES = 12
# After the first time a strategy is asked for more than is missing, since some of it will be near-copies again; but not
# where so many are missing that a strategy may take minutes for them.
SURPLUS, MOST_SURPLUS = 8, 1000
# For each image that is missing a strategy is asked for as many rows as its images have, but not for all of a flock.
MOST_CROWD = 10


@dataclass(frozen=True)
class Askable:
    """Rows that can be asked for, ascending.

    Parameters
    ----------
    rows, key_hashes : (n,)
    sequences, folders : (n,) int64 >= 0, of which sequence and folder each is; only which are alike counts
    images : (n,) int64 >= 0, of which image each is, not far above n; None where no two are of one
    """

    rows: RowArray
    key_hashes: HashArray
    sequences: npt.NDArray[np.int64]
    folders: npt.NDArray[np.int64]
    images: npt.NDArray[np.int64] | None = None


def n_random(n: int, share: float, seed: int) -> int:
    """Return how many of n images are to be drawn at random: `share` of them, over many seeds, though n is whole."""
    chance = float(key_priority(np.array([n], dtype=np.uint64), seed)[0]) / 2.0**64
    return int(n * share + chance)


def compose(
    askable: Askable,
    n: int,
    *,
    n_drawn: int,
    per_sequence: int,
    seed: int,
    choose: Choose,
    read: Callable[[RowArray], Vectors] | None = None,
) -> tuple[RowArray, int]:
    """Return a row of each of n images, or of all that there are, and how many of them, the first, were drawn at random.

    The random ones come first into the request: they are drawn from all images, each folder giving its share
    (`stratified_order`), whatever the strategy wants. Then the strategy is asked. Of what it wants, images of which the
    request has `per_sequence` of the same sequence already are left out, and so are near-copies of others in the request;
    it is asked again without these until the request is full. Only when no others are left are near-copies taken after
    all, and then more of each sequence, twice as many each time. An image is never taken twice: where it has several rows,
    the one that the strategy wants first stands for it.

    Equal arguments give an equal request, however rows are cut into blocks. Memory is some arrays over the rows, and the
    embeddings of what is looked at.

    Parameters
    ----------
    n_drawn : how many images to draw at random
    per_sequence : 0 for no cap, and near-copies as well
    choose : of the strategy; never asked for nothing, nor for more than it may choose from
    read : returns the (b, d) embeddings of rows; without it nothing is known to be a near-copy
    """
    draft = _Draft(askable, per_sequence, seed)
    draft.draw(min(n_drawn, n))
    drawn = len(draft.chosen)
    if per_sequence and read is not None and drawn < n:
        draft.keep_apart(read)
    for turn in range(MOST_PASSES):
        wanted = n - len(draft.chosen)
        may = draft.open()
        if wanted <= 0 or not (may.any() or draft.relax()):
            break
        if not may.any():
            continue
        asked = wanted if turn == 0 else max(wanted, min(SURPLUS * wanted, MOST_SURPLUS))
        rows = choose(may, min(asked * draft.crowd, int(np.count_nonzero(may))))
        draft.take(np.searchsorted(askable.rows, rows), wanted)
    draft.draw(n)
    return askable.rows[draft.chosen], drawn


class _Draft:
    """A request in the making: `chosen` holds places in the askable rows."""

    def __init__(self, askable: Askable, cap: int, seed: int) -> None:
        self._askable, self._cap, self._seed = askable, cap, seed
        self._sequences = np.unique(askable.sequences, return_inverse=True)[1].reshape(-1)
        self._of_sequence = np.zeros(int(self._sequences.max(initial=-1)) + 1, dtype=np.int64)
        self._images = None if askable.images is None or is_single(askable.images) else askable.images
        self._firsts = self._first_of(np.arange(len(askable.rows)))
        self._left = np.ones(len(askable.rows), dtype=bool)
        self._refused = np.zeros(len(askable.rows), dtype=bool)
        self._apart: Apart | None = None
        self._read: Callable[[RowArray], Vectors] = lambda rows: np.zeros((len(rows), 0))
        self.chosen: list[int] = []
        self.crowd = _crowd(len(askable.rows), len(self._firsts))

    def open(self) -> Mask:
        """Return which rows may be chosen now."""
        if not self._cap:
            return self._left
        fits: Mask = self._left & (self._of_sequence[self._sequences] < self._cap)
        return fits

    def draw(self, up_to: int) -> None:
        """Draw rows at random until there are so many, or no more."""
        if len(self.chosen) >= up_to:
            return
        hashes, folders = self._askable.key_hashes[self._firsts], self._askable.folders[self._firsts]
        order = self._firsts[stratified_order(hashes, folders, self._seed)]
        while len(self.chosen) < up_to:
            places = order[self.open()[order]]
            places = places[within_cap(self._sequences[places], self._of_sequence, self._cap)]
            self._choose(places[: up_to - len(self.chosen)])
            if not len(places) and not self.relax():
                return

    def keep_apart(self, read: Callable[[RowArray], Vectors]) -> None:
        """From now on leave out near-copies of what is chosen, as told by the distances of a sample of all rows."""
        rows, self._read = self._askable.rows, read
        priority = key_priority(self._askable.key_hashes[self._firsts], self._seed)
        sample = self._firsts[np.sort(np.argsort(priority, kind="stable")[:SAMPLE_ROWS])]
        self._apart = Apart(near_copy_distance(read(rows[sample]), self._sequences[sample]))
        if self.chosen:
            self._apart.add(read(rows[self.chosen]))

    def take(self, places: Places, most: int) -> None:
        """Choose what may be of the rows at these places, the best first."""
        n_rows, places = len(places), self._first_of(places)
        self.crowd = _crowd(n_rows, len(places))
        places = places[within_cap(self._sequences[places], self._of_sequence, self._cap)]
        if self._apart is not None and len(places):
            fits = self._apart.choose(self._read(self._askable.rows[places]))
            self._refused[places[~fits]] = True
            self._left[places[~fits]] = False
            places = places[fits]
        self._choose(places[:most])

    def relax(self) -> bool:
        """Let near-copies in, or more of each sequence; return whether that may help."""
        if self._refused.any():
            self._left |= self._refused
            self._refused[:] = False
            self._apart = None
            return True
        self._apart, self._cap = None, 2 * self._cap
        return bool(self._cap) and bool(self._left.any())

    def _first_of(self, places: Places) -> Places:
        """Return of the rows at these places the first of each image."""
        return places if self._images is None else places[first_of_image(self._images[places])]

    def _choose(self, places: Places) -> None:
        self.chosen += places.tolist()
        if self._images is None:
            self._left[places] = False
        else:
            of_these = np.isin(self._images, self._images[places])
            self._left[of_these] = self._refused[of_these] = False
        np.add.at(self._of_sequence, self._sequences[places], 1)


def _crowd(n_rows: int, n_images: int) -> int:
    """Return how many rows each of some images has, about."""
    return min(MOST_CROWD, max(1, -(-n_rows // max(1, n_images))))
