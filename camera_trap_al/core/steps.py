"""Facts → step, facts → job: the two tables of docs/architecture.md, as code.

Nothing here remembers anything: a restart asks the same question of the same facts. A test reads the tables in the
documentation and compares their expressions with these.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

FINISHED = "finished"
FEW_IMAGES = 10_000


@dataclass(frozen=True)
class Facts:
    """What is durable now, and what the folders show. Each name is explained in docs/architecture.md.

    `untaken`, `unsettled`, `unanswered` and `wishes` are file names; everything that counts is an int; `placed` and
    `shown` are a round, 0 or "finished"; `fit` and `fitted` are digests, "" where there is none.
    """

    online: bool = True
    scanned: bool = False
    unregistered: bool = False
    mark: int = 0
    journal_end: int = 0
    absorbed: int = 0
    shards: int = 0
    unanswered: tuple[str, ...] = ()
    untaken: tuple[str, ...] = ()
    unsettled: tuple[str, ...] = ()
    wishes: tuple[str, ...] = ()
    open: int = 0
    unusable: int = 0
    placed: int | str = 0
    shown: int | str = 0
    fittable: bool = False
    fit: str = ""
    fitted: str = ""
    askable: int = 0
    coming: int = 0
    starved: bool = False
    budget: float = float("inf")
    worker: bool = False
    pool_version: int = 0
    listed: tuple[int, int] = (-1, -1)
    checkpoint: int = 0
    calibrated: int = 0
    estimated: int = 0
    validated: int = 0
    evaluated: int = 0
    exported: int = 0
    reported: int = 0
    report_due: bool = False
    scan_due: bool = False
    newest: int = 0
    learner: int = 0
    untrained: bool = False
    trainable: bool = False
    candidate: int = 0
    uncovered: int = 0
    new_labels: int = 0
    train_epochs: int = 0
    finetune_epochs: int = 0
    period: int = 0
    job: str = ""


class Step(NamedTuple):
    """What to do next; `subject` is the file, wish or job that it is about, else ""."""

    name: str
    subject: str = ""


class Rule(NamedTuple):
    """One row of a table; `subjects` names the fact that lists what the row is about, one at a time."""

    name: str
    when: Callable[[Facts], Any]
    subjects: str = ""


JOBS: tuple[Rule, ...] = (
    Rule("EMBED", lambda f: f.starved),
    Rule("TRAIN", lambda f: not f.newest or f.learner and f.untrained and f.train_epochs > 0 and f.trainable),
    Rule("EMBED_NEXT", lambda f: f.candidate),
    Rule("EMBED", lambda f: f.learner and f.uncovered),
    Rule("FINETUNE", lambda f: f.learner and f.trainable and f.finetune_epochs > 0 and f.new_labels >= f.period),
)

STEPS: tuple[Rule, ...] = (
    Rule("CATALOGUING", lambda f: f.online and not f.scanned),
    Rule("REGISTERING", lambda f: f.unregistered),
    Rule("PROJECTING", lambda f: f.mark < f.journal_end),
    Rule("ABSORBING", lambda f: f.absorbed < f.shards),
    Rule("ANSWERING", lambda f: f.unanswered, subjects="unanswered"),
    Rule("TAKING_LABELS", lambda f: f.untaken, subjects="untaken"),
    Rule("GRANTING", lambda f: f.wishes, subjects="wishes"),
    Rule("SKIPPING", lambda f: f.unusable),
    Rule("PUBLISHING", lambda f: f.open and f.placed != f.open),
    Rule("FITTING", lambda f: f.fittable and f.fitted != f.fit),
    Rule("QUERYING", lambda f: f.scanned and not f.open and f.budget > 0 and f.askable),
    Rule("PREPARING", lambda f: f.job and f.online and not f.worker, subjects="job"),
    Rule("LISTING", lambda f: f.listed != (f.mark, f.pool_version)),
    Rule("CALIBRATING", lambda f: f.checkpoint and f.calibrated != f.checkpoint),
    Rule("ESTIMATING", lambda f: f.checkpoint and f.estimated != f.checkpoint),
    Rule("EVALUATING", lambda f: f.validated and f.evaluated != f.checkpoint),
    Rule("EXPORTING", lambda f: f.checkpoint and f.exported != f.checkpoint),
    Rule("REPORTING", lambda f: f.checkpoint and f.reported != f.checkpoint and f.report_due),
    Rule(
        "FINISHED",
        lambda f: (
            f.scanned and not f.open and f.placed != "finished" and (f.budget <= 0 or not f.askable and not f.coming)
        ),
    ),
    Rule("CATALOGUING", lambda f: f.online and f.scan_due),
    Rule("WAITING", lambda f: True),
)

TRUTH_STEPS = frozenset({"CATALOGUING", "REGISTERING", "PROJECTING"})
"""Steps whose failure means that the catalogue or the journal cannot be written: the program ends."""


def next_job(facts: Facts, resting: Set[str] = frozenset()) -> str:
    """Return the name of the first job that is due and does not rest, or ""."""
    return next((rule.name for rule in JOBS if rule.name not in resting and rule.when(facts)), "")


def next_step(facts: Facts, resting: Set[str] = frozenset()) -> Step:
    """Return the first step that is due and does not rest.

    Parameters
    ----------
    facts : with `job` as `next_job` gave it
    resting : names of steps, and `NAME:subject` for those that rest file by file
    """
    for rule in STEPS:
        if rule.name in resting or not rule.when(facts):
            continue
        if not rule.subjects:
            return Step(rule.name)
        listed = getattr(facts, rule.subjects)
        for subject in (listed,) if isinstance(listed, str) else listed:
            if f"{rule.name}:{subject}" not in resting:
                return Step(rule.name, subject)
    raise AssertionError("WAITING is always due")


def waits_for_embeddings(first: str, n_images: int) -> bool:
    """Return whether the first request waits for embeddings, by `query.first` and how many images there are to label.

    In a large pool many labels will be asked for, of which those of the first request are few, and a person is at hand now.
    """
    return first == "embedded" or (first == "auto" and n_images <= FEW_IMAGES)
