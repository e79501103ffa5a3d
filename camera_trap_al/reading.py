"""How the images of a work folder are read: limits from its configuration, and whether a file or a whole folder is away."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from camera_trap_al.catalog.found import POOL
from camera_trap_al.config import Config
from camera_trap_al.core.records import Item
from camera_trap_al.engine import Decoded, shared
from camera_trap_al.errors import ImagesOfflineError, ImageUnreadableError
from camera_trap_al.images import DecodeLimits
from camera_trap_al.learn.data import answers
from camera_trap_al.work import is_online

if TYPE_CHECKING:
    import numpy as np


def decode_limits(config: Config) -> DecodeLimits:
    """Return what `[images]` of a configuration refuses."""
    part = config.images
    return DecodeLimits(part.max_pixels, part.max_side, allow_truncated=part.allow_truncated)


class ImageReader:
    """Decodes items in child processes, and remembers the hashes of their contents until these are taken.

    Parameters
    ----------
    folders : the folders of images, by kind
    known_top : top-level entries of the image root, as of the last scan
    """

    def __init__(self, config: Config, folders: Mapping[str, str], known_top: Sequence[str]) -> None:
        self._decoders = shared(decode_limits(config), config.images.processes)
        self._folders, self._known_top = folders, list(known_top)
        self._hashes: dict[int, str] = {}
        self._lock = threading.Lock()

    def __call__(self, item: Item) -> np.ndarray:
        """Return the (256, 256, 3) uint8 pixels of an item.

        Raises
        ------
        ImageUnreadableError
            `missing` for a file that is gone, or fails to be read, while its folder of images is there.
        PermissionError, ImagesOfflineError
        """
        try:
            decoded = self._read(item)
        except ImageUnreadableError as error:
            self._note(item, error.content)
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
        self._note(item, decoded.content)
        return decoded.pixels

    def take_hashes(self) -> dict[int, str]:
        """Return row → content hash of what was read since the last call."""
        with self._lock:
            taken, self._hashes = self._hashes, {}
        return taken

    def _read(self, item: Item) -> Decoded:
        try:
            return self._decoders.read(item.path, box=item.box)
        except PermissionError:
            raise
        except OSError:
            # A share that was away for a moment.
            return self._decoders.read(item.path, box=item.box)

    def _is_away(self, path: Path) -> bool:
        """Say whether the folder of images that holds a file does not answer."""
        for kind, folder in self._folders.items():
            if path.is_relative_to(folder):
                known = self._known_top if kind == POOL else []
                return not (is_online(Path(folder), known) if known else answers(Path(folder)))
        return not answers(path.parent)

    def _note(self, item: Item, content: str) -> None:
        if content:
            with self._lock:
                self._hashes[item.row] = content
