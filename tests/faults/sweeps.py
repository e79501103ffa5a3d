"""One stage of the scenario in a folder of its own: played undisturbed, then interrupted anywhere and played on.

Whether an interrupted stage ends as the undisturbed one is known as soon as the folder and the facts are those of some
turn whose end is known: what follows depends on nothing else. A sample of stages is played to the end all the same.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import sqlite3
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import scenario
from state_hash import acknowledged, difference, lost, state_of

from camera_trap_al.core.steps import Facts, Step
from camera_trap_al.errors import CameraTrapAlError
from camera_trap_al.labels import timelapse
from camera_trap_al.layout import WorkFolder
from camera_trap_al.loop import Loop
from camera_trap_al.store import generations
from camera_trap_al.store.atomic import Operation, failpoints
from camera_trap_al.store.journal import read_journal
from camera_trap_al.work import Work

LEFTOVER = re.compile(r"\..*\.partial|\.trash-.*")
LEFT_OUT = re.compile(r".*\.lock|worker\.json|catalog\.sqlite-journal")
REMOVED = re.compile(f"{LEFT_OUT.pattern}|{LEFTOVER.pattern}")
TORN = re.compile(r"(\.torn-\d+)-\d+")
METHOD = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
CATALOGUE = "catalog.sqlite"
WHOLE = 10


@dataclass(frozen=True)
class Turn:
    """A turn of the undisturbed stage: how many operations there were before it, and what a loop needs to begin with it."""

    before: int
    step: Step
    copy: Path
    memory: scenario.Memory


class Sweep:
    """One stage, its beginning and end, and what was found so far."""

    def __init__(self, base: Path, stage: int) -> None:
        self.root, self.begin, self.stage = base / "season", base / "begin", stage
        self.work, self.copies = self.root / "work", base / "copies"
        self.folder = WorkFolder.at(self.work)
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()
        self.operations: list[Operation] = []
        self.turns: list[Turn] = []
        self._known: set[str] = set()
        self._digests: dict[tuple[int, int, int], str] = {}
        self._catalogues: dict[str, str] = {}
        scenario.make_season(self.root)
        for earlier in range(stage):
            scenario.play(self.root, earlier)
        scenario.feed(self.root, stage)
        scenario.copy_work(self.work, self.begin)
        self.theirs = scenario.user_files(self.root)
        self.copies.mkdir()

    def play_watched(self, watch: Callable[[Operation], object]) -> None:
        """Play the stage undisturbed, with a copy of the work folder at each turn; `watch` sees each operation before."""

        def note(operation: Operation) -> None:
            self.operations.append(operation)
            watch(operation)

        def turn(loop: Loop, facts: Facts, step: Step) -> None:
            copy = self.copies / f"turn {len(self.turns)}"
            self.turns.append(Turn(len(self.operations), step, copy, scenario.memory_of(loop.work)))
            scenario.copy_work(self.work, copy)
            self._known.add(self._state(facts))

        failpoints.watch = note
        scenario.play(self.root, self.stage, on_turn=turn)
        failpoints.watch = None
        self.wanted = state_of(self.folder)

    def restore(self, source: Path) -> None:
        """Put a copy of the work folder in its place, and remember as little of it as a new process would."""
        self.forget()
        scenario.copy_work(source, self.work)

    def forget(self) -> None:
        generations._verified.clear()
        timelapse._digests.clear()

    def recover(self, where: str) -> str | None:
        """Open what a crash left; return the hash of what is there then."""
        told = acknowledged(self.folder)
        try:
            Work.open(self.work).close()
        except CameraTrapAlError as error:
            self.counts["failed starts"] += 1
            self.problems.append(f"{where}: does not start: {error}")
            return None
        self.check(where, told)
        # What a job or fit left in its hidden folder is taken up by the next one, or goes with the folder.
        self._check_leftovers(where, [p for p in self.work.rglob(".*") if not p.parent.name.startswith(".gen-")])
        return self.key()

    def finish(self, where: str) -> None:
        """Start again and play the stage until its end is known."""
        try:
            if not self.play_on(where):
                self.compare(where)
        except Exception:
            self.problems.append(f"{where}: does not go on: {traceback.format_exc()}")

    def play_on(self, where: str, *, turn: Turn | None = None, arm: Callable[[], object] | None = None) -> bool:
        """Play the stage until its end is known; return whether it is, False where it was played to the very end.

        With a `turn` it goes on from there as if in one process; `arm` is called as soon as the turn begins. Of these one in
        `WHOLE` is played to the end whatever is known. Raises what ends the program.
        """
        passed: list[str] = []
        is_joined = False
        is_whole = turn is not None and self.counts["from a turn"] % WHOLE == 0
        self.counts["from a turn"] += turn is not None
        told = acknowledged(self.folder)

        def begin(loop: Loop, facts: Facts, step: Step) -> None:
            if turn is not None and not passed:
                if step != turn.step:
                    self.problems.append(f"{where}: {step.name} follows where {turn.step.name} did")
                assert arm is not None
                arm()

        def until(facts: Facts, step: Step) -> bool:
            nonlocal is_joined
            passed.append(self._state(facts))
            # A step that failed is tried again in the same process at least once.
            is_joined = passed[-1] in self._known and (turn is None or len(passed) > 2 and not is_whole)
            return is_joined

        scenario.play(
            self.root, self.stage, until=until, on_turn=begin, memory=turn.memory if turn is not None else None
        )
        failpoints.fail_at = 0
        self.check(where, told)
        self.counts["played to the end"] += not is_joined
        if is_joined:
            self._known.update(passed)
        return is_joined

    def compare(self, where: str) -> None:
        """Compare what is there with the end of the undisturbed stage."""
        self.check(where, acknowledged(self.folder))
        self._check_leftovers(where, [*self.work.rglob(".*"), *self.work.rglob(".gen-*/*")])
        wrong = difference(self.wanted, state_of(self.folder))
        if wrong:
            self.problems.append(f"{where}: ends otherwise: {wrong}")

    def check(self, where: str, told: list[tuple[str, int, str, str]]) -> None:
        """Note what was acknowledged and is gone, and what changed that belongs to people."""
        gone = lost(told, read_journal(self.folder.journal)[0])
        self.counts["lost"] += len(gone)
        if gone:
            self.problems.append(f"{where}: lost {gone}")
        if scenario.user_files(self.root) != self.theirs:
            self.problems.append(f"{where}: a file of the user changed")

    def _check_leftovers(self, where: str, hidden: list[Path]) -> None:
        left = [str(path.relative_to(self.work)) for path in hidden if LEFTOVER.fullmatch(path.name)]
        if left:
            self.problems.append(f"{where}: left over: {left}")

    def has_leftovers(self) -> bool:
        """Return whether anything is there that the next start removes."""
        return any(LEFTOVER.fullmatch(entry.name) for _, entry in _files(str(self.work)))

    def key(self) -> str:
        """Return a hash of all contents, and one of the names."""
        return self._hash(lambda path, digest: digest)

    def _state(self, facts: Facts) -> str:
        """Return a hash of all contents and facts, without what is removed unread, or has lists and folders looked at again."""
        told = replace(facts, listed=(0, 0), scan_due=False)
        return f"{self._hash(self._catalogue, REMOVED)} {told}"

    def _catalogue(self, path: str, digest: str) -> str:
        """Return what the catalogue holds, as a hash; other files are what their hash says."""
        if not path.endswith(CATALOGUE):
            return digest
        if digest not in self._catalogues:
            with closing(sqlite3.connect(f"{Path(path).as_uri()}?mode=ro", uri=True)) as database:
                said = "\n".join(database.iterdump())
            self._catalogues[digest] = hashlib.sha256(said.encode()).hexdigest()
        return self._catalogues[digest]

    def _hash(self, told: Callable[[str, str], str], left_out: re.Pattern[str] = LEFT_OUT) -> str:
        contents, names = hashlib.sha256(), hashlib.sha256()
        work = str(self.work)
        for path, entry in sorted(_files(work)):
            if left_out.fullmatch(entry.name):
                continue
            name = TORN.sub(r"\1", path.removeprefix(work))
            names.update(name.encode())
            if entry.is_file():
                facts = entry.stat()
                known = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
                if known not in self._digests or facts.st_nlink == 1:
                    self._digests[known] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
                contents.update(f"{name} {told(path, self._digests[known])}\n".encode())
        return f"{contents.hexdigest()} {names.hexdigest()}"


def _files(folder: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry.path, entry
            if entry.is_dir():
                yield from _files(entry.path)


def names_of(key: str) -> str:
    """Return the hash of the names alone."""
    return key.partition(" ")[2]
