"""The state tables themselves, before any step: commits lost at random, kills, one step or job failing for ever."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from camera_trap_al.core.steps import JOBS, STEPS, Facts, next_job, next_step

LOSS = 0.3
FIRST = 4
STEP_NAMES = list(dict.fromkeys(rule.name for rule in STEPS if rule.name != "WAITING"))
JOB_NAMES = list(dict.fromkeys(rule.name for rule in JOBS))
AGAIN = "CATALOGUING again"
VARIANTS = ["nothing", *STEP_NAMES, AGAIN, *JOB_NAMES, "random kills"]
TRUTHS = {"CATALOGUING", "REGISTERING", "PROJECTING"}


class World:
    """The durable side in a few counters; every commit may be lost, and one step or job may never succeed."""

    def __init__(self, seed: int, failing: str) -> None:
        self.random = random.Random(seed)
        self.failing = failing
        self.pool = self.random.randint(5, 25)
        self.batch = self.random.randint(1, 8)
        self.files: dict[str, int] = {}
        self.scanned = self.registered = False
        self.journal: list[tuple[str, str]] = [("open", "")]
        self.requests: list[int] = []
        self.labels: set[str] = set()
        self.asked = self.labelled = 0
        self.mark = self.absorbed = self.shards = 0
        self.receipts: set[str] = set()
        self.placed: int | str = 0
        self.models: list[str] = []
        self.learners: list[int] = []
        self.covered: dict[int, int] = {}
        self.fitted, self.checkpoint = "", 0
        self.listed = (-1, -1)
        self.calibrated = self.estimated = self.evaluated = self.exported = self.reported = 0
        self.scan_due = False
        self.new_since_model = 0
        self.resting: dict[str, int] = {}
        self.failures: dict[str, int] = {}
        self.turn = 0

    def facts(self) -> Facts:
        open_round = len(self.requests) if self.asked > self.labelled else 0
        learner = self.learners[-1] if self.learners else 0
        newest = len(self.models)
        fit = f"{learner}/{self.labelled}" if learner and self.labelled else ""
        # Labelled images are embedded first, so what is covered begins with what was asked for.
        left = self.pool - self.asked
        askable = min(left, max(0, self.covered[learner] - self.asked)) if learner else left
        facts = Facts(
            scanned=self.scanned,
            unregistered=not self.registered,
            mark=self.mark,
            journal_end=len(self.journal),
            absorbed=self.absorbed,
            shards=self.shards,
            unanswered=tuple(n for n in self.files if n in self.labels and n not in self.receipts),
            untaken=tuple(n for n in self.files if n not in self.labels),
            open=open_round,
            placed=self.placed,
            fittable=bool(fit),
            fit=fit,
            fitted=self.fitted,
            askable=askable,
            coming=left - askable,
            starved=bool(learner and left and not askable),
            checkpoint=self.checkpoint,
            calibrated=self.calibrated,
            estimated=self.estimated,
            validated=self.checkpoint,
            evaluated=self.evaluated,
            exported=self.exported,
            reported=self.reported,
            report_due=True,
            listed=self.listed,
            scan_due=self.scan_due,
            newest=newest,
            learner=learner,
            untrained=bool(self.models) and self.models[-1] == "as it came",
            trainable=self.labelled >= 6,
            candidate=newest if newest and newest not in self.learners else 0,
            uncovered=self.pool - self.covered.get(learner, 0),
            new_labels=self.labelled - self.new_since_model,
            train_epochs=1,
            finetune_epochs=1,
            period=10,
        )
        return replace(facts, job=next_job(facts, set(self.resting)))

    def person_labels(self) -> None:
        facts = self.facts()
        if facts.open and facts.placed == facts.open and not facts.untaken:
            wanted = self.asked - self.labelled
            self.files[f"{len(self.files)}.csv"] = self.random.randint(1, wanted)

    def commit(self, step: str, subject: str, facts: Facts) -> None:
        match step:
            case "CATALOGUING":
                self.scanned, self.scan_due = True, False
            case "REGISTERING":
                self.journal.append(("classes", ""))
                self.registered = True
            case "PROJECTING":
                self.mark = len(self.journal)
            case "ABSORBING":
                self.absorbed = self.shards
            case "ANSWERING":
                self.receipts.add(subject)
            case "TAKING_LABELS":
                assert subject not in self.labels, "a label file was taken twice"
                self.journal.append(("labels", subject))
                self.labels.add(subject)
                self.labelled += self.files[subject]
            case "PUBLISHING":
                self.placed = facts.open
            case "FITTING":
                self.fitted, self.checkpoint = facts.fit, self.checkpoint + 1
            case "QUERYING":
                self.journal.append(("request", ""))
                self.requests.append(min(self.batch, facts.askable))
                self.asked += self.requests[-1]
            case "PREPARING":
                self.work(subject, facts)
            case "LISTING":
                self.listed = (facts.mark, facts.pool_version)
            case "CALIBRATING":
                self.calibrated = facts.checkpoint
            case "ESTIMATING":
                self.estimated = facts.checkpoint
            case "EVALUATING":
                self.evaluated = facts.checkpoint
            case "EXPORTING":
                self.exported = facts.checkpoint
            case "REPORTING":
                self.reported = facts.checkpoint
            case "FINISHED":
                self.placed = "finished"

    def work(self, job: str, facts: Facts) -> None:
        if job in ("TRAIN", "FINETUNE"):
            self.models.append("trained" if facts.trainable else "as it came")
            self.new_since_model = self.labelled
        elif job == "EMBED_NEXT":
            self.learners.append(facts.candidate)
            has_now = self.covered.get(facts.learner, 0)
            self.covered[facts.candidate] = max(min(self.pool, self.labelled + FIRST), has_now)
            self.shards += 1
        else:
            # A shard at a time, each as large as all before it; then the job is killed or gives way.
            self.covered[facts.learner] = min(self.pool, max(self.labelled, 2 * self.covered[facts.learner]))
            self.shards += 1

    def is_stuck(self) -> bool:
        return self.failing in ("TAKING_LABELS", "QUERYING", "PUBLISHING", "FINISHED") and self.turn > 200

    def rest(self, key: str, per_file: bool) -> None:
        self.failures[key] = self.failures.get(key, 0) + 1
        longest = max(60, 10 * len(self.failures)) if per_file else 60
        self.resting[key] = self.turn + min(2 ** self.failures[key], longest)

    def turn_once(self) -> str:
        self.turn += 1
        self.scan_due = self.scan_due or self.scanned and self.random.random() < 0.05
        self.resting = {name: until for name, until in self.resting.items() if until > self.turn}
        facts = self.facts()
        step = next_step(facts, set(self.resting))
        name = step.subject if step.name == "PREPARING" else step.name
        if self.failing == name or (self.failing == step.name and step.name != "PREPARING"):
            per_file = step.name in ("ANSWERING", "TAKING_LABELS", "GRANTING")
            self.rest(f"{step.name}:{step.subject}" if per_file else name, per_file)
        elif self.failing == step.name == "PREPARING":
            self.rest("PREPARING", False)
        elif self.failing == AGAIN and step.name == "CATALOGUING" and self.scanned:
            self.rest("CATALOGUING", False)
        elif self.random.random() >= LOSS:
            self.commit(step.name, step.subject, facts)
        if self.failing == "random kills" and self.random.random() < 0.1:
            self.resting = {}
        return step.name


@pytest.mark.parametrize("seeds", [range(3), pytest.param(range(3, 103), marks=pytest.mark.slow)])
@pytest.mark.parametrize("failing", VARIANTS)
def test_every_label_is_kept_and_all_ends_level(failing: str, seeds: range) -> None:
    for seed in seeds:
        world = World(seed, failing)
        for turn in range(900):
            step = world.turn_once()
            if turn % 3 == 0:
                world.person_labels()
            if step == "WAITING" and (world.placed == "finished" or world.is_stuck()):
                break
        check_ends(world)


def check_ends(world: World) -> None:
    failing, facts = world.failing, world.facts()
    if failing in TRUTHS:
        return
    if failing == "TAKING_LABELS":
        assert not world.labels and world.requests, "the request stays while labels wait"
        return
    if failing == "QUERYING":
        assert world.asked == 0 and world.learners, "the rest goes on without requests"
        return
    if failing == "PUBLISHING":
        assert len(world.requests) == 1 and world.learners
        return
    assert world.labels == set(world.files), "a label file was not taken"
    assert world.asked == world.labelled, f"{failing}: a round did not close"
    # Without EMBED all that has a vector is asked for, and no more.
    assert not facts.askable and (world.asked == world.pool or failing == "EMBED" and facts.coming)
    assert world.mark == len(world.journal)
    assert failing == "ANSWERING" or world.receipts == set(world.files)
    assert failing == "FINISHED" or facts.coming or world.placed == "finished"
    if failing in ("nothing", "random kills"):
        level = (facts.checkpoint, facts.evaluated, facts.exported, facts.reported)
        assert len(set(level)) == 1 and facts.checkpoint > 0 and facts.fitted == facts.fit
        assert facts.learner == facts.newest and not facts.uncovered and world.listed == (world.mark, 0)


def test_labels_are_made_safe_before_anything_is_computed() -> None:
    everything_due = Facts(
        scanned=True, untaken=("a.csv",), fittable=True, fit="x", askable=5, checkpoint=1, job="TRAIN"
    )
    assert next_step(everything_due) == ("TAKING_LABELS", "a.csv")


def test_the_first_learner_is_not_held_up_by_labels_and_the_rest_of_the_pool_waits_for_a_training() -> None:
    labelled = Facts(
        newest=1, untrained=True, trainable=True, train_epochs=5, finetune_epochs=1, period=1, new_labels=9
    )
    assert next_job(replace(labelled, candidate=1)) == "EMBED_NEXT"
    assert next_job(replace(labelled, learner=1, uncovered=97_952)) == "TRAIN"
    assert next_job(replace(labelled, learner=1, uncovered=97_952, trainable=False)) == "EMBED"
    assert next_job(replace(labelled, learner=1, uncovered=97_952), {"TRAIN"}) == "EMBED"


def test_a_person_who_has_answered_all_that_is_embedded_does_not_wait_for_a_training() -> None:
    facts = Facts(newest=1, learner=1, untrained=True, trainable=True, train_epochs=5, uncovered=9, coming=9)
    assert next_job(facts) == "TRAIN"
    assert next_job(replace(facts, starved=True)) == "EMBED"
    assert next_job(replace(facts, starved=True, newest=2, candidate=2)) == "EMBED"
    assert next_job(replace(facts, starved=True), {"EMBED"}) == "TRAIN"


def test_what_is_not_embedded_yet_does_not_end_the_season() -> None:
    facts = Facts(scanned=True, learner=1, coming=97_952, uncovered=97_952, worker=True, listed=(0, 0))
    assert next_step(facts).name == "WAITING"
    assert next_step(replace(facts, coming=0)).name == "FINISHED"


def test_a_resting_label_file_does_not_hold_up_its_neighbour() -> None:
    facts = Facts(scanned=True, untaken=("a.csv", "b.csv"))
    assert next_step(facts, {"TAKING_LABELS:a.csv"}) == ("TAKING_LABELS", "b.csv")


def test_a_running_worker_does_not_hold_up_a_round() -> None:
    facts = Facts(scanned=True, job="FINETUNE", worker=True, askable=3)
    assert next_step(facts).name == "QUERYING"
