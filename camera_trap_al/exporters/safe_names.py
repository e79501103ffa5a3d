"""Names of folders and files that every system takes: on Windows, macOS and memory cards as well as on Linux."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath

FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE | re.DOTALL)
MOST_BYTES = 200


class SafeNames:
    """Gives paths names that every system takes, a different one to each different path.

    What Windows does not allow becomes `_`; of names that differ by case alone, or not at all after that, the later ones get
    a number. The same paths in the same order get the same names.
    """

    def __init__(self) -> None:
        self._folders: dict[tuple[str, str], str] = {}
        self._taken: set[str] = set()

    def of(self, parts: Sequence[str]) -> tuple[str, ...]:
        """Return the names of a file and its folders, the outermost first; each file is asked for once."""
        names: list[str] = []
        for part in parts[:-1]:
            above = "/".join(names)
            known = self._folders.get((above, part))
            if known is None:
                known = self._folders[above, part] = self._new(above, part)
            names.append(known)
        return (*names, self._new("/".join(names), parts[-1]))

    def _new(self, above: str, part: str) -> str:
        wanted = PurePosixPath(safe_name(part))
        name, n = wanted.name, 1
        while _alike(f"{above}/{name}") in self._taken:
            n += 1
            name = f"{wanted.stem} ({n}){wanted.suffix}"
        self._taken.add(_alike(f"{above}/{name}"))
        return name


def safe_name(text: str) -> str:
    """Return a name for a folder or file that every system takes and no system hides."""
    name = FORBIDDEN.sub("_", text)
    while len(name.encode("utf-8", "surrogateescape")) > MOST_BYTES:
        name = f"{PurePosixPath(name).stem[:-1]}{PurePosixPath(name).suffix}"
    name = name.strip(" ").rstrip(" .")
    return f"_{name}" if not name or name.startswith(".") or RESERVED.fullmatch(name) else name


def _alike(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()
