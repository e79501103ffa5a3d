"""How the images of a work folder are read: from the decoded cache or their files; limits; is a file or a folder away."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.catalog.found import POOL, TRAIN, VALIDATION
from camera_trap_al.config import Config
from camera_trap_al.core.records import Item
from camera_trap_al.engine import Decoded, shared
from camera_trap_al.errors import ImagesOfflineError, ImageUnreadableError
from camera_trap_al.images import IMAGE_PX, NO_TIME, OVERSAMPLING, DecodeLimits, read_capture_time
from camera_trap_al.layout import WorkFolder
from camera_trap_al.learn.data import answers
from camera_trap_al.store.pixels import PixelArray, PixelCache
from camera_trap_al.work import is_online

GB = 1_000_000_000


def decode_limits(config: Config) -> DecodeLimits:
    """Return what `[images]` of a configuration refuses."""
    part = config.images
    return DecodeLimits(part.max_pixels, part.max_side, allow_truncated=part.allow_truncated)


def open_cache(folder: WorkFolder, config: Config, catalog: Catalog) -> PixelCache:
    """Return the decoded cache of a work folder, without what is of no more use in it."""
    # Without `allow_truncated`, what was decoded of a damaged image while it was on is not used.
    how = f"{'truncated' if config.images.allow_truncated else 'whole'} {OVERSAMPLING}"
    mark = f"{catalog.fact('catalog_id')} {how}"
    live = catalog.live_rows(TRAIN, VALIDATION, POOL)
    return PixelCache(folder.cache, mark, px=config.cache.px, max_bytes=int(config.cache.max_gb * GB), live=live)


class ImageReader:
    """Gives the pixels of items, and remembers the hashes of their contents and their capture times until these are taken.

    Items are read from the decoded cache, or decoded in child processes and then kept there.

    Parameters
    ----------
    folders : the folders of images, by kind
    known_top : top-level entries of the image root, as of the last scan
    px : side to which images are decoded; from fewer than 256 pixels they are enlarged, cached or not
    cache : of images of this side, or None to decode each time
    labelled : rows for which the cache reserves some of its room
    """

    def __init__(
        self,
        config: Config,
        folders: Mapping[str, str],
        known_top: Sequence[str],
        *,
        px: int = IMAGE_PX,
        cache: PixelCache | None = None,
        labelled: Sequence[int] | np.ndarray = (),
    ) -> None:
        self._decoders = shared(decode_limits(config), config.images.processes)
        self._folders, self._known_top = folders, list(known_top)
        self._padding = config.items.padding
        self._px, self._cache, self._labelled = px, cache, frozenset(int(row) for row in labelled)
        self._hashes: dict[int, str] = {}
        self._times: dict[int, int] = {}
        self._lock = threading.Lock()

    def __call__(self, item: Item) -> np.ndarray:
        """Return the (256, 256, 3) uint8 pixels of an item; they may be read-only.

        Raises
        ------
        ImageUnreadableError
            `missing` for a file that is gone, or fails to be read, while its folder of images is there.
        PermissionError, ImagesOfflineError
        """
        stamp = stamp_of(item, self._folders.values())
        if self._cache is not None and (kept := self._cache.read(item.row, stamp)) is not None:
            # Up to 0.4.0 the cache kept none.
            self._note(item, kept.content, read_capture_time(item.path) if kept.taken is None else kept.taken)
            return enlarged(kept.pixels)
        try:
            decoded = self._read(item)
        except ImageUnreadableError as error:
            self._note(item, error.content, NO_TIME)
            raise
        except PermissionError:
            raise
        except OSError as error:
            if self._is_away(Path(item.path)):
                raise ImagesOfflineError(
                    f"The folder of {item.path} does not answer ({error.strerror}).",
                    hint="Connect the disk or share again.",
                ) from error
            text = f"{Path(item.path).name} is not there or cannot be read ({error.strerror})."
            raise ImageUnreadableError(text, code="missing") from error
        self._note(item, decoded.content, decoded.taken)
        if self._cache is not None:
            is_labelled = item.row in self._labelled
            content, taken = decoded.content, decoded.taken
            self._cache.keep(item.row, stamp, decoded.pixels, content, taken=taken, is_labelled=is_labelled)
        return enlarged(decoded.pixels)

    def keeps(self, item: Item) -> bool:
        """Return whether an item need not be decoded again."""
        return self._cache is not None and self._cache.holds(item.row)

    def take_hashes(self) -> dict[int, str]:
        """Return row → content hash of what was read since the last call."""
        with self._lock:
            taken, self._hashes = self._hashes, {}
        return taken

    def take_times(self) -> dict[int, int]:
        """Return row → capture time of what was read since the last call, of the images that have one."""
        with self._lock:
            times, self._times = self._times, {}
        return times

    def _read(self, item: Item) -> Decoded:
        try:
            return self._decode(item)
        except PermissionError:
            raise
        except OSError:
            # A share that was away for a moment.
            return self._decode(item)

    def _decode(self, item: Item) -> Decoded:
        if item.box is None:
            return self._decoders.read(item.path, px=self._px)
        decoded = self._decoders.read_crops(item.path, [item.box], px=self._px, padding=self._padding)
        return replace(decoded, pixels=decoded.pixels[0])

    def _is_away(self, path: Path) -> bool:
        """Say whether the folder of images that holds a file does not answer."""
        for kind, folder in self._folders.items():
            if path.is_relative_to(folder):
                known = self._known_top if kind == POOL else []
                return not (is_online(Path(folder), known) if known else answers(Path(folder)))
        return not answers(path.parent)

    def _note(self, item: Item, content: str, taken: int) -> None:
        with self._lock:
            if content:
                self._hashes[item.row] = content
            if taken != NO_TIME:
                self._times[item.row] = taken


def enlarged(pixels: PixelArray) -> PixelArray:
    """Return decoded pixels at 256 × 256; those of that size as they are."""
    if pixels.shape[0] == IMAGE_PX:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((IMAGE_PX, IMAGE_PX), Image.Resampling.BILINEAR))


def stamp_of(item: Item, folders: Iterable[str]) -> int:
    """Return what the image of a row never changes without getting a new row, nor when its folder of images is moved."""
    within = next((item.path.removeprefix(folder) for folder in folders if item.path.startswith(folder)), item.path)
    return (item.size % 2**32) << 32 | zlib.crc32(within.encode("utf-8", "surrogateescape"))
