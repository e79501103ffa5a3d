"""Every durable operation of a season fails, or is the last: no acknowledged label is lost, and all ends as without it.

What a kill leaves is the folder as it is at that operation: a copy is taken at each, and a sample of processes that are
really killed shows that they leave the same. Failures are raised in a run of their own. All of it happens in a child
process, which `scenario.quicken` makes fast.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import multiprocessing
import re
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import scenario
from state_hash import acknowledged, difference, lost, state_of

from camera_trap_al.errors import CameraTrapAlError, DurableWriteError
from camera_trap_al.labels import timelapse
from camera_trap_al.layout import WorkFolder
from camera_trap_al.store import generations
from camera_trap_al.store.atomic import KILLED_STATUS, Operation, failpoints
from camera_trap_al.store.journal import read_journal
from camera_trap_al.work import Work

pytestmark = pytest.mark.faults

STAGES = range(len(scenario.STAGES))
RAISING = ("eio", "enospc", "short")
# Of a file's five operations each raising mode fails one, another one at the next file; `--long` fails all.
STRIDE = 5
REALLY_KILLED = 4
LEFTOVER = re.compile(r"\..*\.partial|\.trash-.*")
LEFT_OUT = re.compile(r".*\.lock|worker\.json|catalog\.sqlite-journal")


class Sweep:
    """One stage in a folder of its own, its beginning and end, and what was found so far."""

    def __init__(self, base: Path, stage: int) -> None:
        self.root, self.begin, self.stage = base / "season", base / "begin", stage
        self.work, self.copy = self.root / "work", base / "copies"
        self.folder = WorkFolder.at(self.work)
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()
        self.operations: list[Operation] = []
        self._digests: dict[tuple[int, int, int], str] = {}
        self._ended: set[str] = set()
        scenario.make_season(self.root)
        for earlier in range(stage):
            scenario.play(self.root, earlier)
        scenario.feed(self.root, stage)
        scenario.copy_work(self.work, self.begin)
        self.theirs = scenario.user_files(self.root)
        self.copy.mkdir()

    def play_and_copy(self) -> None:
        """Play the stage undisturbed, with a copy of the work folder at each operation."""

        def note(operation: Operation) -> None:
            self.operations.append(operation)
            scenario.copy_work(self.work, self.copy / str(len(self.operations)))

        self.play_watched(note)

    def play_watched(self, watch: Callable[[Operation], None]) -> None:
        """Play the stage undisturbed; `watch` sees each operation before it happens."""
        failpoints.watch = watch
        scenario.play(self.root, self.stage)
        failpoints.watch = None
        self.wanted = state_of(self.folder)

    def restore(self, source: Path) -> None:
        """Put a copy of the work folder in its place."""
        self.forget()
        scenario.copy_work(source, self.work)

    def forget(self) -> None:
        """Let this process remember as little of the folder as a new one would."""
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
        self._check(where, told)
        # What a job or fit left in its hidden folder is taken up by the next one, or goes with the folder.
        self._check_leftovers(where, [p for p in self.work.rglob(".*") if not p.parent.name.startswith(".gen-")])
        return self._key()

    def finish(self, where: str) -> None:
        """Play the stage to its end and compare."""
        try:
            scenario.play(self.root, self.stage)
        except Exception:
            self.problems.append(f"{where}: does not go on: {traceback.format_exc()}")
            return
        self._compare(where)

    def _compare(self, where: str) -> None:
        """Compare what is there with the end of the undisturbed stage."""
        self._check(where, acknowledged(self.folder))
        self._check_leftovers(where, [*self.work.rglob(".*"), *self.work.rglob(".gen-*/*")])
        wrong = difference(self.wanted, state_of(self.folder))
        if wrong:
            self.problems.append(f"{where}: ends otherwise: {wrong}")

    def after_kill(self, n: int, mode: str) -> None:
        """Recover from a kill at operation n, and go on if no other kill left the same."""
        operation = self.operations[n - 1]
        where = f"{mode} at {n} of stage {self.stage}, {operation.name} {operation.path.name}"
        self.restore(self.copy / str(n))
        if mode == "torn":
            half = operation.data[: len(operation.data) // 2]
            with operation.path.open("r+b") as file:
                file.seek(operation.at)
                file.write(half)
        self.counts[mode] += 1
        during = self._copies_of_recovery(n) if mode == "torn" or n % STRIDE == 0 else []
        key = self.recover(where)
        failpoints.watch = None
        if key is not None and key not in self._ended:
            self._ended.add(key)
            self.counts["played on"] += 1
            self.finish(where)
        for again in during:
            self.counts["killed while recovering"] += 1
            self.restore(again)
            other = self.recover(f"{where}, recovery killed at {again.name}")
            # Before the journal is there, each start makes identities of its own.
            if other is None or key is None or (other != key if self.stage else _names(other) != _names(key)):
                self.problems.append(f"{where}: another recovery after it was killed at {again.name}")

    def _copies_of_recovery(self, n: int) -> list[Path]:
        copies: list[Path] = []

        def note(operation: Operation) -> None:
            copies.append(self.copy / f"{n}-{len(copies) + 1}")
            scenario.copy_work(self.work, copies[-1])

        failpoints.watch = note
        return copies

    def after_failure(self, n: int, mode: str) -> None:
        """Play the stage with operation n failing; the program goes on, or ends and is started again."""
        self.restore(self.begin)
        failpoints.count, failpoints.fail_at, failpoints.mode = 0, n, mode
        where = f"{mode} at {n} of stage {self.stage}"
        self.counts[mode] += 1
        try:
            scenario.play(self.root, self.stage)
            goes_on = self._compare
        except OSError as error:
            # Truth that cannot be written; or a folder, when the work folder is opened.
            self.counts["ended"] += 1
            goes_on = self.finish
            if failpoints.count > OPENING and not isinstance(error, DurableWriteError):
                self.problems.append(f"{where}: {error!r}")
        finally:
            failpoints.fail_at = 0
        if self.recover(where) is not None:
            goes_on(where)

    def after_real_kill(self, n: int) -> None:
        """Really kill a process at operation n: it leaves what the copy holds."""
        self.restore(self.begin)
        child = multiprocessing.get_context(METHOD).Process(target=_play_and_die, args=(self.root, self.stage, n))
        child.start()
        child.join()
        left = self._key()
        self.counts["processes killed"] += 1
        self.restore(self.copy / str(n))
        # The journal's times differ, and with them its checksums; nothing else does.
        if child.exitcode != KILLED_STATUS or _names(left) != _names(self._key()):
            self.problems.append(f"kill at {n} of stage {self.stage}: the copy is not what a kill leaves")

    def _check(self, where: str, told: list[tuple[str, int, str, str]]) -> None:
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

    def _key(self) -> str:
        """Return a hash of all contents, and one of the names."""
        contents, names = hashlib.sha256(), hashlib.sha256()
        for path in sorted(self.work.rglob("*")):
            name = re.sub(r"(\.torn-\d+)-\d+", r"\1", str(path.relative_to(self.work)))
            if LEFT_OUT.fullmatch(path.name):
                continue
            names.update(name.encode())
            if path.is_file():
                facts = path.stat()
                known = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
                if known not in self._digests or facts.st_nlink == 1:
                    self._digests[known] = hashlib.sha256(path.read_bytes()).hexdigest()
                contents.update(f"{name} {self._digests[known]}\n".encode())
        return f"{contents.hexdigest()} {names.hexdigest()}"


def _names(key: str) -> str:
    return key.partition(" ")[2]


METHOD = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
OPENING = 12


def _play_and_die(root: Path, stage: int, n: int) -> None:
    if METHOD == "spawn":
        scenario.quicken()
    logging.disable(logging.CRITICAL)
    failpoints.watch = None
    failpoints.count, failpoints.fail_at, failpoints.mode = 0, n, "kill"
    scenario.play(root, stage)


def _sweep(base: Path, stage: int, kind: str, long: int, answer: Path) -> None:
    """Be the child process: sweep one stage, write what was found to `answer`."""
    scenario.quicken()
    logging.disable(logging.CRITICAL)
    sweep = Sweep(base, stage)
    tasks: Iterable[tuple[Callable[..., None], tuple[Any, ...]]]
    if kind == "kill":
        sweep.play_and_copy()
        points = range(1, len(sweep.operations) + 1)
        tasks = [(sweep.after_kill, (n, "kill")) for n in points]
        tasks += [(sweep.after_kill, (n, "torn")) for n in points if sweep.operations[n - 1].data]
        tasks += [(sweep.after_real_kill, (n,)) for n in points[:: max(1, len(points) // (REALLY_KILLED * long))]]
    else:
        sweep.play_watched(sweep.operations.append)
        points = range(1, len(sweep.operations) + 1)
        tasks = [
            (sweep.after_failure, (n, mode))
            for n in points
            for i, mode in enumerate(RAISING)
            if long > 1 or (n + n // STRIDE + i) % STRIDE == 0
        ]
    gc.freeze()
    gc.disable()
    for i, (task, arguments) in enumerate(tasks):
        task(*arguments)
        if i % 50 == 0:
            gc.collect()
    found = {"points": len(sweep.operations), "counts": sweep.counts, "problems": sweep.problems}
    answer.write_text(json.dumps(found), encoding="utf-8")


@pytest.mark.parametrize("kind", ["kill", "fail"])
@pytest.mark.parametrize("stage", sorted(STAGES, reverse=True))
def test_no_operation_that_fails_or_is_the_last_loses_anything(
    stage: int, kind: str, tmp_path: Path, long: int, figure: Callable[[str, str], None]
) -> None:
    answer = tmp_path / "answer.json"
    with scenario.fast_folder(tmp_path) as base:
        child = multiprocessing.get_context(METHOD).Process(target=_sweep, args=(base, stage, kind, long, answer))
        child.start()
        child.join()
    assert child.exitcode == 0, f"the sweep of stage {stage} ended with {child.exitcode}"
    found = json.loads(answer.read_text(encoding="utf-8"))
    counts = Counter(found["counts"])
    said = ", ".join(f"{counts[name]} {name}" for name in sorted(counts) if name not in ("lost", "failed starts"))
    figure(
        f"failpoints, stage {stage}",
        f"{found['points']} points: {said}; {counts['lost']} labels lost, {counts['failed starts']} failed starts",
    )
    assert not found["problems"], f"{len(found['problems'])} problems:\n" + "\n".join(found["problems"][:5])
