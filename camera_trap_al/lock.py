"""One daemon per work folder, one worker per daemon: operating-system locks that die with their process."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from camera_trap_al import private
from camera_trap_al.layout import WorkFolder
from camera_trap_al.lease import Lease, held_by, pause, read_holder
from camera_trap_al.store import atomic
from camera_trap_al.store.journal import decode_line

if TYPE_CHECKING:
    from filelock import FileLock

# Someone who only looks whether a lock is held holds it for a moment, so takers look twice.
PATIENCE_S = 0.5
PAUSE_S = 0.05


def take_lock(path: Path) -> FileLock | None:
    """Take the lock at `path` if nobody holds it, else return None. It is free again when the process ends."""
    from filelock import FileLock, Timeout  # takes as long as all else that the verb `status` does

    atomic.make_folder(path.parent)
    lock = FileLock(path, mode=0o600) if atomic.is_private(path) else FileLock(path)
    try:
        lock.acquire(timeout=PATIENCE_S, poll_interval=PAUSE_S)
    except Timeout:
        return None
    return lock


def is_held(path: Path) -> bool:
    """Return whether a process holds the lock at `path`. Makes no file, and asks for no right to write."""
    if sys.platform != "win32":
        import fcntl

        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False
    if not path.exists():
        return False
    lock = take_lock(path)
    if lock is None:
        return True
    lock.release()
    return False


class DaemonLock:
    """What makes this process the one daemon of a work folder: the lock beside the journal, the lease for all to see."""

    def __init__(self, lock: FileLock, lease: Lease) -> None:
        self._lock, self.lease = lock, lease

    @classmethod
    def take(
        cls,
        folder: WorkFolder,
        *,
        on_lost: Callable[[], None] = lambda: None,
        wait: Callable[[float], bool] = pause,
    ) -> DaemonLock:
        """Take lock and lease, and renew the lease from now on. Raises as `Lease.take` does."""
        private.check(folder)
        lock = take_lock(folder.daemon_lock)
        if lock is None:
            there = None
            with contextlib.suppress(OSError, ValueError):
                there = read_holder(folder.lease)
            raise held_by(folder.lease, there)
        try:
            lease = Lease.take(folder.lease, folder.state, journal_identity(folder.journal), on_lost=on_lost, wait=wait)
        except BaseException:
            lock.release()
            raise
        lease.start()
        return cls(lock, lease)

    def release(self) -> None:
        """Let go of both."""
        self.lease.release()
        self._lock.release()


def journal_identity(path: Path) -> str:
    """Return the identity in a journal's first line, or "" where there is no such line."""
    try:
        with path.open("rb") as file:
            line = decode_line(file.readline(), 1)
    except OSError:
        return ""
    return str(line.get("identity", "")) if line else ""
