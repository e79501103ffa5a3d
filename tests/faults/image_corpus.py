"""All image files of the corpus, written into a folder, with what is to become of each."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from broken_images import bombs, damaged, other_files
from odd_images import good_files
from picture_bytes import COLOURS, jpeg

NAMES = (
    "é.jpg",
    "e\u0301.jpg",
    "狐.jpg",
    "🦊.jpg",
    ".hidden.jpg",
    " lead.jpg",
    "#%&+;'.jpg",
    "=cmd|x!A1.jpg",
    "-rf.jpg",
    "a" * 246 + ".jpg",
)
POSIX_NAMES = (
    "line\nbreak.jpg",
    'quote".jpg',
    "back\\slash.jpg",
    "trail .jpg ",
    "co:lon.jpg",
    "tab\t.jpg",
    os.fsdecode(b"\xff\xfe.jpg"),
)


@dataclass(frozen=True)
class Case:
    """One file: its name, and the outcomes that are right (a kind of pixels, or quarantine codes)."""

    name: str
    expected: frozenset[str]


def build(folder: Path) -> list[Case]:
    """Write all files into a folder; return what is to become of each."""
    cases: list[Case] = []

    def add(name: str, expected: str, write: Callable[[Path], object]) -> None:
        write(folder / name)
        cases.append(Case(name, frozenset(expected.split("|"))))

    for part in (good_files, other_files, bombs, damaged):
        for name, data, expected in part():
            add(name, expected, lambda path, data=data: path.write_bytes(data))  # type: ignore[misc]
    plain = jpeg()
    for name in NAMES + (POSIX_NAMES if sys.platform == "linux" else ()):
        add(name, COLOURS, lambda path: path.write_bytes(plain))
    add("folder.jpg", "not_an_image", lambda path: path.mkdir())
    if os.name == "posix":
        add("pipe.jpg", "not_an_image", lambda path: os.mkfifo(path))
        add("device.jpg", "not_an_image", lambda path: path.symlink_to("/dev/zero"))
        add("socket.jpg", "not_an_image", _make_socket)
        add("dangling.jpg", "gone", lambda path: path.symlink_to("nowhere.jpg"))
        add("looping.jpg", "gone", lambda path: path.symlink_to(path.name))
    add("gone.jpg", "gone", lambda path: None)
    return cases


def _make_socket(path: Path) -> None:
    """Bind below the folder's own path, since socket addresses are short."""
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)
