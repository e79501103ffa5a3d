"""Many replays: each is durable, a second call makes those that are missing, and what they come to is written whole."""

from __future__ import annotations

import csv
import json
import multiprocessing
from pathlib import Path

import pytest
from made_season import made_season

from camera_trap_al import replays as module
from camera_trap_al.comparison import Replays, lines_of, write_comparison
from camera_trap_al.replay import Method, Rules, default_method
from camera_trap_al.replays import Plan, make_all, mark_of, plans_for, read_points

RULES = Rules(10, 30)
METHODS = [
    default_method(),
    Method("margin+logistic", "margin", "logistic"),
    Method("uniform+logistic", "uniform", "logistic"),
]
QUICK = METHODS[1:]


@pytest.fixture
def season(tmp_path: Path) -> Path:
    folder = tmp_path / "season"
    folder.mkdir()
    made_season(n_pool=40).save(folder)
    return folder


def plans(seeds: int = 2, rules: Rules = RULES) -> list[Plan]:
    return plans_for(QUICK, seeds, recipe_seeds=1, full_seeds=1, rules=rules)


def test_a_second_call_makes_what_is_missing_and_nothing_else(
    season: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, runs = [], tmp_path / "runs"
    real = module.make_one

    def make_one(of: Path, to: Path, plan: Plan, mark: str) -> None:
        made.append(plan.file)
        real(of, to, plan, mark)

    monkeypatch.setattr(module, "make_one", make_one)
    make_all(season, runs, plans(1), processes=1)
    assert sorted(made) == sorted(path.name for path in runs.iterdir())
    before = {path.name: path.read_bytes() for path in runs.iterdir()}
    made.clear()
    seen: list[tuple[int, int]] = []
    make_all(season, runs, plans(2), processes=1, on_progress=lambda done, total: seen.append((done, total)))
    assert made == ["margin+logistic 001.json", "uniform+logistic 001.json"]
    assert seen == [(3, 5), (4, 5), (5, 5)]
    assert all((runs / name).read_bytes() == content for name, content in before.items())


def test_a_file_that_was_cut_short_is_made_again(season: Path, tmp_path: Path) -> None:
    runs, plan = tmp_path / "runs", plans(1)[1]
    make_all(season, runs, [plan], processes=1)
    whole = (runs / plan.file).read_bytes()
    (runs / plan.file).write_bytes(whole[:100])
    make_all(season, runs, [plan], processes=1)
    assert (runs / plan.file).read_bytes() == whole


def test_replays_of_another_season_or_another_batch_do_not_count_and_of_a_larger_budget_they_do(
    season: Path, tmp_path: Path
) -> None:
    runs, (plan,) = tmp_path / "runs", [plan for plan in plans(1) if plan.method == QUICK[0] and not plan.is_full]
    mark = mark_of(season)
    make_all(season, runs, [plan], processes=1)
    smaller = Plan(plan.method, 0, Rules(10, 20))
    assert [point["asked"] for point in read_points(runs, smaller, mark) or []] == [0, 10, 20]
    assert read_points(runs, Plan(plan.method, 0, Rules(10, 40)), mark) is None
    assert read_points(runs, Plan(plan.method, 0, Rules(5, 20)), mark) is None
    assert read_points(runs, plan, "another") is None


def test_a_method_that_is_called_like_its_head_is_told_of_once(season: Path, tmp_path: Path) -> None:
    method = Method("logistic", "margin", "logistic")
    chosen = plans_for([method], 1, recipe_seeds=1, full_seeds=1, rules=RULES)
    make_all(season, tmp_path / "runs", chosen, processes=1)
    replays = Replays.read(tmp_path / "runs", chosen, mark_of(season), "logistic")
    assert replays.methods == (method,)
    write_comparison(tmp_path, replays, {})
    with (tmp_path / "curves.csv").open(encoding="utf-8", newline="") as file:
        assert [(row["strategy"], row["asked"]) for row in csv.DictReader(file)] == [
            ("margin", f"{asked}") for asked in (0, 10, 20, 30)
        ]


@pytest.mark.slow
def test_replays_that_are_told_to_end_are_ended_amid_what_they_do(tmp_path: Path) -> None:
    (folder := tmp_path / "season").mkdir()
    made_season(n_pool=4000).save(folder)
    short, long = Rules(10, 10), Rules(1, 3000)
    chosen = [Plan(QUICK[0], seed, short if seed == 0 else long) for seed in range(3)]

    def end(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_all(folder, tmp_path / "runs", chosen, processes=2, on_progress=end)
    for child in multiprocessing.active_children():
        child.join()
    assert [path.name for path in (tmp_path / "runs").iterdir() if path.suffix == ".json"] == [chosen[0].file]


@pytest.mark.slow
def test_replays_in_processes_are_those_made_in_this_one(season: Path, tmp_path: Path) -> None:
    for name, processes in (("here", 1), ("beside", 2)):
        make_all(season, tmp_path / name, plans(2), processes=processes)
    here = {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()}
    assert here == {path.name: path.read_bytes() for path in (tmp_path / "beside").iterdir()}


@pytest.mark.slow
def test_the_files_that_people_read_say_what_the_replays_came_to(season: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    make_all(season, runs, plans(2), processes=1)
    replays = Replays.read(runs, plans(2), mark_of(season), "margin+logistic")
    said = write_comparison(tmp_path, replays, {"note": "of a test"})
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8")) == said
    assert said["note"] == "of a test" and said["default"] == "margin+logistic"
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "curves.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["method"], row["seed"], row["asked"]) for row in rows} == {
        (method.name, f"{seed}", f"{asked}") for method in QUICK for seed in range(2) for asked in (0, 10, 20, 30)
    }
    mean = (
        sum(float(row["accuracy"]) for row in rows if row["method"] == "margin+logistic" and row["asked"] == "30") / 2
    )
    assert said["methods"]["margin+logistic"]["accuracy"]["mean"][-1] == pytest.approx(mean, abs=1e-4)
    assert set(said["saving_against_uniform"]) == {"accuracy", "macro_f1"} and "saving_against_seed" not in said
    assert any("margin+logistic" in line for line in lines_of(said))
