"""The real command in real processes: labels dropped in, signals, kills of daemon and worker, a second daemon."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import LONGEST_S, Commands, shows, status, wait_for

from camera_trap_al.errors import EXIT_LOCKED
from camera_trap_al.store.journal import read_journal

pytestmark = pytest.mark.slow


def journalled(work: Path) -> int:
    return sum(len(line.get("rows", ())) for line in read_journal(work / "data" / "journal.jsonl")[0])


def test_the_daemon_takes_labels_asks_again_and_ends_when_told(
    new_season: Callable[..., Any], commands: Commands
) -> None:
    season = new_season(daemon__worker="process")
    label = season.person()
    daemon = commands.start("run", season.work, torch=True)
    for n in (1, 2, 3):
        wait_for(shows(season.work, n), f"round {n} is shown", daemon)
        label()
    wait_for(lambda: status(season.work).get("round") == 4 and status(season.work).get("checkpoint"), "a fit", daemon)
    assert commands.run("run", season.work)[0] == EXIT_LOCKED
    code, said = commands.run("status", season.work)
    assert code == 0 and "(running)" in said and "Round 4: 9 of 9" in said
    began = time.monotonic()
    daemon.send_signal(signal.SIGTERM)
    daemon.communicate(timeout=LONGEST_S)
    print(f"stopped in {time.monotonic() - began:.1f} s")
    assert daemon.returncode == 0 and journalled(season.work) == 27
    assert "not running" in commands.run("status", season.work)[1]


def test_bounded_runs_end_by_themselves(new_season: Callable[..., Any], commands: Commands) -> None:
    season = new_season(daemon__worker="process")
    label = season.person()
    code, said = commands.run("run", season.work, "--until", "waiting", torch=True)
    assert code == 0 and status(season.work)["published"], said
    label()
    code, said = commands.run("run", season.work, "--until", "idle", torch=True)
    assert code == 0 and status(season.work)["accuracy"] is not None, said
    assert status(season.work)["round"] == 2 and (season.work / "export" / "model.onnx").is_file()
    label()
    code, said = commands.run("run", season.work, "--max-rounds", "1", torch=True)
    assert code == 0 and len(list((season.work / "new_labels_bin").glob("*.receipt.json"))) == 2, said
    assert not status(season.work)["open"], "no further request after the last round"
    out = season.work / "p.csv"
    assert commands.run("predict", season.work / "export", season.root / "pool", "--out", out)[0] == 0
    assert len(out.read_text(encoding="utf-8").splitlines()) == 61
    code, said = commands.run("evaluate", season.work, season.root / "validation")
    assert code == 0 and "Accuracy" in said
    code, said = commands.run("check", season.work)
    assert code == 0 and "PROBLEM" not in said
    assert commands.run("export", season.work, "--to", season.work / "copy")[0] == 0


@pytest.mark.parametrize("who", ["daemon", "worker"])
def test_killed_at_durable_operations_every_label_is_kept(
    new_season: Callable[..., Any], commands: Commands, who: str
) -> None:
    season = new_season(daemon__worker="process")
    label = season.person()
    kills = 0
    for n in (3, 9, 17, 26, 40, 61) if who == "daemon" else (2, 5, 11, 14):
        code, _ = commands.run("run", season.work, "--until", "waiting", fault=f"n={n},mode=kill,who={who}")
        kills += code == 137
        assert code in (0, 137)
    assert who == "worker" or kills >= 3
    for _ in range(2):
        code, said = commands.run("run", season.work, "--until", "idle")
        assert code == 0, said
        label()
    code, said = commands.run("run", season.work, "--until", "idle")
    assert code == 0 and status(season.work)["accuracy"] is not None, said
    assert journalled(season.work) == 18


def test_a_worker_that_is_killed_again_and_again_does_not_hold_up_the_rounds(
    new_season: Callable[..., Any], commands: Commands
) -> None:
    season = new_season(daemon__worker="process")
    label = season.person()
    daemon = commands.start("run", season.work, fault="n=1,mode=kill,who=worker")
    for n in (1, 2, 3):
        wait_for(shows(season.work, n), f"round {n} is shown", daemon)
        label()
    wait_for(lambda: status(season.work).get("labels") == 27, "all is taken", daemon)
    wait_for(
        lambda: any("unexpectedly" in text for text in status(season.work).get("problems", ())), "it is said", daemon
    )
