"""The command of `notify.command`: run when labels are awaited and when something needs a person.

What is told is noted in `data/notified.json` before the command starts, so that a restart does not tell it again. The
command runs beside the loop, one at a time and for a minute at most; whatever becomes of it, the loop goes on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from camera_trap_al import private
from camera_trap_al.core.messages import FINISHED, Message, Told, Trouble, announce, as_json, complain, from_json
from camera_trap_al.core.steps import Facts, Step
from camera_trap_al.labels import receipts
from camera_trap_al.labels.inbox import printable_name
from camera_trap_al.layout import WorkFolder
from camera_trap_al.space import MB
from camera_trap_al.store import atomic
from camera_trap_al.store.json_files import read_object
from camera_trap_al_service.findings import Case, Finding, ok, problem
from camera_trap_al_service.logs import escaped

if TYPE_CHECKING:
    from camera_trap_al.loop import Loop

COMMAND_S = 60.0
AT_STOP_S = 3.0
RESTING_S = 600.0
AWAY_S = 3600.0
LIST_EVERY_S = 30.0
OVER_AFTER_S = 1200.0  # longer than a restart takes to meet the same trouble again
LONGEST_TEXT = 2000
MOST_WAITING = 20
NOT_USED = frozenset({"rejected", "incomplete"})
log = logging.getLogger(__name__)


class Troubles:
    """What needs a person now, as the loop turns; how long it lasts is known in memory only.

    Parameters
    ----------
    clock : monotonic seconds
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[str, float] = {}
        self._seen: dict[str, float] = {}
        self._refused: dict[str, str] = {}
        self._read = ""
        self._files, self._listed_s = set[str](), float("-inf")

    def now(self, loop: Loop, facts: Facts, step: Step) -> list[Trouble]:
        """Return what needs a person, before `step` is taken."""
        dead = loop.worker.dead_jobs()
        found = [Trouble(f"job:{job}", "job", loop.last_problem.get(job, job)) for job in sorted(dead)]
        for name in self._lasting({f"step:{n}" for n in loop.rests.failures if n not in dead}, RESTING_S, "step:"):
            text = loop.last_problem.get(name.removeprefix("step:"), name)
            found.append(Trouble(name, "step", f"This has failed for more than ten minutes: {text}"))
        for name in self._lasting(self._waiting_files(loop), RESTING_S, "file:"):
            found.append(Trouble(name, "label_file", name.removeprefix("file:")))
        self._note_refused(loop.work.folder)
        self._read = step.subject if step.name == "TAKING_LABELS" else ""
        found += [Trouble(key, "label_file", text) for key, text in self._refused.items()]
        if self._lasting(set() if facts.online else {"images"}, AWAY_S, "images"):
            text = f"The images in {loop.work.pool_root()} have not answered for an hour."
            found.append(Trouble("images", "images", f"{text} Is the disk or share connected?"))
        found += self._full_disk(loop)
        return found

    def over(self, told: Told, there: list[Trouble]) -> set[str]:
        """Return the keys of what was told and has not been there for twenty minutes."""
        now, keys = self._clock(), {trouble.key for trouble in there}
        self._seen = {key: now if key in keys else self._seen.get(key, now) for key in told.keys}
        over = {key for key, seen in self._seen.items() if now - seen > OVER_AFTER_S}
        self._refused = {key: text for key, text in self._refused.items() if key not in told.keys}
        return over

    def _lasting(self, names: set[str], for_s: float, beginning: str) -> list[str]:
        """Return which of `names`, all of which begin alike, have been there for so long."""
        now = self._clock()
        self._since = {n: at for n, at in self._since.items() if n in names or not n.startswith(beginning)}
        return sorted(name for name in names if now - self._since.setdefault(name, now) > for_s)

    def _waiting_files(self, loop: Loop) -> set[str]:
        """Return what is said of files that cannot be read: it takes a look at the whole folder, so not at every turn."""
        now = self._clock()
        if now - self._listed_s >= LIST_EVERY_S:
            self._files, self._listed_s = {f"file:{text}" for text in loop.work.inbox.problems()}, now
        return self._files

    def _note_refused(self, folder: WorkFolder) -> None:
        if not self._read:
            return
        receipt = receipts.read_receipt(folder.bin, folder.reports, self._read)
        if receipt is not None and receipt["verdict"] in NOT_USED:
            text = f"Nothing was taken from {printable_name(self._read)}: the report beside it says why."
            self._refused[f"refused:{printable_name(self._read)}:{receipt['sha256']}"] = text

    @staticmethod
    def _full_disk(loop: Loop) -> list[Trouble]:
        folder, least = loop.work.folder.journal.parent, loop.work.config.daemon.min_free_mb
        try:
            free_mb = atomic.free_bytes(folder) / MB
        except OSError:
            return []
        if free_mb >= least:
            return []
        text = f"The disk is full: {free_mb:.0f} MB are free in {folder}, and {least:.0f} are needed."
        return [Trouble("disk", "disk", f"{text} Free some space; the program goes on by itself.")]


class Notifier:
    """Runs the command of a work folder, if it names one.

    Parameters
    ----------
    loop : whose turns are told of
    clock : seconds since 1970
    """

    def __init__(self, loop: Loop, clock: Callable[[], float] = time.time) -> None:
        self._work, self._stop, self._clock = loop.work, loop.stop, clock
        self._troubles = Troubles()
        self._told = Told()
        self._messages: queue.Queue[Message | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._round = 0
        self._is_on = bool(self._work.config.notify.command) and _may_run(self._work.folder)
        if self._is_on:
            log.info("notify: %s is run when a person is needed", self._work.config.notify.command[0])
            with contextlib.suppress(OSError, ValueError):
                self._told = from_json(read_object(self._work.folder.notified))

    def turn(self, loop: Loop, facts: Facts, step: Step, hint: Callable[[], str]) -> None:
        """Take note of a turn; `hint` gives what a person can do now."""
        if not self._is_on:
            return
        if self._work.history.requests:
            self._round = self._work.history.requests[-1].round
        shown = facts.shown if facts.shown in (FINISHED, facts.open) else 0
        said, told = announce(self._told, shown, hint() if shown and shown != self._told.shown else "")
        there = self._troubles.now(loop, facts, step)
        over = self._troubles.over(told, there)
        complaints, told = complain(told, there, over, self._clock(), self._work.config.notify.every_s)
        self._tell([*said, *complaints], told)

    def fail(self, text: str) -> None:
        """Tell that the program ends because of an error."""
        if self._is_on:
            said, told = complain(
                self._told,
                [Trouble(f"end:{text}", "end", f"The program has ended: {text}")],
                (),
                self._clock(),
                self._work.config.notify.every_s,
            )
            # It is over with the program: the next end is another one.
            self._tell(said, Told(told.shown, self._told.keys, told.last))

    def close(self) -> None:
        """Wait for the end of the command that runs: a minute at most, three seconds where the program is told to stop."""
        if self._thread is not None:
            self._messages.put(None)
            self._thread.join((COMMAND_S + AT_STOP_S) * (1 + self._messages.qsize()))

    def _tell(self, messages: list[Message], told: Told) -> None:
        if told != self._told:
            self._told = told
            try:
                atomic.replace_json(self._work.folder.notified, as_json(told))
            except OSError as error:
                log.debug("notified.json cannot be written: %s", error)
        for message in messages:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run_all, daemon=True, name="notify")
                self._thread.start()
            if self._messages.qsize() < MOST_WAITING:
                self._messages.put(message)
            else:
                log.warning("notify: too many messages wait; this one is left out: %s", message.text)

    def _run_all(self) -> None:
        while (message := self._messages.get()) is not None:
            if self._stop.is_set():
                log.warning("notify: the program stops, so this was not told: %s", message.text)
            else:
                self._run(message)

    def _run(self, message: Message) -> None:
        command = list(self._work.config.notify.command)
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, **self._facts(message)},
                **_apart(),
            )
        except (OSError, ValueError) as error:
            log.warning("notify: %s cannot be run: %s", command[0], error)
            return
        end, stop_end = time.monotonic() + COMMAND_S, float("inf")
        while process.poll() is None:
            now = time.monotonic()
            if self._stop.is_set():
                stop_end = min(stop_end, now + AT_STOP_S)
            if now > min(end, stop_end):
                _kill(process)
                log.warning("notify: %s did not end in time and was killed (%s)", command[0], message.event)
                return
            time.sleep(0.05)
        if process.returncode:
            log.warning("notify: %s ended with status %d (%s)", command[0], process.returncode, message.event)
        else:
            log.info("notify: %s was told: %s", command[0], message.event)

    def _facts(self, message: Message) -> dict[str, str]:
        return {
            "CAMERA_TRAP_AL_EVENT": message.event,
            "CAMERA_TRAP_AL_WORK": str(self._work.folder.root),
            "CAMERA_TRAP_AL_TEXT": escaped(message.text)[:LONGEST_TEXT],
            "CAMERA_TRAP_AL_ROUND": str(self._round),
        }


def _apart() -> dict[str, Any]:
    """Return what keeps a Ctrl-C meant for this program from the command, and a window from opening."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _may_run(folder: WorkFolder) -> bool:
    """Return whether nobody else can have put the command into the configuration, as far as rights tell; else warn."""
    for path in (folder.config, folder.root):
        if private.others_may_write(path):
            log.warning("notify: no command is run, since other users of this computer can change %s", path)
            return False
    return True


def check_command(case: Case) -> list[Finding]:
    """The command that tells a person can be found, and nobody else can change it."""
    command = case.config.notify.command
    if not command:
        return []
    found = []
    if shutil.which(command[0]) is None:
        text = f"notify.command names {command[0]}, which is no program that this user can start."
        found.append(problem(text, "Give its whole path, and the right to execute it."))
    for path in (case.folder.config, case.folder.root):
        if private.others_may_write(path):
            text = f"other users can change {path}, so the command of notify.command is not run."
            found.append(problem(text, f"chmod go-w '{path}'"))
    return found or [ok(f"{command[0]} is run when labels are awaited or something needs a person")]
