"""The decoded cache: images as they were decoded, in packs of up to 256, so that no image is decoded twice.

Disposable: each pack is written whole, and its index and each image carry a checksum, so that what is torn, damaged, or
of another catalogue or size is never used, but decoded again. Nothing is evicted: a pass over a pool that does not fit
would lose each image just before its next use.
"""

from __future__ import annotations

import logging
import os
import struct
import threading
import zlib
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from camera_trap_al.store import atomic

PACK_IMAGES = 256
RESERVED_FRACTION, RESERVED_IMAGES = 0.2, 10_000
MAGIC, MAGIC_WITHOUT_TIMES = b"ctalpix2", b"ctalpix1"
HEAD = struct.Struct("<8s16sIII")
ENTRY_WITHOUT_TIME = np.dtype([("row", "<i8"), ("stamp", "<u8"), ("content", "V16"), ("crc32", "<u4")])
ENTRY = np.dtype([*ENTRY_WITHOUT_TIME.descr, ("taken", "<i8")])
ENTRIES = {MAGIC: ENTRY, MAGIC_WITHOUT_TIMES: ENTRY_WITHOUT_TIME}
PixelArray = npt.NDArray[np.uint8]
RowArray = npt.NDArray[np.int64]
log = logging.getLogger(__name__)


class Kept(NamedTuple):
    """A decoded image: (px, px, 3) uint8 pixels, read-only; hash and capture time of what they were decoded from.

    The time is None where it was not kept, up to 0.4.0.
    """

    pixels: PixelArray
    content: str
    taken: int | None


class _Waiting(NamedTuple):
    """A decoded image that is in no pack yet."""

    kept: Kept
    stamp: int
    crc32: int


@dataclass(frozen=True)
class _Pack:
    path: Path
    entries: npt.NDArray[np.void]

    def start_of(self, slot: int, image_bytes: int) -> int:
        return HEAD.size + self.entries.nbytes + slot * image_bytes


class PixelCache:
    """The decoded images of one catalogue at one size. Any number of threads may call it; one process has it at a time.

    Parameters
    ----------
    folder : of the packs; made when the first one is written
    mark : what the packs must be of: a catalogue, and how images were decoded; others are removed
    px : pixels of a side
    max_bytes : the cache takes no more, and never more than half of what is free on its disk; 0 for no cache
    live : (n,) rows that are of use; packs without any of them are removed
    """

    def __init__(self, folder: Path, mark: str, *, px: int, max_bytes: int, live: RowArray) -> None:
        self.folder, self.px, self.max_bytes = folder, px, max_bytes
        self.n_damaged = self._n_refused = 0
        self._image_bytes = px * px * 3
        self._mark = blake2b(mark.encode("utf-8"), digest_size=16).digest()
        self._packs: dict[int, _Pack] = {}
        self._pack_of = np.zeros(0, dtype=np.int32)
        self._slot_of = np.zeros(0, dtype=np.int16)
        self._n_stored = 0
        self._waiting: dict[int, _Waiting] = {}
        self._filling: list[int] = []
        self._is_writable = max_bytes > 0
        self._lock, self._write_lock = threading.Lock(), threading.Lock()
        # When a pack is full is decided by the clock, so its writing does not count among the failpoints.
        self._writer = ThreadPoolExecutor(1, "cache", initializer=atomic.failpoints.leave_out_this_thread)
        self._writing: Future[None] | None = None
        self._limit = 0
        try:
            self._look(live)
            self._limit = self._affordable()
        except OSError as error:
            self._give_up(error)

    @property
    def n_images(self) -> int:
        """Return how many images it holds, those that wait for a pack included."""
        with self._lock:
            return self._n_stored + len(self._waiting)

    def holds(self, row: int) -> bool:
        """Return whether it holds the image of a row, as far as is known without reading it."""
        with self._lock:
            return row in self._waiting or self._place_of(row) is not None

    def read(self, row: int, stamp: int) -> Kept | None:
        """Return the image of a row, None where there is none that is whole and was kept with this stamp."""
        with self._lock:
            waiting, place = self._waiting.get(row), self._place_of(row)
        if waiting is not None:
            return waiting.kept if waiting.stamp == stamp else None
        if place is None:
            return None
        pack, slot = place
        entry = pack.entries[slot]
        if int(entry["stamp"]) != stamp:
            self._forget(row, pack)
            return None
        pixels = np.empty((self.px, self.px, 3), np.uint8)
        if not _read_into(pixels, pack.path, pack.start_of(slot, self._image_bytes), int(entry["crc32"])):
            self.n_damaged += self._forget(row, pack)
            return None
        pixels.setflags(write=False)
        taken = int(entry["taken"]) if pack.entries.dtype == ENTRY else None
        return Kept(pixels, entry["content"].tobytes().hex(), taken)

    def keep(
        self, row: int, stamp: int, pixels: PixelArray, content: str, *, taken: int = -1, is_labelled: bool = False
    ) -> None:
        """Take in a decoded image, if there is room. It is in a pack, at the latest, when `close` returns.

        Parameters
        ----------
        stamp : in [0, 2⁶⁴); what tells this image from another that would be given the same row
        content : the hash of what was decoded, 32 hexadecimal digits
        taken : its capture time in milliseconds, -1 without one
        is_labelled : it may take the part of the room that the pool leaves free
        """
        checksum, full = zlib.crc32(pixels.data), None
        pixels.setflags(write=False)
        with self._lock:
            known = row in self._waiting or self._place_of(row) is not None
            if known or not self._is_writable:
                return
            if not self._has_room(is_labelled):
                self._n_refused += 1
                return
            self._waiting[row] = _Waiting(Kept(pixels, content, taken), stamp, checksum)
            self._filling.append(row)
            if len(self._filling) == PACK_IMAGES:
                full, self._filling = self._filling, []
        if full is not None:
            self._write_soon(full)

    def close(self) -> None:
        """Write what waits. Nothing is read or kept after that."""
        with self._lock:
            rest, self._filling = self._filling, []
        if rest:
            self._write_soon(rest)
        self._writer.shutdown()
        if self.n_damaged:
            log.warning("cache: %d images in %s were damaged and were decoded again", self.n_damaged, self.folder)
        if self._n_refused:
            log.info(
                "cache: %s is full with %d images; %d more times one was decoded and not kept (cache.max_gb, and half of the"
                " free disk at most; a smaller cache.px holds more)",
                self.folder,
                self.n_images,
                self._n_refused,
            )

    def _look(self, live: RowArray) -> None:
        """Take in the packs that are there; remove those that are of no use."""
        if not self.folder.is_dir():
            return
        for partial in self.folder.glob(".pack-*.partial"):
            atomic.discard_file(partial)
        is_live = np.zeros(int(live.max(initial=-1)) + 2, dtype=bool)
        is_live[live] = True
        n_torn = n_other = 0
        for path in sorted(self.folder.glob("pack-*.bin")):
            pack = _read_index(path, self._mark, self.px)
            if pack is None:
                is_other = _is_of_other(path, self._mark, self.px)
                n_other, n_torn = n_other + is_other, n_torn + (not is_other)
            elif is_live[pack.entries["row"].clip(max=len(is_live) - 1)].any() and self._fits(pack):
                self._take_in(pack)
                continue
            try:
                atomic.discard_file(path)
            except OSError as error:
                self._give_up(error)
        if n_other:
            log.info(
                "cache: %d files in %s are of another catalogue or size; images are decoded anew", n_other, self.folder
            )
        if n_torn:
            log.warning("cache: %d files in %s are damaged; their images are decoded again", n_torn, self.folder)

    def _take_in(self, pack: _Pack) -> None:
        number, rows = len(self._packs), pack.entries["row"]
        self._packs[number] = pack
        self._grow(int(rows.max()) + 1)
        self._pack_of[rows] = number
        self._slot_of[rows] = np.arange(len(rows), dtype=np.int16)
        self._n_stored += len(rows)

    def _fits(self, pack: _Pack) -> bool:
        return (self._n_stored + len(pack.entries)) * self._image_bytes <= self.max_bytes

    def _grow(self, n: int) -> None:
        if n > len(self._pack_of):
            n = max(n, 2 * len(self._pack_of))
            more = n - len(self._pack_of)
            self._pack_of = np.concatenate([self._pack_of, np.full(more, -1, dtype=np.int32)])
            self._slot_of = np.concatenate([self._slot_of, np.zeros(more, dtype=np.int16)])

    def _place_of(self, row: int) -> tuple[_Pack, int] | None:
        if not 0 <= row < len(self._pack_of) or self._pack_of[row] < 0:
            return None
        return self._packs[int(self._pack_of[row])], int(self._slot_of[row])

    def _forget(self, row: int, pack: _Pack) -> bool:
        """Forget an image that cannot be used, so that it is decoded and kept again; return whether this call did."""
        with self._lock:
            place = self._place_of(row)
            is_there = place is not None and place[0] is pack
            if is_there:
                self._pack_of[row] = -1
        return is_there

    def _has_room(self, is_labelled: bool) -> bool:
        n = self._n_stored + len(self._waiting)
        return n < (self._limit // self._image_bytes if is_labelled else pool_room(self._limit, self.px))

    def _affordable(self) -> int:
        """Return how many bytes the cache may take now: half of the disk's free space, what it has already included."""
        taken = self._n_stored * self._image_bytes
        return min(self.max_bytes, (taken + atomic.free_bytes(self.folder)) // 2)

    def _write_soon(self, rows: list[int]) -> None:
        """Write a pack beside the reading, once the one before it is written."""
        with self._write_lock:
            if self._writing is not None:
                self._writing.result()
            self._writing = self._writer.submit(self._write, rows)

    def _write(self, rows: list[int]) -> None:
        with self._lock:
            images = [self._waiting[row] for row in rows]
        entries = np.empty(len(rows), ENTRY)
        for field, values in (
            ("row", rows),
            ("stamp", [image.stamp for image in images]),
            ("content", [np.void(bytes.fromhex(image.kept.content)) for image in images]),
            ("crc32", [image.crc32 for image in images]),
            ("taken", [image.kept.taken for image in images]),
        ):
            entries[field] = values
        pack = _Pack(_next_name(self.folder), entries)
        is_written = self._is_writable and self._write_pack(pack, images)
        with self._lock:
            for row in rows:
                del self._waiting[row]
            if is_written:
                self._take_in(pack)

    def _write_pack(self, pack: _Pack, images: Iterable[_Waiting]) -> bool:
        def write(file: BinaryIO) -> None:
            file.write(_head(self._mark, self.px, pack.entries) + pack.entries.tobytes())
            for image in images:
                file.write(image.kept.pixels.data)

        try:
            atomic.make_folder(self.folder)
            atomic.replace_file(pack.path, write)
            self._limit = min(self._limit, self._affordable())
        except OSError as error:
            self._give_up(error)
            return False
        return True

    def _give_up(self, error: OSError) -> None:
        """Keep nothing more in this life of the cache; said once."""
        with self._lock:
            was_writable, self._is_writable = self._is_writable, False
        if was_writable:
            log.warning(
                "cache: decoded images cannot be kept in %s (%s); work goes on, but images are decoded each time they are"
                " needed. Free some space, or let this user write there; cache.max_gb = 0 switches the cache off.",
                self.folder,
                error.strerror or error,
            )


def pool_room(n_bytes: float, px: int) -> int:
    """Return how many images beside the labelled ones, for which some room is reserved, a cache of so many bytes takes."""
    n = int(n_bytes) // (px * px * 3)
    return n - min(int(n * RESERVED_FRACTION), RESERVED_IMAGES)


def _head(mark: bytes, px: int, entries: npt.NDArray[np.void], magic: bytes = MAGIC) -> bytes:
    checksum = zlib.crc32(entries.tobytes(), zlib.crc32(mark + struct.pack("<II", px, len(entries))))
    return HEAD.pack(magic, mark, px, len(entries), checksum)


def _read_index(path: Path, mark: bytes, px: int) -> _Pack | None:
    """Return a pack by its index, None unless it is of this mark and size and as long as it should be."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD.size)
            entry = ENTRIES.get(head[: len(MAGIC)], ENTRY)
            magic = MAGIC if entry is ENTRY else MAGIC_WITHOUT_TIMES
            n = HEAD.unpack(head)[3] if len(head) == HEAD.size else 0
            index = file.read(n * entry.itemsize) if 0 < n <= PACK_IMAGES else b""
            n_bytes = file.seek(0, os.SEEK_END)
    except OSError:
        return None
    if not index or len(index) != n * entry.itemsize:
        return None
    entries = np.frombuffer(index, entry)
    is_whole = head == _head(mark, px, entries, magic) and n_bytes == HEAD.size + len(index) + n * px * px * 3
    return _Pack(path, entries) if is_whole else None


def _is_of_other(path: Path, mark: bytes, px: int) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(HEAD.size)
    except OSError:
        return False
    if len(head) < HEAD.size or not head.startswith(tuple(ENTRIES)):
        return False
    return HEAD.unpack(head)[1:3] != (mark, px)


def _read_into(pixels: PixelArray, path: Path, start: int, checksum: int) -> bool:
    """Fill an array from a file; return whether that was possible and the bytes are those that were written."""
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            whole = file.readinto(pixels.data.cast("B")) == pixels.nbytes
    except OSError:
        return False
    return whole and zlib.crc32(pixels.data) == checksum


def _next_name(folder: Path) -> Path:
    numbers = [int(path.stem[5:]) for path in folder.glob("pack-*.bin") if path.stem[5:].isdecimal()]
    return folder / f"pack-{max(numbers, default=-1) + 1:06d}.bin"
