"""The verb `run`: the loop in the foreground, with signals, wake-ups by the file system, bars and the status file."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from camera_trap_al.advice import read_advice
from camera_trap_al.choices import check_choices
from camera_trap_al.config import Config
from camera_trap_al.config_file import read_work_config
from camera_trap_al.core.durations import in_time
from camera_trap_al.core.new_names import spelled_alike
from camera_trap_al.core.steps import Facts, Step
from camera_trap_al.errors import CameraTrapAlError, StopRequested, WeightsMissingError
from camera_trap_al.jobs import WEIGHTS, model_settings, weights_file
from camera_trap_al.layout import WorkFolder
from camera_trap_al.lease import Lease
from camera_trap_al.lock import DaemonLock
from camera_trap_al.loop import Loop, is_idle, is_waiting
from camera_trap_al.places import is_network
from camera_trap_al.results import list_all, read_metrics, read_remarks
from camera_trap_al.rounds import only_class
from camera_trap_al.store import atomic
from camera_trap_al.work import Work, image_folders
from camera_trap_al.worker import Child, Worker
from camera_trap_al_service.logs import log_file
from camera_trap_al_service.notifying import Notifier
from camera_trap_al_service.progress import Bars
from camera_trap_al_service.stopping import Stopping
from camera_trap_al_service.watching import Watch

STATUS_EVERY_S = 2.0
TAKING_EVERY_S = 0.5
TAKING = frozenset({"TAKING_LABELS", "PROJECTING", "ANSWERING"})
GIVE_UP_AFTER = 3
GIVE_UP_SHOWING_AFTER = 7
SHOWING = frozenset({"PUBLISHING", "FINISHED"})
MOST_NAMES = 20
log = logging.getLogger(__name__)


def run(
    root: Path,
    *,
    max_rounds: float = float("inf"),
    until: str = "stopped",
    handle_signals: bool = True,
    stopping: Stopping | None = None,
) -> None:
    """Run the daemon until it is told to stop, or until it is "waiting" or "idle".

    `stopping` listens already, so that a signal counts that came before this was called. Raises `CameraTrapAlError` where
    it cannot start or go on.
    """
    if stopping is None:
        stopping = Stopping()
        if handle_signals:
            stopping.listen()
    try:
        with opened(root, stopping) as (loop, lease):
            loop.allow_rounds(max_rounds)
            _run_loop(loop, until, lease)
    except StopRequested:
        log.info("stopped before anything was begun")
    finally:
        stopping.close()


@contextlib.contextmanager
def opened(
    root: Path, stopping: Stopping, *, adapted: Callable[[Config], Config] = lambda config: config
) -> Iterator[tuple[Loop, Lease]]:
    """Hold a work folder and give a loop over it, with its lease; `adapted` may change what `config.toml` says.

    Raises `CameraTrapAlError` where that cannot be, `StopRequested` if told to stop meanwhile.
    """
    folder, config = read_work_config(root)
    config = adapted(config)
    check_choices(config)
    _warn_of_share(folder, config)
    lock = DaemonLock.take(folder, on_lost=stopping.tell, wait=stopping.stop.wait)
    try:
        with log_file(folder.log, config.log):
            ensure_weights(folder, config, stopping)
            started = time.monotonic()
            log.info("opening %s", folder.root)
            work = Work.open(root, stopping.stop)
            try:
                work.config = config
                if not config.daemon.resume:
                    work.learn_anew()
                lock.lease.note_journal(work.history.identity)
                loop = Loop(work, stop=stopping.stop, wake=stopping.wake)
                _say_where_it_starts(work, started)
                stopping.also = [loop.worker.tell_to_stop]
                stopping.at_last = lambda: _end_at_once(loop.worker, lock.lease)
                yield loop, lock.lease
            finally:
                work.close()
    finally:
        lock.release()


def _say_where_it_starts(work: Work, started: float) -> None:
    """Log what the work folder holds; `started` is when its opening began, in monotonic seconds."""
    known, took = len(work.history.labels), in_time(time.monotonic() - started)
    checkpoint = work.checkpoint()
    if checkpoint is None:
        log.info("Will not start from checkpoint: there is none yet; %d labels are known (opened in %s)", known, took)
    else:
        log.info("Starting from checkpoint %d with %d labels (opened in %s)", checkpoint.number, known, took)


def _end_at_once(worker: Worker, lease: Lease) -> None:
    worker.kill()
    lease.release()


def _warn_of_share(folder: WorkFolder, config: Config) -> None:
    if not config.daemon.state_dir and is_network(folder.root):
        log.warning(
            "%s is on a network share: set daemon.state_dir to a folder on a disk of this computer; locks and the database"
            " of images are not safe on a share",
            folder.root,
        )


def _run_loop(loop: Loop, until: str, lease: Lease) -> None:
    heart = Heart(loop.work)
    watch = Watch(loop.work.folder.bin, loop.wake.set, also=[loop.work.folder.wishes])
    notifier = Notifier(loop)

    def on_turn(loop: Loop, facts: Facts, step: Step) -> None:
        watch.check()
        heart.beat(loop, facts, step)
        notifier.turn(loop, facts, step, lambda: hint(loop.work, facts))

    loop.on_turn = on_turn
    loop.worker.on_progress = lambda: heart.show(loop)
    if until != "stopped" or loop.rounds_left() < float("inf"):
        loop.give_up_after = GIVE_UP_AFTER
    try:
        loop.run(until=ending(loop, until))
        lease.check()
        if until == "waiting":
            _list_the_newest(loop)
        heart.say_last(loop, "stopped", "")
    except CameraTrapAlError as error:
        if lease.lost_to is None:
            heart.say_last(loop, "stopped", str(error))
        notifier.fail(str(error))
        raise
    finally:
        heart.bars.close()
        watch.stop()
        notifier.close()


def _list_the_newest(loop: Loop) -> None:
    # A network that waits to be trained comes before the lists, and a run until "waiting" does not begin it.
    try:
        facts = loop.look()[0]
        if facts.listed != (facts.mark, facts.pool_version):
            list_all(loop.work, facts)
    except OSError as error:
        log.warning("labels.csv, or a list beside it, cannot be written now: %s", error)


def ending(loop: Loop, until: str) -> Callable[[Facts, Step], bool]:
    """Return whether a bounded run is at its end, as a function of a turn's facts and step."""

    def ends(facts: Facts, step: Step) -> bool:
        if until == "waiting":
            if is_waiting(facts, step):
                return True
            give_up(loop, facts)
        elif until == "idle" or loop.rounds_left() <= 0:
            give_up(loop, facts)
            rest = loop.rests.now() - (SHOWING if _is_shown(facts) else frozenset())
            return is_idle(facts, step) and not rest
        return False

    return ends


def give_up(loop: Loop, facts: Facts) -> None:
    """End a bounded run whose next thing fails again and again; one without bounds goes on trying."""
    if not facts.online:
        raise CameraTrapAlError(
            f"The images in {loop.work.pool_root()} do not answer.", hint="Connect the disk or share and start again."
        )
    for name, failures in loop.rests.failures.items():
        # A selector that is held is shown by another file in half a minute.
        enough = GIVE_UP_SHOWING_AFTER if name in SHOWING else GIVE_UP_AFTER
        if not facts.worker and failures >= enough and not (name in SHOWING and _is_shown(facts)):
            raise CameraTrapAlError(f"{loop.last_problem.get(name, name)}", hint=f"This was tried {failures} times.")


def _is_shown(facts: Facts) -> bool:
    return facts.shown == (facts.open or "finished")


def ensure_weights(folder: WorkFolder, config: Config, stopping: Stopping) -> None:
    """Make sure, before any work, that a first model's start weights can be had.

    Loading torch and perhaps fetching a file is left to a child process. Raises `WeightsMissingError`, or `StopRequested`
    if told to stop meanwhile.
    """
    from camera_trap_al.store.generations import numbers

    has_model = config.daemon.resume and numbers(folder.models)
    if has_model or not (config.embedding.pretrained or config.embedding.weights):
        return
    from camera_trap_al.learn.weights import find_weights

    plan = find_weights(
        model_settings(config).arch, pretrained=config.embedding.pretrained, weights=weights_file(config)
    )
    if plan.kind not in ("network", "timm"):
        return
    log.info("%s %s", "fetching" if plan.kind == "network" else "looking for", plan.text)
    child, bars, problem = Child(folder.root, WEIGHTS, config), Bars(), ""
    stopping.also, stopping.at_last = [child.tell_to_stop], child.kill
    try:
        status: int | None = None
        while status is None:
            status = child.status()
            for told in child.heard():
                problem = told.get("problem", problem)
                if "phase" in told:
                    bars.show(told["phase"], told["done"], told["total"])
            if status is None and stopping.stop.wait(0.1):
                raise StopRequested
    finally:
        bars.close()
        child.end()
    if status:
        raise WeightsMissingError(problem or "The start weights cannot be had.")


class Heart:
    """Writes `status.json` and shows progress, as the loop turns."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._last_s = float("-inf")
        self._last_state = ""
        self._told: list[str] = []
        self.bars = Bars()

    def beat(self, loop: Loop, facts: Facts, step: Step) -> None:
        """Take note of a turn."""
        self.show(loop)
        # Of a folder full of label files, each takes a turn of all three: writing the status would take longer than they do.
        every_s = STATUS_EVERY_S if step.name == self._last_state else TAKING_EVERY_S if step.name in TAKING else 0.0
        if time.monotonic() - self._last_s > every_s:
            self._write(loop, facts, step.name.lower())
            self._last_state, self._last_s = step.name, time.monotonic()

    def show(self, loop: Loop) -> None:
        """Show how far the long phase is that runs now."""
        if self._work.scan is not None and loop.worker.progress is None:
            self.bars.show("looking for images", self._work.scan.n_seen)
        elif loop.worker.progress is not None:
            self.bars.show(*loop.worker.progress)
        else:
            self.bars.close()

    def say_last(self, loop: Loop, state: str, problem: str) -> None:
        """Write the status of a daemon that ends."""
        self._write(loop, loop.look()[0], state, problem)

    def _write(self, loop: Loop, facts: Facts, state: str, problem: str = "") -> None:
        problems = [problem] if problem else [*dict.fromkeys(loop.last_problem.values()), *self._waiting_files()]
        status = describe(self._work, facts, state) | {"problems": problems, "pid": os.getpid()}
        status["deaths"] = {job.lower(): n for job, n in loop.worker.deaths.items()}
        phase = self.bars.facts()
        if loop.worker.job:
            status["worker"] = {"job": loop.worker.job.lower()} | (phase if loop.worker.progress else {})
        if phase and not loop.worker.progress:
            status["scan"] = phase
        try:
            atomic.replace_json(self._work.folder.status, status)
        except OSError as error:
            log.debug("status.json cannot be written: %s", error)

    def _waiting_files(self) -> list[str]:
        problems = self._work.inbox.problems()
        for text in problems:
            if text not in self._told:
                log.warning("%s", text)
        self._told = problems
        return problems


def describe(work: Work, facts: Facts, state: str) -> dict[str, Any]:
    """Return what `status.json` says."""
    history, metrics = (
        work.history,
        work.cached("metrics", (facts.checkpoint, facts.evaluated), lambda: read_metrics(work)),
    )
    stamp = _stamp(facts)
    counts = work.cached("counts", stamp, work.catalog.counts)
    request = history.requests[-1] if history.requests else None
    return {
        "format": 1,
        "state": state,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "host": socket.gethostname(),
        "round": request.round if request else 0,
        "open": bool(facts.open),
        "published": facts.shown == facts.open != 0,
        "finished": facts.shown == "finished",
        "selector": (work.folder.selector if facts.placed else work.folder.selector_new).name if facts.shown else "",
        "free_mb": atomic.free_bytes(work.folder.journal.parent) // 1_000_000,
        "requested": len(request.keys) if request and facts.open else 0,
        "awaited": len(history.awaited()) if facts.open else 0,
        "images": vars(counts),
        "left_out": work.catalog.fact("scan_facts", {}),
        "labels": len(history.labels),
        "classes": history.classes,
        "only_class": work.cached("only class", work.catalog.pool_stamp, lambda: only_class(work)),
        "new_names": work.cached("new names", history.end, lambda: new_names(work)),
        "training": learner.manifest.get("training") if (learner := work.learner()) else None,
        "learner": facts.learner,
        "checkpoint": facts.checkpoint,
        "accuracy": metrics.get("accuracy"),
        "advice": work.cached("advice", (facts.checkpoint, facts.estimated), lambda: read_advice(work.folder)),
        "predictions": work.cached("remarks of the report", facts.reported, lambda: read_remarks(work)),
        "online": facts.online,
        "hint": hint(work, facts) + _away_hint(work),
    }


def new_names(work: Work) -> list[dict[str, Any]]:
    """Return the names that were typed but are no class yet, the commonest first, and what else each may mean."""
    waiting = Counter(work.history.waiting.values()).most_common(MOST_NAMES)
    known = (*work.history.classes, *work.config.labels.skip_words, *work.config.classes.reserved)
    return [
        {
            "name": name,
            "images": n,
            "like": [other for other in known if spelled_alike(name, other)][:3],
        }
        for name, n in waiting
    ]


def _stamp(facts: Facts) -> tuple[int, int, bool]:
    return facts.mark, facts.pool_version, facts.scanned


def _away_hint(work: Work) -> str:
    away = [str(folder) for kind, folder in image_folders(work.config).items() if kind in work.catalog.fact("away", [])]
    if not away:
        return ""
    return (
        f" Many of the images known in {' and '.join(away)} are not there; nothing is given up. Connect the disk or share,"
        " or run `camera-trap-al rescan --gone` if they were removed on purpose."
    )


def hint(work: Work, facts: Facts) -> str:
    """Return what a person can do now, in a sentence."""
    if not facts.online:
        return (
            f"The images in {work.pool_root()} do not answer. Connect the disk or share; the program goes on by itself."
        )
    if facts.open and facts.shown == facts.open:
        selector = work.folder.selector if facts.placed else work.folder.selector_new
        return f"Import {selector} in Timelapse, label the selected images, export them into {work.folder.bin}."
    if facts.scanned and not work.cached("counts", _stamp(facts), work.catalog.counts).pool:
        return f"Waiting for images: put photographs into {work.pool_root()}."
    if facts.shown == "finished":
        return "Nothing is asked for now. New images and labels are still taken in."
    return "The program is at work; nothing is needed now."
