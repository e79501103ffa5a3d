"""Which species was ever published as the prediction of which image: what `Confirmed` in a label file can mean."""

from __future__ import annotations

import io
import json
import logging
import zipfile
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from camera_trap_al.core.records import ImageKey
from camera_trap_al.core.seeds import key_hash
from camera_trap_al.store import atomic

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Noted:
    """Species by image: `key_hashes` (n,) int64, rising; bit j of row i of `bits` (n, bytes) stands for `classes[j]`."""

    classes: tuple[str, ...] = ()
    key_hashes: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    bits: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, 0), np.uint8))

    def species(self, key: ImageKey) -> frozenset[str]:
        """Return what was noted of an image."""
        try:
            wanted = key_hash(key.path)
        except UnicodeEncodeError:
            return frozenset()
        place = int(np.searchsorted(self.key_hashes, wanted))
        if place == len(self.key_hashes) or self.key_hashes[place] != wanted:
            return frozenset()
        is_set = np.unpackbits(self.bits[place], bitorder="little")
        return frozenset(name for name, bit in zip(self.classes, is_set, strict=False) if bit)

    def with_more(
        self, key_hashes: npt.NDArray[np.int64], species: npt.NDArray[np.integer[Any]], classes: Sequence[str]
    ) -> Noted:
        """Return this with one species more for each of some images: numbers of `classes`."""
        names = tuple(dict.fromkeys([*self.classes, *classes]))
        merged = np.union1d(self.key_hashes, key_hashes)
        bits = np.zeros((len(merged), -(-len(names) // 8)), np.uint8)
        bits[np.searchsorted(merged, self.key_hashes), : self.bits.shape[1]] = self.bits
        places = np.searchsorted(merged, key_hashes)
        for number, name in enumerate(classes):
            bit = names.index(name)
            bits[places[species == number], bit // 8] |= np.uint8(1 << bit % 8)
        return Noted(names, merged, bits)


def note_published(
    path: Path, key_hashes: npt.NDArray[np.int64], species: npt.NDArray[np.integer[Any]], classes: Sequence[str]
) -> None:
    """Add what is about to be published to the file of all that was; durable on return."""
    noted = read_published(path).with_more(key_hashes, species, classes)
    buffer = io.BytesIO()
    names = np.frombuffer(json.dumps(noted.classes).encode("ascii"), np.uint8)
    np.savez(buffer, classes=names, key_hashes=noted.key_hashes, bits=noted.bits)
    atomic.replace_bytes(path, buffer.getvalue())


def read_published(path: Path) -> Noted:
    """Return what was published so far; nothing where there is no such file, or one that is damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = json.loads(arrays["classes"].tobytes())
            noted = Noted(tuple(map(str, names)), arrays["key_hashes"], arrays["bits"])
    except FileNotFoundError:
        return Noted()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, TypeError) as error:
        log.warning("%s cannot be read, so older predictions cannot be confirmed any more: %s", path, error)
        return Noted()
    rows, width = noted.key_hashes.size, -(-len(noted.classes) // 8)
    is_whole = noted.key_hashes.shape == (rows,) and noted.bits.shape == (rows, width)
    is_typed = noted.key_hashes.dtype == np.int64 and noted.bits.dtype == np.uint8
    return noted if is_whole and is_typed else Noted()


class Published:
    """What was published of images: with requests, which the journal holds, and in the predictions CSV.

    The file is read once, when it is first asked for something that no request says.
    """

    def __init__(self, requests: Mapping[ImageKey, AbstractSet[str]], path: Path) -> None:
        self._requests, self._path = requests, path
        self._noted: Noted | None = None

    def get(self, key: ImageKey, default: AbstractSet[str], /) -> AbstractSet[str]:
        """Return every species that was published as the prediction of an image, `default` for none."""
        if self._noted is None:
            self._noted = read_published(self._path)
        return self._requests.get(key, frozenset()) | self._noted.species(key) or default
