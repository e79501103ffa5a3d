"""The step that says when to stop: after the request is out, without validation images, kept and said by `status`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from typing import Any

import pytest
from season import Season

from camera_trap_al import advice
from camera_trap_al.core.estimates import Accuracy
from camera_trap_al.core.gains import Gain
from camera_trap_al.core.unseen import Unseen
from camera_trap_al.loop import Loop, is_idle
from camera_trap_al.store.journal import read_journal
from camera_trap_al.work import Work
from camera_trap_al_service.daemon import describe
from camera_trap_al_service.reading import read_status, status_text

UNTRAINED: dict[str, Any] = {"train__epochs": 0, "finetune__epochs": 0, "query__per_sequence": 0}


def estimates(season: Season) -> dict[str, Any]:
    return dict(json.loads((season.work / "data" / "estimates.json").read_text(encoding="utf-8")))


def curve(season: Season) -> list[dict[str, str]]:
    with (season.work / "test_results" / "learning_curve.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_without_validation_images_it_says_how_many_are_recognised(
    new_season: Callable[..., Season], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("camera_trap_al.learn.evaluate.curve_figure", lambda *given: b"figure")
    season = new_season(folders=("train",), **UNTRAINED, query__random_share=0.6)
    label, steps = season.person(), list[str]()
    work = Work.open(season.work)
    try:
        loop = Loop(work)
        loop.run(until=is_idle)
        assert "cannot be said yet: 0 of the 10 images" in estimates(season)["words"][0]
        assert not (season.work / "test_results" / "learning_curve.csv").exists()
        loop.on_turn = lambda loop, facts, step: steps.append(step.name)
        for _ in range(4):
            label()
            loop.run(until=is_idle)
        first = steps.index("ESTIMATING")
        assert steps.index("FITTING") < steps.index("PUBLISHING", steps.index("QUERYING")) < first
        newest = estimates(season)["newest"]
        accuracy, said = newest["accuracy"], estimates(season)["words"]
        assert newest["n_judged"] >= 10 and 0 <= accuracy["low"] <= accuracy["value"] <= accuracy["high"] <= 1
        assert newest["unseen"]["species"] == 0 and "Probably every species has been seen" in said[-1]
        facts, _ = loop.look()
        assert facts.estimated == facts.checkpoint
        status = describe(work, facts, "waiting") | {"problems": []}
        (season.work / "status.json").write_text(json.dumps(status), encoding="utf-8")
        assert all(text in status_text(read_status(season.work)) for text in said)
        row = curve(season)[-1]
        assert row["accuracy"] == "" and float(row["estimated_accuracy"]) == pytest.approx(accuracy["value"], abs=1e-5)
        assert float(row["estimated_low"]) <= float(row["estimated_high"])

        before = estimates(season)
        (season.work / "data" / "estimates.json").write_text("{", encoding="utf-8")
        loop.run(until=is_idle)
        assert estimates(season)["newest"] == before["newest"], "what is lost is estimated again"
    finally:
        work.close()


@pytest.mark.slow
def test_with_validation_images_the_curve_has_both(
    new_season: Callable[..., Season], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("camera_trap_al.learn.evaluate.curve_figure", lambda *given: b"figure")
    season = new_season(**UNTRAINED, query__random_share=1.0)
    label = season.person()
    for _ in range(3):
        season.run()
        label()
    season.run()
    row = curve(season)[-1]
    assert 0 <= float(row["accuracy"]) <= 1 and 0 <= float(row["estimated_accuracy"]) <= 1
    requests = [line for line in read_journal(season.work / "data" / "journal.jsonl")[0] if line["kind"] == "request"]
    assert len(requests) >= 4
    labels = [noted["labels"] for noted in estimates(season)["estimates"]]
    assert labels == sorted(set(labels)) and len(labels) >= 3


@pytest.mark.parametrize(
    ("labels", "said"), [(3, 10), (47, 50), (123, 100), (278, 300), (994, 1000), (1234, 1200), (56_789, 57_000)]
)
def test_a_number_of_labels_is_said_as_a_person_would(labels: float, said: int) -> None:
    assert advice.rounded(labels) == said


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        (None, "cannot be said yet"),
        (Gain(0.006, 0.002, 0.01, 290, 120, 800), "0.6 points; about 300 more labels for one more point (100 to 800)"),
        (Gain(0.006, 0.002, 0.01, 290, 120, 9000), "(100 or more than there are images)"),
        (Gain(0.0004, 0, 0.001, 7000, 120, 9000), "0.1 points or less; all images that are left would bring less"),
        (Gain(0.0004, 0, 0.001, float("inf"), 120, float("inf")), "less than one point is left to gain"),
    ],
)
def test_what_more_labels_bring_is_said_in_plain_words(gain: Gain | None, said: str) -> None:
    assert said in advice.gain_words(gain, 5000)


def test_the_accuracy_is_said_with_its_interval() -> None:
    text = advice.accuracy_words(Accuracy(0.874, 0.81, 0.921, 0.03, 74), 12_000, 74)
    assert "12,000 images without a label about 87 %" in text and "81 to 92 %" in text and "74 images" in text
    assert "query.random_share is 0" in advice.accuracy_words(None, 12_000, 0, is_drawn=False)


@pytest.mark.parametrize(
    ("unseen", "said"),
    [
        (Unseen(2.3, 0.03, 0.061, 100), "At least 2 more species are probably there"),
        (Unseen(1.0, 0.03, 0.061, 100), "At least 1 more species is probably there"),
        (Unseen(0.0, 0.01, 0.054, 100), "may be there; 5.4 % of the images at most"),
        (Unseen(0.0, 0.0, 0.037, 100), "Probably every species has been seen; 3.7 %"),
    ],
)
def test_species_not_seen_are_said_in_plain_words(unseen: Unseen, said: str) -> None:
    assert said in advice.unseen_words(unseen)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"estimates": 3, "words": 1}',
        '{"estimates": [{"labels": 3, "accuracy": {"value": "x"}}], "words": [], "newest": 1}',
    ],
)
def test_estimates_that_are_damaged_count_as_none(text: str, new_season: Callable[..., Season]) -> None:
    season = new_season()
    with season.opened() as loop:
        folder = loop.work.folder
        folder.estimates.write_text(text, encoding="utf-8")
        assert advice.read_estimates(folder) == [] and advice.read_advice(folder) == {}
