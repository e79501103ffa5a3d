"""Every durable operation of a season fails, or is the last: no acknowledged label is lost, and all ends as without it.

What a kill leaves is the folder as it is at that operation: a copy is taken at each, and a sample of processes that are
really killed shows that they leave the same. A failure is raised in a stage that goes on from the turn before it. All of
it happens in a child process, which `scenario.quicken` makes fast.
"""

from __future__ import annotations

import gc
import json
import logging
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import scenario
from kit import fast_folder
from sweeps import METHOD, Sweep, names_of

from camera_trap_al.errors import DurableWriteError
from camera_trap_al.store.atomic import KILLED_STATUS, Operation, failpoints

pytestmark = pytest.mark.faults

STAGES = range(len(scenario.STAGES))
RAISING = ("eio", "enospc", "short")
# Recovery from a kill is itself killed anywhere, for one point in so many; with `--long` for all.
STRIDE = 5
REALLY_KILLED = 4


class Failures(Sweep):
    """A stage whose operations fail, each in its turn."""

    def __init__(self, base: Path, stage: int) -> None:
        super().__init__(base, stage)
        self.identities = [scenario.identities.n]
        """How many identities were given out before the stage, and before each operation."""

    def copy(self, operation: Operation) -> None:
        """Copy the work folder as it is before an operation of the undisturbed stage."""
        self.identities.append(scenario.identities.n)
        scenario.copy_work(self.work, self.copies / str(len(self.operations)))

    def after_kill(self, n: int, mode: str, *, recovery_too: bool) -> None:
        """Recover from a kill at operation n, and go on."""
        operation = self.operations[n - 1]
        where = f"{mode} at {n} of stage {self.stage}, {operation.name} {operation.path.name}"
        self.restore(self.copies / str(n))
        scenario.identities.n = self.identities[n]
        if mode == "torn":
            half = operation.data[: len(operation.data) // 2]
            with operation.path.open("r+b") as file:
                file.seek(operation.at)
                file.write(half)
        self.counts[mode] += 1
        during = self._copies_of_recovery(n) if recovery_too else []
        key = self.recover(where)
        failpoints.watch = None
        if key is not None:
            self.finish(where)
        for again in during:
            self.counts["killed while recovering"] += 1
            self.restore(again)
            other = self.recover(f"{where}, recovery killed at {again.name}")
            # Before the journal is there, each start makes identities of its own.
            if other is None or key is None or (other != key if self.stage else names_of(other) != names_of(key)):
                self.problems.append(f"{where}: another recovery after it was killed at {again.name}")

    def _copies_of_recovery(self, n: int) -> list[Path]:
        copies: list[Path] = []

        def note(operation: Operation) -> None:
            copies.append(self.copies / f"{n}-{len(copies) + 1}")
            scenario.copy_work(self.work, copies[-1])

        failpoints.watch = note
        return copies

    def after_failure(self, n: int, mode: str) -> None:
        """Play on from the turn of operation n, which fails; the program goes on, or ends and is started again."""
        where = f"{mode} at {n} of stage {self.stage}"
        self.counts[mode] += 1
        turn = next((turn for turn in reversed(self.turns) if turn.before < n), None)
        self.restore(turn.copy if turn is not None else self.begin)
        failpoints.count, failpoints.mode = 0, mode
        try:
            if turn is None:
                failpoints.fail_at = n
                is_known = self.play_on(where)
            else:
                left = n - turn.before
                is_known = self.play_on(where, turn=turn, arm=lambda: self._arm(left))
            if self.has_leftovers() or not is_known:
                self.recover(where)
            if not is_known:
                self.compare(where)
        except OSError as error:
            # Truth that cannot be written; or a folder, when the work folder is opened.
            failpoints.fail_at = 0
            self.counts["ended"] += 1
            if turn is not None and not isinstance(error, DurableWriteError):
                self.problems.append(f"{where}: {error!r}")
            if self.recover(where) is not None:
                self.finish(where)
        finally:
            failpoints.fail_at = 0

    @staticmethod
    def _arm(left: int) -> None:
        failpoints.fail_at = failpoints.count + left

    def after_real_kill(self, n: int) -> None:
        """Really kill a process at operation n: it leaves what the copy holds."""
        self.restore(self.begin)
        child = multiprocessing.get_context(METHOD).Process(target=_play_and_die, args=(self.root, self.stage, n))
        scenario.identities.n = self.identities[0]
        child.start()
        child.join()
        left = self.key()
        self.counts["processes killed"] += 1
        self.restore(self.copies / str(n))
        if child.exitcode != KILLED_STATUS or left != self.key():
            self.problems.append(f"kill at {n} of stage {self.stage}: the copy is not what a kill leaves")


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
    sweep = Failures(base, stage)
    watch: Callable[[Operation], object] = sweep.copy if kind == "kill" else (lambda operation: None)
    sweep.play_watched(watch)
    gc.freeze()
    gc.disable()
    for i, task in enumerate(_kills(sweep, long) if kind == "kill" else _failures(sweep, long)):
        task()
        if i % 50 == 0:
            gc.collect()
    found = {"points": len(sweep.operations), "counts": sweep.counts, "problems": sweep.problems}
    answer.write_text(json.dumps(found), encoding="utf-8")


def _kills(sweep: Failures, long: int) -> Iterator[Callable[[], None]]:
    points = range(1, len(sweep.operations) + 1)
    for n in points:
        yield partial(sweep.after_kill, n, "kill", recovery_too=long > 1 or n % STRIDE == 0)
    for n in points:
        if sweep.operations[n - 1].data:
            yield partial(sweep.after_kill, n, "torn", recovery_too=True)
    for n in points[:: max(1, len(points) // (REALLY_KILLED * long))]:
        yield partial(sweep.after_real_kill, n)


def _failures(sweep: Failures, long: int) -> Iterator[Callable[[], None]]:
    """Each operation fails in one way, the next one in another; with `--long` each in every way."""
    for n in range(1, len(sweep.operations) + 1):
        for i, mode in enumerate(RAISING):
            if long > 1 or n % len(RAISING) == i:
                yield partial(sweep.after_failure, n, mode)


@pytest.mark.parametrize("kind", ["kill", "fail"])
@pytest.mark.parametrize("stage", sorted(STAGES, reverse=True))
def test_no_operation_that_fails_or_is_the_last_loses_anything(
    stage: int, kind: str, tmp_path: Path, long: int, figure: Callable[[str, str], None]
) -> None:
    answer = tmp_path / "answer.json"
    with fast_folder(tmp_path) as base:
        child = multiprocessing.get_context(METHOD).Process(target=_sweep, args=(base, stage, kind, long, answer))
        child.start()
        child.join()
    assert child.exitcode == 0, f"the sweep of stage {stage} ended with {child.exitcode}"
    found = json.loads(answer.read_text(encoding="utf-8"))
    n, counts = found["points"], Counter(found["counts"])
    if kind == "kill":
        said = f"{n} points x kill, {counts['torn']} with bytes x torn (torn without bytes is a kill at the next),"
        said += f" {counts['killed while recovering']} kills while recovering, {counts['processes killed']} real ones"
        is_complete = counts["kill"] == n
    else:
        said = f"{n} points x one mode in turn:"
        said += ", ".join(f" {counts[mode]} {mode}" for mode in RAISING) + f"; {counts['ended']} ended the program"
        is_complete = sum(counts[mode] for mode in RAISING) >= n and min(counts[mode] for mode in RAISING) >= n // 3
    said += f"; {counts['lost']} labels lost, {counts['failed starts']} failed starts"
    figure(f"failpoints, stage {stage}, {kind}", said)
    assert not found["problems"], f"{len(found['problems'])} problems:\n" + "\n".join(found["problems"][:5])
    assert is_complete, "an operation was left out"
