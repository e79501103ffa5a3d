"""A folder whose listings lie: they fail, come back empty, or leave entries out."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


class FakeListing:
    """Stands between `os.scandir` and one folder tree.

    Attributes
    ----------
    error : errno that each listing below the root fails with, 0 for none
    left_out : fraction of the files, always the same ones, that listings leave out; 1 leaves everything out
    errors : path relative to the root → errno that listing it fails with
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = os.path.realpath(root)
        self.error = 0
        self.left_out = 0.0
        self.errors: dict[str, int] = {}
        self.n_listed = 0
        self._scandir = os.scandir
        monkeypatch.setattr(os, "scandir", self.scandir)

    def scandir(self, path: Any = ".") -> Any:
        real = os.path.realpath(path) if isinstance(path, str | os.PathLike) else ""
        if real != self.root and not real.startswith(self.root + os.sep):
            return self._scandir(path)
        self.n_listed += 1
        inner = os.path.relpath(real, self.root).replace(os.sep, "/")
        number = self.error or self.errors.get(inner, 0)
        if number:
            raise OSError(number, os.strerror(number), os.fspath(path))
        return Entries([entry for entry in self._scandir(path) if not self._is_left_out(entry)])

    def _is_left_out(self, entry: os.DirEntry[str]) -> bool:
        share = int(hashlib.sha256(entry.name.encode("utf-8", "surrogateescape")).hexdigest()[:8], 16) / 2**32
        return self.left_out >= 1 or (entry.is_file(follow_symlinks=False) and share < self.left_out)


class Entries:
    """What a listing gives; `entries` may be changed before it is read."""

    def __init__(self, entries: list[Any]) -> None:
        self.entries = entries

    def __iter__(self) -> Iterator[Any]:
        return iter(self.entries)

    def __next__(self) -> Any:
        if not self.entries:
            raise StopIteration
        return self.entries.pop(0)

    def __enter__(self) -> Entries:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.entries = []


EIO, ESTALE, EACCES = errno.EIO, getattr(errno, "ESTALE", errno.EIO), errno.EACCES
