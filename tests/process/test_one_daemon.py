"""One daemon for a work folder and one worker for a daemon, in real processes; rounds go on whatever the worker does."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
from commands import Commands, said_by, shows, status, wait_for

from camera_trap_al.attempt import read_noted
from camera_trap_al.errors import EXIT_LOCKED
from camera_trap_al.lease import Holder, read_holder
from camera_trap_al.lock import is_held
from camera_trap_al.store import atomic

pytestmark = pytest.mark.slow


def test_a_second_daemon_is_refused_and_one_that_was_killed_is_replaced_at_once(
    new_season: Callable[..., Any], commands: Commands
) -> None:
    work = new_season(daemon__worker="process").work
    first = commands.start("run", work, pause_s=3600)
    wait_for(shows(work, 1), "a request is shown")
    wait_for(lambda: is_held(work / "worker.lock"), "the worker works")
    code, said = commands.run("run", work)
    assert code == EXIT_LOCKED and f"process {first.pid} on " in said, said
    code, said = commands.run("status", work)
    assert code == 0 and f"At work: process {first.pid} on " in said
    first.kill()
    first.wait()
    assert is_held(work / "worker.lock") or read_noted(work / "worker.json") is not None
    code, said = commands.run("run", work, "--until", "waiting")
    assert code == 0, said
    wait_for(lambda: not is_held(work / "worker.lock"), "no worker outlives its daemon")
    noted = read_noted(work / "worker.json")
    assert noted is not None and noted.end == "stopped", noted


def test_a_daemon_of_another_computer_is_not_displaced(new_season: Callable[..., Any], commands: Commands) -> None:
    work = new_season().work
    there = replace(Holder.here(work, ""), host="field-laptop")
    atomic.replace_json(work / "lease.json", {"format": 1, **asdict(there)})
    code, said = commands.run("run", work, "--until", "waiting")
    assert code == EXIT_LOCKED and "field-laptop" in said and str(work / "lease.json") in said, said
    assert read_holder(work / "lease.json") == there and not (work / "data" / "journal.jsonl").exists()
    assert "At work: process" in commands.run("status", work)[1]


def test_a_daemon_that_lost_its_lease_ends_with_its_worker(new_season: Callable[..., Any], commands: Commands) -> None:
    work = new_season(daemon__worker="process").work
    daemon = commands.start("run", work, pause_s=3600)
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
def test_rounds_go_on_whatever_the_worker_does(new_season: Callable[..., Any], commands: Commands, worker: str) -> None:
    season = new_season(daemon__worker="process")
    label = season.person()
    if worker == "hangs":
        daemon = commands.start("run", season.work, pause_s=3600)
    else:
        daemon = commands.start("run", season.work, fault="n=3,mode=kill,who=worker")
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
    new_season: Callable[..., Any], commands: Commands
) -> None:
    season = new_season(daemon__worker="process")
    daemon = commands.start("run", season.work, fault="n=3,mode=kill,who=worker")
    wait_for(lambda: any("died 3 times" in text for text in status(season.work).get("problems", ())), "it rests")
    assert "6 hours" in commands.run("status", season.work)[1]
    time.sleep(3)
    noted = read_noted(season.work / "worker.json")
    assert daemon.poll() is None and status(season.work)["deaths"] == {"train": 3}
    assert noted is None or noted.attempt <= 3
    daemon.send_signal(signal.SIGTERM)
    assert said_by(daemon)[0] == 0
