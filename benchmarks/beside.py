"""The program as people run it, a process of its own, and the time from a label file to the next selector."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.children import ROOT
from benchmarks.made_up import MadeUp, answer
from camera_trap_al.config import Config
from camera_trap_al.layout import WorkFolder

COMMAND = """
import sys
from benchmarks.__main__ import make_service_importable
make_service_importable()
from camera_trap_al_service.cli import main
sys.exit(main())
"""
LOOK_S = 0.02
LONGEST_S = 600.0
SETTLE_S = Config().labels.settle_s


@contextlib.contextmanager
def daemon(work: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `camera-trap-al run` on a work folder; at the end it is told to stop, and waited for."""
    process = subprocess.Popen([sys.executable, "-c", COMMAND, "run", str(work)], cwd=ROOT, stdout=2)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def turnaround_s(made: MadeUp, process: subprocess.Popen[bytes]) -> float:
    """Answer the open request whole; return the seconds from when the label file is stable to the next selector.

    A file that appears whole, by a rename, is stable when it has lain there unchanged for `labels.settle_s`.
    """
    folder = WorkFolder.at(made.work)
    wait_for(lambda: is_at_rest(folder), "the round before is shown and nothing is due", process)
    known = shown_round(folder)
    answer(made.work, made.label_of)
    started = time.monotonic()
    wait_for(lambda: shown_round(folder) > known, f"a request after number {known}", process)
    return time.monotonic() - started - SETTLE_S


def shown_round(folder: WorkFolder) -> int:
    """Return the round that the selector shows, 0 if none."""
    round_ = _read(folder.request).get("round")
    return round_ if isinstance(round_, int) else 0


def is_at_rest(folder: WorkFolder) -> bool:
    """Return whether a request is shown and the program waits, whatever its worker does."""
    status = _read(folder.status)
    return status.get("state") == "waiting" and status.get("published") is True


def learner_of(folder: WorkFolder) -> int:
    """Return the number of the current learner, 0 before the first."""
    return int(_read(folder.status).get("learner") or 0)


def wait_for(condition: Callable[[], object], what: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the condition holds. Raises `RuntimeError` where the program ended or it takes too long."""
    end = time.monotonic() + LONGEST_S
    while not condition():
        if process.poll() is not None:
            raise RuntimeError(f"the program ended with status {process.returncode} while this was waited for: {what}")
        if time.monotonic() > end:
            raise RuntimeError(f"this was waited for in vain: {what}")
        time.sleep(LOOK_S)


def _read(path: Path) -> dict[str, Any]:
    # While a file is replaced, Windows may let nobody in.
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    return {}
