"""The loop: read the facts, let `core.steps` name the next step, run it; a step that fails rests.

There is no other state, so a restart is the same loop.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from sqlalchemy.exc import SQLAlchemyError

from camera_trap_al import advice, calibrating, results, rounds, taking, upkeep, wishes
from camera_trap_al.circles import JOB_REPEATS, STEP_REPEATS, Circles
from camera_trap_al.core.steps import TRUTH_STEPS, Facts, Step, next_step
from camera_trap_al.errors import CameraTrapAlError, DurableWriteError, JournalDamagedError, StopRequested, in_words
from camera_trap_al.facts import read_facts
from camera_trap_al.giving_way import GaveWay
from camera_trap_al.work import Work
from camera_trap_al.worker import Worker

FIRST_REST_S = 1.0
LONGEST_REST_S = 60.0
REST_PER_FILE_S = 10.0
LONGEST_WAIT_S = 30.0
PER_FILE = frozenset({"ANSWERING", "TAKING_LABELS", "GRANTING"})
log = logging.getLogger(__name__)

STEPS: Mapping[str, Callable[[Work, Facts, str], None]] = {
    "CATALOGUING": lambda work, facts, subject: upkeep.catalogue(work),
    "REGISTERING": lambda work, facts, subject: upkeep.register(work),
    "PROJECTING": lambda work, facts, subject: upkeep.project(work),
    "ABSORBING": lambda work, facts, subject: upkeep.absorb(work),
    "ANSWERING": lambda work, facts, subject: taking.answer(work, subject),
    "TAKING_LABELS": lambda work, facts, subject: taking.take_labels(work, subject),
    "GRANTING": lambda work, facts, subject: wishes.grant(work, subject),
    "SKIPPING": lambda work, facts, subject: rounds.skip_unusable(work),
    "PUBLISHING": lambda work, facts, subject: rounds.publish(work),
    "FITTING": lambda work, facts, subject: results.fit(work, facts),
    "QUERYING": lambda work, facts, subject: rounds.query(work, facts),
    "LISTING": lambda work, facts, subject: results.list_all(work, facts),
    "CALIBRATING": lambda work, facts, subject: calibrating.calibrate(work),
    "ESTIMATING": lambda work, facts, subject: advice.estimate(work, facts),
    "EVALUATING": lambda work, facts, subject: results.evaluate(work),
    "EXPORTING": lambda work, facts, subject: results.export(work),
    "REPORTING": lambda work, facts, subject: results.report(work),
    "FINISHED": lambda work, facts, subject: rounds.finish(work, facts),
}


@dataclass
class Rests:
    """Which steps, jobs and files rest, and until when (monotonic seconds). In memory only."""

    until: dict[str, float] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)

    def now(self) -> frozenset[str]:
        """Return the names at rest."""
        now = time.monotonic()
        return frozenset(name for name, until in self.until.items() if until > now)

    def start(self, name: str, *, per_file: bool) -> None:
        """Let `name` rest: one second, doubling at each failure."""
        self.failures[name] = self.failures.get(name, 0) + 1
        longest = max(LONGEST_REST_S, REST_PER_FILE_S * len(self.failures)) if per_file else LONGEST_REST_S
        self.until[name] = time.monotonic() + min(FIRST_REST_S * 2 ** min(self.failures[name] - 1, 16), longest)

    def end(self, name: str) -> None:
        """Forget the failures of `name`."""
        self.until.pop(name, None)
        self.failures.pop(name, None)

    def first_end_s(self) -> float:
        """Return the seconds until the first rest ends, infinity if nothing rests."""
        now = time.monotonic()
        return min((until - now for until in self.until.values() if until > now), default=float("inf"))


def _rest_name(step: Step) -> str:
    """Return under which name a step rests: its job's, or with the file that it is about, else its own."""
    if step.name == "PREPARING":
        return step.subject
    return f"{step.name}:{step.subject}" if step.name in PER_FILE else step.name


class Loop:
    """The daemon's loop over one open work folder.

    Parameters
    ----------
    work : open, its lock held by the caller
    on_turn : called before each step with the facts and the step, for status and progress
    max_rounds : requests that may be closed before nothing more is asked; infinity for no end
    stop, wake : set from elsewhere to end the loop, and to end its wait
    """

    def __init__(
        self,
        work: Work,
        *,
        on_turn: Callable[[Loop, Facts, Step], None] | None = None,
        max_rounds: float = float("inf"),
        stop: threading.Event | None = None,
        wake: threading.Event | None = None,
    ) -> None:
        self.work = work
        self.worker = Worker(work)
        self.rests = Rests()
        self.last_problem: dict[str, str] = {}
        self._online = True
        self._circles, self._begun_on = Circles(), Facts()
        self.give_up_after = float("inf")
        self.stop = work.stop = stop or threading.Event()
        self.wake = wake or threading.Event()
        self.on_turn = on_turn
        self._max_rounds = max_rounds
        self._rounds_closed_before = self._rounds_closed()
        upkeep.warn_of_unused_settings(work)

    def allow_rounds(self, n: float) -> None:
        """Let `n` requests be made and closed from now on, and no more."""
        self._max_rounds, self._rounds_closed_before = n, self._rounds_closed()

    def rounds_left(self) -> float:
        """Return how many more requests may be made."""
        return self._max_rounds - (self._rounds_closed() - self._rounds_closed_before)

    def _rounds_closed(self) -> int:
        requests = self.work.history.requests
        return len(requests) - bool(self.work.history.open_round(self.work.config.query.min_answered))

    def run(self, until: Callable[[Facts, Step], bool] = lambda facts, step: False) -> None:
        """Take turns until told to stop or until `until` says so of a turn's facts and step.

        Raises `DurableWriteError` or `JournalDamagedError` where the truth cannot be written.
        """
        try:
            while not self.stop.is_set():
                try:
                    facts, step = self.look()
                    if self.on_turn is not None:
                        self.on_turn(self, facts, step)
                except (DurableWriteError, JournalDamagedError):
                    raise
                except Exception as error:
                    # A share that stumbles, a file that another program holds: the facts are read again later.
                    self._rest("FACTS", error)
                    if self.rests.failures["FACTS"] >= self.give_up_after:
                        raise
                    self.wake.wait(min(self.rests.first_end_s(), LONGEST_WAIT_S))
                    continue
                self._forget("FACTS")
                if until(facts, step):
                    return
                self.take(facts, step)
        except StopRequested:
            pass
        finally:
            self.worker.end()

    def look(self) -> tuple[Facts, Step]:
        """Return the facts as of now and the step that is next."""
        for job, text in self.worker.ended():
            self._note_job_end(job, text)
        resting = self.rests.now() | self.worker.dead_jobs()
        facts = read_facts(
            self.work, worker_runs=self.worker.is_running(), rounds_left=self.rounds_left(), resting=resting
        )
        self.worker.give_way_to(facts.job)
        if facts.online != self._online:
            said = "answer again" if facts.online else "do not answer; is the disk or share connected?"
            log.warning("images: the images in %s %s", self.work.pool_root(), said)
        self._online = facts.online
        there = {*facts.untaken, *facts.unanswered, *facts.unsettled, *facts.wishes}
        for name in [n for n in self.rests.failures if n.partition(":")[0] in PER_FILE]:
            if name.partition(":")[2] not in there:
                self._forget(name)
        return facts, next_step(facts, resting)

    def take(self, facts: Facts, step: Step) -> None:
        """Run one step, once; put it to rest if it fails."""
        if step.name == "WAITING":
            self._wait(facts)
            return
        name = _rest_name(step)
        try:
            if step.name == "CATALOGUING":
                self.work.require_space()
            if step.name == "PREPARING":
                self._begun_on = replace(facts, worker=False)
                self.worker.start(step.subject, self.stop)
            else:
                STEPS[step.name](self.work, facts, step.subject)
        except (DurableWriteError, JournalDamagedError):
            raise
        except GaveWay:
            log.debug("%s gave way to what came in", name.lower())
        except Exception as error:
            if isinstance(error, SQLAlchemyError) and step.name in TRUTH_STEPS:
                text = f"The catalogue {self.work.folder.catalog} cannot be written: {error.__cause__ or error}."
                raise DurableWriteError(text, hint="Is the disk full? Labels already acknowledged are safe.") from error
            self._rest(name, error)
        else:
            # A job that was only started has not succeeded yet.
            if step.name != "PREPARING":
                self._note_success(name, facts, STEP_REPEATS)
            elif not self.worker.is_running():
                self._note_success(name, self._begun_on, JOB_REPEATS)

    def _note_success(self, name: str, facts: Facts, most: int) -> None:
        self._forget(name)
        scan = self.work.scan
        if self._circles.goes_in(name, (facts, self.work.scan_ended_s, scan.n_seen if scan else 0), most):
            text = f"This was done {most} times and nothing changed, which is a fault of the program: please report it."
            self._rest(name, CameraTrapAlError(text))
            self.rests.until[name] = time.monotonic() + LONGEST_REST_S

    def _forget(self, name: str) -> None:
        self.rests.end(name)
        self.last_problem.pop(name, None)

    def _rest(self, name: str, error: Exception) -> None:
        self.rests.start(name, per_file=name.partition(":")[0] in PER_FILE)
        text = in_words(error)
        if self.last_problem.get(name) != text:
            log.warning("%s: %s (tried again later)", name.lower(), text)
            log.debug("%s failed", name, exc_info=error)
        self.last_problem[name] = text

    def _note_job_end(self, job: str, text: str) -> None:
        if text:
            self.rests.start(job, per_file=False)
            if self.last_problem.get(job) != text:
                log.warning("%s: %s (tried again later)", job.lower(), text)
            self.last_problem[job] = text
        else:
            self._note_success(job, self._begun_on, JOB_REPEATS)

    def _wait(self, facts: Facts) -> None:
        for_files = self.work.inbox.settle_s if facts.unsettled else self.work.poll_s
        for_worker = 0.5 if facts.worker else LONGEST_WAIT_S
        self.wake.wait(max(0.02, min(for_files, for_worker, self.rests.first_end_s(), LONGEST_WAIT_S)))
        self.wake.clear()
        self.work.inbox.keep_waiting([])  # whoever has waited has the time to look at all files


def is_waiting(facts: Facts, step: Step) -> bool:
    """Return whether a request is published, or all is finished, and nothing that bears on it is due.

    From the second round on the first learner is waited for too, so that a program that is started anew for each round
    learns something.
    """
    shown = facts.shown == (facts.open or "finished") and (facts.open <= 1 or facts.learner > 0)
    later = ("PREPARING", "CALIBRATING", "ESTIMATING", "EVALUATING", "EXPORTING", "REPORTING", "WAITING")
    return shown and not facts.unsettled and (step.name in later or step.name == "CATALOGUING" and facts.scanned)


def is_idle(facts: Facts, step: Step) -> bool:
    """Return whether nothing is due and nothing is being prepared."""
    return step.name == "WAITING" and not facts.unsettled and not facts.worker and not facts.job
