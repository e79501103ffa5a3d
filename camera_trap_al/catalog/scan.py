"""Folders → images: an incremental walk that opens no image and follows no link."""

from __future__ import annotations

import os
import stat
import time
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.catalog.found import POOL, Found

IMAGE_EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff"})
VIDEO_EXTENSIONS = frozenset({".avi", ".mp4", ".asf", ".mov"})
SKIPPED_FOLDERS = frozenset({"backups", "backup", "deletedfiles", ".vthumb", "@recycle"})
TIMELAPSE_MAX_PATH = 259
KINDS = {
    "video": "videos (skipped; only photographs are used)",
    "not shown": "pictures that Timelapse cannot show (it loads only .jpg); they are not asked for, but are classified",
    "long path": "pictures whose path is too long for Timelapse; they are not asked for",
    "unsafe name": "pictures whose name a spreadsheet could run as a formula; they are not asked for",
    "top": "pictures directly in this folder (skipped: put each into the folder of its class)",
    "link": "links and shortcuts (not followed)",
    "no access": "files or folders that may not be read",
    "name": "files whose name is not valid text (skipped: rename them)",
    "other": "files that are no photographs (skipped)",
}
SLICE_FILES = 10_000
SLICE_S = 1.0


@dataclass
class Tally:
    """What a walk saw beside images: counts by kind, and a few paths of each kind as examples."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, path: str) -> None:
        """Count one file or folder of a kind."""
        self.counts[kind] += 1
        if len(self.examples.setdefault(kind, [])) < 3:
            self.examples[kind].append(path)


def is_safe_name(path: str) -> bool:
    """Return whether spreadsheets cannot take the path for a formula, and no control character is in it."""
    starts = any(part[:1] in "=+-@" for part in path.split("/"))
    return not (starts and any(c in path for c in "(|!")) and not any(unicodedata.category(c) == "Cc" for c in path)


def walk(folder: Path, kind: str, *, tool: str, leave_out: Path | None, tally: Tally) -> Iterator[Found]:
    """Yield the images below a folder, in order of their path.

    Parameters
    ----------
    folder : absolute; raises `OSError` if it cannot be listed
    kind : "pool" (all levels), "train" or "validation" (the first level names the class)
    tool : as `labels.tool`
    leave_out : the work folder, which may lie below
    tally : takes the count of everything that is not yielded, and why
    """
    for path, entry in _files(folder, "", leave_out, tally):
        extension = Path(entry.name).suffix.lower()
        if extension in VIDEO_EXTENSIONS:
            tally.add("video", path)
        elif extension in IMAGE_EXTENSIONS:
            found = _found(path, entry, kind, tool, folder, tally)
            if found is not None:
                yield found
        elif extension not in (".tdb", ".ddb", ".csv", ".json", ".txt", ".db", ".ini", ".md"):
            tally.add("other", path)


def _found(path: str, entry: os.DirEntry[str], kind: str, tool: str, folder: Path, tally: Tally) -> Found | None:
    class_name = ""
    if kind != POOL:
        top, slash, _ = path.partition("/")
        if not slash:
            tally.add("top", path)
            return None
        class_name = unicodedata.normalize("NFC", top).strip()
    try:
        path.encode("utf-8")
        facts = entry.stat(follow_symlinks=False)
    except UnicodeEncodeError:
        tally.add("name", repr(path))
        return None
    except OSError:
        tally.add("no access", path)
        return None
    listed = kind != POOL or _is_listed(path, tool, folder, tally)
    return Found(path, facts.st_size, facts.st_mtime_ns, class_name, listed)


def _is_listed(path: str, tool: str, folder: Path, tally: Tally) -> bool:
    if not is_safe_name(path):
        tally.add("unsafe name", path)
        return False
    if tool == "timelapse" and not path.lower().endswith(".jpg"):
        tally.add("not shown", path)
        return False
    if tool == "timelapse" and len(str(folder)) + 1 + len(path) > TIMELAPSE_MAX_PATH:
        tally.add("long path", path)
        return False
    return True


def _files(folder: Path, prefix: str, leave_out: Path | None, tally: Tally) -> Iterator[tuple[str, os.DirEntry[str]]]:
    with os.scandir(folder) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    for entry in entries:
        path = f"{prefix}{entry.name}"
        if entry.name.startswith(".") or entry.name.casefold() in ("thumbs.db", "desktop.ini"):
            continue
        if entry.is_symlink() or _is_junction(entry):
            tally.add("link", path)
        elif entry.is_dir(follow_symlinks=False):
            if entry.name.casefold() not in SKIPPED_FOLDERS and Path(entry.path) != leave_out and not _is_hidden(entry):
                yield from _below(Path(entry.path), f"{path}/", leave_out, tally)
        elif entry.is_file(follow_symlinks=False):
            yield path, entry
        else:
            tally.add("other", path)


def _below(folder: Path, prefix: str, leave_out: Path | None, tally: Tally) -> Iterator[tuple[str, os.DirEntry[str]]]:
    try:
        yield from _files(folder, prefix, leave_out, tally)
    except PermissionError:
        tally.add("no access", prefix)


def _is_junction(entry: os.DirEntry[str]) -> bool:
    return bool(getattr(entry, "is_junction", lambda: False)())


def _is_hidden(entry: os.DirEntry[str]) -> bool:
    attributes = getattr(entry.stat(follow_symlinks=False), "st_file_attributes", 0)
    return bool(attributes & getattr(stat, "FILE_ATTRIBUTE_HIDDEN", 0))


class Scan:
    """One scan of all folders, a slice at a time; what a slice saw is durable before the next one.

    Parameters
    ----------
    folders : kind → absolute folder
    """

    def __init__(self, catalog: Catalog, folders: dict[str, Path], *, tool: str, leave_out: Path | None) -> None:
        self.number = int(catalog.fact("scan", 0)) + 1
        self.tallies = {kind: Tally() for kind in folders}
        self.changed = 0
        self.n_seen = 0
        self._catalog = catalog
        self._kinds = list(folders)
        self._walk = (
            (kind, found)
            for kind, folder in folders.items()
            for found in walk(folder, kind, tool=tool, leave_out=leave_out, tally=self.tallies[kind])
        )

    def run_slice(self) -> bool:
        """Take in up to 10,000 files or a second's worth; return whether the scan has ended.

        Raises `OSError` where a folder cannot be listed; the scan cannot go on then.
        """
        started = time.monotonic()
        batches: dict[str, list[Found]] = {kind: [] for kind in self._kinds}
        n, ended = 0, True
        for kind, found in self._walk:
            batches[kind].append(found)
            n += 1
            if n >= SLICE_FILES or time.monotonic() - started > SLICE_S:
                ended = False
                break
        for kind, batch in batches.items():
            if batch:
                self.changed += self._catalog.add_found(kind, batch, self.number)
        self.n_seen += n
        return ended

    def finish(self) -> float:
        """Count what was not seen; return the fraction of known images that were not."""
        facts = {kind: dict(tally.counts) for kind, tally in self.tallies.items()}
        return self._catalog.end_scan(self.number, self._kinds, self.changed > 0, facts)
