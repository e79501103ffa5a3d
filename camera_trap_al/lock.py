"""One daemon per work folder, one worker per daemon: operating-system locks that die with their process."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

from filelock import FileLock, Timeout

from camera_trap_al.errors import LockedError
from camera_trap_al.store import atomic


def take_lock(path: Path) -> FileLock | None:
    """Take the lock at `path` if nobody holds it, else return None. It is free again when the process ends."""
    atomic.make_folder(path.parent)
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return None
    return lock


def is_held(path: Path) -> bool:
    """Return whether another process holds the lock at `path`."""
    if not path.exists():
        return False
    lock = take_lock(path)
    if lock is None:
        return True
    lock.release()
    return False


def take_daemon_lock(path: Path, lease: Path) -> FileLock:
    """Take the daemon's lock and note in `lease` who holds it, or raise `LockedError` naming the holder."""
    lock = take_lock(path)
    if lock is None:
        raise LockedError(
            f"Another camera-trap-al works in {lease.parent}{_holder(lease)}.",
            hint="Stop that one first (Ctrl-C in its window), or use `camera-trap-al status` to see what it does.",
        )
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    atomic.replace_json(lease, {"format": 1, "host": socket.gethostname(), "pid": os.getpid(), "started": started})
    return lock


def _holder(lease: Path) -> str:
    try:
        noted = json.loads(lease.read_text(encoding="utf-8"))
        return f" (process {noted['pid']} on {noted['host']}, since {noted['started']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
