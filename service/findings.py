"""What the checks of `doctor` look at, once for all of them, and what they say."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from camera_trap_al.catalog.found import POOL, TRAIN, VALIDATION
from camera_trap_al.catalog.scan import SKIPPED_FOLDERS, Tally, printable, walk
from camera_trap_al.config import Config
from camera_trap_al.config_file import read_work_config
from camera_trap_al.core.history import History
from camera_trap_al.errors import CameraTrapAlError
from camera_trap_al.layout import WorkFolder
from camera_trap_al.store.journal import Line, read_journal
from camera_trap_al.work import image_folders

OK, NOTE, PROBLEM = "ok", "note", "problem"
MOST_TWINS = 200


@dataclass(frozen=True)
class Finding:
    """One line of the answer: how bad it is (`OK`, `NOTE` or `PROBLEM`), what was found, and what to do about it."""

    level: str
    text: str
    fix: str = ""


def ok(text: str) -> Finding:
    """Return that something is as it should be."""
    return Finding(OK, text)


def note(text: str, fix: str) -> Finding:
    """Return something that works, but not as well as it could, or that is good to know."""
    return Finding(NOTE, text, fix)


def problem(text: str, fix: str) -> Finding:
    """Return something that stops the work, loses answers or spoils the result."""
    return Finding(PROBLEM, text, fix)


def finding_line(name: str, finding: Finding) -> str:
    """Return one line for a person."""
    return f"{finding.level:<8} {name}: {finding.text}{' → ' if finding.fix else ''}{finding.fix}"


@dataclass
class Seen:
    """What lies in one folder of images.

    `not_shown` counts by file extension the pictures that the labelling tool cannot show; `twins` are pairs of paths,
    of an image here and of one of the same size in the validation folder; `error` says why the folder could not be
    looked through, "" if it could.
    """

    kind: str
    folder: Path
    n_images: int = 0
    n_empty: int = 0
    not_shown: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    class_folders: list[str] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)
    twins: list[tuple[str, str]] = field(default_factory=list)
    sizes: dict[int, str] = field(default_factory=dict)
    example: str = ""
    tally: Tally = field(default_factory=Tally)
    error: str = ""


class Case:
    """What is looked at: this computer and, if one is named, a work folder. Nothing in it is changed.

    Parameters
    ----------
    root : the work folder, or None
    on_progress : called with what is done and how many images it was done for
    """

    def __init__(self, root: Path | None, on_progress: Callable[[str, int], None] = lambda phase, done: None) -> None:
        self.root = root
        self._on_progress = on_progress

    @functools.cached_property
    def settings(self) -> tuple[WorkFolder, Config] | None:
        """The paths and the configuration of the work folder, None where there are none that can be used."""
        if self.root is None:
            return None
        try:
            return read_work_config(self.root)
        # What is wrong is said by the check of config.toml.
        except Exception:
            return None

    @property
    def folder(self) -> WorkFolder:
        """The paths of the work folder; only for checks that need one."""
        assert self.settings is not None
        return self.settings[0]

    @property
    def config(self) -> Config:
        """The configuration of the work folder; only for checks that need one."""
        assert self.settings is not None
        return self.settings[1]

    @functools.cached_property
    def lines(self) -> list[Line]:
        """The journal's good lines; none where it is not there or damaged."""
        try:
            return read_journal(self.folder.journal)[0]
        except CameraTrapAlError:
            return []

    def classes(self) -> set[str]:
        """Return every class that is known: by folders, configuration and journal."""
        part = self.config.classes
        named = {*part.names, *History.of(self.lines).classes, *([part.empty] if part.empty else [])}
        return named.union(*(seen.class_folders for seen in self.seen.values()))

    @functools.cached_property
    def seen(self) -> dict[str, Seen]:
        """What lies in each folder of images that is configured and there, by kind."""
        folders = image_folders(self.config)
        seen: dict[str, Seen] = {}
        for kind in (VALIDATION, TRAIN, POOL):
            if kind in folders:
                sizes = seen[VALIDATION].sizes if VALIDATION in seen else {}
                seen[kind] = self._look_through(kind, folders[kind], sizes)
        return seen

    def _look_through(self, kind: str, folder: Path, sizes: Mapping[int, str]) -> Seen:
        seen = Seen(kind, folder)
        tool, selector = self.config.labels.tool, self.config.selector
        try:
            if kind != POOL:
                seen.class_folders = class_folders(folder)
            walked = walk(
                folder,
                kind,
                tool=tool,
                leave_out=self.folder.root,
                tally=seen.tally,
                allow_formula=selector.allow_formula_names,
                top_images=selector.top_images,
            )
            for image in walked:
                seen.n_images += 1
                if seen.n_images % 1000 == 0:
                    self._on_progress(f"looking through {folder.name}", seen.n_images)
                seen.n_empty += image.size == 0
                seen.classes[image.class_name] += 1
                seen.folders.add(image.path.rpartition("/")[0])
                seen.example = seen.example or image.path
                extension = image.path[image.path.rfind(".") :].lower()
                if kind == POOL and tool == "timelapse" and extension != ".jpg":
                    seen.not_shown[extension] += 1
                if kind == VALIDATION and image.size:
                    seen.sizes[image.size] = image.path
                elif image.size in sizes and len(seen.twins) < MOST_TWINS:
                    seen.twins.append((image.path, sizes[image.size]))
        except OSError as error:
            seen.error = f"{error.filename or folder}: {error.strerror or error}"
        return seen


def class_folders(folder: Path) -> list[str]:
    """Return the names of the folders directly below a folder of labelled images, Timelapse's own left out."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_dir()]
    return [printable(name) for name in names if not name.startswith(".") and name.casefold() not in SKIPPED_FOLDERS]
