"""How soon a label file is answered, with events of the folder and without; and a computer that slept."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import kit
import pytest
from kit import Daemon, all_ended, asked, descendants, drop, make_season, receipt, status

pytestmark = pytest.mark.faults

FILES = 5
SETTLE_S = 0.5
POLL_S = 1.0
SLEPT_S = 4.0
BLIND = """
import watchdog.observers
def no_events(*_):
    raise OSError(28, "No space left on device: no watches are left")
watchdog.observers.Observer.start = no_events
"""


@pytest.mark.parametrize("way", ["events", "no events"])
def test_a_settled_file_is_answered(
    way: str, tmp_path: Path, figure: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "no events":
        monkeypatch.setattr(kit, "START", BLIND + kit.START)
    season = make_season(tmp_path, 60, labels__settle_s=SETTLE_S, daemon__poll_s=POLL_S, query__batch=30)
    times = []
    with all_ended() as daemons:
        daemons.append(Daemon(season.work))
        daemons[-1].wait_for(lambda: asked(season.work))
        for n in range(FILES):
            time.sleep(0.37 * n)
            began = time.monotonic()
            drop(season.work, f"{n}.csv", dict.fromkeys(asked(season.work)[n : n + 1], "red"))
            daemons[-1].wait_for(lambda n=n: receipt(season.work, f"{n}.csv"))
            times.append(time.monotonic() - began)
        assert ("looked into every few seconds" in daemons[-1].words()) == (way == "no events")
    figure(
        f"reaction with {way}",
        f"receipt {statistics.median(times):.1f} s after the file (at most {max(times):.1f} s; it settles for {SETTLE_S} s,"
        f" the folder is looked into every {POLL_S:.0f} s)",
    )


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="Windows cannot stop a process for a while.")
def test_a_computer_that_slept_goes_on(tmp_path: Path) -> None:
    season = make_season(tmp_path, 60, labels__settle_s=SETTLE_S, query__batch=30)
    with all_ended() as daemons:
        daemons.append(Daemon(season.work, NUMPY_LEARNER_PAUSE_S="0.05"))
        daemons[-1].wait_for(lambda: asked(season.work) and "worker" in status(season.work))
        everybody = [daemons[-1].pid, *(pid for pid, _ in descendants(daemons[-1].pid))]
        tell(everybody, signal.SIGSTOP)
        time.sleep(SLEPT_S)
        first = asked(season.work)
        drop(season.work, "a.csv", dict.fromkeys(first, "red"))
        tell(everybody, signal.SIGCONT)
        daemons[-1].wait_for(lambda: receipt(season.work, "a.csv"))
        daemons[-1].wait_for(lambda: set(asked(season.work)).isdisjoint(first))
        daemons[-1].wait_for(lambda: status(season.work).get("checkpoint"))
        assert receipt(season.work, "a.csv")["counts"]["accepted"] == len(first)
        assert not status(season.work)["problems"], "sleep is no failure"


def tell(processes: list[int], what: signal.Signals) -> None:
    for pid in processes:
        os.kill(pid, what)
