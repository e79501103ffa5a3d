"""Made-up work folders: the program takes them for its own, and their embeddings can be learned from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.made_up import MadeUp, answer, made_up_work
from camera_trap_al.core.records import ImageKey
from camera_trap_al.core.steps import next_step
from camera_trap_al.facts import fit_rows, read_facts
from camera_trap_al.learn.classifier import fit_classifier
from camera_trap_al.rounds import publish, query
from camera_trap_al.taking import bin_files, take_labels
from camera_trap_al.upkeep import project
from camera_trap_al.work import Work


def test_a_made_up_work_folder_is_as_the_program_leaves_one(tmp_path: Path) -> None:
    made = made_up_work(tmp_path / "made", 300, n_labels=120, n_classes=4, dim=16, options={"labels.settle_s": 0.0})
    work = Work.open(made.work)
    try:
        facts = read_facts(work, worker_runs=False, rounds_left=9, resting=frozenset())
        assert (facts.learner, facts.newest, facts.uncovered, facts.candidate, facts.job) == (1, 1, 0, 0, "")
        assert facts.mark == facts.journal_end and facts.shards == facts.absorbed == 1 and not facts.open
        assert (facts.askable, work.catalog.counts().labelled) == (180, 120)
        assert next_step(facts).name == "FITTING"
        assert all(label.species == made.label_of(key) for key, label in work.history.labels.items())
        _embeddings_tell_classes_apart(work)
        _a_request_can_be_answered(work, made)
    finally:
        work.close()


def _embeddings_tell_classes_apart(work: Work) -> None:
    rows, species = fit_rows(work, 1)
    vectors = work.vectors(1).read(rows)
    fitted = fit_classifier(vectors[:80], species[:80], seed=1)
    best = fitted.predict_proba(vectors[80:]).argmax(axis=1)
    right = np.mean([fitted.classes[b] == name for b, name in zip(best, species[80:], strict=True)])
    commonest = max(species.count(name) for name in set(species)) / len(species)
    assert right > commonest


def _a_request_can_be_answered(work: Work, made: MadeUp) -> None:
    query(work, read_facts(work, worker_runs=False, rounds_left=9, resting=frozenset()))
    publish(work)
    file = answer(made.work, made.label_of)
    while file.name not in bin_files(work).untaken:
        pass
    take_labels(work, file.name)
    project(work)
    assert (work.history.awaited(), work.catalog.counts().labelled) == ([], 220)


def test_labels_follow_from_names_and_classes_are_unequal(tmp_path: Path) -> None:
    made = MadeUp(tmp_path, tmp_path, tuple("abcd"))
    given = [made.label_of(ImageKey("site", f"{i}.jpg")) for i in range(2000)]
    assert given == [made.label_of(ImageKey("site", f"{i}.jpg")) for i in range(2000)]
    shares = np.array([given.count(name) for name in "abcd"]) / 2000
    assert np.allclose(shares, 1 / np.arange(1, 5) / np.sum(1 / np.arange(1, 5)), atol=0.05)
