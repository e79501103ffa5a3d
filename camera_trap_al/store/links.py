"""Which names are links, which this program replaces and never follows when it writes or removes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

# The tag of a junction, by which Windows shows one folder in another.
MOUNT_POINT = 0xA0000003


def is_link(path: Path) -> bool:
    """Return whether there is a symbolic link, or a junction of Windows, at `path`."""
    try:
        facts = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISLNK(facts.st_mode) or getattr(facts, "st_reparse_tag", 0) == MOUNT_POINT
