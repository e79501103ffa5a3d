"""A work folder with a few images and a template, made without looking at the images, for the checks of `doctor`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from camera_trap_al.config import build
from camera_trap_al.config_file import config_text
from camera_trap_al.labels.template import make_template
from camera_trap_al_service.findings import Case, Finding
from camera_trap_al_service.init import make_work_folder

CLASSES = ("fox", "lynx")


class World:
    """Below `root`: the work folder `work`, `pool` with a template, `train` and `validation`."""

    def __init__(self, root: Path) -> None:
        self.root, self.work, self.pool = root, root / "work", root / "pool"
        for path in ("pool/a/1.jpg", "pool/2.JPG", "train/fox/1.jpg", "train/fox/2.jpg", "train/lynx/1.jpg"):
            self.put(path)
        for path in ("train/lynx/2.jpg", "validation/fox/1.jpg", "validation/lynx/1.jpg"):
            self.put(path)
        make_template(self.pool / "TimelapseTemplate.tdb", [*CLASSES, "unsure"])
        self.configure()

    def put(self, path: str, content: bytes | None = None) -> Path:
        """Write a file, by default of a content and a length of its own."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        n = sum(1 for _ in self.root.rglob("*"))
        target.write_bytes(path.encode() + b"x" * n if content is None else content)
        return target

    def configure(self, **options: Any) -> None:
        """Make the work folder, or change its configuration, with further options (`__` for `.`)."""
        folders = {f"data.{kind}": str(self.root / kind) for kind in ("train", "validation")}
        given = {"data.unlabelled": str(self.pool), **folders, "embedding.arch": "tiny", "daemon.min_free_mb": 0.0}
        config = build(given | {key.replace("__", "."): value for key, value in options.items()}, "test")
        if self.work.exists():
            (self.work / "config.toml").write_text(config_text(config), encoding="utf-8")
        else:
            make_work_folder(self.work, config)

    def template(self, statement: str, *values: str) -> None:
        """Change the template as a person would in an editor."""
        with closing(sqlite3.connect(self.pool / "TimelapseTemplate.tdb")) as database, database:
            database.execute(statement, values)

    def look(self, check: Callable[[Case], list[Finding]]) -> list[Finding]:
        """Return what a check finds in the work folder as it is now."""
        return check(Case(self.work))

    def tree(self) -> dict[str, tuple[int, bytes]]:
        """Return every file below with its time and content."""
        files = [path for path in self.root.rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def only(found: list[Finding], level: str) -> Finding:
    """Return the one finding of a level; there must be one."""
    matching = [finding for finding in found if finding.level == level]
    assert len(matching) == 1, found
    return matching[0]


def is_well(found: list[Finding]) -> bool:
    """Return whether a check found something to say, and nothing to do."""
    return bool(found) and all(finding.level == "ok" for finding in found)
