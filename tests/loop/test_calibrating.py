"""The step that chooses the head: after the request is out, kept for the next fit, and no hindrance where it is lost."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from season import Season

from camera_trap_al import calibrating
from camera_trap_al.core.steps import Facts, Step
from camera_trap_al.errors import ModelError, StopRequested
from camera_trap_al.giving_way import GaveWay, give_way
from camera_trap_al.learn import calibration
from camera_trap_al.loop import Loop, is_idle
from camera_trap_al.work import Work

UNTRAINED: dict[str, Any] = {"train__epochs": 0, "finetune__epochs": 0}


def noted(season: Season) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((season.work / "calibration.json").read_text(encoding="utf-8"))
    return facts


def newest_classifier(season: Season) -> dict[str, Any]:
    newest = max((season.work / "checkpoints").glob("gen-*"))
    facts: dict[str, Any] = json.loads((newest / "classifier.json").read_text(encoding="utf-8"))
    return facts


@contextlib.contextmanager
def running(season: Season) -> Iterator[Loop]:
    work = Work.open(season.work)
    try:
        yield Loop(work)
    finally:
        work.close()


def label_and_run(label: Callable[[], int], loop: Loop) -> None:
    label()
    loop.run(until=is_idle)


@pytest.mark.slow
def test_auto_compares_after_the_request_is_out_and_the_next_fit_uses_the_choice(
    new_season: Callable[..., Season], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrating, "MANY_LABELS", 20)
    season = new_season(**UNTRAINED)
    steps: list[str] = []
    label = season.person()
    caplog.set_level(logging.INFO)
    with running(season) as loop:
        loop.run(until=is_idle)
        assert newest_classifier(season)["head"] == "semi", "the training folder alone is too little to choose by"
        assert noted(season)["scores"] == {}
        loop.on_turn = lambda loop, facts, step: steps.append(step.name)
        for _ in range(2):
            label_and_run(label, loop)
        first = steps.index("CALIBRATING")
        assert (
            steps.index("FITTING")
            < steps.index("QUERYING")
            < steps.index("PUBLISHING", steps.index("QUERYING"))
            < first
        )
        chosen = noted(season)
        assert set(chosen["scores"]) == {"semi", "logistic", "mlp"} and chosen["n_judged"] >= 20
        assert chosen["head"] in chosen["scores"] and f"fitted by {chosen['head']}" in caplog.text
        label_and_run(label, loop)
        fitted = newest_classifier(season)
        assert (fitted["head"], fitted["temperature"]) == (chosen["head"], chosen["temperature"])


@pytest.mark.slow
def test_another_head_in_the_configuration_is_fitted_at_once(new_season: Callable[..., Season]) -> None:
    season = new_season(**UNTRAINED)
    with running(season) as loop:
        loop.run(until=is_idle)
    config = season.work / "config.toml"
    text = config.read_text(encoding="utf-8")
    assert 'head = "auto"' in text
    config.write_text(text.replace('head = "auto"', 'head = "mlp"'), encoding="utf-8")
    with running(season) as loop:
        loop.run(until=is_idle)
        assert newest_classifier(season)["head"] == "mlp" and newest_classifier(season)["layers"] == 3
        assert noted(season)["choice"] == "mlp"


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["gone", "", "{", '{"head": "oracle", "temperature": 1.0}', '{"temperature": -3}'])
def test_a_calibration_that_is_lost_or_damaged_is_made_again(new_season: Callable[..., Season], damage: str) -> None:
    season = new_season(**UNTRAINED)
    path = season.work / "calibration.json"
    with running(season) as loop:
        loop.run(until=is_idle)
        before = path.read_bytes()
        path.unlink()
        if damage != "gone":
            path.write_text(damage, encoding="utf-8")
        assert calibrating.head_to_use(loop.work) == ("semi", 1.0)
        loop.run(until=is_idle)
    assert path.read_bytes() == before


@pytest.mark.slow
def test_a_few_more_labels_do_not_compare_anew(
    new_season: Callable[..., Season], monkeypatch: pytest.MonkeyPatch
) -> None:
    season = new_season(**UNTRAINED)
    monkeypatch.setattr(calibrating, "GROWTH", 100.0)
    steps: list[str] = []
    label = season.person()
    with running(season) as loop:
        loop.run(until=is_idle)
        loop.on_turn = lambda loop, facts, step: steps.append(step.name)
        label_and_run(label, loop)
    assert "FITTING" in steps and "CALIBRATING" not in steps


@pytest.mark.slow
def test_it_ends_at_once_when_the_program_is_told_to_stop(
    new_season: Callable[..., Season], monkeypatch: pytest.MonkeyPatch
) -> None:
    season = new_season(**UNTRAINED)
    monkeypatch.setattr(calibration, "FEWEST_ROWS", 2)
    with running(season) as loop:

        def stop_there(loop: Loop, facts: Facts, step: Step) -> None:
            if step.name == "CALIBRATING":
                loop.stop.set()

        loop.on_turn = stop_there
        loop.run(until=is_idle)
        assert loop.stop.is_set()
    assert not (season.work / "calibration.json").exists()


@pytest.mark.slow
def test_it_gives_way_to_a_label_file(new_season: Callable[..., Season], monkeypatch: pytest.MonkeyPatch) -> None:
    season = new_season(**UNTRAINED)
    label, steps = season.person(), list[str]()
    monkeypatch.setattr(calibration, "FEWEST_ROWS", 2)
    with running(season) as loop:
        loop.run(until=is_idle)
        fit = calibration.fit_classifier

        def label_meanwhile(*given: Any, **more: Any) -> Any:
            if steps.count("CALIBRATING") == 1 and len(loop.work.history.requests) == 2:
                steps.append("labelled")
                label()
            return fit(*given, **more)

        monkeypatch.setattr(calibration, "fit_classifier", label_meanwhile)
        loop.on_turn = lambda loop, facts, step: steps.append(step.name)
        label_and_run(label, loop)
    since = steps[steps.index("CALIBRATING") :]
    assert since[:2] == ["CALIBRATING", "labelled"] and since.count("labelled") == 1
    assert since.index("TAKING_LABELS") == 2 < since.index("CALIBRATING", 1), "at the next fit, and it is made again"
    assert noted(season)["n_labels"] == 6 + 2 * 9


def test_what_waited_before_is_nothing_to_give_way_to(new_season: Callable[..., Season]) -> None:
    season = new_season()
    with season.opened() as loop:
        season.drop("before.csv", {"IMG_0000.JPG": "red"})
        tick = give_way(loop.work)
        tick()
        season.drop("after.csv", {"IMG_0000.JPG": "red"})
        with pytest.raises(GaveWay):
            for _ in range(20):
                tick()
        loop.stop.set()
        with pytest.raises(StopRequested):
            tick()


@pytest.mark.slow
def test_of_many_labels_only_a_sample_is_read(
    new_season: Callable[..., Season], monkeypatch: pytest.MonkeyPatch
) -> None:
    season = new_season(**UNTRAINED)
    monkeypatch.setattr(calibration, "MOST_ROWS", 5)
    read, rows = calibrating.read_finite, list[int]()

    def count(work: Work, learner: int, wanted: np.ndarray) -> np.ndarray:
        rows.append(len(wanted))
        return read(work, learner, wanted)

    with running(season) as loop:
        loop.run(until=lambda facts, step: step.name == "CALIBRATING")
        monkeypatch.setattr(calibrating, "read_finite", count)
        calibrating.calibrate(loop.work)
        assert rows[0] == 5 and loop.work.checkpoint().manifest["n_labels"] == 6  # type: ignore[union-attr]


@pytest.mark.slow
def test_an_embedding_that_is_no_number_names_its_image(
    new_season: Callable[..., Season], monkeypatch: pytest.MonkeyPatch
) -> None:
    season = new_season(**UNTRAINED)
    with running(season) as loop:
        loop.run(until=is_idle)
        work: Work = loop.work
        learner = work.learner()
        assert learner is not None
        rows, _ = work.catalog.askable()
        vectors = work.vectors(learner.number)
        good = vectors.read(rows[:3])
        good[1, 0] = np.nan
        monkeypatch.setattr(vectors, "read", lambda rows: good)
        name = Path(work.catalog.keys_of(rows[1:2])[0].file).name
        with pytest.raises(ModelError, match=rf"embedding of .*{name} holds something that is no number"):
            calibrating.read_finite(work, learner.number, rows[:3])


@pytest.mark.parametrize(("n", "expected"), [(499, ("semi", "logistic")), (500, ("semi", "logistic", "mlp"))])
def test_the_perceptron_takes_part_once_there_are_many_labels(n: int, expected: tuple[str, ...]) -> None:
    assert calibrating.heads_to_compare("auto", n) == expected
    assert calibrating.heads_to_compare("mlp", n) == ("mlp",)
