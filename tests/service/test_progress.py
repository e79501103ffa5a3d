"""What a person sees of a long phase: a bar, log lines, and how long it still takes, by a clock of the test's own."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace

import pytest
from season import Season

from camera_trap_al.core.durations import in_time, time_left
from camera_trap_al.core.steps import Facts, Step
from camera_trap_al.layout import WorkFolder
from camera_trap_al.lease import Holder
from camera_trap_al.lock import DaemonLock, take_lock
from camera_trap_al_service.daemon import Heart, run
from camera_trap_al_service.progress import LINE_EVERY_S, Bars, how_far
from camera_trap_al_service.reading import read_status, status_text

HOUR_S = 3600.0


class Clock:
    """Seconds that the test lets pass."""

    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """Standard error of somebody who watches."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock() -> Clock:
    return Clock()


def work_on(bars: Bars, clock: Clock, *, per_s: float, seconds: int, start: int = 0, total: int | None = 30_000) -> int:
    """Show a phase each second; return how much is done."""
    done = start
    for second in range(1, seconds + 1):
        clock.now += 1
        done = start + int(per_s * second)
        bars.show("embedding", done, total)
    return done


def left_s(bars: Bars) -> float | None:
    return bars.facts().get("left_s")


def test_the_time_left_follows_from_the_pace(clock: Clock) -> None:
    bars = Bars(clock)
    work_on(bars, clock, per_s=20, seconds=60)
    assert left_s(bars) == pytest.approx(28_800 / 20)
    assert how_far(*[bars.facts()[name] for name in ("phase", "done", "total", "left_s")]) == (
        "embedding: 1,200 of 30,000 images, about 24 min left"
    )


def test_the_last_minutes_count_not_the_start(clock: Clock) -> None:
    bars = Bars(clock)
    done = work_on(bars, clock, per_s=100, seconds=60)
    done = work_on(bars, clock, per_s=10, seconds=200, start=done)
    assert left_s(bars) == pytest.approx((30_000 - done) / 10, rel=0.01)


def test_nothing_is_said_before_it_can_be_known(clock: Clock) -> None:
    bars = Bars(clock)
    bars.show("embedding", 0, 30_000)
    assert left_s(bars) is None
    work_on(bars, clock, per_s=50, seconds=5)
    assert left_s(bars) is None


def test_nothing_is_said_without_a_total_or_while_nothing_gets_done(clock: Clock) -> None:
    bars = Bars(clock)
    work_on(bars, clock, per_s=50, seconds=60, total=None)
    assert left_s(bars) is None
    done = work_on(bars, clock, per_s=50, seconds=60)
    work_on(bars, clock, per_s=0, seconds=200, start=done)
    assert left_s(bars) is None


def test_a_job_that_goes_on_where_it_was_is_not_thought_to_be_fast(clock: Clock) -> None:
    bars = Bars(clock)
    done = work_on(bars, clock, per_s=10, seconds=60, start=20_000)
    assert left_s(bars) == pytest.approx((30_000 - done) / 10, rel=0.05)


@pytest.mark.parametrize("asleep_s", [200.0, 8 * HOUR_S, 70 * HOUR_S])
def test_a_computer_that_slept_leaves_no_trace_in_the_time_left(asleep_s: float, clock: Clock) -> None:
    bars = Bars(clock)
    done = work_on(bars, clock, per_s=20, seconds=100)
    clock.now += asleep_s
    bars.show("embedding", done, 30_000)
    assert left_s(bars) is None
    done = work_on(bars, clock, per_s=20, seconds=30, start=done)
    assert left_s(bars) == pytest.approx((30_000 - done) / 20, rel=0.05)


def test_a_new_attempt_begins_a_new_phase(clock: Clock) -> None:
    bars = Bars(clock)
    work_on(bars, clock, per_s=100, seconds=60)
    work_on(bars, clock, per_s=1, seconds=30)
    assert left_s(bars) == pytest.approx(29_970, rel=0.05)


def test_the_log_gets_a_line_a_minute_where_nobody_watches(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    work_on(Bars(clock), clock, per_s=20, seconds=600)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "embedding: 1,240 of 30,000 images, about 24 min left"
    assert len(lines) == 600 // (LINE_EVERY_S + 1)


def test_the_log_gets_no_line_for_what_is_short(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bars = Bars(clock)
    for _ in range(10):
        work_on(bars, clock, per_s=1000, seconds=30)
    assert not caplog.records


def test_a_terminal_gets_a_bar_with_the_same_time_left_and_no_lines(
    clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    bars = Bars(clock)
    done = work_on(bars, clock, per_s=20, seconds=300)
    # A bar is drawn ten times a second of the real clock at most.
    time.sleep(0.2)
    work_on(bars, clock, per_s=20, seconds=1, start=done)
    assert "embedding:" in terminal.getvalue() and "about 20 min left" in terminal.getvalue()
    bars.close()
    assert not caplog.records


class Gone(Terminal):
    """The terminal of somebody who closed its window."""

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("terminal", [Gone(), None], ids=["closed", "none"])
def test_the_work_goes_on_without_a_terminal(
    terminal: Gone | None, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = Bars(clock)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        work_on(bars, clock, per_s=20, seconds=60)
        assert left_s(bars) == pytest.approx(28_800 / 20)
        bars.close()


def test_a_terminal_gets_no_bar_for_what_is_short(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    bars = Bars(clock)
    work_on(bars, clock, per_s=20, seconds=2)
    bars.close()
    assert terminal.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (5, "less than a minute left"),
        (61, "about 1 min left"),
        (720, "about 12 min left"),
        (89 * 60, "about 89 min left"),
        (2.6 * HOUR_S, "about 2.5 h left"),
        (8 * HOUR_S, "about 8 h left"),
        (75 * HOUR_S, "about 3 days left"),
    ],
)
def test_the_time_left_is_said_as_a_person_would(seconds: float, text: str) -> None:
    assert time_left(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.23, "4.2 s"), (59.7, "1 min 0 s"), (725, "12 min 5 s"), (12_000, "3 h 20 min")]
)
def test_how_long_it_took_is_said_as_a_person_would(seconds: float, text: str) -> None:
    assert in_time(seconds) == text


AT = "2026-11-22T10:00:00Z"
AT_S = 1_795_341_600.0


def note(season: Season, **parts: object) -> None:
    """Write a `status.json` as a daemon does that is at work."""
    counted = ("unlabelled", "labelled", "skipped", "train", "validation", "quarantined", "missing", "not_listed")
    status = {"format": 1, "state": "waiting", "at": AT, "round": 0, "open": False, "images": dict.fromkeys(counted, 3)}
    status |= {"accuracy": None, "learner": 0, "checkpoint": 0, "hint": "", **parts}
    (season.work / "status.json").write_text(json.dumps(status), encoding="utf-8")


PHASE = {"phase": "embedding", "done": 1200, "total": 30_000, "started": AT, "left_s": 1440}


def test_status_says_how_far_the_background_is_and_how_long_it_takes(new_season: Callable[..., Season]) -> None:
    season = new_season()
    note(season, worker={"job": "embed"} | PHASE)
    text = said_while_running(season, AT_S + 30)
    assert "In the background: embed (embedding: 1,200 of 30,000 images, about 24 min left)" in text


def test_status_says_how_far_the_search_for_images_is(new_season: Callable[..., Season]) -> None:
    season = new_season()
    note(season, scan={"phase": "looking for images", "done": 12_000, "total": None, "started": AT})
    assert "At present: looking for images: 12,000 seen" in said_while_running(season, AT_S)


@pytest.mark.parametrize("age_s", [3 * HOUR_S, -3 * HOUR_S])
def test_status_repeats_no_time_left_that_was_said_long_ago(age_s: float, new_season: Callable[..., Season]) -> None:
    season = new_season()
    note(season, worker={"job": "embed"} | PHASE)
    text = said_while_running(season, AT_S + age_s)
    assert "1,200 of 30,000" in text and "left" not in text


def said_while_running(season: Season, now: float) -> str:
    """Return what `status` says while a daemon holds the work folder."""
    lock = take_lock(WorkFolder.at(season.work).daemon_lock)
    assert lock is not None
    try:
        return status_text(read_status(season.work, now))
    finally:
        lock.release()


def test_what_an_earlier_run_said_is_not_taken_for_the_state_of_one_that_starts(
    new_season: Callable[..., Season],
) -> None:
    season = new_season()
    note(season, state="stopped", host=socket.gethostname(), pid=1, problems=["old"], worker={"job": "embed"} | PHASE)
    held = DaemonLock.take(WorkFolder.at(season.work))
    try:
        text = status_text(read_status(season.work, AT_S))
        note(season, state="waiting", host=socket.gethostname(), pid=os.getpid())
        later = status_text(read_status(season.work, AT_S))
    finally:
        held.release()
    assert "State: starting (running)" in text and "State: waiting (running)" in later
    assert not [word for word in ("old", "embedding", "Start it") if word in text]


@pytest.mark.parametrize(
    "damage",
    [
        {"images": 3},
        {"images": {}},
        {"open": True, "awaited": None},
        {"accuracy": "good"},
        {"worker": "embed"},
        {"worker": {"job": "embed", "phase": "x"}},
        {"scan": [1]},
        {"deaths": [1]},
        {"problems": 3},
    ],
)
def test_a_status_that_somebody_damaged_is_told_as_such(
    damage: dict[str, object], new_season: Callable[..., Season]
) -> None:
    season = new_season()
    note(season, **damage)
    text = said_while_running(season, AT_S)
    assert text.startswith("State: running\n") and "status.json is damaged" in text


@pytest.mark.parametrize(("silent_s", "text"), [(30, "waiting (running)"), (600, "waiting (perhaps running; no sign")])
def test_a_daemon_of_another_computer_that_gives_no_sign_is_not_said_to_run(
    silent_s: float, text: str, new_season: Callable[..., Season]
) -> None:
    season = new_season()
    note(season, host="field-laptop", pid=os.getpid())
    there = replace(Holder.here(season.work, ""), host="field-laptop")
    lease = season.work / "lease.json"
    lease.write_text(json.dumps({"format": 1, **asdict(there)}), encoding="utf-8")
    said = status_text(read_status(season.work, lease.stat().st_mtime + silent_s))
    assert text in said and f"At work: process {there.pid} on field-laptop" in said
    assert ("If field-laptop is not at work any more" in said) == (silent_s > 120)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return a function that says what the log says to a person, numbers as `#`."""
    for name in ("camera_trap_al", "camera_trap_al_service"):
        caplog.set_level(logging.INFO, name)
    return lambda: [re.sub(r"\d[\d.]*", "#", r.getMessage()) for r in caplog.records if r.levelno == logging.INFO]


STORY = [
    "opening ",
    "Will not start from checkpoint: ",
    "scan: looking for images in ",
    "scan: # images to label, # to train on, # for validation (# new or changed), in # s",
    "request: round # asks for # images",
    "Calculating mean and standard deviation of # images...",
    "Finished calculating mean and standard deviation (# images in # s)",
    "Extracting embedding... (# images)",
    "Finished extracting embedding (# images in # s)",
    "model # is current",
    "classifier: fitting on # labels",
    "classifier: fitted on # labels of # classes in # s",
    "accuracy: # on # validation images",
    "export: ",
]


@pytest.mark.slow
def test_the_log_of_a_run_tells_each_long_phase_at_its_begin_and_end(
    new_season: Callable[..., Season], told: Callable[[], list[str]]
) -> None:
    season = new_season()
    run(season.work, until="idle", handle_signals=False)
    lines = told()
    places = [next((i for i, line in enumerate(lines) if line.startswith(part)), -1) for part in STORY]
    assert -1 not in places, [part for part, place in zip(STORY, places, strict=True) if place < 0]
    assert places == sorted(places)
    assert len(lines) <= len(STORY) + 6, lines


@pytest.mark.slow
def test_a_second_start_says_from_which_checkpoint_and_looks_for_nothing_aloud(
    new_season: Callable[..., Season], told: Callable[[], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    season = new_season()
    run(season.work, until="idle", handle_signals=False)
    caplog.clear()
    run(season.work, until="idle", handle_signals=False)
    lines = told()
    assert [line.partition(" (")[0] for line in lines[1:2]] == ["Starting from checkpoint # with # labels"]
    assert not [line for line in lines if line.startswith(("scan", "Extracting", "Calculating"))]


@pytest.mark.slow
def test_a_job_that_runs_within_the_daemon_is_shown_too(
    new_season: Callable[..., Season], told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("camera_trap_al_service.progress.LINE_EVERY_S", -1.0)
    run(new_season(daemon__worker="inline").work, until="idle", handle_signals=False)
    shown = {line.partition(":")[0] for line in told() if " of # " in line}
    assert {"measuring mean and standard deviation", "embedding", "saving the network"} <= shown


def test_status_json_says_how_far_a_job_is_and_since_when(new_season: Callable[..., Season], clock: Clock) -> None:
    season = new_season()
    with season.opened() as loop:
        heart = Heart(loop.work)
        heart.bars = Bars(clock)
        for _ in range(12):
            clock.now += 10
            loop.worker.job, loop.worker.progress = "EMBED", ("embedding", int(clock.now), 30_000)
            heart.beat(loop, Facts(), Step(f"TURN {clock.now}", ""))
    work = read_status(season.work)["worker"]
    assert work.pop("started") <= time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    assert work == {"job": "embed", "phase": "embedding", "done": 5120, "total": 30_000, "left_s": 24_880}
