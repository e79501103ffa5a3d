"""From nothing: no training folder, no list of classes; what is asked, typed and answered until a classifier is there."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from season import Season

from camera_trap_al import jobs
from camera_trap_al.facts import read_facts
from camera_trap_al.work import Work
from camera_trap_al_service.daemon import describe
from camera_trap_al_service.reading import status_text

pytestmark = pytest.mark.usefixtures("no_torch")
FROZEN = {"folders": (), "train__epochs": 0, "finetune__epochs": 0}
ASKED = {"query.per_sequence": 0, "query.random_share": 0.0}


def requests(season: Season) -> list[dict[str, Any]]:
    text = (season.work / "data" / "journal.jsonl").read_text(encoding="utf-8")
    return [line for line in map(json.loads, text.splitlines()) if line["kind"] == "request"]


def embed(season: Season) -> None:
    """Do what the worker does until there is a learner and nothing is left to embed."""
    work = Work.open(season.work)
    try:
        facts = read_facts(work, worker_runs=True, rounds_left=float("inf"), resting=frozenset())
        while facts.job:
            jobs.run_job(work.folder, work.config, facts.job, lambda progress: None)
            facts = read_facts(work, worker_runs=True, rounds_left=float("inf"), resting=frozenset())
        assert facts.learner == 1 and not facts.uncovered
    finally:
        work.close()


def status(season: Season) -> str:
    with season.opened() as loop:
        facts, _ = loop.look()
        said = describe(loop.work, facts, "waiting")
    return status_text(said | {"running": True, "holder": "", "problems": []})


def report(season: Season, name: str) -> str:
    return (season.work / "new_labels_bin" / f"{name}.report.txt").read_text(encoding="utf-8-sig")


def test_a_learner_is_made_of_images_without_a_single_label(new_season: Callable[..., Season]) -> None:
    season = new_season(**FROZEN)
    season.turn()
    assert requests(season)[0]["strategy"] == "uniform", "nothing is embedded yet"
    embed(season)
    season.turn()
    work = Work.open(season.work)
    try:
        assert work.learner() is not None and work.checkpoint() is None
        model = work.newest_model()
        assert model is not None and not model.manifest["trained"] and model.manifest["n_labels"] == 0
    finally:
        work.close()


@pytest.mark.parametrize(("strategy", "used"), [("typiclust", "typiclust"), ("margin", "uniform")])
def test_whoever_waits_for_embeddings_is_asked_by_a_strategy_that_needs_no_classes(
    new_season: Callable[..., Season], strategy: str, used: str
) -> None:
    season = new_season(query__strategy=strategy, query__first="embedded", **FROZEN, **ASKED)
    season.turn()
    assert requests(season) == [] and not (season.work / "timelapse_selector.csv").exists()
    embed(season)
    season.turn()
    (request,) = requests(season)
    assert (request["strategy"], request["learner"], request["checkpoint"]) == (used, 1, 0)
    assert len(request["keys"]) == 9 and request["predictions"] == []
    assert len(request["random"]) == (9 if used == "uniform" else 0)
    assert season.placed() == 1


def test_labels_of_one_class_only_ask_on_and_say_what_is_missing(new_season: Callable[..., Season]) -> None:
    season = new_season(query__strategy="uncertainty_herding", **FROZEN, **ASKED)
    season.turn()
    embed(season)
    for name in ("1.csv", "2.csv"):
        season.drop(name, dict.fromkeys(season.asked(), "red"))
        season.turn()
    assert [line["strategy"] for line in requests(season)] == ["uniform", "uncertainty_herding", "uncertainty_herding"]
    assert "All labels say 'red' so far; a classifier needs labels of two classes" in status(season)
    assert requests(season)[-1]["checkpoint"] == 0
    season.drop("3.csv", dict.fromkeys(season.asked(), "green"))
    season.turn()
    assert requests(season)[-1]["checkpoint"] == 1 and "All labels say" not in status(season)


def test_two_labels_of_two_classes_are_a_classifier(new_season: Callable[..., Season]) -> None:
    season = new_season(query__batch=2, query__strategy="margin", **FROZEN)
    season.turn()
    embed(season)
    one, two = season.asked()
    season.drop("1.csv", {one: "red", two: "green"})
    season.turn()
    first, second = requests(season)
    assert (first["checkpoint"], second["checkpoint"], second["strategy"]) == (0, 1, "margin")
    assert {species for species, _ in second["predictions"]} <= {"red", "green"}
    assert json.loads((season.work / "export" / "check.json").read_text(encoding="utf-8"))["ok"] is True


def test_a_spelling_is_asked_about_and_typing_it_again_is_the_answer(new_season: Callable[..., Season]) -> None:
    season = new_season(query__min_answered=1.0, **FROZEN)
    season.turn()
    paths = season.asked()
    season.drop("1.csv", {**dict.fromkeys(paths[:4], "Hare"), **dict.fromkeys(paths[4:8], "fox"), paths[8]: "Hart"})
    season.turn()
    said = report(season, "1.csv")
    assert "'Hart' is no class yet" in said and "Did you mean Hare?" in said and "classes.names" in said
    assert set(season.labels_csv().values()) == {"Hare", "fox", "unlabelled"}
    assert len(requests(season)) == 2, "who gave a name has answered"
    assert "No class yet: 'Hart' (1 image, or is it Hare?)" in status(season)
    season.drop("2.csv", {path: "Hart" if i == 0 else "fox" for i, path in enumerate(season.asked())})
    season.turn()
    assert list(season.labels_csv().values()).count("Hart") == 2 and season.labels_csv()[paths[8]] == "Hart"
    assert "waited for a new name, which is a class now" in report(season, "1.csv")
    assert "No class yet" not in status(season)


def test_a_name_of_the_configuration_is_the_answer_too(new_season: Callable[..., Season]) -> None:
    season = new_season(**FROZEN)
    season.turn()
    paths = season.asked()
    season.drop("1.csv", {**dict.fromkeys(paths[:8], "Hare"), paths[8]: "Hart"})
    season.turn()
    config = season.work / "config.toml"
    text = config.read_text(encoding="utf-8").replace("names = []", 'names = ["Hart"]', 1)
    config.write_text(text, encoding="utf-8")
    season.turn()
    assert season.labels_csv()[paths[8]] == "Hart"


def test_a_rare_species_becomes_a_class_though_each_file_names_it_once(new_season: Callable[..., Season]) -> None:
    season = new_season(classes__auto_add=True, classes__auto_add_min=3, query__batch=4, **FROZEN)
    season.turn()
    rare = []
    for name in ("1.csv", "2.csv", "3.csv"):
        first, *others = season.asked()
        rare.append(first)
        season.drop(name, {first: "lynx", **dict.fromkeys(others, "fox")})
        season.turn()
    assert [season.labels_csv()[path] for path in rare] == ["lynx"] * 3
    assert all("waited for a new name" in report(season, name) for name in ("1.csv", "2.csv"))


@pytest.mark.slow
def test_what_the_labels_say_of_a_training_stands_in_the_manifest_and_in_the_status(
    new_season: Callable[..., Season],
) -> None:
    season = new_season(folders=(), query__batch=30, train__min_labels=30, finetune__epochs=0)
    season.turn()
    truth = {"/".join(filter(None, key)): species for key, species in season.truth.items()}
    season.drop("1.csv", {path: truth[path] for path in season.asked()})
    work = Work.open(season.work)
    try:
        for name in ("TRAIN", "EMBED_NEXT"):
            jobs.run_job(work.folder, work.config, name, lambda progress: None)
        assert (first := work.learner()) is not None and "training" not in first.manifest, "nothing was before it"
    finally:
        work.close()
    season.run()
    work = Work.open(season.work)
    try:
        learner = work.learner()
        assert learner is not None and learner.number == 2
        assert learner.manifest["training"]["n_judged"] == 30
        assert learner.manifest["training"]["helped"] in ("yes", "no", "unclear")
    finally:
        work.close()
    assert "The last training of the network" in status(season) and "cross-validated on 30 labels" in status(season)
