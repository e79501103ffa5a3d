"""The lines of a CSV that has one for every image: all but a few end alike, so they are made once and kept as bytes."""

from __future__ import annotations

import re
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from camera_trap_al.core.records import UNLABELLED, ImageKey
from camera_trap_al.core.seeds import key_hash

LINE_END = b"\r\n"
_FILE = re.compile(rb'"(?:[^"]|"")*",|[^,]*,')
_SPECIAL = frozenset('",\r\n')
BLOCK_LINES = 4096
PlaceArray = npt.NDArray[np.int64]


class PoolLines:
    """Lines `beginning,ending` of images, the beginning being the image's cells; 20 bytes an image beside the text.

    Parameters
    ----------
    header : of the file
    keys : of the images, in the order of their lines
    ending : of the lines of which nothing else is said
    """

    header: str
    ending: str

    def __init__(self, keys: Iterable[ImageKey]) -> None:
        ending = self.ending.encode("utf-8") + LINE_END
        text, ends, hashes = bytearray(), array("q", [0]), array("q")
        for key in keys:
            text += self.beginning(key)
            text += ending
            ends.append(len(text))
            hashes.append(key_hash(key.path))
        self._text, self._ends, self._n_ending = text, np.frombuffer(ends, dtype=np.int64), len(ending)
        unsorted = np.frombuffer(hashes, dtype=np.int64)
        self._order = np.argsort(unsorted, kind="stable").astype(np.int32)
        self._hashes = unsorted[self._order]

    def __len__(self) -> int:
        return len(self._order)

    def beginning(self, key: ImageKey) -> bytes:
        """Return what stands before the ending of an image's line."""
        raise NotImplementedError

    def write(self, file: BinaryIO, keys: Collection[ImageKey], endings: Sequence[str]) -> None:
        """Write header and lines; in those of `keys`, each once, stand their endings, which are cells already."""
        file.write(self.header.encode("utf-8") + LINE_END)
        places, written = self._places_of(keys), 0
        order = np.argsort(places)[np.count_nonzero(places < 0) :]
        with memoryview(self._text) as text:
            for start in range(0, len(order), BLOCK_LINES):
                these, pieces = order[start : start + BLOCK_LINES], list[bytes | memoryview]()
                for i, end in zip(these.tolist(), self._ends[places[these] + 1].tolist(), strict=True):
                    pieces += (text[written : end - self._n_ending], endings[i].encode("utf-8"), LINE_END)
                    written = end
                file.write(b"".join(pieces))
            file.write(text[written:])

    def places(self, hashes: npt.NDArray[np.int64]) -> PlaceArray:
        """Return the places of the lines of images by their key hashes, -1 where there is none."""
        if not len(self):
            return np.full(len(hashes), -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(self._hashes, hashes), len(self) - 1)
        return np.where(self._hashes[at] == hashes, self._order[at], -1).astype(np.int64)

    def beginnings(self, places: PlaceArray) -> Iterator[bytes]:
        """Yield the beginnings of lines by their places."""
        text, starts, ends = self._text, self._ends[places].tolist(), self._ends[places + 1].tolist()
        for start, end in zip(starts, ends, strict=True):
            yield bytes(text[start : end - self._n_ending])

    def _places_of(self, keys: Collection[ImageKey]) -> PlaceArray:
        """Return the places of the lines of images, -1 where there is none; among equal hashes the text decides."""
        left, places = iter(keys), np.empty(0, dtype=np.int64)
        while block := list(islice(left, BLOCK_LINES)):
            hashes = np.array([key_hash(key.path) for key in block], dtype=np.int64)
            firsts, ends = (np.searchsorted(self._hashes, hashes, side).tolist() for side in ("left", "right"))
            found = [self._place(key, first, end) for key, first, end in zip(block, firsts, ends, strict=True)]
            places = np.concatenate([places, np.array(found, dtype=np.int64)])
        return places

    def _place(self, key: ImageKey, first: int, end: int) -> int:
        for place in self._order[first:end].tolist():
            if self._text.startswith(self.beginning(key), *self._ends[place : place + 2].tolist()):
                return int(place)
        return -1


class SelectorLines(PoolLines):
    """Lines `File,RelativePath,Selected`."""

    header, ending = "File,RelativePath,Selected", "false"

    def beginning(self, key: ImageKey) -> bytes:
        return f"{cell(key.file)},{cell(key.relative_path)},".encode()

    def namesakes(self, places: PlaceArray) -> PlaceArray:
        """Return the other lines of which a file with the lines at `places` alone would set the cells too.

        Timelapse takes the line of an image of the top folder for all images of that name that have no line of their own.
        """
        # Only an empty RelativePath leaves two commas at the end: one that ends with a comma is in quotation marks.
        second_last = np.frombuffer(self._text, np.uint8)[self._ends[places + 1] - self._n_ending - 2]
        names = set(map(_file_cell, self.beginnings(places[second_last == ord(",")])))
        if not names:
            return np.empty(0, dtype=np.int64)
        others: PlaceArray = np.setdiff1d(np.arange(len(self), dtype=np.int64), places)
        pairs = zip(others.tolist(), self.beginnings(others), strict=True)
        return np.array([place for place, beginning in pairs if _file_cell(beginning) in names], dtype=np.int64)


class LabelLines(PoolLines):
    """Lines `path,label`."""

    header, ending = "path,label", UNLABELLED

    def beginning(self, key: ImageKey) -> bytes:
        return f"{cell(key.path)},".encode()


def _file_cell(beginning: bytes) -> bytes:
    match = _FILE.match(beginning)
    return match[0] if match else beginning


def cell(text: str) -> str:
    """Return a cell of a CSV, in quotation marks where it needs them."""
    return text if _SPECIAL.isdisjoint(text) else '"' + text.replace('"', '""') + '"'
