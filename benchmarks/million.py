"""S8: the start of the daemon on a million known images, and a rescan of them; S12: how soon the command answers."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.beside import COMMAND, SETTLE_S, daemon, shown_round, wait_for
from benchmarks.children import ROOT
from benchmarks.figures import Figure, Run, rows
from benchmarks.made_up import MadeUp, answer, made_up_work
from camera_trap_al.layout import WorkFolder

IMAGES, LABELS = 1_000_000, 5_000
STARTS, TIMES = 3, 7
NO_TORCH = "\nraise SystemExit(status or 3 * ('torch' in sys.modules))"


@rows.register("S8")
def starts(run: Run) -> Iterator[Figure]:
    """Measure starts, a rescan of all files, and a label file that comes meanwhile."""
    n = 3_000 if run.tiny else IMAGES
    made = made_up_work(run.folder, n, n_labels=300 if run.tiny else LABELS)
    folder, size = WorkFolder.at(made.work), f"{n:,} images"
    yield Figure(f"first scan of {size}", made.scan_s, "s")
    with daemon(made.work) as process:
        wait_for(folder.reported.exists, "a request is shown and all lists are written", process)
    took = []
    for _ in range(STARTS):
        started = time.monotonic()
        with daemon(made.work) as process:
            wait_for(lambda: _knows_all(folder, process.pid, n), "its own status counts all images", process)
            took.append(time.monotonic() - started)
    yield Figure(
        f"start until status.json, {size} known", statistics.median(took), "s", most=5, note=f"of {STARTS} starts"
    )
    yield from _rescan(made, folder, size)


def _rescan(made: MadeUp, folder: WorkFolder, size: str) -> Iterator[Figure]:
    before = _scans(folder)
    with daemon(made.work) as process:
        wait_for(
            lambda: "scan" in _status(folder, process.pid) or _scans(folder) > before, "images are looked for", process
        )
        started, round_ = time.monotonic(), shown_round(folder)
        file = answer(made.work, made.label_of)
        receipt = file.with_name(f"{file.name}.receipt.json")
        wait_for(receipt.exists, "the label file has a receipt", process)
        answered_s = time.monotonic() - started - SETTLE_S
        wait_for(lambda: shown_round(folder) > round_, "the next request", process)
        next_s, was_over = time.monotonic() - started - SETTLE_S, _scans(folder) > before
        wait_for(lambda: _scans(folder) > before, "the scan has ended", process)
        scan_s = time.monotonic() - started
    note = "the scan was over before" if was_over else ""
    yield Figure(f"rescan of {size}, labels taken meanwhile", scan_s, "s", most=300)
    yield Figure("label file stable to its receipt, amid the rescan", answered_s, "s", most=10)
    yield Figure("label file stable to the next request, amid the rescan", next_s, "s", note=note)


@rows.register("S12")
def answers(run: Run) -> Iterator[Figure]:
    """Measure an import, and the command until its process has ended."""
    made = made_up_work(run.folder, 1_000, n_labels=100)
    with daemon(made.work) as process:
        wait_for(lambda: _knows_all(WorkFolder.at(made.work), process.pid, 1_000), "a status is written", process)
    command = COMMAND.replace("sys.exit(main())", "status = main()") + NO_TORCH
    yield Figure(
        "import camera_trap_al", _ended_s("import camera_trap_al"), "s", most=0.3, note=f"of {TIMES} starts of Python"
    )
    yield Figure("camera-trap-al status, no torch", _ended_s(command, "status", str(made.work)), "s", most=0.5)
    yield Figure("camera-trap-al --help", _ended_s(COMMAND, "--help"), "s")
    yield Figure("python -c pass, of which all of these consist too", _ended_s("pass"), "s")


def _ended_s(program: str, *arguments: str) -> float:
    """Return the median seconds in which Python starts, runs a program and ends."""
    took = []
    for _ in range(TIMES):
        started = time.monotonic()
        subprocess.run([sys.executable, "-c", program, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        took.append(time.monotonic() - started)
    return statistics.median(took)


def _knows_all(folder: WorkFolder, pid: int, n: int) -> bool:
    counts = _status(folder, pid).get("images", {})
    return n == sum(counts.get(kind, 0) for kind in ("labelled", "skipped", "unlabelled"))


def _status(folder: WorkFolder, pid: int) -> dict[str, Any]:
    """Return what this very process says of itself, nothing before it does."""
    with contextlib.suppress(OSError, ValueError):
        status: dict[str, Any] = json.loads(folder.status.read_text(encoding="utf-8"))
        return status if status.get("pid") == pid else {}
    return {}


def _scans(folder: WorkFolder) -> int:
    """Return how many scans have ended."""
    catalogue = sqlite3.connect(f"{Path(folder.catalog).as_uri()}?mode=ro", uri=True, timeout=30)
    with contextlib.closing(catalogue):
        (text,) = catalogue.execute("SELECT value FROM meta WHERE key = 'scan'").fetchone()
        return int(text)
