"""Each row runs in a process of its own, so that neither memory nor threads nor an end without a word reach another."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Figure, Run, rows
from benchmarks.machine import threads_in_use
from benchmarks.table import Result, as_facts, as_figure

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Place:
    """The module that holds a row, and its share of the 45 minutes that all may take; `minutes_for` says what it gets."""

    module: str
    minutes: float


PLACES = {
    "S1": Place("first_pass", 3.0),
    "S2": Place("computing", 2.5),
    "S3": Place("computing", 5.0),
    "S4": Place("rounds", 3.5),
    "S5": Place("rounds", 6.0),
    "S6": Place("choosing", 1.5),
    "S7": Place("choosing", 2.0),
    "S8": Place("million", 6.0),
    "S9": Place("rounds", 2.0),
    "S10": Place("fitting", 3.5),
    "S11": Place("predicting", 2.0),
    "S12": Place("million", 0.5),
    "S13": Place("first_request", 3.0),
    "S14": Place("computing", 4.5),
}
WHOLE_RUN_MINUTES = 45.0
END_S = 20.0
ERROR, THREADS = "error", "threads"


def in_order(names: Iterable[str]) -> list[str]:
    """Return names of rows by their numbers: S2 before S10."""
    return sorted(names, key=lambda name: (len(name), name))


def minutes_for(to_come: Sequence[str], spent: float) -> float:
    """Return after how many minutes the first of the rows to come is ended: what those after it can spare.

    Parameters
    ----------
    spent : minutes since the whole run began
    """
    return max(1.0, WHOLE_RUN_MINUTES - spent - sum(PLACES[row].minutes for row in to_come[1:]))


def run_in_child(row: str, run: Run, *, minutes: float | None) -> Result:
    """Run a row and return what became of it, whatever that is; `KeyboardInterrupt` ends it, and is part of the result.

    Parameters
    ----------
    run : its `folder` is empty
    minutes : after which it is ended; None for never
    """
    written = run.folder.with_name(f"{run.folder.name}.figures")
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "--child",
        row,
        "--written",
        str(written),
        "--folder",
        str(run.folder),
    ]
    command += ["--long"] * run.long + ["--tiny"] * run.tiny + (["--data", str(run.data)] if run.data else [])
    started = time.monotonic()
    child = subprocess.Popen(command, cwd=ROOT, stdout=2, start_new_session=True)
    error = ""
    try:
        status = child.wait(None if minutes is None else minutes * 60)
        error = f"Its process ended with status {status}." if status else ""
    except subprocess.TimeoutExpired:
        error = f"It was ended after its share of the time ({minutes:.1f} min)."
    except KeyboardInterrupt:
        error = "It was interrupted."
    finally:
        _end(child)
    figures, said, threads = _read(written)
    written.unlink(missing_ok=True)
    return Result(row, figures, time.monotonic() - started, said or error, threads)


def run_here(row: str, run: Run, written: Path) -> int:
    """Run a row in this process and note its figures one by one in a file; return the exit status."""
    with written.open("w", encoding="utf-8") as file:

        def note(record: dict[str, object]) -> None:
            file.write(json.dumps(record) + "\n")
            file.flush()

        try:
            importlib.import_module(f"benchmarks.{PLACES[row].module}")
            for figure in rows[row](run):
                note(as_facts(figure))
        except KeyboardInterrupt:
            # Whoever ended it says why.
            return 130
        except Exception as error:
            traceback.print_exc()
            note({ERROR: f"{type(error).__name__}: {error}"})
        note({THREADS: threads_in_use()})
    return 0


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a child and what it left running; it is told first, since a program that it runs may be in a group of its own."""
    if sys.platform == "win32":
        if child.poll() is None:
            subprocess.run(["taskkill", "/T", "/F", "/PID", str(child.pid)], capture_output=True, check=False)
    else:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(END_S)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _read(written: Path) -> tuple[list[Figure], str, dict[str, int]]:
    """Return the figures, the error or "", and the threads that a child noted."""
    figures: list[Figure] = []
    error, threads = "", {}
    with contextlib.suppress(FileNotFoundError):
        for line in written.read_text(encoding="utf-8").splitlines():
            # The last line of a child that was ended may be cut short.
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                error = record.get(ERROR, error)
                threads = record.get(THREADS, threads)
                if "text" in record:
                    figures.append(as_figure(record))
    return figures, error, threads
