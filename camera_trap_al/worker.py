"""The background child: one job at a time, at low priority; its start, its end, and word of how far it is.

The child reads JSON lines from its standard input: what it needs to know, then perhaps that another job is more urgent.
It is told to stop by closing that, which also happens when the daemon dies. It talks in JSON lines on its standard
output. `python -m camera_trap_al.worker` is the child itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import queue
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from camera_trap_al.attempt import DEATHS_ALLOWED, Attempt
from camera_trap_al.config import Config, build
from camera_trap_al.decoder import own_group
from camera_trap_al.engine import MOST_PROCESSES
from camera_trap_al.errors import CameraTrapAlError, DivergedError, ImagesOfflineError, StopRequested, in_words
from camera_trap_al.layout import WorkFolder
from camera_trap_al.learn.settings import SAVED, Progress
from camera_trap_al.lock import take_lock
from camera_trap_al.store import atomic
from camera_trap_al.work import Work

STOP_ITSELF_S = 6.0
STOP_GRACE_S = 8.0
SILENCE_S = 600.0
LONGEST_GAP_S = 60.0
DEAD_REST_S = 6 * 3600.0
TELL_EVERY_S = 0.5
GIVE_WAY = {"give way": True}
DIVERGED = "diverged"
# glibc gives large blocks back to the system at once, and networks ask for them again for each batch: keeping them made
# embedding twice as fast. Other systems ignore these. Threads that wait for others shall sleep: spinning, two of them
# beside another program took twice the processor time and were no faster than one.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
    "OMP_WAIT_POLICY": "PASSIVE",
}
COMMAND = (sys.executable, "-m", "camera_trap_al.worker")
log = logging.getLogger(__name__)


class Child:
    """One child process: what it says, and how it is told to stop."""

    def __init__(self, root: Path, job: str, config: Config, stamp: str = "") -> None:
        flags = own_group()
        if sys.platform == "win32":
            flags = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.BELOW_NORMAL_PRIORITY_CLASS}
        self._process = subprocess.Popen(
            [*COMMAND, str(root), job],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **KEEP_MEMORY, "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"},
            **flags,
        )
        self._told: queue.Queue[dict[str, Any]] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True, name="worker listener")
        self._listener.start()
        self.tell({"config": config.flat(), "stamp": stamp})

    def tell(self, what: dict[str, Any]) -> None:
        """Send a line. A child that is gone misses it."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write((json.dumps(what) + "\n").encode("utf-8"))
            self._process.stdin.flush()

    def tell_to_stop(self) -> None:
        """Close the pipe, at which the child ends at its next mini-batch. May be called from any thread, again and again."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.close()

    def heard(self) -> Iterator[dict[str, Any]]:
        """Yield what the child said since the last call."""
        while not self._told.empty():
            yield self._told.get()

    def status(self) -> int | None:
        """Return how the process ended, negative for a signal, or None while it runs."""
        status = self._process.poll()
        if status is not None:
            self._listener.join(1.0)
            self.tell_to_stop()
        return status

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Tell the process to stop, and end it if it does not within 8 s."""
        self.tell_to_stop()
        try:
            self._process.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with contextlib.suppress(ValueError):
                told = json.loads(line)
                if isinstance(told, dict):
                    self._told.put(told)


class Worker:
    """The daemon's side of the worker. With `daemon.worker = "inline"`, a job runs within `start`.

    `on_progress` is called by a job that runs within `start`, at each of its mini-batches.
    """

    def __init__(self, work: Work, clock: Callable[[], float] = time.monotonic) -> None:
        self._work, self._clock = work, clock
        self._child: Child | None = None
        self._heard_s = self._looked_s = 0.0
        self._last_words, self._end, self._commits = "", "", 0
        self._deaths: dict[str, int] = {}
        self._dead: dict[str, tuple[float, str]] = {}
        self._asked_to_give_way = False
        self.job = ""
        self.progress: tuple[str, int, int] | None = None
        self.on_progress: Callable[[], None] = lambda: None

    def is_running(self) -> bool:
        """Return whether a child is at work."""
        return self._child is not None

    def start(self, job: str, stop: threading.Event) -> None:
        """Start a job. Raises what the job raises if it runs inline; `StopRequested` if told to stop meanwhile."""
        if self._work.config.daemon.worker == "inline":
            self._run_inline(job, stop)
            return
        assert self._child is None
        self._child = Child(self._work.folder.root, job, self._work.config, self._stamp())
        self.job, self._asked_to_give_way = job, False
        self._heard_s = self._looked_s = self._clock()
        self._last_words, self._end, self._commits = "", "", 0

    def give_way_to(self, job: str) -> None:
        """Tell a running job that `job` is the one that is due: it ends at its next commit, and goes on from there later."""
        if self._child is not None and job not in ("", self.job) and not self._asked_to_give_way:
            self._child.tell(GIVE_WAY)
            self._asked_to_give_way = True

    def ended(self) -> Iterator[tuple[str, str]]:
        """Yield the jobs that ended since the last call, each with its problem, or "" where it did what it should."""
        if self._child is None:
            return
        status, now = self._child.status(), self._clock()
        # What was longer than a minute between two calls was no silence: the computer slept, or a step took its time.
        self._heard_s += max(0.0, now - self._looked_s - LONGEST_GAP_S)
        self._looked_s = now
        self._hear(self._child)
        if status is None and self._clock() - self._heard_s > SILENCE_S:
            self._child.kill()
            status = self._child.status()
            self._last_words = (
                f"The worker said nothing new for {SILENCE_S / 60:.0f} minutes and was ended; it goes on later."
            )
            self._end = ""
        if status is not None:
            job, text = self.job, self._problem_of(status)
            self._child, self.job, self.progress = None, "", None
            yield job, text

    def dead_jobs(self) -> frozenset[str]:
        """Return the jobs that rest for long, since they died three times or diverged: 6 hours, or until labels change."""
        if not self._dead:
            return frozenset()
        stamp, now = self._stamp(), self._clock()
        self._dead = {job: (until, of) for job, (until, of) in self._dead.items() if until > now and of == stamp}
        self._deaths = {job: n for job, n in self._deaths.items() if n < DEATHS_ALLOWED or job in self._dead}
        return frozenset(self._dead)

    @property
    def deaths(self) -> dict[str, int]:
        """How often each job died without a success or a save since."""
        return dict(self._deaths)

    def tell_to_stop(self) -> None:
        """Tell the child to stop, without waiting. May be called from any thread."""
        child = self._child
        if child is not None:
            child.tell_to_stop()

    def end(self) -> None:
        """Tell the child to stop, and end it if it does not within 8 s."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def kill(self) -> None:
        """End the child at once. May be called from any thread."""
        child = self._child
        if child is not None:
            child.kill()

    def _stamp(self) -> str:
        history = self._work.history
        known = json.dumps([self._work.config.flat(), len(history.taken), len(history.withdrawn)], sort_keys=True)
        return hashlib.sha256(known.encode("utf-8")).hexdigest()[:16]

    def _run_inline(self, job: str, stop: threading.Event) -> None:
        from camera_trap_al.jobs import run_job

        def tick(progress: Progress) -> None:
            if progress.phase != SAVED:
                self.progress = (progress.phase, progress.done, progress.total)
                self.on_progress()
            if stop.is_set():
                raise StopRequested

        lock = take_lock(self._work.folder.worker_lock)
        if lock is None:
            return
        self.job = job
        try:
            run_job(self._work.folder, self._work.config, job, tick)
        except DivergedError as error:
            raise DivergedError(str(error), hint=self._rest_long(job)) from error
        finally:
            lock.release()
            self.job, self.progress = "", None

    def _hear(self, child: Child) -> None:
        for told in child.heard():
            if "phase" in told:
                progress = (told["phase"], told["done"], told["total"])
                if progress == self.progress:
                    continue
                self.progress = progress
            elif "log" in told:
                log.log(told["level"], "%s", told["log"])
            elif "problem" in told:
                self._last_words = told["problem"]
            elif "deaths" in told:
                self._deaths[self.job] = told["deaths"]
            elif "commits" in told:
                self._commits = told["commits"]
                self._deaths.pop(self.job, None)
            elif "end" in told:
                self._end = told["end"]
            self._heard_s = self._clock()

    def _problem_of(self, status: int) -> str:
        """Return what to say of a job whose process ended, and count its deaths."""
        if self._end == DIVERGED:
            return f"{self._last_words} {self._rest_long(self.job)}"
        if self._end or status == 0:
            if self._end == "done":
                self._deaths.pop(self.job, None)
            return self._last_words
        signal = f"signal {-status}: is there too little memory?" if status == -9 else f"status {status}"
        text = self._last_words or f"The worker ended unexpectedly ({signal}); it goes on from its last save."
        if self._commits:
            return text
        n = self._deaths[self.job] = self._deaths.get(self.job, 0) + 1
        if n >= DEATHS_ALLOWED:
            text += f" It died {n} times. {self._rest_long(self.job)} A smaller embedding.batch_size needs less memory."
        return text

    def _rest_long(self, job: str) -> str:
        """Let a job rest that would only end the same way again; return a sentence that says so."""
        self._dead[job] = (self._clock() + DEAD_REST_S, self._stamp())
        hours = f"{DEAD_REST_S / 3600:.0f} hours"
        return f"{job} rests for {hours}, or until labels or settings change; rounds go on without it."


class _TellingHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _tell({"log": record.getMessage(), "level": record.levelno})


def _tell(what: dict[str, Any]) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(json.dumps(what), flush=True)


def _heard_lines() -> Iterator[dict[str, Any]]:
    """Yield what the daemon says, until it closes the pipe."""
    # Not through `sys.stdin`, whose lock a thread that waits for input would hold when the process ends.
    rest = b""
    while block := os.read(0, 1 << 16):
        *lines, rest = (rest + block).split(b"\n")
        yield from (json.loads(line) for line in lines if line)


class _Running:
    """The child's one job."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self._stop, self._give_way = threading.Event(), threading.Event()
        self._last_told = 0.0

    def listen(self, said: Iterator[dict[str, Any]]) -> None:
        """Hear the daemon until it closes the pipe; then see to it that the process ends, even amid a long computation."""
        with contextlib.suppress(OSError, ValueError):
            for what in said:
                if what == GIVE_WAY:
                    self._give_way.set()
        self._stop.set()
        time.sleep(STOP_ITSELF_S)
        self.leave("stopped", 0)

    def tick(self, progress: Progress) -> None:
        """Tell how far the job is; raise `StopRequested` if it is to end here."""
        if self._stop.is_set():
            raise StopRequested
        if progress.phase == SAVED:
            self.attempt.commit()
            _tell({"commits": self.attempt.noted.commits})
            if self._give_way.is_set():
                raise StopRequested
        elif time.monotonic() - self._last_told > TELL_EVERY_S or progress.done == progress.total:
            self._last_told = time.monotonic()
            _tell({"phase": progress.phase, "done": progress.done, "total": progress.total})

    def begin(self, generation: int, seed: int) -> None:
        """Note what the job is about to make."""
        self.attempt.begin(generation, seed)
        _tell({"deaths": self.attempt.noted.deaths})

    def run(self, folder: WorkFolder, config: Config, job: str) -> tuple[str, int]:
        """Do the job; return how it ended and the exit status."""
        from camera_trap_al.jobs import run_job

        try:
            run_job(folder, config, job, self.tick, self.begin)
        except StopRequested:
            return ("stopped" if self._stop.is_set() else "gave way"), 0
        except ImagesOfflineError as error:
            _tell({"problem": str(error)})
            return "offline", 0
        except DivergedError as error:
            _tell({"problem": str(error)})
            return DIVERGED, 1
        except Exception as error:
            log.debug("job failed", exc_info=not isinstance(error, CameraTrapAlError))
            _tell({"problem": in_words(error)})
            return "failed", 1
        return "done", 0

    def leave(self, how: str, status: int) -> None:
        """Note the end and leave at once: threads of torch and of decoders may take seconds to end by themselves."""
        with contextlib.suppress(OSError):
            self.attempt.end(how)
        _tell({"end": how})
        os._exit(status)


def main() -> int:
    """Run as the child process: arguments are the work folder and the job."""
    atomic.failpoints.arm_from(os.environ, "worker")
    warnings.filterwarnings("ignore")
    logging.basicConfig(level=logging.INFO, handlers=[_TellingHandler()])
    if hasattr(os, "nice"):
        os.nice(10)
    root, job = Path(sys.argv[1]), sys.argv[2]
    said = _heard_lines()
    first = next(said, None)
    if first is None:
        return 0
    config = build(first["config"], "the daemon's configuration")
    folder = WorkFolder.at(root, config.daemon.state_dir)
    if folder.state != folder.root:
        atomic.keep_private(folder.state)
    lock = take_lock(folder.worker_lock)
    if lock is None:
        return 0
    running = _Running(Attempt(folder.worker, job, first["stamp"]))
    if running.attempt.noted.deaths and not config.images.processes:
        # Perhaps an image killed it, which it cannot where images are decoded in processes of their own.
        config = replace(config, images=replace(config.images, processes=MOST_PROCESSES))
    threading.Thread(target=running.listen, args=(said,), daemon=True, name="daemon listener").start()
    running.leave(*running.run(folder, config, job))
    return 0


if __name__ == "__main__":
    sys.exit(main())
