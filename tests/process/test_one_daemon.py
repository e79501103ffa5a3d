"""One daemon for a work folder and one worker for a daemon, in real processes; rounds go on whatever the worker does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from camera_trap_al.attempt import read_noted
from camera_trap_al.errors import EXIT_LOCKED
from camera_trap_al.lease import Holder, read_holder
from camera_trap_al.lock import is_held
from camera_trap_al.store import atomic

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
# The command with shorter waits, so that nobody waits half a minute for another computer.
START = """
import sys; sys.path.insert(0, "tests"); import conftest
from camera_trap_al import lease
lease.WATCH_S, lease.LOOK_EVERY_S, lease.RENEW_S = 0.5, 0.1, 0.2
from camera_trap_al_service.cli import main
sys.exit(main())
"""
LONGEST_S = 120.0
Starter = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Starter]:
    """Return a starter of commands; what is left of them is ended."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, pause_s: float = 0.0, fault: str = "") -> subprocess.Popen[str]:
        path = [
            str(ROOT / "tests" / "faults" / "no_torch_site"),
            str(ROOT),
            *filter(None, [os.environ.get("PYTHONPATH")]),
        ]
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
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def said_by(process: subprocess.Popen[str]) -> tuple[int, str]:
    said = process.communicate(timeout=LONGEST_S)[0]
    return process.returncode, said


def wait_for(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + LONGEST_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def status(work: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((work / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def shows(work: Path, round_: int) -> Callable[[], bool]:
    return lambda: status(work).get("round") == round_ and status(work)["published"]


def test_a_second_daemon_is_refused_and_one_that_was_killed_is_replaced_at_once(
    new_season: Callable[..., Any], start: Starter
) -> None:
    work = new_season(daemon__worker="process").work
    first = start("run", work, pause_s=3600)
    wait_for(shows(work, 1), "a request is shown")
    wait_for(lambda: is_held(work / "worker.lock"), "the worker works")
    code, said = said_by(start("run", work))
    assert code == EXIT_LOCKED and f"process {first.pid} on " in said, said
    code, said = said_by(start("status", work))
    assert code == 0 and f"At work: process {first.pid} on " in said
    first.kill()
    first.wait()
    assert is_held(work / "worker.lock") or read_noted(work / "worker.json") is not None
    code, said = said_by(start("run", work, "--until", "waiting"))
    assert code == 0, said
    wait_for(lambda: not is_held(work / "worker.lock"), "no worker outlives its daemon")
    noted = read_noted(work / "worker.json")
    assert noted is not None and noted.end == "stopped", noted


def test_a_daemon_of_another_computer_is_not_displaced(new_season: Callable[..., Any], start: Starter) -> None:
    work = new_season().work
    there = replace(Holder.here(work, ""), host="field-laptop")
    atomic.replace_json(work / "lease.json", {"format": 1, **asdict(there)})
    code, said = said_by(start("run", work, "--until", "waiting"))
    assert code == EXIT_LOCKED and "field-laptop" in said and str(work / "lease.json") in said, said
    assert read_holder(work / "lease.json") == there and not (work / "data" / "journal.jsonl").exists()
    assert "At work: process" in said_by(start("status", work))[1]


def test_a_daemon_that_lost_its_lease_ends_with_its_worker(new_season: Callable[..., Any], start: Starter) -> None:
    work = new_season(daemon__worker="process").work
    daemon = start("run", work, pause_s=3600)
    wait_for(shows(work, 1), "a request is shown")
    wait_for(lambda: is_held(work / "worker.lock"), "the worker works")
    there = replace(Holder.here(work, ""), host="field-laptop")
    while daemon.poll() is None:
        # Not by the partial file that the daemon uses too.
        (work / "theirs.json").write_text(json.dumps({"format": 1, **asdict(there)}), encoding="utf-8")
        os.replace(work / "theirs.json", work / "lease.json")
        time.sleep(0.05)
    code, said = said_by(daemon)
    assert code == EXIT_LOCKED and "Another daemon took over" in said and "field-laptop" in said, said
    assert not is_held(work / "worker.lock") and read_holder(work / "lease.json") == there


@pytest.mark.parametrize("worker", ["hangs", "is killed"])
def test_rounds_go_on_whatever_the_worker_does(new_season: Callable[..., Any], start: Starter, worker: str) -> None:
    season = new_season(daemon__worker="process")
    label = season.person()
    if worker == "hangs":
        daemon = start("run", season.work, pause_s=3600)
    else:
        daemon = start("run", season.work, fault="n=3,mode=kill,who=worker")
    for n in (1, 2, 3):
        wait_for(shows(season.work, n), f"round {n} is shown")
        label()
    wait_for(shows(season.work, 4), "round 4 is shown")
    assert status(season.work)["labels"] == 27 and status(season.work)["learner"] == 0
    if worker == "is killed":
        wait_for(lambda: status(season.work)["deaths"], "deaths are counted")
        assert any("unexpectedly" in text for text in status(season.work)["problems"])
    daemon.send_signal(signal.SIGTERM)
    code, said = said_by(daemon)
    assert code == 0, said
    assert not is_held(season.work / "worker.lock")


def test_a_job_that_dies_three_times_rests_and_the_status_says_so(
    new_season: Callable[..., Any], start: Starter
) -> None:
    season = new_season(daemon__worker="process")
    daemon = start("run", season.work, fault="n=3,mode=kill,who=worker")
    wait_for(lambda: any("died 3 times" in text for text in status(season.work).get("problems", ())), "it rests")
    assert "6 hours" in said_by(start("status", season.work))[1]
    time.sleep(3)
    noted = read_noted(season.work / "worker.json")
    assert daemon.poll() is None and status(season.work)["deaths"] == {"train": 3}
    assert noted is None or noted.attempt <= 3
    daemon.send_signal(signal.SIGTERM)
    assert said_by(daemon)[0] == 0
