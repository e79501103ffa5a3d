"""What others read of us is replaced whole, and while another program holds it the work goes on."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_predictions import predictions

from camera_trap_al.core.records import ImageKey
from camera_trap_al.errors import FileHeldError
from camera_trap_al.facts import read_facts
from camera_trap_al.labels.lines import SelectorLines
from camera_trap_al.labels.timelapse import (
    NEW_AFTER_S,
    NO_RIGHT_AFTER_S,
    Selector,
    read_placed,
    write_predictions,
    write_problems,
)
from camera_trap_al.loop import Loop, is_waiting
from camera_trap_al.store import atomic
from camera_trap_al.work import Work

KEYS = [ImageKey("", f"{i}.JPG") for i in range(4)]


class Held:
    """Other programs that hold files open: replacing or removing them fails as it does on Windows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: set[str] = set()
        self.code = errno.EACCES
        replace = os.replace

        def replace_unless_held(source: Any, target: Any) -> None:
            if Path(target).name in self.names:
                raise OSError(self.code, "held", str(source), None, str(target))
            replace(source, target)

        monkeypatch.setattr(atomic.os, "replace", replace_unless_held)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    return Held(monkeypatch)


class Shown:
    """A selector, its clock, and what it shows."""

    def __init__(self, folder: Path) -> None:
        self.now = 1000.0
        self.path, self.new, self.request = (folder / n for n in ("selector.csv", "selector.NEW.csv", "request.json"))
        self.selector = Selector(self.path, self.new, self.request, clock=lambda: self.now)

    def show(self, round_: int | str, *keys: ImageKey) -> None:
        self.selector.show(lambda: SelectorLines(KEYS), keys, round_)

    def fails(self, round_: int | str, *keys: ImageKey) -> str:
        with pytest.raises(FileHeldError) as raised:
            self.show(round_, *keys)
        return str(raised.value)


@pytest.fixture
def shown(tmp_path: Path) -> Shown:
    return Shown(tmp_path)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EBUSY, errno.ETXTBSY])
def test_a_held_selector_stays_as_it_is_and_the_step_fails_at_once(shown: Shown, held: Held, code: int) -> None:
    shown.show(1, KEYS[0])
    before = shown.path.read_bytes()
    held.names, held.code = {"selector.csv"}, code
    text = shown.fails(2, KEYS[1])
    assert "another program holds it" in text and "Close it in Excel or Timelapse" in text
    assert shown.path.read_bytes() == before and not shown.new.exists()
    assert shown.selector.placed() == shown.selector.shown() == 1


@pytest.mark.parametrize("name", ["selector.csv", "selector.NEW.csv"])
def test_what_somebody_wrote_into_a_held_selector_is_kept_once(
    name: str, shown: Shown, held: Held, caplog: pytest.LogCaptureFixture
) -> None:
    shown.show(1, KEYS[0])
    written = b"File,RelativePath,Selected,Species\r\n1.JPG,,true,fox\r\n"
    (shown.path.parent / name).write_bytes(written)
    held.names = {"selector.csv"}
    for _ in range(3):
        shown.fails(2, KEYS[1])
        shown.now += NEW_AFTER_S
    held.names = set()
    shown.show(2, KEYS[1])
    assert [path.read_bytes() for path in shown.path.parent.glob("selector-*.csv")] == [written]
    assert sum("somebody wrote into" in text for text in caplog.messages) == 1 and not shown.new.exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes in folders")
def test_a_pipe_in_the_place_of_the_selector_is_replaced_and_not_waited_for(shown: Shown) -> None:
    os.mkfifo(shown.path)
    shown.show(1, KEYS[0])
    assert shown.selector.placed() == 1


def test_after_half_a_minute_the_same_content_is_in_a_second_file(shown: Shown, held: Held) -> None:
    shown.show(1, KEYS[0])
    held.names = {"selector.csv"}
    shown.fails(2, KEYS[1])
    shown.now += NEW_AFTER_S - 1
    shown.fails(2, KEYS[1])
    assert not shown.new.exists()
    shown.now += 1
    text = shown.fails(2, KEYS[1])
    assert "selector.NEW.csv shows the same" in text
    assert shown.new.read_bytes().splitlines()[2] == b"1.JPG,,true"
    assert shown.selector.placed() == 0 and shown.selector.shown() == 2
    assert json.loads(shown.request.read_bytes())["selector"]["file"] == "selector.NEW.csv"


def test_the_second_file_goes_when_the_selector_can_be_replaced(shown: Shown, held: Held) -> None:
    held.names = {"selector.csv"}
    shown.fails(1, KEYS[1])
    shown.now += NEW_AFTER_S
    shown.fails(1, KEYS[1])
    held.names = set()
    shown.show(1, KEYS[1])
    assert not shown.new.exists() and shown.selector.placed() == shown.selector.shown() == 1
    held.names = {"selector.csv"}
    shown.now += 5
    shown.fails(2, KEYS[2])
    assert not shown.new.exists(), "the half minute begins anew"


def test_a_restart_knows_what_the_second_file_shows(shown: Shown, held: Held) -> None:
    held.names = {"selector.csv"}
    shown.fails(1, KEYS[1])
    shown.now += NEW_AFTER_S
    shown.fails(1, KEYS[1])
    again = Selector(shown.path, shown.new, shown.request)
    assert again.placed() == 0 and again.shown() == 1


def test_a_second_file_that_cannot_be_removed_harms_nothing(
    shown: Shown, held: Held, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    held.names = {"selector.csv"}
    shown.fails(1, KEYS[1])
    shown.now += NEW_AFTER_S
    shown.fails(1, KEYS[1])
    held.names = set()

    def fails(path: Path) -> None:
        raise PermissionError(errno.EACCES, "held", str(path))

    monkeypatch.setattr(
        atomic, "discard_file", lambda path: fails(path) if path == shown.new else path.unlink(missing_ok=True)
    )
    shown.show(1, KEYS[1])
    assert shown.selector.placed() == 1 and "cannot be removed" in caplog.text


def test_ten_minutes_name_the_missing_right(shown: Shown, held: Held) -> None:
    held.names = {"selector.csv"}
    assert "DELETE" not in shown.fails(1, KEYS[1])
    shown.now += NO_RIGHT_AFTER_S - 1
    assert "DELETE" not in shown.fails(1, KEYS[1])
    shown.now += 1
    assert "DELETE permission" in shown.fails(1, KEYS[1])


def test_a_folder_that_takes_no_files_is_another_problem(shown: Shown, held: Held) -> None:
    held.names = {"selector.csv", "selector.NEW.csv"}
    shown.fails(1, KEYS[1])
    shown.now += NEW_AFTER_S
    with pytest.raises(OSError, match="held"):
        shown.show(1, KEYS[1])
    assert shown.selector.shown() == 0


def test_a_full_disk_is_not_taken_for_a_held_selector(shown: Shown, held: Held) -> None:
    held.names, held.code = {"selector.csv"}, errno.ENOSPC
    with pytest.raises(OSError, match="held") as caught:
        shown.show(1, KEYS[1])
    assert not isinstance(caught.value, FileHeldError) and not shown.selector.is_held
    held.names = set()
    shown.show(1, KEYS[1])
    assert shown.selector.placed() == 1


def test_predictions_and_lists_hold_nothing_that_a_spreadsheet_runs(tmp_path: Path) -> None:
    key = ImageKey("a", "1.JPG")
    write_predictions(tmp_path / "p.csv", SelectorLines([key]), predictions({key: ("=cmd", 0.12345)}))
    write_problems(tmp_path / "q.csv", ["path", "text"], [["1.JPG", "+1"]])
    assert (tmp_path / "p.csv").read_bytes().splitlines()[1:] == [b"1.JPG,a,'=cmd,0.123"]
    assert (tmp_path / "q.csv").read_bytes() == b"path,text\r\n1.JPG,'+1\r\n"


def test_a_selector_that_somebody_changed_or_removed_is_not_shown(shown: Shown) -> None:
    shown.show(3, KEYS[0])
    assert read_placed(shown.request, shown.path) == 3
    assert read_placed(shown.request, shown.new) == 0
    shown.path.write_bytes(shown.path.read_bytes().replace(b"true", b"True"))
    assert shown.selector.shown() == 0
    shown.path.unlink()
    assert shown.selector.shown() == 0


def two_rounds_with(new_season: Callable[..., Any], held: Held, *names: str) -> tuple[Any, Work, Loop]:
    """Answer the first round while files are held; return the season and its open loop after some turns."""
    season = new_season(train__epochs=0, finetune__epochs=0)
    label = season.person()
    work = Work.open(season.work)
    loop = Loop(work)
    loop.run(until=is_waiting)
    label()
    held.names = set(names)
    return season, work, loop


def turns(loop: Loop, n: int, until: Callable[[Any], bool]) -> bool:
    """Take turns without resting between them; return whether `until` held of the facts."""
    for _ in range(n):
        facts, step = loop.look()
        if until(facts):
            return True
        if step.name == "WAITING":
            loop.rests.until.clear()
        else:
            loop.take(facts, step)
    return False


@pytest.mark.slow
def test_a_held_selector_rests_and_the_round_is_shown_by_the_second_file(
    new_season: Callable[..., Any], held: Held, no_torch: None
) -> None:
    season, work, loop = two_rounds_with(new_season, held, "timelapse_selector.csv")
    now = 0.0
    work.selector._clock = lambda: now
    try:
        assert turns(loop, 60, lambda facts: facts.open == 2 and "PUBLISHING" in loop.rests.failures)
        assert not turns(loop, 20, lambda facts: facts.shown == 2)
        now = NEW_AFTER_S
        assert turns(loop, 60, lambda facts: facts.shown == 2)
        facts = loop.look()[0]
        assert facts.placed == 0 and "shows the same" in loop.last_problem["PUBLISHING"]
        assert (season.work / "timelapse_selector.NEW.csv").read_bytes().count(b"true") == 9
        held.names = set()
        assert turns(loop, 60, lambda facts: facts.placed == 2)
        assert not (season.work / "timelapse_selector.NEW.csv").exists() and "PUBLISHING" not in loop.last_problem
    finally:
        work.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["labels.csv", "quarantine.csv", "timelapse_predictions.csv", "round1.csv.receipt.json"]
)
def test_any_other_held_file_rests_and_all_else_goes_on(
    new_season: Callable[..., Any], held: Held, name: str, no_torch: None
) -> None:
    season, work, loop = two_rounds_with(new_season, held, name)
    try:
        assert turns(loop, 80, lambda facts: facts.placed == 2 and bool(loop.last_problem) and facts.exported == 1)
        assert any(name in text and "Close it there" in text for text in loop.last_problem.values()), loop.last_problem
        if name == "quarantine.csv":
            assert b"red" in (season.work / "data" / "labels.csv").read_bytes(), "the other lists are written"
        held.names = set()
        assert turns(loop, 80, lambda facts: not loop.last_problem)
        facts = read_facts(work, worker_runs=False, rounds_left=9, resting=frozenset())
        assert not facts.unanswered and facts.listed == (facts.mark, facts.pool_version)
    finally:
        work.close()
