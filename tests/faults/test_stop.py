"""Told to stop at any point, the program ends with status 0, leaves no worker behind, and goes on at the next start."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kit import Daemon, environment

from camera_trap_al.lease import read_holder
from camera_trap_al.lock import is_held
from camera_trap_al.store import generations
from camera_trap_al.store.journal import read_journal

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(os.name == "nt", reason="Windows has no signal that only one process gets"),
]
ROOT = Path(__file__).resolve().parents[2]
LONGEST_S = 300.0
# Runs the command and signals itself at the point that is named: as a step begins or at its first durable operation, as
# soon as the worker says that it is in a phase, or as the worker starts.
DAEMON = """
import os, signal, sys, threading, time
sys.path.insert(0, "tests"); import conftest
from camera_trap_al import loop, work, worker
from camera_trap_al.store import atomic
from camera_trap_al_service.cli import main

kind, name, signals = sys.argv.pop(1).split(" ")
done = []

def tell():
    if not done:
        done.append(1)
        print("TOLD", time.monotonic(), flush=True)
        for number in signals.split("+"):
            os.kill(os.getpid(), getattr(signal, number))

def signalled(call):
    def run(*args, **kwargs):
        if kind == "before":
            tell()
        else:
            atomic.failpoints.watch = lambda operation: tell()
        result = call(*args, **kwargs)
        tell()
        time.sleep(0.1)
        return result
    return run

if kind == "worker" and name == "starting":
    worker.Worker.start = signalled(worker.Worker.start)
elif kind == "worker":
    heard = worker.Child.heard
    def heard_and_told(self):
        for what in heard(self):
            if what.get("phase") == name:
                tell()
            yield what
    worker.Child.heard = heard_and_told
elif name == "daemon":
    class Importing:
        @staticmethod
        def find_spec(module, path=None, target=None):
            if module == "camera_trap_al_service.daemon":
                tell()
    sys.meta_path.insert(0, Importing)
elif name == "opening":
    work.Work.open = signalled(work.Work.open)
elif name == "WAITING":
    loop.Loop._wait = signalled(loop.Loop._wait)
else:
    loop.STEPS[name] = signalled(loop.STEPS[name])
sys.exit(main())
"""
POINTS = [
    "importing daemon SIGTERM",
    "before opening SIGTERM",
    "amid opening SIGINT",
    "before CATALOGUING SIGTERM+SIGTERM",
    "before REGISTERING SIGHUP",
    "amid PROJECTING SIGTERM",
    "amid QUERYING SIGTERM",
    "amid PUBLISHING SIGTERM",
    "amid LISTING SIGTERM",
    "worker starting SIGTERM",
    "worker finishing SIGTERM",
    "worker embedding SIGTERM+SIGINT",
    "amid FITTING SIGTERM",
    "amid EVALUATING SIGTERM",
    "amid EXPORTING SIGTERM",
    "amid REPORTING SIGTERM",
]
POINTS_OF_LABELS = [
    "amid TAKING_LABELS SIGTERM",
    "before ANSWERING SIGTERM",
    "worker training SIGTERM+SIGTERM",
    "amid ABSORBING SIGTERM",
    "amid WAITING SIGTERM",
]


def stop_at(work: Path, point: str) -> float:
    """Run the daemon, which is told to stop at a point; return the seconds that it took to end."""
    command = [sys.executable, "-c", DAEMON, point, "run", str(work)]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(NUMPY_LEARNER_PAUSE_S="0.05"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    ) as daemon:
        try:
            said = daemon.communicate(timeout=LONGEST_S)[0]
        except subprocess.TimeoutExpired:
            daemon.kill()
            raise AssertionError(f"{point}: {daemon.communicate()[0]}") from None
    ended = time.monotonic()
    told = [float(line.split()[1]) for line in said.splitlines() if line.startswith("TOLD")]
    assert told, f"{point} was never reached: {said}"
    assert daemon.returncode == 0, f"{point}: status {daemon.returncode}: {said}"
    assert "Traceback" not in said, said
    print(f"{point}: {ended - told[0]:.1f} s")
    return ended - told[0]


def test_it_ends_when_told_at_every_point_and_goes_on(
    new_season: Callable[..., Any], figure: Callable[[str, str], None]
) -> None:
    season = new_season(daemon__worker="process")
    stop_at_each(season.work, POINTS, figure)
    assert generations.newest(season.work / "checkpoints") is not None


def test_it_ends_when_told_at_every_point_of_what_labels_bring(
    new_season: Callable[..., Any], figure: Callable[[str, str], None]
) -> None:
    season = new_season(daemon__worker="process")
    Daemon(season.work, "--until", "idle").end()
    season.person()()
    stop_at_each(season.work, POINTS_OF_LABELS, figure)
    lines = read_journal(season.work / "data" / "journal.jsonl")[0]
    assert sum(len(line.get("rows", ())) for line in lines) == 9


def stop_at_each(work: Path, points: list[str], figure: Callable[[str, str], None]) -> None:
    took = {}
    for point in points:
        took[point] = stop_at(work, point)
        assert not is_held(work / "worker.lock") and not is_held(work / "daemon.lock"), point
        holder = read_holder(work / "lease.json")
        assert holder is not None and not holder.nonce, f"{point}: the lease is held by nobody"
    slowest = max(took, key=lambda point: took[point])
    figure(
        f"told to stop, from {points[0]} on",
        f"{len(took)} points, all status 0, slowest {took[slowest]:.1f} s ({slowest})",
    )
