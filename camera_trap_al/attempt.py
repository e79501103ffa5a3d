"""What `worker.json` says of the newest attempt at a job, and how often the job died before.

An attempt that neither committed anything nor noted its end is a death. Labels or a configuration that changed since
make earlier deaths count no more.
"""

from __future__ import annotations

import os
import threading
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from camera_trap_al.store import atomic
from camera_trap_al.store.json_files import read_object

DEATHS_ALLOWED = 3


@dataclass(frozen=True)
class Noted:
    """The content of `worker.json`.

    `deaths` counts those before this attempt; `commits` what this one has saved; `end` is how it ended, "" until it
    did; `stamp` stands for the labels and the configuration it began with.
    """

    job: str
    stamp: str
    pid: int = 0
    generation: int = 0
    seed: int = 0
    attempt: int = 1
    deaths: int = 0
    commits: int = 0
    end: str = ""


def read_noted(path: Path) -> Noted | None:
    """Return what is noted, or None if there is nothing that can be read."""
    try:
        noted = read_object(path)
        known = {f.name: noted[f.name] for f in fields(Noted)}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Noted(**known)


def deaths_by(noted: Noted) -> int:
    """Return how many attempts in a row have died, once the process of this one is gone."""
    if noted.commits or noted.end in ("done", "gave way"):
        return 0
    return noted.deaths if noted.end else noted.deaths + 1


class Attempt:
    """The worker's record of what it does now. Its methods may be called from any thread."""

    def __init__(self, path: Path, job: str, stamp: str) -> None:
        before = read_noted(path)
        self.noted = Noted(job, stamp, os.getpid())
        if before is not None and (before.job, before.stamp) == (job, stamp) and before.end != "done":
            self.noted = replace(self.noted, attempt=before.attempt + 1, deaths=deaths_by(before))
        self._path = path
        self._writing = threading.Lock()

    def begin(self, generation: int, seed: int) -> None:
        """Note which generation is worked on; durable on return."""
        self._write(generation=generation, seed=seed)

    def commit(self) -> None:
        """Note that something was saved; durable on return."""
        self._write(commits=self.noted.commits + 1)

    def end(self, how: str) -> None:
        """Note how the attempt ended, unless that was noted; durable on return."""
        if not self.noted.end:
            self._write(end=how)

    def _write(self, **changes: int | str) -> None:
        with self._writing:
            self.noted = replace(self.noted, **changes)  # type: ignore[arg-type]
            atomic.replace_json(self._path, {"format": 1, **asdict(self.noted)})
