"""The whole loop with the worker inline: three rounds, and the same again after a kill at a durable operation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from camera_trap_al.core.records import ImageKey
from camera_trap_al.store import generations
from camera_trap_al.store.atomic import failpoints
from camera_trap_al.store.journal import read_journal

ROUNDS = 3
ROUNDS_KILLED = 2
KILLS = 4
PROMISED = """
timelapse_selector.csv timelapse_predictions.csv data/label_request.json data/labels.csv data/quarantine.csv
export/classifier.onnx export/embedding_model_weights.pt export/dataset_mean.npy export/dataset_std.npy
export/model.onnx export/embedding.onnx export/classes.json export/check.json
export/README_export.txt export/model_card.md new_labels_bin/round1.csv.receipt.json
test_results/learning_curve.csv test_results/learning_curve.png
"""


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(autouse=True)
def _disarm() -> Iterator[None]:
    yield
    failpoints.fail_at, failpoints.exception = 0, None


def play(season: Any, rounds: int = ROUNDS) -> list[list[ImageKey]]:
    label = season.person()
    requests: list[list[ImageKey]] = []
    for _ in range(rounds):
        requests = run_to_the_end(season)
        label()
    return run_to_the_end(season) or requests


def run_to_the_end(season: Any) -> list[list[ImageKey]]:
    while True:
        try:
            requests: list[list[ImageKey]] = season.run()
            return requests
        except Killed:
            failpoints.fail_at = 0
            generations._verified.clear()


def labels_in_journal(work: Path) -> dict[tuple[str, str], str]:
    lines = read_journal(work / "data" / "journal.jsonl")[0]
    return {(r[0], r[1]): r[2] for line in lines if line["kind"] == "labels" for r in line["rows"]}


def accuracies(work: Path) -> list[float]:
    found = [json.loads(p.read_text()) for p in (work / "test_results").glob("*/metrics.json")]
    return [m["accuracy"] for m in sorted(found, key=lambda m: m["train_set_size"])]


@pytest.mark.slow
def test_three_rounds_raise_the_accuracy_and_leave_every_promised_file(new_season: Callable[..., Any]) -> None:
    season = new_season()
    requests = play(season)
    assert [len(r) for r in requests] == [9] * 4 and len({k for r in requests for k in r}) == 36
    assert labels_in_journal(season.work) == {k: season.truth[k] for r in requests[:3] for k in r}
    assert accuracies(season.work)[-1] > 0.6 and len(accuracies(season.work)) >= 4
    for name in PROMISED.split():
        assert (season.work / name).is_file(), name
    manifest = json.loads((season.work / "export/manifest.json").read_text())
    checkpoint = generations.newest(season.work / "checkpoints")
    assert checkpoint is not None and manifest["checkpoint"] == checkpoint.number


@pytest.mark.slow
def test_without_validation_nothing_is_measured_and_softmax_trains_too(new_season: Callable[..., Any]) -> None:
    season = new_season(
        validation__enabled=False, embedding__loss="softmax", train__min_labels=6, embedding__normalize=False
    )
    season.run()
    assert not list((season.work / "test_results").iterdir())
    model = generations.newest(season.work / "models")
    assert model is not None and model.manifest["trained"] and (season.work / "export" / "model.onnx").is_file()


def spread(total: int, n: int) -> list[int]:
    return sorted({1 + round(i * (total - 1) / (n - 1)) for i in range(n)})


@pytest.mark.slow
def test_killed_at_any_durable_operation_no_label_is_lost_and_the_requests_stay_the_same(
    new_season: Callable[..., Any],
) -> None:
    """With torch; the fault tests do the same at every operation without it."""
    season = new_season()
    failpoints.count = 0
    expected = play(season, ROUNDS_KILLED)
    total = failpoints.count
    assert total > 100
    for point in spread(total, KILLS):
        season = new_season()
        failpoints.count, failpoints.fail_at, failpoints.mode = 0, point, "raise"
        failpoints.exception = Killed()
        got = play(season, ROUNDS_KILLED)
        assert got == expected, f"killed at operation {point} of {total}"
        assert labels_in_journal(season.work) == {k: season.truth[k] for r in expected[:ROUNDS_KILLED] for k in r}
