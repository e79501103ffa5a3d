"""Is there space on the disk for what comes next? Asked before it is begun, so that a full disk is a pause.

A step that finds too little fails and rests; what it was about to do is done once there is space.
"""

from __future__ import annotations

from pathlib import Path

from camera_trap_al.errors import DiskFullError
from camera_trap_al.store import atomic, generations

MB = 1_000_000


def require_space(folder: Path, needed_mb: float) -> None:
    """Raise `DiskFullError` unless so many megabytes are free on the disk of a folder."""
    free_mb = atomic.free_bytes(folder) / MB
    if free_mb < needed_mb:
        raise DiskFullError(
            f"The disk of {folder} is almost full: {free_mb:.0f} MB are free, {needed_mb:.0f} MB are needed.",
            hint="Free some space; the program goes on by itself. All labels are safe.",
        )


def require_space_for_next(parent: Path, least_mb: float) -> None:
    """Raise `DiskFullError` unless twice the size of the newest generation in `parent` is free, and `least_mb`."""
    numbers = generations.numbers(parent)
    newest = generations.folder_of(parent, max(numbers)) if numbers else parent / ".none"
    require_space(parent, max(least_mb, 2 * folder_bytes(newest) / MB))


def folder_bytes(folder: Path) -> int:
    """Return how many bytes the files directly in a folder take, 0 where there is none."""
    if not folder.is_dir():
        return 0
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
