"""Starts the command in processes of its own, and looks at what it does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# The command with shorter waits, so that nobody waits half a minute for another computer.
START = """
import sys; sys.path.insert(0, "tests"); import conftest
from camera_trap_al import lease
lease.WATCH_S, lease.LOOK_EVERY_S, lease.RENEW_S = 0.5, 0.1, 0.2
from camera_trap_al_service.cli import main
sys.exit(main())
"""
LONGEST_S = 400.0


class Commands:
    """Starts `camera-trap-al` and ends what is left of it; the numpy learner stands in for torch, if not told otherwise."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[str]] = []

    def start(
        self, *arguments: object, fault: str = "", pause_s: float = 0.0, torch: bool = False
    ) -> subprocess.Popen[str]:
        """Start the command; each mini-batch of its worker lasts `pause_s` seconds longer."""
        stand_in = [] if torch else [str(ROOT / "tests" / "faults" / "no_torch_site")]
        path = [*stand_in, str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1", "CTAL_FAULT": fault}
        environment["NUMPY_LEARNER_PAUSE_S"] = str(pause_s)
        process = subprocess.Popen(
            [sys.executable, "-c", START, *map(str, arguments)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )
        self.started.append(process)
        return process

    def run(self, *arguments: object, fault: str = "", torch: bool = False) -> tuple[int, str]:
        """Run the command to its end; return its status and what it said."""
        return said_by(self.start(*arguments, fault=fault, torch=torch))

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.communicate()


def said_by(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the end of a process; return its status and what it said."""
    said = process.communicate(timeout=LONGEST_S)[0]
    return process.returncode, said


def wait_for(condition: Callable[[], object], what: str, process: subprocess.Popen[str] | None = None) -> None:
    """Wait until the condition holds; fail at once if `process` ended before."""
    end = time.monotonic() + LONGEST_S
    while not condition():
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, what
        time.sleep(0.05)


def status(work: Path) -> dict[str, Any]:
    """Return `status.json`, or nothing while there is none."""
    try:
        found: dict[str, Any] = json.loads((work / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def shows(work: Path, round_: int) -> Callable[[], bool]:
    """Return a condition: that a round is shown."""
    return lambda: status(work).get("round") == round_ and status(work)["published"]
