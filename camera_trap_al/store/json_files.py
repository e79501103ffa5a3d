"""Reads JSON files that others may have changed: whatever lies there, an answer or an error comes at once."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

MOST_BYTES = 64_000_000
_FLAGS = os.O_RDONLY
for _name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
    _FLAGS |= getattr(os, _name, 0)


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises
    ------
    ValueError
        it is a link, no regular file, over 64 MB, nested too deeply, no JSON or no object
    OSError
        it is not there or cannot be read
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise ValueError(f"{path} is a link or a pipe, not a file") from error
        raise
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError(f"{path} is no file")
        if facts.st_size > MOST_BYTES:
            raise ValueError(f"{path} is too large ({facts.st_size / 1e6:.0f} MB)")
        try:
            value = json.loads(file.read(MOST_BYTES))
        except RecursionError as error:
            raise ValueError(f"{path} is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no JSON object")
    return value
