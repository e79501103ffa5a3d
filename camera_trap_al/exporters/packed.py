"""An export as one ZIP file, for a colleague."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from camera_trap_al.store import atomic

# The first date that a ZIP file can hold: what is packed has its own date inside, and equal files shall be equal.
DATE = (1980, 1, 1, 0, 0, 0)
MADE_ON_UNIX, PLAIN_FILE = 3, 0o100644


def write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    """Put files into a ZIP file, by name, whole or not at all; durable on return.

    Equal files give equal bytes, on any machine: they are stored as they are, since weights hardly become smaller.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(files.items()):
            member = zipfile.ZipInfo(name, DATE)
            member.create_system, member.external_attr = MADE_ON_UNIX, PLAIN_FILE << 16
            archive.writestr(member, data)
    # Not straight into the file, which cannot be gone back in: some programs do not read what is packed that way.
    atomic.replace_file(path, lambda file: file.write(packed.getbuffer()))
