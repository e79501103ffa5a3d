"""Numbered folders with a manifest: built hidden, committed by one rename, never changed afterwards.

No pointer file: the newest number whose manifest verifies is current.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camera_trap_al.errors import NewerVersionError
from camera_trap_al.store import atomic
from camera_trap_al.store.json_files import read_object

FORMAT = 1
MANIFEST = "manifest.json"
KEPT_DAMAGED = 2
_BAD = re.compile(r"\.bad-gen-(\d+)")
_NAME = re.compile(r"gen-(\d{6,})")
_HIDDEN = re.compile(r"\.gen-(\d{6,})")
_verified: dict[Path, tuple[int, int]] = {}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Generation:
    """One committed result: its number, its folder and its manifest."""

    number: int
    folder: Path
    manifest: Mapping[str, Any]


def file_sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def folder_of(parent: Path, number: int) -> Path:
    """Return the folder of a generation, whether it is there or not."""
    return parent / f"gen-{number:06d}"


def hidden_folder_of(parent: Path, number: int) -> Path:
    """Return the folder in which a generation is built."""
    return parent / f".gen-{number:06d}"


def numbers(parent: Path) -> list[int]:
    """Return the numbers of the generations there, newest first, whole or not."""
    if not parent.is_dir():
        return []
    found = (_NAME.fullmatch(entry.name) for entry in parent.iterdir())
    return sorted((int(match[1]) for match in found if match), reverse=True)


def next_number(parent: Path) -> int:
    """Return the number after every one that was ever committed here, set aside or not."""
    used = [0, *numbers(parent)]
    if parent.is_dir():
        used += [int(m[1]) for entry in parent.iterdir() if (m := re.match(r"\.(?:bad|trash)-gen-(\d+)", entry.name))]
    return max(used) + 1


def identity(folder: Path) -> str:
    """Return what tells this very result from any other of the same number: the hash of its manifest, "" without one."""
    path = folder / MANIFEST
    return file_sha256(path)[:16] if path.is_file() else ""


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the manifest of a folder whose other files are all there; durable on return."""
    for partial in folder.glob(".*.partial"):
        # Left by a kill: in the manifest it would name a file that is soon gone.
        atomic.discard_file(partial)
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != MANIFEST
    }
    atomic.replace_json(folder / MANIFEST, {"format": FORMAT, "files": files, **facts})


def commit(parent: Path, number: int, facts: Mapping[str, Any]) -> Generation:
    """Write the manifest of the hidden folder and give it its number. The rename is the commit, durable on return."""
    hidden, final = hidden_folder_of(parent, number), folder_of(parent, number)
    write_manifest(hidden, facts)
    atomic.commit_folder(hidden, final)
    return Generation(number, final, read_manifest(final) or {})


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a folder if every file it names has the noted size and hash, else None.

    A folder is hashed once for each change of its manifest.
    """
    path = folder / MANIFEST
    try:
        stat = path.stat()
        manifest = read_object(path)
    except (OSError, ValueError):
        return None
    if not isinstance(manifest.get("files"), dict):
        return None
    stamp = (stat.st_mtime_ns, stat.st_size)
    if _verified.get(path) == stamp:
        return manifest
    for name, noted in manifest["files"].items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != noted["bytes"] or file_sha256(file) != noted["sha256"]:
            return None
    _verified[path] = stamp
    return manifest


def read_noted(folder: Path, name: str) -> bytes:
    """Return a file of a generation: the very bytes that its manifest names.

    Raises `OSError` where there is none, `ValueError` where the manifest names other bytes or none.
    """
    noted = read_object(folder / MANIFEST).get("files", {})
    data = (folder / name).read_bytes()
    if name not in noted or noted[name].get("sha256") != hashlib.sha256(data).hexdigest():
        raise ValueError(f"{folder / name} is not the file that was made with this folder")
    return data


def newest(parent: Path) -> Generation | None:
    """Return the newest generation whose manifest verifies, or None."""
    for number in numbers(parent):
        manifest = read_manifest(folder_of(parent, number))
        if manifest is not None:
            return Generation(number, folder_of(parent, number), manifest)
    return None


def set_damaged_aside(parent: Path) -> list[str]:
    """Rename every numbered folder whose manifest does not verify to `.bad-…`; return sentences that say so.

    Raises `NewerVersionError` where a newer version of this program wrote one.
    """
    said = []
    for number in numbers(parent):
        folder = folder_of(parent, number)
        if read_manifest(folder) is None:
            aside = atomic.rename_aside(folder, f".bad-{folder.name}")
            said.append(f"{folder} is damaged and was set aside as {aside.name}.")
    return said


def set_all_aside(parent: Path) -> int:
    """Rename every numbered folder to `.bad-…`, drop what was being built; return how many were renamed.

    Their numbers are not used again. Newest first, so that a crash between leaves an older state, never a mixed one.
    """
    for entry in parent.iterdir():
        if _HIDDEN.fullmatch(entry.name):
            atomic.discard_folder(entry)
    found = numbers(parent)
    for number in found:
        atomic.rename_aside(folder_of(parent, number), f".bad-{folder_of(parent, number).name}")
    return len(found)


def prune(parent: Path, keep: set[int]) -> None:
    """Remove the generations not in `keep`."""
    for number in numbers(parent):
        if number not in keep:
            atomic.discard_folder(folder_of(parent, number))


def forget_damaged(parent: Path) -> None:
    """Remove what was set aside as damaged, but for the newest few, and for a number that must not be used again."""
    aside = sorted((int(m[1]), entry.name) for entry in parent.iterdir() if (m := _BAD.match(entry.name)))
    newest_number = max(numbers(parent), default=0)
    for number, name in aside[:-KEPT_DAMAGED]:
        if number < newest_number:
            atomic.discard_folder(parent / name)


def check_format(folder: Path) -> None:
    """Raise `NewerVersionError` if a newer version of this program wrote the manifest of a folder."""
    try:
        found = read_object(folder / MANIFEST).get("format")
    except (OSError, ValueError):
        return
    if isinstance(found, int) and found > FORMAT:
        raise NewerVersionError(
            f"{folder} was made by a newer version of this program (format {found}; this one knows {FORMAT}).",
            hint="Install the newer version again, or move that folder away, so that it is made anew from the labels.",
        )


def remove_trash(parent: Path) -> None:
    """Finish removals that were interrupted."""
    if parent.is_dir():
        for entry in list(parent.iterdir()):
            if entry.name.startswith(atomic.TRASH_PREFIX):
                atomic.discard_folder(entry)
