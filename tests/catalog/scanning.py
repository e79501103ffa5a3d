"""Folders of stand-in images, and a whole scan of them; shared by the tests of the catalogue."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.catalog.found import POOL
from camera_trap_al.catalog.scan import Scan
from camera_trap_al.images import hash_file

TEN_MINUTES_S = 600.0


def put(folder: Path, names: Iterable[str], content: bytes = b"not opened by a scan") -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


class Reads:
    """Hashes files and counts them."""

    def __init__(self) -> None:
        self.paths: list[Path] = []

    def __call__(self, path: Path) -> str:
        self.paths.append(path)
        return hash_file(path)


def scan(
    catalog: Catalog,
    folders: dict[str, Path],
    elapsed_s: float = TEN_MINUTES_S,
    reads: Reads | None = None,
    **options: Any,
) -> Scan:
    """Run one whole scan; `options` are those of `walk`."""
    given = {"tool": "timelapse", "leave_out": folders[POOL] / "mine", **options}
    one = Scan(catalog, folders, hash_file=reads or hash_file, **given)
    while not one.run_slice():
        pass
    one.away = one.finish(elapsed_s)  # type: ignore[attr-defined]
    return one
