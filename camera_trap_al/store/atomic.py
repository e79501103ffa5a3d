"""The only code that opens for writing, syncs, renames and removes.

Every operation passes a numbered failpoint, where tests make it fail or kill the process. A file is either the old one
or the new one; a folder appears whole or not at all. While a work folder is open, paths not its own are refused.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from camera_trap_al.store.links import is_link

TRASH_PREFIX = ".trash-"
KILLED_STATUS = 137
BUFFER_BYTES = 1 << 20
MOST_BYTES = 1 << 26
_BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOINHERIT", 0)
Act = Callable[[bytes], int | None]
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | _BINARY


@dataclass(frozen=True)
class Operation:
    """One durable operation that is about to happen.

    `source` is the old name of what is renamed to `path`; `data` goes to byte `at` of `path`; of "cut", that is the size.
    """

    name: str
    path: Path
    source: Path | None = None
    data: bytes = b""
    at: int = 0


class Failpoints:
    """Counts durable operations and fails the n-th.

    `CTAL_FAULT="n=37,mode=kill,who=worker"` arms the process that calls `arm_from` with that name. Modes: `kill` (end
    at once), `eio`, `enospc` (the operation raises), `torn` (half of the bytes reach the file, then the process ends; an
    operation without bytes happens first), `short` (half of the bytes reach the file, and the system says so; one without
    bytes happens and is reported as failed), `raise` (what a test put into `exception`). `watch` is called before each.
    """

    def __init__(self) -> None:
        self.count = 0
        self.fail_at = 0
        self.mode = "kill"
        self.exception: BaseException | None = None
        self.watch: Callable[[Operation], object] | None = None
        self._uncounted = threading.local()

    def arm_from(self, environment: Mapping[str, str], who: str) -> None:
        """Arm from the environment, if its fault is meant for `who` ("daemon" or "worker")."""
        spec = dict(part.split("=", 1) for part in environment.get("CTAL_FAULT", "").split(",") if "=" in part)
        if spec and spec.get("who", "daemon") == who:
            self.count, self.fail_at, self.mode = 0, int(spec["n"]), spec.get("mode", "kill")

    def pass_point(self, operation: Operation, act: Act) -> int:
        """Count one operation and do it, `act` with its bytes, or fail if it is the armed one.

        Returns how many bytes were written.
        """
        if getattr(self._uncounted, "here", False):
            return act(operation.data) or 0
        self.count += 1
        if self.watch is not None:
            self.watch(operation)
        if self.count != self.fail_at:
            return act(operation.data) or 0
        if self.mode == "kill":
            os._exit(KILLED_STATUS)
        if self.mode == "raise" and self.exception is not None:
            raise self.exception
        if self.mode in ("torn", "short"):
            written = act(operation.data[: len(operation.data) // 2]) or 0
            if self.mode == "torn":
                os._exit(KILLED_STATUS)
            if operation.data:
                return written
        code = errno.ENOSPC if self.mode == "enospc" else errno.EIO
        raise OSError(code, os.strerror(code), str(operation.path))

    def leave_out_this_thread(self) -> None:
        """Count nothing that the calling thread does, since the clock decides when it does it."""
        self._uncounted.here = True


failpoints = Failpoints()
_guards: list[Callable[[Path], bool]] = []
_permitted: list[Path] = []
_private: list[Path] = []


def guard(may_write: Callable[[Path], bool]) -> Callable[[], None]:
    """From now on refuse paths that no guard knows; return a function that lifts this guard."""
    _guards.append(may_write)
    return lambda: _guards.remove(may_write) if may_write in _guards else None


@contextlib.contextmanager
def permitted(folder: Path) -> Iterator[None]:
    """Let the guards pass what is at or below `folder`: what a person named, or the cache of start weights."""
    _permitted.append(folder.absolute())
    try:
        yield
    finally:
        _permitted.remove(folder.absolute())


def keep_private(folder: Path) -> None:
    """From now on make what is made at or below `folder` for its owner alone: folders 0700, files 0600 (not on Windows)."""
    if folder.absolute() not in _private:
        _private.append(folder.absolute())


def is_private(path: Path) -> bool:
    """Return whether `path` is at or below a folder that is kept private."""
    return any(path.absolute().is_relative_to(folder) for folder in _private)


def _mode_for(path: Path, usual: int) -> int:
    return usual & 0o700 if is_private(path) else usual


def _pass(name: str, path: Path, act: Act, *, source: Path | None = None, data: bytes = b"", at: int = 0) -> int:
    for changed in (path, source) if name != "sync folder" else ():
        if changed is not None and _guards and not _is_ours(Path(os.path.normpath(changed.absolute()))):
            raise PermissionError(errno.EPERM, "this program does not write there", str(changed))
    return failpoints.pass_point(Operation(name, path, source, data, at), act)


def _is_ours(path: Path) -> bool:
    return any(may_write(path) for may_write in _guards) or any(path.is_relative_to(folder) for folder in _permitted)


class _NewFile(io.RawIOBase):
    """A file that was not there before, written through failpoints."""

    def __init__(self, path: Path) -> None:
        self._path, self._at, self._descriptor = path, 0, -1

        def make(_: bytes) -> None:
            self._descriptor = os.open(path, _NEW, _mode_for(path, 0o666))

        _pass("create", path, make)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        # The system takes about 2 GB at once; whoever buffers goes on with the rest.
        block = bytes(data[:MOST_BYTES])
        written = _write(self._descriptor, block, self._path, self._at)
        if written != len(block):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self._at += written
        return written

    def sync(self) -> None:
        _sync(self._descriptor, self._path)

    def close(self) -> None:
        if not self.closed and self._descriptor >= 0:
            os.close(self._descriptor)
        super().close()


def _write(descriptor: int, data: bytes, path: Path, at: int) -> int:
    return _pass("write", path, lambda part: os.write(descriptor, part), data=data, at=at)


def _sync(descriptor: int, path: Path) -> None:
    _pass("sync", path, lambda _: sync(descriptor))


def _rename(name: str, source: Path, path: Path) -> None:
    rename = os.replace if name == "replace" else os.rename
    _pass(name, path, lambda _: rename(source, path), source=source)


def replace_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Put what `write` produces at `path`, whole or not at all, even across a power cut.

    Durable on return. The folder must exist. A link at `path` is replaced, not followed.
    """
    partial = partial_of(path)
    discard_file(partial)
    try:
        with _NewFile(partial) as raw:
            file = io.BufferedWriter(raw, BUFFER_BYTES)
            try:
                write(file)
                file.flush()
            except BaseException:
                # What is buffered must not be written when the buffer goes.
                raw.close()
                raise
            raw.sync()
        _rename("replace", partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def create_file(path: Path, data: bytes) -> None:
    """Make a file that is not there yet, with this content; durable on return. Raises `FileExistsError` if it is there."""
    with _NewFile(path) as raw:
        raw.write(data)
        raw.sync()
    sync_folder(path.parent)


def replace_bytes(path: Path, data: bytes) -> None:
    """Put `data` at `path`, whole or not at all; durable on return."""
    replace_file(path, lambda file: file.write(data))


def replace_json(path: Path, value: Any) -> None:
    """Put `value` at `path` as indented UTF-8 JSON, whole or not at all; durable on return."""
    replace_bytes(path, (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode("utf-8"))


def link_file(source: Path, path: Path) -> None:
    """Make `path`, which is not there yet, a further name of a file; raises `OSError` where the disk cannot."""
    _pass("link", path, lambda _: os.link(source, path))


def keep_times(path: Path, original: os.stat_result) -> None:
    """Give a copy the times of the file that it was made from."""
    _pass("set times", path, lambda _: os.utime(path, ns=(original.st_atime_ns, original.st_mtime_ns)))


def partial_of(path: Path) -> Path:
    """Return the name under which `path` is written before it is renamed."""
    return path.with_name(f".{path.name}.partial")


def make_folder(path: Path) -> None:
    """Make a folder and its parents, unless they are there; durable on return."""
    if path.is_dir():
        return
    make_folder(path.parent)
    _pass("make folder", path, lambda _: path.mkdir(_mode_for(path, 0o777), exist_ok=True))
    sync_folder(path.parent)


def commit_folder(hidden: Path, final: Path) -> None:
    """Give the finished folder `hidden` its final name; this is the commit, durable on return."""
    sync_folder(hidden)
    _rename("commit", hidden, final)
    sync_folder(final.parent)


def rename_aside(path: Path, name: str) -> Path:
    """Rename `path` to `name` in the same folder, or to `name-2`, … if that is taken; return where it is now."""
    target, n = path.with_name(name), 1
    while os.path.lexists(target):
        n += 1
        target = path.with_name(f"{name}-{n}")
    _rename("rename aside", path, target)
    sync_folder(path.parent)
    return target


def discard_folder(path: Path) -> None:
    """Remove a folder of ours so that a half-removed one is never taken for a whole one; of a link, the link alone."""
    if is_link(path):
        # A junction is removed as a folder is.
        _pass("remove", path, lambda _: path.unlink() if path.is_symlink() else path.rmdir())
        return
    if not path.is_dir():
        return
    trash = path if path.name.startswith(TRASH_PREFIX) else rename_aside(path, f"{TRASH_PREFIX}{path.name.lstrip('.')}")
    _remove_folder(trash)


def _remove_folder(folder: Path) -> None:
    with os.scandir(folder) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    for entry in entries:
        if is_link(folder / entry.name):
            discard_folder(folder / entry.name)
        elif entry.is_dir(follow_symlinks=False):
            _remove_folder(folder / entry.name)
        else:
            discard_file(folder / entry.name)
    _pass("remove folder", folder, lambda _: folder.rmdir())


def discard_file(path: Path) -> None:
    """Remove a file of ours, if it is there."""
    if os.path.lexists(path):
        _pass("remove", path, lambda _: path.unlink(missing_ok=True))


def sync(descriptor: int) -> None:
    """Make what was written to a file durable; macOS needs more than `fsync` for that."""
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable, where the system can (Windows and some shares cannot)."""
    _pass("sync folder", path, lambda _: _sync_names(path))


def _sync_names(path: Path) -> None:
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES):
            raise
    finally:
        os.close(descriptor)


def free_bytes(path: Path) -> int:
    """Return how many bytes can still be written on the disk that holds `path`, or will hold it."""
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(there).free


class AppendFile:
    """A file that only grows: one descriptor for the process's life, one write and one sync for each append."""

    def __init__(self, path: Path) -> None:
        is_new = not path.exists()
        self.path = path

        def open_it(_: bytes) -> None:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _BINARY, _mode_for(path, 0o666))

        _pass("create" if is_new else "open for appending", path, open_it)
        if is_new:
            sync_folder(path.parent)
        self.end = os.fstat(self._descriptor).st_size

    def append(self, data: bytes) -> None:
        """Add `data` at the end; durable on return. Raises `OSError`, after which this must not be used again."""
        held, named = os.fstat(self._descriptor), self.path.stat()
        if held.st_size != self.end or named.st_size != self.end or not os.path.samestat(held, named):
            raise OSError(errno.EIO, "another program has written to this file or replaced it", str(self.path))
        if _write(self._descriptor, data, self.path, self.end) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        _sync(self._descriptor, self.path)
        self.end += len(data)

    def close(self) -> None:
        """Close the descriptor; nothing is pending."""
        os.close(self._descriptor)


def cut_file(path: Path, size: int) -> None:
    """Cut what follows the first `size` bytes; durable on return."""
    descriptor = os.open(path, os.O_RDWR | _BINARY)
    try:
        _pass("cut", path, lambda _: os.ftruncate(descriptor, size), at=size)
        _sync(descriptor, path)
    finally:
        os.close(descriptor)


def rewrite_tail(path: Path, start: int, data: bytes) -> None:
    """Write `data` over the same bytes again and sync.

    After a failed sync the kernel may show bytes that the disk does not hold; writing them once more makes them so
    (docs/reliability.md 3.2). The descriptor is not an appending one, since that would write at the end.
    """
    descriptor = os.open(path, os.O_RDWR | _BINARY)
    try:
        os.lseek(descriptor, start, os.SEEK_SET)
        if _write(descriptor, data, path, start) != len(data):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        _sync(descriptor, path)
    finally:
        os.close(descriptor)
