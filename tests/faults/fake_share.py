"""A network share that lies: folders that are away, sharing violations, times in steps of two seconds, slow answers."""

from __future__ import annotations

import errno
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from fake_listing import Entries, FakeListing

FAT_STEP_NS = 2 * 10**9


class FakeShare(FakeListing):
    """A folder tree as a stumbling share shows it.

    Attributes
    ----------
    violations : fraction of the replacements below `written` that fail, as where another program holds the file
    steps_ns : what times in listings are rounded down to, 1 for exact ones
    shift_ns : what is added to them, as where summer time begins
    slow_s : how long each listing takes
    """

    def __init__(self, root: Path, written: Path, monkeypatch: pytest.MonkeyPatch, *, seed: int) -> None:
        super().__init__(root, monkeypatch)
        self.violations = 0.0
        self.steps_ns = 1
        self.shift_ns = 0
        self.slow_s = 0.0
        self.n_violations = self.n_replaced = 0
        self._written = os.path.realpath(written)
        self._rng = random.Random(seed)
        self._replace = os.replace
        monkeypatch.setattr(os, "replace", self.replace)

    def scandir(self, path: Any = ".") -> Any:
        listing = super().scandir(path)
        if isinstance(listing, Entries):
            time.sleep(self.slow_s)
            listing.entries = [_Entry(entry, self) for entry in listing.entries]
        return listing

    def replace(self, source: Any, target: Any, **options: Any) -> None:
        """Stand in for `os.replace`."""
        if os.path.realpath(target).startswith(self._written + os.sep):
            self.n_replaced += 1
            if self._rng.random() < self.violations:
                self.n_violations += 1
                raise PermissionError(errno.EACCES, "the file is used by another process", os.fspath(target))
        self._replace(source, target, **options)

    def time_of(self, mtime_ns: int) -> int:
        """Return a file's time as the share tells it."""
        return mtime_ns // self.steps_ns * self.steps_ns + self.shift_ns


class _Entry:
    """An `os.DirEntry` whose time is what the share says."""

    def __init__(self, entry: os.DirEntry[str], share: FakeShare) -> None:
        self._entry = entry
        self._share = share
        self.name, self.path = entry.name, entry.path
        self.is_dir, self.is_file, self.is_symlink = entry.is_dir, entry.is_file, entry.is_symlink
        self.inode = entry.inode

    def stat(self, *, follow_symlinks: bool = True) -> Any:
        facts = self._entry.stat(follow_symlinks=follow_symlinks)
        return _Facts(facts, self._share.time_of(facts.st_mtime_ns))


class _Facts:
    def __init__(self, facts: os.stat_result, mtime_ns: int) -> None:
        self._facts = facts
        self.st_mtime_ns = mtime_ns

    def __getattr__(self, name: str) -> Any:
        return getattr(self._facts, name)
