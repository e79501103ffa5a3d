"""The verb `run`: the loop in the foreground, with signals, wake-ups by the file system, bars and the status file."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from camera_trap_al.core.steps import Facts, Step
from camera_trap_al.errors import CameraTrapAlError, WeightsMissingError
from camera_trap_al.jobs import model_settings, weights_file
from camera_trap_al.layout import WorkFolder
from camera_trap_al.lock import take_daemon_lock
from camera_trap_al.loop import Loop, is_idle, is_waiting
from camera_trap_al.results import read_metrics
from camera_trap_al.store import atomic
from camera_trap_al.work import Work, read_work_config
from camera_trap_al.worker import last_problem
from camera_trap_al_service.init import check_choices
from camera_trap_al_service.progress import Bars

STATUS_EVERY_S = 2.0
GIVE_UP_AFTER = 3
log = logging.getLogger(__name__)


def run(root: Path, *, max_rounds: float = float("inf"), until: str = "stopped", handle_signals: bool = True) -> None:
    """Run the daemon until it is told to stop, or until it is "waiting" or "idle".

    Raises `CameraTrapAlError` where it cannot start or go on.
    """
    stop, wake = threading.Event(), threading.Event()

    def tell() -> None:
        stop.set()
        wake.set()

    restore = _handle_signals(tell) if handle_signals else (lambda: None)
    try:
        folder, config = read_work_config(root)
        check_choices(config)
        lock = take_daemon_lock(folder.daemon_lock, folder.lease)
        try:
            ensure_weights(folder, config)
            work = Work.open(root)
            try:
                _run_loop(Loop(work, max_rounds=max_rounds, stop=stop, wake=wake), until)
            finally:
                work.close()
        finally:
            lock.release()
    finally:
        restore()


def _run_loop(loop: Loop, until: str) -> None:
    heart = Heart(loop.work)
    loop.on_turn = heart.beat
    observer = watch(loop.work.folder.bin, loop.wake.set)
    try:
        loop.run(until=_ending(loop, until))
        heart.say_last(loop, "stopped", "")
    except CameraTrapAlError as error:
        heart.say_last(loop, "stopped", str(error))
        raise
    finally:
        heart.bars.close()
        if observer is not None:
            observer.stop()


def _ending(loop: Loop, until: str) -> Callable[[Facts, Step], bool]:
    def ends(facts: Facts, step: Step) -> bool:
        if until == "waiting":
            _give_up(loop, facts)
            return is_waiting(facts, step)
        if until == "idle" or loop.rounds_left() <= 0:
            _give_up(loop, facts)
            return is_idle(facts, step) and not loop.rests.now()
        return False

    return ends


def _give_up(loop: Loop, facts: Facts) -> None:
    """End a bounded run whose next thing fails again and again; one without bounds goes on trying."""
    if not facts.online:
        raise CameraTrapAlError(
            f"The images in {loop.work.pool_root()} do not answer.", hint="Connect the disk or share and start again."
        )
    for name, failures in loop.rests.failures.items():
        if not facts.worker and failures >= GIVE_UP_AFTER:
            raise CameraTrapAlError(f"{loop.last_problem.get(name, name)}", hint="This was tried three times.")


def ensure_weights(folder: WorkFolder, config: Any) -> None:
    """Make sure, before any work, that a first model's start weights can be had.

    Loading torch and perhaps fetching a file is left to a child process. Raises `WeightsMissingError`.
    """
    from camera_trap_al.store.generations import numbers

    if numbers(folder.models) or not (config.embedding.pretrained or config.embedding.weights):
        return
    from camera_trap_al.learn.weights import find_weights

    plan = find_weights(
        model_settings(config).arch, pretrained=config.embedding.pretrained, weights=weights_file(config)
    )
    if plan.kind != "network":
        return
    log.info("fetching %s", plan.text)
    command = [sys.executable, "-m", "camera_trap_al.worker", str(folder.root), "WEIGHTS"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8") as child:
        assert child.stdin is not None and child.stdout is not None
        # Its input stays open meanwhile: closing it tells a worker to stop.
        child.stdin.write(json.dumps(config.flat()) + "\n")
        child.stdin.flush()
        said = child.stdout.read()
    if child.returncode:
        raise WeightsMissingError(last_problem(said) or "The start weights cannot be had.")


def watch(folder: Path, wake: Callable[[], None]) -> Any:
    """Watch a folder and call `wake` at each change; return the observer, or None where watching does not work."""

    class Waker(FileSystemEventHandler):
        def on_any_event(self, event: FileSystemEvent) -> None:
            if event.event_type not in ("opened", "closed_no_write"):
                wake()

    try:
        observer = Observer()
        observer.daemon = True
        observer.schedule(Waker(), str(folder), recursive=False)
        observer.start()
    except OSError as error:
        log.warning("watching %s does not work here (%s); it is looked into every few seconds instead", folder, error)
        return None
    return observer


def _handle_signals(stop: Callable[[], None]) -> Callable[[], None]:
    def told(number: int, frame: Any) -> None:
        log.info("stopping")
        stop()

    names = [name for name in ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), told) for name in names}

    def restore() -> None:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)

    return restore


class Heart:
    """Writes `status.json` and shows progress, as the loop turns."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._last_s = float("-inf")
        self._last_state = ""
        self.bars = Bars()

    def beat(self, loop: Loop, facts: Facts, step: Step) -> None:
        """Take note of a turn."""
        if self._work.scan is not None and loop.worker.progress is None:
            self.bars.show("looking for images", self._work.scan.n_seen)
        elif loop.worker.progress is not None:
            self.bars.show(*loop.worker.progress)
        else:
            self.bars.close()
        if step.name != self._last_state or time.monotonic() - self._last_s > STATUS_EVERY_S:
            self._write(loop, facts, step.name.lower())
            self._last_state, self._last_s = step.name, time.monotonic()

    def say_last(self, loop: Loop, state: str, problem: str) -> None:
        """Write the status of a daemon that ends."""
        self._write(loop, loop.look()[0], state, problem)

    def _write(self, loop: Loop, facts: Facts, state: str, problem: str = "") -> None:
        problems = [problem] if problem else list(loop.last_problem.values())
        status = describe(self._work, facts, state) | {"problems": problems, "pid": os.getpid()}
        progress = loop.worker.progress
        if loop.worker.job:
            status["worker"] = {"job": loop.worker.job.lower()}
            if progress:
                status["worker"] |= {"phase": progress[0], "done": progress[1], "total": progress[2]}
        try:
            atomic.replace_json(self._work.folder.status, status)
        except OSError as error:
            log.debug("status.json cannot be written: %s", error)


def describe(work: Work, facts: Facts, state: str) -> dict[str, Any]:
    """Return what `status.json` says."""
    history, metrics = (
        work.history,
        work.cached("metrics", (facts.checkpoint, facts.evaluated), lambda: read_metrics(work)),
    )
    stamp = (facts.mark, facts.pool_version, facts.scanned)
    counts = work.cached("counts", stamp, work.catalog.counts)
    request = history.requests[-1] if history.requests else None
    return {
        "format": 1,
        "state": state,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "host": socket.gethostname(),
        "round": request.round if request else 0,
        "open": bool(facts.open),
        "published": facts.placed == facts.open != 0,
        "finished": facts.placed == "finished",
        "requested": len(request.keys) if request and facts.open else 0,
        "awaited": len(history.awaited()) if facts.open else 0,
        "images": vars(counts),
        "labels": len(history.labels),
        "classes": history.classes,
        "learner": facts.learner,
        "checkpoint": facts.checkpoint,
        "accuracy": metrics.get("accuracy"),
        "online": facts.online,
        "hint": hint(work, facts),
    }


def hint(work: Work, facts: Facts) -> str:
    """Return what a person can do now, in a sentence."""
    if not facts.online:
        return (
            f"The images in {work.pool_root()} do not answer. Connect the disk or share; the program goes on by itself."
        )
    if facts.open and facts.placed == facts.open:
        return f"Import {work.folder.selector} in Timelapse, label the selected images, export them into {work.folder.bin}."
    if facts.placed == "finished":
        return "Nothing is asked for now. New images and labels are still taken in."
    return "The program is at work; nothing is needed now."
