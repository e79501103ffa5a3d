"""The background child: one job at a time, at low priority; its start, its end, and word of how far it is.

The child reads the daemon's configuration, one line of JSON, from its standard input, and is told to stop by closing
that, which also happens when the daemon dies. It talks in JSON lines on its standard output.
`python -m camera_trap_al.worker` is the child itself.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from camera_trap_al.config import Config, build
from camera_trap_al.errors import CameraTrapAlError, ImagesOfflineError, StopRequested
from camera_trap_al.layout import WorkFolder
from camera_trap_al.lock import take_lock
from camera_trap_al.store import atomic
from camera_trap_al.work import Work

STOP_GRACE_S = 8.0
SILENCE_S = 600.0
TELL_EVERY_S = 0.5
# glibc gives large blocks back to the system at once, and networks ask for them again for each batch: keeping them made
# embedding twice as fast. Other systems ignore these.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
log = logging.getLogger(__name__)


class Worker:
    """The daemon's side of the worker. With `daemon.worker = "inline"`, a job runs within `start`."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._child: subprocess.Popen[str] | None = None
        self._told: queue.Queue[dict[str, Any]] = queue.Queue()
        self._ended: list[tuple[str, str]] = []
        self._heard_s = 0.0
        self.job = ""
        self.progress: tuple[str, int, int] | None = None

    def is_running(self) -> bool:
        """Return whether a child is at work."""
        return self._child is not None

    def start(self, job: str, stop: threading.Event) -> None:
        """Start a job. Raises what the job raises if it runs inline; `StopRequested` if told to stop meanwhile."""
        if self._work.config.daemon.worker == "inline":
            self._run_inline(job, stop)
            return
        assert self._child is None
        command = [sys.executable, "-m", "camera_trap_al.worker", str(self._work.folder.root), job]
        if os.name == "nt":
            flags: dict[str, Any] = {
                "creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.BELOW_NORMAL_PRIORITY_CLASS
            }
        else:
            flags = {"start_new_session": True}
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            **flags,
            env={**os.environ, **KEEP_MEMORY, "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"},
        )
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(self._work.config.flat()) + "\n")
        self._child.stdin.flush()
        self.job, self._heard_s, self._last_words = job, time.monotonic(), ""
        threading.Thread(target=self._listen, args=(self._child,), daemon=True, name="worker listener").start()

    def ended(self) -> Iterator[tuple[str, str]]:
        """Yield the jobs that ended since the last call, each with its problem, or "" where it did what it should."""
        self._hear()
        child = self._child
        if child is not None:
            status = child.poll()
            if status is None and time.monotonic() - self._heard_s > SILENCE_S:
                child.kill()
                status = child.wait()
            if status is not None:
                self._forget_child(child, status)
        ended, self._ended = self._ended, []
        yield from ended

    def end(self) -> None:
        """Tell the child to stop, and end it if it does not within 8 s."""
        if self._child is None:
            return
        assert self._child.stdin is not None
        self._child.stdin.close()
        try:
            self._child.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child = None

    def _run_inline(self, job: str, stop: threading.Event) -> None:
        from camera_trap_al.jobs import run_job
        from camera_trap_al.learn.settings import Progress

        def tick(progress: Progress) -> None:
            self.progress = (progress.phase, progress.done, progress.total)
            if stop.is_set():
                raise StopRequested

        lock = take_lock(self._work.folder.worker_lock)
        if lock is None:
            return
        self.job = job
        try:
            run_job(self._work.folder, self._work.config, job, tick)
        finally:
            lock.release()
            self.job, self.progress = "", None

    def _listen(self, child: subprocess.Popen[str]) -> None:
        assert child.stdout is not None
        for line in child.stdout:
            try:
                told = json.loads(line)
            except ValueError:
                continue
            if isinstance(told, dict):
                self._told.put(told)

    def _hear(self) -> None:
        while not self._told.empty():
            told = self._told.get()
            self._heard_s = time.monotonic()
            if "phase" in told:
                self.progress = (told["phase"], told["done"], told["total"])
            elif "log" in told:
                log.log(told["level"], "%s", told["log"])
            elif "problem" in told:
                self._last_words = told["problem"]

    def _forget_child(self, child: subprocess.Popen[str], status: int) -> None:
        time.sleep(0.05)
        self._hear()
        text = self._last_words
        if status != 0 and not text:
            text = f"The worker ended unexpectedly (status {status}); it goes on from its last save."
        assert child.stdin is not None
        child.stdin.close()
        self._ended.append((self.job, text))
        self._child, self.job, self.progress = None, "", None


class _TellingHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _tell({"log": record.getMessage(), "level": record.levelno})


def _tell(what: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        print(json.dumps(what), flush=True)


def last_problem(output: str) -> str:
    """Return the last problem that a child told in its output, or ""."""
    told = [json.loads(line) for line in output.splitlines() if line.startswith('{"problem"')]
    return told[-1]["problem"] if told else ""


def _run_child(root: Path, job: str, config: Config) -> int:
    """Be the worker: take its lock, do one job, say how it went. Returns the exit status."""
    from camera_trap_al.jobs import run_job
    from camera_trap_al.learn.settings import Progress

    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    last_told = 0.0

    def tick(progress: Progress) -> None:
        nonlocal last_told
        if stop.is_set():
            raise StopRequested
        if time.monotonic() - last_told > TELL_EVERY_S or progress.done == progress.total:
            last_told = time.monotonic()
            _tell({"phase": progress.phase, "done": progress.done, "total": progress.total})

    folder = WorkFolder.at(root, config.daemon.state_dir)
    lock = take_lock(folder.worker_lock)
    if lock is None:
        return 0
    atomic.replace_json(folder.worker, {"format": 1, "pid": os.getpid(), "job": job})
    try:
        run_job(folder, config, job, tick)
    except StopRequested:
        return 0
    except ImagesOfflineError as error:
        _tell({"problem": str(error)})
        return 0
    except CameraTrapAlError as error:
        _tell({"problem": str(error)})
        return 1
    except Exception as error:
        logging.getLogger(__name__).debug("job failed", exc_info=True)
        _tell({"problem": f"{type(error).__name__}: {error}"})
        return 1
    return 0


def main() -> int:
    """Run as the child process: arguments are the work folder and the job."""
    atomic.failpoints.arm_from(os.environ, "worker")
    warnings.filterwarnings("ignore")
    logging.basicConfig(level=logging.INFO, handlers=[_TellingHandler()])
    if hasattr(os, "nice"):
        os.nice(10)
    config = build(json.loads(sys.stdin.readline() or "{}"), "the daemon's configuration")
    return _run_child(Path(sys.argv[1]), sys.argv[2], config)


if __name__ == "__main__":
    sys.exit(main())
