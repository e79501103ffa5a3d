"""A disk that is full is a pause: too little space fails a step before it begins, and the program goes on by itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from camera_trap_al.circles import Circles
from camera_trap_al.core.steps import Facts
from camera_trap_al.errors import DiskFullError
from camera_trap_al.loop import LONGEST_REST_S, STEPS, Loop, is_waiting
from camera_trap_al.space import MB, require_space, require_space_for_next
from camera_trap_al.store import atomic, generations
from camera_trap_al.store.journal import LabelJournal, read_journal
from camera_trap_al.work import Work


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """How many megabytes are free, as the program sees it."""
    free = {"mb": 1e6}
    monkeypatch.setattr(atomic, "free_bytes", lambda path: int(free["mb"] * MB))
    return free


def test_the_message_names_the_place_and_what_to_do(tmp_path: Path, free: dict[str, float]) -> None:
    free["mb"] = 63.0
    with pytest.raises(DiskFullError, match=r"63 MB are free, 64 MB are needed\. Free some space") as raised:
        require_space(tmp_path, 64.0)
    assert str(tmp_path) in str(raised.value)
    require_space(tmp_path, 63.0)


def test_a_generation_wants_twice_the_space_of_the_last_one(tmp_path: Path, free: dict[str, float]) -> None:
    free["mb"] = 5.0
    require_space_for_next(tmp_path, 1.0)
    for number, size_mb in ((1, 9), (2, 3)):
        folder = generations.folder_of(tmp_path, number)
        folder.mkdir()
        (folder / "a.npy").write_bytes(bytes(size_mb * MB))
    with pytest.raises(DiskFullError, match="6 MB are needed"):
        require_space_for_next(tmp_path, 1.0)
    free["mb"] = 6.0
    require_space_for_next(tmp_path, 1.0)
    with pytest.raises(DiskFullError, match="7 MB are needed"):
        require_space_for_next(tmp_path, 7.0)


def turns(loop: Loop, n: int) -> None:
    for _ in range(n):
        loop.rests.until = {name: until for name, until in loop.rests.until.items() if until == float("inf")}
        facts, step = loop.look()
        if step.name != "WAITING":
            loop.take(facts, step)


def loop_without_jobs(work: Work) -> Loop:
    loop = Loop(work)
    loop.rests.until["TRAIN"] = float("inf")
    return loop


@pytest.mark.parametrize("min_free_mb", [64.0, pytest.param(5000.0, marks=pytest.mark.slow)])
def test_labels_wait_for_space_unacknowledged_and_are_then_taken(
    new_season: Callable[..., Any], free: dict[str, float], min_free_mb: float
) -> None:
    season = new_season(daemon__min_free_mb=min_free_mb)
    work = Work.open(season.work)
    try:
        loop = loop_without_jobs(work)
        loop.run(until=is_waiting)
        season.person()()
        before, end = free["mb"], work.journal.end
        free["mb"] = min_free_mb - 1
        turns(loop, 20)
        assert work.journal.end == end and not list((season.work / "new_labels_bin").glob("*.receipt.json"))
        assert any("almost full" in text for text in loop.last_problem.values()), loop.last_problem
        free["mb"] = before
        turns(loop, 20)
        assert len(work.history.labels) == 9 and not loop.last_problem
        assert list((season.work / "new_labels_bin").glob("*.receipt.json"))
    finally:
        work.close()


def test_a_scan_waits_for_space_and_the_program_does_not_end(
    new_season: Callable[..., Any], free: dict[str, float]
) -> None:
    work = Work.open(new_season().work)
    try:
        loop = loop_without_jobs(work)
        free["mb"] = 1.0
        turns(loop, 5)
        assert not loop.look()[0].scanned and "CATALOGUING" in loop.last_problem
        free["mb"] = 1e6
        turns(loop, 20)
        assert loop.look()[0].placed == 1 and not loop.last_problem
    finally:
        work.close()


LIMITED = """
import resource, sys
from pathlib import Path
from camera_trap_al.core.records import ImageKey
from camera_trap_al.errors import DurableWriteError, in_words
from camera_trap_al.labels.lines import SelectorLines
from camera_trap_al.labels.timelapse import write_selector
from camera_trap_al.store.journal import LabelJournal
root = Path(sys.argv[1])
journal = LabelJournal.open(root / "journal.jsonl")
journal.append("close", {"round": 1})
size = (root / "journal.jsonl").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, size + 100))
try:
    write_selector(root / "selector.csv", SelectorLines(ImageKey("", f"{n}.JPG") for n in range(300)), ())
except OSError as error:
    print(in_words(error))
try:
    journal.append("labels", {"rows": ["x" * 400]})
except DurableWriteError as error:
    print(error.exit_code, error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot limit the size of a process's files")
def test_a_disk_that_is_really_full_leaves_old_files_and_a_journal_that_opens(tmp_path: Path) -> None:
    LabelJournal.create(tmp_path / "journal.jsonl", "j", "1").close()
    (tmp_path / "selector.csv").write_bytes(b"old")
    child = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, encoding="utf-8", check=True
    )
    selector, journal = child.stdout.splitlines()
    assert selector.startswith(f"The disk is full: {tmp_path / 'selector.csv'} could not be written.")
    assert journal.startswith("74 The record of labels could not be written") and "acknowledged are safe" in journal
    assert (tmp_path / "selector.csv").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal.jsonl", "selector.csv"]
    again = LabelJournal.open(tmp_path / "journal.jsonl")
    assert again.end == 2
    again.append("close", {"round": 2})
    again.close()
    assert len(read_journal(tmp_path / "journal.jsonl")[0]) == 3


def test_circles_are_noticed_and_any_change_ends_them() -> None:
    circles = Circles()
    assert not any(circles.goes_in("LISTING", Facts(mark=1), 3) for _ in range(3))
    assert circles.goes_in("LISTING", Facts(mark=1), 3)
    assert not circles.goes_in("LISTING", Facts(mark=2), 3)
    assert not circles.goes_in("FITTING", Facts(mark=1), 3)


def test_a_step_that_changes_nothing_rests_with_a_warning(
    new_season: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []
    monkeypatch.setitem(STEPS, "LISTING", lambda work, facts, subject: calls.append(1))  # type: ignore[arg-type]
    work = Work.open(new_season().work)
    try:
        loop = loop_without_jobs(work)
        until = {"n": 0}

        def enough(facts: object, step: object) -> bool:
            until["n"] += 1
            return until["n"] > 200 or "LISTING" in loop.last_problem

        loop.run(until=enough)
        assert "nothing changed" in loop.last_problem["LISTING"] and "report it" in caplog.text
        assert len(calls) == 51 and 0 < loop.rests.first_end_s() <= LONGEST_REST_S
        assert loop.look()[1].name != "LISTING"
    finally:
        work.close()
