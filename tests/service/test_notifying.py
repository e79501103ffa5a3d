"""The command of `notify.command`, run by a loop that turns in this process."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from camera_trap_al.config import Config
from camera_trap_al.config_service import NotifyConfig
from camera_trap_al.core.steps import Facts, Step
from camera_trap_al.layout import WorkFolder
from camera_trap_al_service import notifying
from camera_trap_al_service.notifying import Notifier, Troubles

WAITING = Step("WAITING")
TELL = """
import json, os, sys
with open(sys.argv[1], "a", encoding="utf-8") as file:
    file.write(json.dumps({k[15:]: v for k, v in os.environ.items() if k.startswith("CAMERA_TRAP_AL_")}) + "\\n")
"""


@dataclass
class Turning:
    """As much of a loop as the notifier looks at."""

    root: Path
    command: tuple[str, ...] = ()
    every_s: float = 3600.0
    stop: threading.Event = field(default_factory=threading.Event)
    dead: frozenset[str] = frozenset()
    failures: dict[str, int] = field(default_factory=dict)
    last_problem: dict[str, str] = field(default_factory=dict)
    waiting_files: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        folder = WorkFolder.at(self.root)
        for path in (folder.journal.parent, folder.bin):
            path.mkdir(parents=True, exist_ok=True)
        folder.config.touch()
        config = replace(Config(), notify=NotifyConfig(self.command, self.every_s))
        self.work: Any = SimpleNamespace(
            folder=folder,
            config=config,
            history=SimpleNamespace(requests=[SimpleNamespace(round=3)]),
            inbox=SimpleNamespace(problems=lambda: self.waiting_files),
            pool_root=lambda: "/photos",
        )
        self.worker = SimpleNamespace(dead_jobs=lambda: self.dead)
        self.rests = SimpleNamespace(failures=self.failures)

    def turns(self, *all_facts: Facts) -> None:
        """Open a notifier, take turns, and end."""
        notifier = Notifier(self)  # type: ignore[arg-type]
        for facts in all_facts:
            notifier.turn(self, facts, WAITING, lambda: "Import it\x1b[2J.")  # type: ignore[arg-type]
        notifier.close()


def shows(round_: int | str) -> Facts:
    return Facts(open=round_ if isinstance(round_, int) else 0, shown=round_, online=True)


SHOWN = shows(3)


def told(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


@pytest.fixture
def said(tmp_path: Path) -> Path:
    return tmp_path / "said.jsonl"


@pytest.fixture
def turning(tmp_path: Path, said: Path) -> Turning:
    return Turning(tmp_path / "work", (sys.executable, "-S", "-c", TELL, str(said)))


def test_the_command_is_told_of_a_round_once_also_after_a_restart(turning: Turning, said: Path) -> None:
    turning.turns(shows(0), shows(3), shows(3))
    turning.turns(shows(3))
    (message,) = told(said)
    assert message == {
        "EVENT": "labels_wanted",
        "WORK": str(turning.root),
        "TEXT": "Import it\\u001b[2J.",
        "ROUND": "3",
    }


def test_without_a_command_nothing_is_noted(turning: Turning) -> None:
    quiet = Turning(turning.root)
    quiet.turns(shows(3))
    assert not quiet.work.folder.notified.exists()


def test_a_command_that_is_not_there_or_fails_is_a_line_in_the_log(
    turning: Turning, caplog: pytest.LogCaptureFixture
) -> None:
    Turning(turning.root, ("/no/such/program",)).turns(shows(3))
    assert "/no/such/program cannot be run" in caplog.text
    Turning(turning.root, (sys.executable, "-S", "-c", "raise SystemExit(3)")).turns(shows(4))
    assert "ended with status 3 (labels_wanted)" in caplog.text


def test_a_command_that_does_not_end_is_killed(
    turning: Turning, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notifying, "COMMAND_S", 0.1)
    Turning(turning.root, (sys.executable, "-S", "-c", "import time; time.sleep(100)")).turns(shows(3))
    assert "did not end in time and was killed" in caplog.text


def test_a_program_that_is_told_to_stop_waits_for_no_command(
    turning: Turning, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notifying, "AT_STOP_S", 0.1)
    slow = Turning(turning.root, (sys.executable, "-S", "-c", "import time; time.sleep(100)"))
    notifier = Notifier(slow)  # type: ignore[arg-type]
    notifier.turn(slow, shows(3), WAITING, str)  # type: ignore[arg-type]
    slow.stop.set()
    notifier.close()
    assert "was killed" in caplog.text or "this was not told" in caplog.text


@pytest.mark.skipif(sys.platform == "win32", reason="who may write is no matter of modes there")
@pytest.mark.parametrize("name", ["config.toml", "."])
def test_a_command_that_others_could_have_written_is_not_run(
    turning: Turning, said: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    (turning.root / name).chmod(0o777)
    turning.turns(shows(3))
    assert not told(said) and "other users of this computer can change" in caplog.text


def test_the_end_by_an_error_is_told(turning: Turning, said: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    notifier = Notifier(turning)  # type: ignore[arg-type]
    notifier.fail("The journal is damaged.")
    notifier.close()
    assert [(m["EVENT"], m["TEXT"]) for m in told(said)] == [
        ("problem", "The program has ended: The journal is damaged.")
    ]


def test_a_note_that_cannot_be_written_or_read_stops_nothing(turning: Turning, said: Path) -> None:
    turning.work.folder.notified.mkdir()
    turning.turns(shows(3), shows(3))
    assert len(told(said)) == 1


def kinds(turning: Turning, troubles: Troubles, facts: Facts = SHOWN, step: Step = WAITING) -> list[str]:
    return [trouble.kind for trouble in troubles.now(turning, facts, step)]  # type: ignore[arg-type]


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


@pytest.fixture
def troubles(clock: list[float]) -> Troubles:
    return Troubles(lambda: clock[0])


def test_a_step_that_fails_for_ten_minutes_without_a_success_between_needs_a_person(
    turning: Turning, troubles: Troubles, clock: list[float]
) -> None:
    turning.failures["EXPORTING"], turning.last_problem["EXPORTING"] = 1, "The folder is read-only."
    for clock[0] in (0.0, 500.0):
        assert kinds(turning, troubles) == []
    turning.failures.clear()
    assert kinds(turning, troubles) == []
    turning.failures["EXPORTING"] = 1
    for clock[0] in (600.0, 1200.0):
        assert kinds(turning, troubles) == []
    clock[0] = 1201.0
    (found,) = troubles.now(turning, shows(3), WAITING)  # type: ignore[arg-type]
    assert found.text.endswith("The folder is read-only.")


def test_a_file_that_cannot_be_read_for_ten_minutes_needs_a_person(
    turning: Turning, troubles: Troubles, clock: list[float]
) -> None:
    turning.waiting_files.append("week3.xlsx is not read.")
    assert kinds(turning, troubles) == []
    clock[0] = 601.0
    (found,) = troubles.now(turning, shows(3), WAITING)  # type: ignore[arg-type]
    assert (found.kind, found.text) == ("label_file", "week3.xlsx is not read.")
    turning.waiting_files.clear()
    clock[0] = 631.0
    assert kinds(turning, troubles) == []


def test_images_that_are_away_for_an_hour_need_a_person(
    turning: Turning, troubles: Troubles, clock: list[float]
) -> None:
    away = replace(shows(3), online=False)
    assert kinds(turning, troubles, away) == []
    clock[0] = 3600.0
    assert kinds(turning, troubles, away) == []
    clock[0] = 3601.0
    assert kinds(turning, troubles, away) == ["images"] and kinds(turning, troubles) == []


def test_a_job_that_died_three_times_needs_a_person_at_once_and_is_no_failing_step(
    turning: Turning, troubles: Troubles, clock: list[float]
) -> None:
    turning.dead, turning.failures["TRAIN"] = frozenset({"TRAIN"}), 3
    for clock[0] in (0.0, 10_000.0):
        assert kinds(turning, troubles) == ["job"]


def test_a_full_disk_needs_a_person(turning: Turning, troubles: Troubles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("camera_trap_al.store.atomic.free_bytes", lambda path: 1_000_000)
    assert kinds(turning, troubles) == ["disk"]


def test_a_label_file_of_which_nothing_was_taken_needs_a_person(turning: Turning, troubles: Troubles) -> None:
    from camera_trap_al.labels.receipts import SCHEMA

    taking = Step("TAKING_LABELS", "week3.csv")
    assert kinds(turning, troubles, step=taking) == []
    receipt = {"schema": SCHEMA, "file": "week3.csv", "sha256": "ab", "mtime_ns": 1, "seq": None, "time": "t"}
    receipt |= {"verdict": "rejected"}
    path = turning.work.folder.bin / "week3.csv.receipt.json"
    path.write_text(json.dumps(receipt), encoding="utf-8")
    (found,) = troubles.now(turning, shows(3), WAITING)  # type: ignore[arg-type]
    assert found.kind == "label_file" and "week3.csv" in found.text
    assert kinds(turning, troubles) == ["label_file"]
    troubles.over(replace(notifying.Told(), keys=frozenset({found.key})), [found])
    assert kinds(turning, troubles) == []


def test_what_was_told_is_over_after_twenty_minutes_without_it(
    turning: Turning, troubles: Troubles, clock: list[float]
) -> None:
    note = replace(notifying.Told(), keys=frozenset({"disk"}))
    for clock[0] in (0.0, 1200.0):
        assert troubles.over(note, []) == set()
    clock[0] = 1201.0
    assert troubles.over(note, []) == {"disk"}


def test_doctor_finds_a_command_that_cannot_be_started(turning: Turning) -> None:
    case: Any = SimpleNamespace(config=turning.work.config, folder=turning.work.folder)
    assert [finding.level for finding in notifying.check_command(case)] == ["ok"]
    case.config = replace(case.config, notify=NotifyConfig((os.fspath(turning.root / "mail-me"),)))
    (finding,) = notifying.check_command(case)
    assert finding.level == "problem" and "mail-me" in finding.text
    case.config = Config()
    assert notifying.check_command(case) == []


def test_a_stop_is_heeded_though_many_messages_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifying, "MOST_WAITING", 1)
    monkeypatch.setattr(notifying, "COMMAND_S", 0.2)
    monkeypatch.setattr(notifying, "AT_STOP_S", 0.1)
    loop: Any = Turning(tmp_path, (sys.executable, "-c", "import time; time.sleep(60)"), every_s=0.0)
    notifier = Notifier(loop)
    for n in range(3):
        notifier.fail(f"{n}")
    loop.stop.set()
    notifier.close()
    assert not any(thread.name == "notify" and thread.is_alive() for thread in threading.enumerate())
