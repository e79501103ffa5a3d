"""Folders → images: an incremental walk that follows no link, and opens an image only to tell a new time from a new content."""

from __future__ import annotations

import errno
import os
import stat
import time
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.catalog.found import POOL, Found, Seen
from camera_trap_al.core.spreadsheets import UNPRINTABLE, is_safe_name
from camera_trap_al.errors import ImageUnreadableError

IMAGE_EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff"})
VIDEO_EXTENSIONS = frozenset({".avi", ".mp4", ".asf", ".mov"})
SKIPPED_FOLDERS = frozenset({"backups", "backup", "deletedfiles", ".vthumb", "@recycle"})
TIMELAPSE_MAX_PATH = 259
KINDS = {
    "video": "videos (skipped; only photographs are used)",
    "not shown": "pictures that Timelapse cannot show (it loads only .jpg); they are not asked for, but are classified",
    "long path": "pictures whose path is too long for Timelapse; they are not asked for",
    "unsafe name": "pictures whose name a spreadsheet could run as a formula, or with control characters (unsafe_name);"
    " they are not asked for",
    "top": "pictures directly in this folder (skipped: put each into the folder of its class)",
    "top of pool": "pictures directly in this folder (skipped: put them into a sub-folder, or set selector.top_images)",
    "link": "links and shortcuts (not followed)",
    "no access": "files or folders that cannot be read now (images in them are kept, and looked for again)",
    "away": "folder that cannot be listed now (its images are kept); is its disk or share connected?",
    "name": "files whose name is not valid text (unsafe_name; skipped: rename them)",
    "other": "files that are no photographs (skipped)",
}
SLICE_FILES = 10_000
SLICE_S = 1.0


@dataclass
class Tally:
    """What a walk saw beside images: counts by kind, and a few paths of each kind as examples.

    `unlistable` holds the paths that could not be looked at, folders with a `/` at their end.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    unlistable: list[str] = field(default_factory=list)

    def add(self, kind: str, path: str) -> None:
        """Count one file or folder of a kind."""
        self.counts[kind] += 1
        if len(self.examples.setdefault(kind, [])) < 3:
            self.examples[kind].append(printable(path))

    def add_unlistable(self, path: str) -> None:
        """Count a file, or a folder ending in `/`, that could not be looked at."""
        self.add("no access", path)
        self.unlistable.append(path)


def printable(path: str) -> str:
    """Return a path as text for people: what is not valid text, and control characters, are escaped."""
    text = path.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(
        c.encode("unicode_escape").decode("ascii") if unicodedata.category(c) in UNPRINTABLE else c for c in text
    )


def walk(
    folder: Path,
    kind: str,
    *,
    tool: str,
    leave_out: Path | None,
    tally: Tally,
    allow_formula: bool = False,
    top_images: bool = True,
) -> Iterator[Found]:
    """Yield the images below a folder, in order of their path.

    Parameters
    ----------
    folder : absolute; raises `OSError` if it cannot be listed
    kind : "pool" (all levels), "train" or "validation" (the first level names the class)
    tool : as `labels.tool`
    leave_out : the work folder, which may lie below
    allow_formula : as `selector.allow_formula_names`
    top_images : as `selector.top_images`
    tally : takes the count of everything that is not yielded, and why
    """
    longest = TIMELAPSE_MAX_PATH - len(str(folder)) - 1
    for path, entry in _files(folder, leave_out, tally):
        extension = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - a million Paths take as long as all the rest
        if extension in IMAGE_EXTENSIONS:
            if kind == POOL and not top_images and "/" not in path:
                tally.add("top of pool", path)
                continue
            found = _found(path, entry, kind, tally)
            if found is not None:
                if kind == POOL and not _is_listed(path, tool, longest, tally, allow_formula=allow_formula):
                    found = found._replace(listed=False)
                yield found
        elif extension in VIDEO_EXTENSIONS:
            tally.add("video", path)
        elif extension not in (".tdb", ".ddb", ".csv", ".json", ".txt", ".db", ".ini", ".md"):
            tally.add("other", path)


def _found(path: str, entry: os.DirEntry[str], kind: str, tally: Tally) -> Found | None:
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
        tally.add("name", path)
        return None
    except FileNotFoundError:
        return None
    except OSError:
        tally.add_unlistable(path)
        return None
    return Found(path, facts.st_size, facts.st_mtime_ns, class_name)


def _is_listed(path: str, tool: str, longest: int, tally: Tally, *, allow_formula: bool) -> bool:
    if not is_safe_name(path, allow_formula=allow_formula):
        tally.add("unsafe name", path)
        return False
    if tool == "timelapse" and not path.lower().endswith(".jpg"):
        tally.add("not shown", path)
        return False
    if tool == "timelapse" and len(path) > longest:
        tally.add("long path", path)
        return False
    return True


def _files(folder: Path, leave_out: Path | None, tally: Tally) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield path and entry of each file that may be an image; a stack rather than recursion, since folders may be deep."""
    ours = _identity(leave_out) if leave_out is not None else None
    stack = [("", _entries(folder))]
    while stack:
        prefix, entries = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
            continue
        path = f"{prefix}{entry.name}"
        try:
            kind = _kind_of(entry, ours)
            if kind == "folder":
                stack.append((f"{path}/", _entries(Path(entry.path))))
        except OSError as error:
            _answer_or_raise(folder, error)
            is_gone = isinstance(error, FileNotFoundError | NotADirectoryError)
            if not is_gone or len(entry.path) > TIMELAPSE_MAX_PATH:
                tally.add_unlistable(f"{path}/")
            continue
        if kind == "file":
            yield path, entry
        elif kind not in ("folder", "hidden"):
            tally.add(kind, path)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as listing:
        return iter(sorted(listing, key=attrgetter("name")))


def _kind_of(entry: os.DirEntry[str], ours: tuple[int, int] | None) -> str:
    if entry.name.startswith(".") or entry.name.casefold() in ("thumbs.db", "desktop.ini"):
        return "hidden"
    if entry.is_file(follow_symlinks=False):
        return "file"
    if entry.is_symlink() or _is_junction(entry):
        return "link"
    if entry.is_dir(follow_symlinks=False):
        skipped = entry.name.casefold() in SKIPPED_FOLDERS or _is_hidden(entry)
        return "hidden" if skipped or (ours is not None and _identity(Path(entry.path)) == ours) else "folder"
    return "other"


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return what tells a folder from all others, whatever its path, or None where there is no folder."""
    try:
        facts = folder.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _answer_or_raise(root: Path, error: OSError) -> None:
    """Raise the error of one folder if the root of all is away or empty, too."""
    try:
        with os.scandir(root) as listing:
            if next(listing, None) is not None:
                return
    except OSError:
        pass
    raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(root)) from error


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
    hash_file : returns the hash of a file's content, as shards have it; raises `OSError` or `ImageUnreadableError`
    tool, leave_out, allow_formula, top_images : as for `walk`
    """

    def __init__(
        self,
        catalog: Catalog,
        folders: Mapping[str, Path],
        *,
        hash_file: Callable[[Path], str],
        tool: str,
        leave_out: Path | None,
        allow_formula: bool = False,
        top_images: bool = True,
    ) -> None:
        self.number = int(catalog.fact("scan", 0)) + 1
        self.tallies = {kind: Tally() for kind in folders}
        self.changed = 0
        self.n_seen = 0
        self._seen = Seen()
        self._catalog = catalog
        self._folders = dict(folders)
        self._hash_file = hash_file
        self._options: dict[str, Any] = {"tool": tool, "leave_out": leave_out}
        self._options |= {"allow_formula": allow_formula, "top_images": top_images}
        self._is_first = not catalog.fact("scanned", False)
        self._unread: deque[tuple[str, Found]] = deque()
        self._walk = self._walk_all()

    def run_slice(self) -> bool:
        """Take in up to 10,000 files or a second's worth; return whether the scan has ended.

        Raises `OSError` where a folder cannot be listed; the scan cannot go on then.
        """
        deadline = time.monotonic() + SLICE_S
        batches: dict[str, list[Found]] = {kind: [] for kind in self._folders}
        ended = False
        self._read_contents(batches, deadline)
        if not self._unread:
            ended = self._look(batches, deadline)
        for kind, batch in batches.items():
            if batch:
                taken = self._catalog.add_found(kind, batch, self.number, self._seen)
                self.changed += taken.n_changed
                self._unread.extend((kind, found) for found in taken.unread)
        for kind, tally in self.tallies.items():
            if tally.unlistable:
                self._catalog.keep_unseen(kind, tally.unlistable, self._seen)
                tally.unlistable = []
        return ended and not self._unread

    def finish(self, elapsed_s: float) -> dict[str, float]:
        """Count what was not seen; return of each folder that is away which fraction of its images was not.

        `elapsed_s` is the time since the scan before.
        """
        facts = {kind: dict(tally.counts) for kind, tally in self.tallies.items()}
        roots = list(self._folders)
        return self._catalog.end_scan(self.number, self._seen, roots, facts, elapsed_s=elapsed_s)

    def _walk_all(self) -> Iterator[tuple[str, Found]]:
        for kind, folder in self._folders.items():
            tally = self.tallies[kind]
            try:
                for found in walk(folder, kind, tally=tally, **self._options):
                    yield kind, found
            except OSError:
                # Pictures to train on may live on another disk than the pool, which is looked through all the same.
                if kind == POOL or self._is_first:
                    raise
                tally.add("away", str(folder))
                tally.unlistable.append("")

    def _look(self, batches: dict[str, list[Found]], deadline: float) -> bool:
        for n, (kind, found) in enumerate(self._walk, 1):
            batches[kind].append(found)
            self.n_seen += 1
            if n >= SLICE_FILES or time.monotonic() > deadline:
                return False
        return True

    def _read_contents(self, batches: dict[str, list[Found]], deadline: float) -> None:
        """Read what must be read to say whether it changed, as far as the time goes."""
        failed: dict[str, list[str]] = {}
        while self._unread and time.monotonic() < deadline:
            kind, found = self._unread[0]
            try:
                content = self._hash_file(Path(self._folders[kind], *found.path.split("/")))
                batches[kind].append(found._replace(content=content))
            except ImageUnreadableError:
                pass  # a folder or device by now; the next scan sees what it is
            except FileNotFoundError as error:
                _answer_or_raise(self._folders[kind], error)
            except OSError as error:
                _answer_or_raise(self._folders[kind], error)
                failed.setdefault(kind, []).append(found.path)
            self._unread.popleft()
        for kind, paths in failed.items():
            self._catalog.note_failed_tries(kind, paths)
