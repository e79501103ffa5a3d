"""What belongs together: items of one image, images of one sequence, and how many of one sequence may come into a request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain

import numpy as np
import numpy.typing as npt

from camera_trap_al.core.acquisition import HashArray, RowArray

NO_TIME = -1
"""The capture time of an image that has none, or whose file was not read yet."""
_FIRST_TIME = datetime(1970, 1, 1)
LONGEST_GAPS = 15
"""A sequence is cut after as many times `gap_s`: a camera that never rests makes no sequence of hours."""
MOST_IMAGES, MOST_BY_NAME = 50, 10
"""Images of one sequence, by time and by name. Cameras number on from one trigger to the next, so names say less."""
MOST_SPREAD = 4
FEW_ALIKE, COPIED_FROM, COPIED_PER_S = 3, 20, 2
Mask = npt.NDArray[np.bool_]
_LAST_NUMBER = re.compile(r"([0-9]+)[^0-9/]*$")


@dataclass(frozen=True)
class Names:
    """What the paths of images say of their order, in ascending order of rows.

    Parameters
    ----------
    rows, key_hashes : (n,)
    folders : (n,) int64, the index of each image's folder in `folder_names`
    series : (n,) int64, alike where folder and name are alike up to the last number in the name
    numbers : (n,) int64, that number; -1 where there is none
    folder_names : such as `site 1/`; "" for images in no folder
    """

    rows: RowArray
    key_hashes: HashArray
    folders: npt.NDArray[np.int64]
    series: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]
    folder_names: tuple[str, ...]

    @classmethod
    def of(cls, images: Iterable[tuple[int, int, str]]) -> Names:
        """Return those of images given as row, signed key hash and path, in ascending order of rows."""
        folders: dict[str, int] = {}
        series: dict[str, int] = {}

        def facts() -> Iterator[tuple[int, int, int, int, int]]:
            for row, key_hash, path in images:
                slash, dot = path.rfind("/") + 1, path.rfind(".")
                stem = path[:dot] if dot > slash else path
                head = stem.rstrip("0123456789")
                digits = stem[len(head) :]
                if not digits and (found := _LAST_NUMBER.search(stem)):
                    head, digits = stem[: found.start()] + "\0" + stem[found.end(1) :], found[1]
                number = int(digits[-18:]) if digits else -1
                folder = folders.setdefault(path[:slash], len(folders))
                yield row, key_hash, folder, series.setdefault(head, len(series)), number

        numbers = np.fromiter(chain.from_iterable(facts()), dtype=np.int64).reshape(-1, 5)
        rows, hashes, of_folder, of_series, counts = numbers.T.copy()
        return cls(rows, hashes.view(np.uint64), of_folder, of_series, counts, tuple(folders))

    def only(self, places: npt.NDArray[np.intp]) -> Names:
        """Return those at some places."""
        return Names(
            self.rows[places],
            self.key_hashes[places],
            self.folders[places],
            self.series[places],
            self.numbers[places],
            self.folder_names,
        )


def is_single(images: RowArray) -> bool:
    """Return whether no two of some items are of one image; `images` are (n,) int64, of which image each item is."""
    if (images[1:] > images[:-1]).all():
        return True
    return n_images(images) == len(images)


def n_images(images: RowArray) -> int:
    """Return of how many images some items are."""
    return int(np.count_nonzero(_changes(np.sort(images))))


def best_of_image(images: RowArray, top: npt.NDArray[np.floating]) -> npt.NDArray[np.intp]:
    """Return the ascending places of one item for each image: the one whose value in `top` is highest, else the first.

    Parameters
    ----------
    images : (n,) of which image each item is, as for `is_single`
    top : (n,) such as the probability of each item's likeliest class
    """
    if is_single(images):
        return np.arange(len(images))
    order = np.lexsort((-top, images))
    return np.sort(order[_changes(images[order])])


def best_in_order(images: RowArray, top: npt.NDArray[np.floating]) -> npt.NDArray[np.intp]:
    """Return the places of `best_of_image` in the order in which their images come first."""
    best = best_of_image(images, top)
    return best[np.argsort(numbered_from_first(images)[best])]


def first_of_image(images: RowArray) -> Mask:
    """Return which items are the first of their image, in the order given."""
    if is_single(images):
        return np.ones(len(images), dtype=bool)
    is_first = np.zeros(len(images), dtype=bool)
    is_first[np.unique(images, return_index=True)[1]] = True
    return is_first


def numbered_from_first(images: RowArray) -> RowArray:
    """Return of which image each item is, the images numbered from 0 in the order in which they come first."""
    if is_single(images):
        return np.arange(len(images))
    first, of_image = np.unique(images, return_index=True, return_inverse=True)[1:]
    ranks = np.empty(len(first), dtype=np.int64)
    ranks[np.argsort(first)] = np.arange(len(first))
    return ranks[of_image.reshape(-1)]


def local_time(taken: int) -> str:
    """Return a capture time in milliseconds, such as "2026-11-22T10:00:00", or "" where it is not known."""
    return "" if taken == NO_TIME else (_FIRST_TIME + timedelta(seconds=taken // 1000)).isoformat()


def looks_copied(folders: npt.NDArray[np.int64], taken: npt.NDArray[np.int64]) -> Mask:
    """Return of which images the capture times say when a file was copied or edited, rather than when it was taken.

    That is so of a folder where more than half of at least three times are the same, or where at least 20 images come
    faster than two a second from the first to the last. Where such a folder holds nothing but one true burst, the names
    tell the same.

    Parameters
    ----------
    folders : (n,) int64 >= 0, which folder each image lies in; only which are alike counts
    taken : (n,) int64 milliseconds, or `NO_TIME`
    """
    timed = np.flatnonzero(taken != NO_TIME)
    copied = np.zeros(int(folders.max(initial=-1)) + 1, dtype=bool)
    if len(timed) == 0:
        return copied[folders]
    timed = timed[np.lexsort((taken[timed], folders[timed]))]
    folder, time = folders[timed], taken[timed]
    n_of = np.bincount(folder, minlength=len(copied))
    first = np.flatnonzero(_changes(folder))
    last = np.append(first[1:], len(folder)) - 1
    here = folder[first]
    span_s = (time[last] - time[first]) / 1000
    copied[here] = (n_of[here] >= COPIED_FROM) & (n_of[here] > COPIED_PER_S * (span_s + 1))
    runs = np.flatnonzero(_changes(folder) | _changes(time))
    lengths = np.diff(np.append(runs, len(folder)))
    most = (n_of[folder[runs]] >= FEW_ALIKE) & (2 * lengths > n_of[folder[runs]])
    copied[folder[runs][most]] = True
    return copied[folders]


def sequence_numbers(
    names: Names, taken: npt.NDArray[np.int64], *, gap_s: float, images: RowArray | None = None
) -> tuple[npt.NDArray[np.int64], Mask]:
    """Return of which sequence each image is, or each item: those of one image are of one sequence.

    Images of one folder, in the order of their capture times, are of one sequence while each follows the one before in
    less than `gap_s`; a sequence ends after 15 times `gap_s`, or 50 images, whatever follows. Images without a time, and
    those of folders where times look copied, are of one sequence while names differ only by a number that counts up by
    one, at most ten of them.

    Parameters
    ----------
    names : of n images
    taken : (n,) int64, milliseconds since 1970 by the camera's own clock, or `NO_TIME`
    gap_s : seconds; 0 for sequences of one image each
    images : (n,) of which image each item is, as for `is_single`; None where each is an image

    Returns
    -------
    (n,) int64 numbers, alike where images are of one sequence; whether each is grouped by time. Which are alike does not
    depend on the order of the images.

    Source: runs of images less than a minute apart, as `create_sequences` of the MegaDetector package makes them; they end
    after 15 minutes in TrapTagger (WildEye Conservation, "Trigger-source update").
    """
    if images is not None and not is_single(images):
        first, of_image = np.unique(images, return_index=True, return_inverse=True)[1:]
        numbers, by_time = sequence_numbers(names.only(first), taken[first], gap_s=gap_s)
        return numbers[of_image.reshape(-1)], by_time[of_image.reshape(-1)]
    by_time = (taken != NO_TIME) & ~looks_copied(names.folders, taken)
    numbers = np.empty(len(taken), dtype=np.int64)
    gap_ms = round(gap_s * 1000)
    timed, named = np.flatnonzero(by_time), np.flatnonzero(~by_time)
    timed = timed[np.lexsort((names.key_hashes[timed], taken[timed], names.folders[timed]))]
    times = taken[timed]
    begins = _changes(names.folders[timed])
    begins[1:] |= np.diff(times) >= gap_ms
    part = (times - times[_begin_of(begins)]) // max(LONGEST_GAPS * gap_ms, 1)
    begins |= _changes(part)
    begins |= (np.arange(len(timed)) - _begin_of(begins)) % MOST_IMAGES == 0
    numbers[timed] = np.cumsum(begins)
    named = named[np.lexsort((names.key_hashes[named], names.numbers[named], names.series[named]))]
    counts = names.numbers[named]
    begins = _changes(names.series[named]) | (counts < 0)
    begins[1:] |= np.diff(counts) > 1
    begins |= (np.arange(len(named)) - _begin_of(begins)) % (MOST_BY_NAME if gap_ms else 1) == 0
    numbers[named] = len(timed) + np.cumsum(begins)
    return np.unique(numbers, return_inverse=True)[1].astype(np.int64).reshape(-1), by_time


def within_cap(sequences: npt.NDArray[np.int64], chosen: npt.NDArray[np.int64], cap: int) -> Mask:
    """Return which of some images may come into a request, the best first.

    Parameters
    ----------
    sequences : (b,) int64 >= 0, of which sequence each is
    chosen : (m,) int64, how many images of each sequence the request has already
    cap : how many of one sequence it may have; 0 for any number
    """
    if not cap:
        return np.ones(len(sequences), dtype=bool)
    fits: Mask = rank_within(sequences) + chosen[sequences] < cap
    return fits


def rank_within(sequences: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return (b,) how many images before it are of the same sequence as each."""
    order = np.argsort(sequences, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - _begin_of(_changes(sequences[order]))
    return rank


def _changes(values: npt.NDArray[np.int64]) -> Mask:
    """Return where a value differs from the one before; the first one does."""
    changes = np.ones(len(values), dtype=bool)
    changes[1:] = values[1:] != values[:-1]
    return changes


def _begin_of(begins: Mask) -> npt.NDArray[np.int64]:
    """Return for each place the last one up to it where something begins."""
    places: npt.NDArray[np.int64] = np.maximum.accumulate(np.where(begins, np.arange(len(begins)), 0))
    return places


def spread(
    sequences: npt.NDArray[np.int64],
    times: npt.NDArray[np.int64],
    labelled: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    unlabelled: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return which images may take a label of their sequence, where all labels of it agree, and the labels.

    Parameters
    ----------
    sequences, times : (n,) of all images, as for `sequence_numbers`
    labelled, labels : (m,) places of labelled images, and their labels
    unlabelled : (u,) places of images that may take one

    Returns
    -------
    (t,) ascending places, and (t,) labels: of each sequence at most `MOST_SPREAD` times as many images as it has labels,
    those that were taken nearest to the first labelled one
    """
    n = int(sequences.max(initial=-1)) + 1
    least, most = np.full(n, np.iinfo(np.int64).max), np.full(n, -1)
    np.minimum.at(least, sequences[labelled], labels)
    np.maximum.at(most, sequences[labelled], labels)
    count = np.bincount(sequences[labelled], minlength=n)
    takers = unlabelled[least[sequences[unlabelled]] == most[sequences[unlabelled]]]
    first = np.full(n, np.iinfo(np.int64).max)
    np.minimum.at(first, sequences[labelled], times[labelled])
    takers = takers[np.lexsort((takers, np.abs(times[takers] - first[sequences[takers]])))]
    takers = np.sort(takers[rank_within(sequences[takers]) < MOST_SPREAD * count[sequences[takers]]])
    return takers, most[sequences[takers]]
