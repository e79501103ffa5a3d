"""The command of `notify.command`, run by the real program: a message for each round and each refused file, and no other."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import LONGEST_S, Commands, shows, wait_for

pytestmark = pytest.mark.slow

TELL = """
import json, os, sys
found = {name[15:]: value for name, value in os.environ.items() if name.startswith("CAMERA_TRAP_AL_")}
with open(sys.argv[1], "a", encoding="utf-8") as file:
    file.write(json.dumps(found) + chr(10))
sys.exit(int(sys.argv[2]))
"""


def told(path: Path) -> list[tuple[str, str]]:
    """Return event and round of each message."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [(message["EVENT"], message["ROUND"]) for message in map(json.loads, lines)]


def test_a_person_is_told_of_rounds_and_refused_files_once_and_across_restarts(
    new_season: Callable[..., Any], commands: Commands, tmp_path: Path
) -> None:
    said = tmp_path / "said.jsonl"
    season = new_season(
        train__epochs=0, finetune__epochs=0, notify__command=[sys.executable, "-c", TELL, str(said), "0"]
    )
    label = season.person()
    code, log = commands.run("run", season.work, "--until", "waiting")
    assert code == 0 and told(said) == [("labels_wanted", "1")], log
    assert "notify: " in log and "was told: labels_wanted" in log
    daemon = commands.start("run", season.work)
    wait_for(shows(season.work, 1), "the first round is shown", daemon)
    label()
    wait_for(shows(season.work, 2), "the second round is shown", daemon)
    (season.work / "new_labels_bin" / "odd.csv").write_text("a,b\r\n1,2\r\n", encoding="utf-8")
    wait_for(lambda: len(told(said)) == 3, "the refused file is told", daemon)
    assert told(said)[1:] == [("labels_wanted", "2"), ("problem", "2")]
    assert "odd.csv" in json.loads(said.read_text(encoding="utf-8").splitlines()[-1])["TEXT"]
    daemon.send_signal(signal.SIGTERM)
    daemon.communicate(timeout=LONGEST_S)
    assert daemon.returncode == 0
    assert commands.run("run", season.work, "--until", "idle")[0] == 0
    assert len(told(said)) == 3


def test_a_command_that_fails_or_hangs_keeps_no_round_back(
    new_season: Callable[..., Any], commands: Commands, tmp_path: Path
) -> None:
    options = {"train__epochs": 0, "finetune__epochs": 0}
    said = tmp_path / "said.jsonl"
    season = new_season(notify__command=[sys.executable, "-c", TELL, str(said), "3"], **options)
    code, log = commands.run("run", season.work, "--until", "waiting")
    assert code == 0 and "ended with status 3" in log and shows(season.work, 1)()
    season = new_season(notify__command=[sys.executable, "-c", "import time; time.sleep(1000)"], **options)
    label = season.person()
    daemon = commands.start("run", season.work)
    wait_for(shows(season.work, 1), "the first round is shown", daemon)
    label()
    wait_for(shows(season.work, 2), "the second round is shown", daemon)
    daemon.send_signal(signal.SIGTERM)
    log = daemon.communicate(timeout=LONGEST_S)[0]
    assert daemon.returncode == 0 and "was killed" in log
