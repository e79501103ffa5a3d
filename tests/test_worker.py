"""The worker: what counts as a death, who waits for whom, and that it ends when told, with stand-ins for its job."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from camera_trap_al import worker as workers
from camera_trap_al.attempt import Attempt, read_noted
from camera_trap_al.config import Config, build
from camera_trap_al.errors import DivergedError, ModelError, in_words
from camera_trap_al.layout import WorkFolder
from camera_trap_al.lock import is_held
from camera_trap_al.worker import Worker

# What a child does in the place of its job, in the child's own process.
BEHAVIOURS = """
import os, sys, time, threading
import camera_trap_al.jobs as jobs, camera_trap_al.worker as worker
from camera_trap_al.errors import DivergedError, ImagesOfflineError
from camera_trap_al.learn.settings import SAVED, Progress
worker.STOP_ITSELF_S, worker.TELL_EVERY_S = 0.2, 0.0

def run_job(folder, config, job, tick, begin):
    begin(7, 11)
    tick(Progress("training", 1, 10))
    if job == "KILLED":
        os._exit(9)
    if job == "SAYS HOW IT DECODES AND IS KILLED":
        worker._tell({"problem": f"{config.images.processes} processes"})
        os._exit(9)
    if job == "SAVES AND IS KILLED":
        tick(Progress(SAVED, 1, 10))
        os._exit(9)
    if job == "FAILS":
        raise OSError(28, "No space left on device", str(folder.models / "epoch.safetensors"))
    if job == "DIVERGES":
        raise DivergedError("The loss is no longer a number.", hint="Choose a smaller learning rate.")
    if job == "OFFLINE":
        raise ImagesOfflineError("The images do not answer.")
    while job == "BUSY":
        pass
    while job == "LOOPS":
        tick(Progress("training", 1, 10))
        time.sleep(0.02)
    n = 0
    while job == "SAVES":
        n += 1
        tick(Progress(SAVED, n, 1000))
        time.sleep(0.02)

jobs.run_job = run_job
worker.main()
"""
DEAF = "import time\nprint('{}', flush=True)\nwhile True: time.sleep(1)"
LONGEST_S = 300.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    root = Path(__file__).resolve().parent.parent
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(workers, "COMMAND", (sys.executable, "-c", BEHAVIOURS))
    history = SimpleNamespace(taken={}, withdrawn={})
    return SimpleNamespace(folder=WorkFolder.at(tmp_path), config=Config(), history=history)


@pytest.fixture
def worker(work: Any) -> Any:
    worker = Worker(work, Clock())
    yield worker
    worker.kill()
    worker.end()


def end_of(worker: Worker) -> tuple[str, str]:
    until = time.monotonic() + LONGEST_S
    while time.monotonic() < until:
        for ended in worker.ended():
            return ended
        time.sleep(0.01)
    raise AssertionError("it did not end")


def wait_for(worker: Worker, condition: Callable[[], object]) -> None:
    """Wait until the condition holds while the child is at work."""
    until = time.monotonic() + LONGEST_S
    while not condition() and time.monotonic() < until:
        assert not list(worker.ended())
        time.sleep(0.01)
    assert condition() and not list(worker.ended())


def until_it_says_something(worker: Worker) -> None:
    wait_for(worker, lambda: worker.progress is not None)


def until_it_notes_something(worker: Worker, work: Any) -> None:
    wait_for(worker, lambda: read_noted(work.folder.worker) is not None)


def attempt(worker: Worker, job: str) -> str:
    worker.start(job, threading.Event())
    ended, text = end_of(worker)
    assert ended == job and not worker.is_running()
    return text


@pytest.mark.slow
def test_after_three_deaths_a_job_rests_for_six_hours_and_others_do_not(worker: Worker) -> None:
    for n in (1, 2):
        assert "unexpectedly" in attempt(worker, "KILLED")
        assert worker.deaths == {"KILLED": n} and worker.dead_jobs() == frozenset()
    text = attempt(worker, "KILLED")
    assert "died 3 times" in text and "6 hours" in text
    assert worker.dead_jobs() == {"KILLED"}
    assert attempt(worker, "DONE") == ""
    worker._clock.now += workers.DEAD_REST_S - 1  # type: ignore[attr-defined]
    assert worker.dead_jobs() == {"KILLED"}
    worker._clock.now += 2  # type: ignore[attr-defined]
    assert worker.dead_jobs() == frozenset() and worker.deaths == {}


@pytest.mark.slow
def test_a_dead_job_is_tried_again_when_labels_come(worker: Worker, work: Any) -> None:
    for _ in range(3):
        attempt(worker, "KILLED")
    work.history.taken["round1.csv"] = 9
    assert worker.dead_jobs() == frozenset()


@pytest.mark.slow
def test_deaths_are_counted_over_restarts_of_the_daemon(worker: Worker, work: Any) -> None:
    attempt(worker, "KILLED")
    attempt(worker, "KILLED")
    restarted = Worker(work, Clock())
    assert "died 3 times" in attempt(restarted, "KILLED")
    noted = read_noted(work.folder.worker)
    assert noted is not None and (noted.job, noted.generation, noted.seed, noted.attempt) == ("KILLED", 7, 11, 3)


@pytest.mark.slow
def test_after_a_death_images_are_decoded_in_processes_of_their_own(worker: Worker) -> None:
    job = "SAYS HOW IT DECODES AND IS KILLED"
    assert [attempt(worker, job), attempt(worker, job)] == ["0 processes", "8 processes"]


@pytest.mark.slow
def test_a_worker_that_saves_is_not_dead_however_it_ends(worker: Worker) -> None:
    for _ in range(4):
        assert "unexpectedly" in attempt(worker, "SAVES AND IS KILLED")
    assert worker.deaths == {} and worker.dead_jobs() == frozenset()


@pytest.mark.slow
@pytest.mark.parametrize("job", ["FAILS", "OFFLINE"])
def test_an_end_that_is_noted_is_no_death(worker: Worker, work: Any, job: str) -> None:
    text = attempt(worker, job)
    noted = read_noted(work.folder.worker)
    assert noted is not None and noted.end == job.lower().replace("fails", "failed")
    assert worker.deaths.get(job, 0) == 0
    if job == "FAILS":
        assert "disk is full" in text and "epoch.safetensors" in text and "goes on by itself" in text


@pytest.mark.slow
def test_what_diverged_rests_until_labels_or_settings_change(worker: Worker, work: Any) -> None:
    text = attempt(worker, "DIVERGES")
    assert "smaller learning rate. DIVERGES rests for 6 hours, or until labels or settings change" in text
    assert worker.dead_jobs() == {"DIVERGES"} and not worker.deaths.get("DIVERGES")
    work.history.taken["round1.csv"] = 9
    assert worker.dead_jobs() == frozenset()


def test_what_diverged_inline_rests_too(worker: Worker, work: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(*_: Any) -> None:
        raise DivergedError("The loss is no longer a number.")

    monkeypatch.setattr("camera_trap_al.jobs.run_job", diverge)
    work.config = build({"daemon.worker": "inline"}, "test")
    with pytest.raises(DivergedError, match="TRAIN rests for 6 hours"):
        worker.start("TRAIN", threading.Event())
    assert worker.dead_jobs() == {"TRAIN"} and not is_held(work.folder.worker_lock)


@pytest.mark.slow
@pytest.mark.parametrize("job", ["BUSY", "LOOPS"])
def test_ten_minutes_without_anything_new_are_a_death(worker: Worker, job: str) -> None:
    worker.start(job, threading.Event())
    until_it_says_something(worker)
    time.sleep(0.2)
    assert not list(worker.ended())
    for _ in range(11):
        assert not list(worker.ended())
        worker._clock.now += 59.0  # type: ignore[attr-defined]
    ended, text = end_of(worker)
    assert ended == job and "10 minutes" in text and worker.deaths == {job: 1}


@pytest.mark.slow
def test_a_computer_that_slept_does_not_end_the_worker(worker: Worker) -> None:
    worker.start("BUSY", threading.Event())
    until_it_says_something(worker)
    worker._clock.now += 8 * 3600.0  # type: ignore[attr-defined]
    assert not list(worker.ended())
    assert worker.is_running() and worker.deaths.get("BUSY", 0) == 0


@pytest.mark.slow
@pytest.mark.parametrize("job", ["BUSY", "LOOPS", "SAVES"])
def test_a_closed_pipe_ends_the_worker_amid_any_work(worker: Worker, work: Any, job: str) -> None:
    worker.start(job, threading.Event())
    if job == "SAVES":
        until_it_notes_something(worker, work)
    else:
        until_it_says_something(worker)
    assert is_held(work.folder.worker_lock)
    worker.end()
    noted = read_noted(work.folder.worker)
    assert noted is not None and noted.end == "stopped"
    assert not is_held(work.folder.worker_lock) and not worker.is_running()


@pytest.mark.slow
def test_a_worker_that_heeds_nothing_is_ended(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "COMMAND", (sys.executable, "-c", DEAF))
    monkeypatch.setattr(workers, "STOP_GRACE_S", 0.3)
    worker.start("DEAF", threading.Event())
    worker.end()
    assert not worker.is_running()


def test_a_worker_gives_way_at_its_next_save_only(worker: Worker, work: Any) -> None:
    worker.start("SAVES", threading.Event())
    worker.give_way_to("")
    worker.give_way_to("SAVES")
    until_it_notes_something(worker, work)
    worker.give_way_to("TRAIN")
    assert end_of(worker) == ("SAVES", "")
    noted = read_noted(work.folder.worker)
    assert noted is not None and noted.end == "gave way" and noted.commits >= 1 and worker.deaths == {}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32" or sys.version_info < (3, 11), reason="groups of processes, in one session")
def test_a_worker_is_of_low_priority_within_the_session_of_its_daemon(worker: Worker) -> None:
    worker.start("LOOPS", threading.Event())
    until_it_says_something(worker)
    assert worker._child is not None
    pid = worker._child._process.pid
    assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0) + 10
    assert os.getsid(pid) == os.getsid(0), "each session has its share of the processor, whatever its priority"
    assert os.getpgid(pid) == pid, "a Ctrl-C is for the daemon"


@pytest.mark.slow
def test_a_second_worker_finds_the_lock_held_and_ends(worker: Worker, work: Any) -> None:
    worker.start("LOOPS", threading.Event())
    until_it_says_something(worker)
    assert attempt(Worker(work, Clock()), "DONE") == ""
    noted = read_noted(work.folder.worker)
    assert noted is not None and noted.job == "LOOPS" and noted.end == ""


def test_an_attempt_counts_deaths_of_the_same_job_on_the_same_labels_only(tmp_path: Path) -> None:
    path = tmp_path / "worker.json"
    Attempt(path, "TRAIN", "a").begin(1, 1)
    assert Attempt(path, "TRAIN", "a").noted.deaths == 1
    assert Attempt(path, "TRAIN", "b").noted.deaths == 0
    assert Attempt(path, "EMBED", "a").noted.deaths == 0
    stopped = Attempt(path, "TRAIN", "a")
    stopped.begin(1, 1)
    stopped.end("stopped")
    again = Attempt(path, "TRAIN", "a")
    assert (again.noted.attempt, again.noted.deaths) == (3, 1), "a told stop is no death, and no success"
    again.commit()
    assert Attempt(path, "TRAIN", "a").noted.deaths == 0
    path.write_bytes(b"{}")
    assert Attempt(path, "TRAIN", "a").noted.attempt == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/w/.labels.csv.partial"),
            "The disk is full: /w/labels.csv could",
        ),
        (OSError("8388608 requested and 4194304 written"), "The disk is full. Free some space"),
        (RuntimeError("IoError(Os { code: 28, kind: StorageFull })"), "The disk is full"),
        (PermissionError(errno.EACCES, "denied", "/w/.a.csv.partial", None, "/w/a.csv"), "/w/a.csv cannot be replaced"),
        (MemoryError(), "too little memory"),
        (ModelError("No model.", hint="Wait."), "No model. Wait."),
        (ValueError("odd"), "ValueError: odd"),
    ],
)
def test_errors_are_told_in_words(error: Exception, words: str) -> None:
    assert words.replace("/", os.sep) in in_words(error).replace("/", os.sep)
