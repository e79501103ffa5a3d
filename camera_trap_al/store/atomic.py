"""The only code that opens for writing, syncs, renames and removes.

Every call passes a numbered failpoint, so that tests can make any durable operation fail or kill the process
there. A file is either the old one or the new one; a folder appears whole or not at all.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

TRASH_PREFIX = ".trash-"
KILLED_STATUS = 137


class Failpoints:
    """Counts durable operations and fails the n-th.

    `CTAL_FAULT="n=37,mode=kill,who=worker"` arms the process that calls `arm_from` with that name. Modes: `kill` (end
    at once), `eio`, `enospc` (the operation raises), `raise` (raises what a test put into `exception`).
    """

    def __init__(self) -> None:
        self.count = 0
        self.fail_at = 0
        self.mode = "kill"
        self.exception: BaseException | None = None
        self.log: Callable[[int, str, Path], None] | None = None

    def arm_from(self, environment: Mapping[str, str], who: str) -> None:
        """Arm from the environment, if its fault is meant for `who` ("daemon" or "worker")."""
        spec = dict(part.split("=", 1) for part in environment.get("CTAL_FAULT", "").split(",") if "=" in part)
        if spec and spec.get("who", "daemon") == who:
            self.count, self.fail_at, self.mode = 0, int(spec["n"]), spec.get("mode", "kill")

    def pass_point(self, operation: str, path: Path) -> None:
        """Count one operation that is about to happen, and fail if it is the armed one."""
        self.count += 1
        if self.log is not None:
            self.log(self.count, operation, path)
        if self.count != self.fail_at:
            return
        if self.mode == "kill":
            os._exit(KILLED_STATUS)
        if self.mode == "raise" and self.exception is not None:
            raise self.exception
        code = errno.ENOSPC if self.mode == "enospc" else errno.EIO
        raise OSError(code, os.strerror(code), str(path))


failpoints = Failpoints()


def replace_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Put what `write` produces at `path`, whole or not at all, even across a power cut.

    Durable on return. The folder must exist. A link at `path` is replaced, not followed.
    """
    partial = partial_of(path)
    partial.unlink(missing_ok=True)
    try:
        failpoints.pass_point("create", partial)
        with partial.open("xb") as file:
            write(file)
            file.flush()
            failpoints.pass_point("sync", partial)
            sync(file.fileno())
        failpoints.pass_point("replace", path)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    failpoints.pass_point("sync folder", path.parent)
    sync_folder(path.parent)


def replace_bytes(path: Path, data: bytes) -> None:
    """Put `data` at `path`, whole or not at all; durable on return."""
    replace_file(path, lambda file: file.write(data))


def replace_json(path: Path, value: Any) -> None:
    """Put `value` at `path` as indented UTF-8 JSON, whole or not at all; durable on return."""
    replace_bytes(path, (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode("utf-8"))


def partial_of(path: Path) -> Path:
    """Return the name under which `path` is written before it is renamed."""
    return path.with_name(f".{path.name}.partial")


def make_folder(path: Path) -> None:
    """Make a folder and its parents, unless they are there; durable on return."""
    if path.is_dir():
        return
    make_folder(path.parent)
    failpoints.pass_point("make folder", path)
    path.mkdir(exist_ok=True)
    sync_folder(path.parent)


def commit_folder(hidden: Path, final: Path) -> None:
    """Give the finished folder `hidden` its final name; this is the commit, durable on return."""
    sync_folder(hidden)
    failpoints.pass_point("commit", final)
    os.rename(hidden, final)
    failpoints.pass_point("sync folder", final.parent)
    sync_folder(final.parent)


def rename_aside(path: Path, name: str) -> Path:
    """Rename `path` to `name` in the same folder, or to `name-2`, … if that is taken; return where it is now."""
    target, n = path.with_name(name), 1
    while os.path.lexists(target):
        n += 1
        target = path.with_name(f"{name}-{n}")
    failpoints.pass_point("rename aside", path)
    os.rename(path, target)
    sync_folder(path.parent)
    return target


def discard_folder(path: Path) -> None:
    """Remove a folder of ours so that a half-removed one is never taken for a whole one."""
    if not path.is_dir():
        return
    trash = path if path.name.startswith(TRASH_PREFIX) else rename_aside(path, f"{TRASH_PREFIX}{path.name.lstrip('.')}")
    failpoints.pass_point("remove", trash)
    shutil.rmtree(trash)


def discard_file(path: Path) -> None:
    """Remove a file of ours, if it is there."""
    failpoints.pass_point("remove", path)
    path.unlink(missing_ok=True)


def sync(descriptor: int) -> None:
    """Make what was written to a file durable; macOS needs more than `fsync` for that."""
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable, where the system can (Windows and some shares cannot)."""
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


class AppendFile:
    """A file that only grows: one descriptor for the process's life, one write and one sync for each append."""

    def __init__(self, path: Path) -> None:
        is_new = not path.exists()
        self.path = path
        failpoints.pass_point("open for appending", path)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
        if is_new:
            sync_folder(path.parent)
        self.end = os.fstat(self._descriptor).st_size

    def append(self, data: bytes) -> None:
        """Add `data` at the end; durable on return. Raises `OSError`, after which this must not be used again."""
        if os.fstat(self._descriptor).st_size != self.end:
            raise OSError(errno.EIO, "another program has written to this file", str(self.path))
        failpoints.pass_point("append", self.path)
        if os.write(self._descriptor, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        failpoints.pass_point("sync append", self.path)
        sync(self._descriptor)
        self.end += len(data)

    def close(self) -> None:
        """Close the descriptor; nothing is pending."""
        os.close(self._descriptor)


def cut_file(path: Path, size: int) -> None:
    """Cut what follows the first `size` bytes; durable on return."""
    failpoints.pass_point("cut", path)
    with path.open("r+b") as file:
        file.truncate(size)
        sync(file.fileno())


def rewrite_tail(path: Path, start: int, data: bytes) -> None:
    """Write `data` over the same bytes again and sync.

    After a failed sync the kernel may show bytes that the disk does not hold; writing them once more makes them so
    (docs/reliability.md 3.2). The descriptor is not an appending one, since that would write at the end.
    """
    failpoints.pass_point("rewrite tail", path)
    with path.open("r+b") as file:
        file.seek(start)
        file.write(data)
        file.flush()
        sync(file.fileno())
