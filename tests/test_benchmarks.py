"""The benchmark program: its table, its JSON, what counts as a MISS, and that each row runs."""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import __main__ as program
from benchmarks.children import (
    PLACES,
    ROOT,
    WHOLE_RUN_MINUTES,
    Place,
    Result,
    in_order,
    minutes_for,
    run_here,
    run_in_child,
)
from benchmarks.figures import Figure, Run, rows
from benchmarks.table import as_figure, as_json, read_earlier, summary, table, times_better

ROWS = [f"S{i}" for i in range(1, 15)]
GOOD = Figure("turnaround", 3.2, "s", most=5.0, note="pool 100,000", reference=190.0)
SLOW = Figure("first pass", 20.0, "images/s", least=25.0)


@pytest.fixture
def results() -> list[Result]:
    return [Result("S4", [GOOD], 10.0), Result("S1", [SLOW, Figure("limit", 30.0, "images/s")], 20.0)]


@pytest.fixture
def broken_row(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    def fails(run: Run) -> Iterator[Figure]:
        yield GOOD
        raise RuntimeError("the disk is full")

    monkeypatch.setitem(rows._things, "S0", fails)
    monkeypatch.setitem(PLACES, "S0", Place("figures", 1.0))
    yield "S0"


def test_every_row_is_there_and_they_fit_into_45_minutes() -> None:
    for place in PLACES.values():
        importlib.import_module(f"benchmarks.{place.module}")
    assert in_order(rows.names()) == in_order(PLACES) == ROWS
    assert sum(place.minutes for place in PLACES.values()) <= WHOLE_RUN_MINUTES == 45


def test_a_row_may_take_what_the_others_can_spare() -> None:
    others = sum(place.minutes for row, place in PLACES.items() if row != "S1")
    assert minutes_for(ROWS, spent=0.0) == 45 - others >= PLACES["S1"].minutes
    assert minutes_for(["S4"], spent=0.0) == 45
    assert minutes_for(["S4", "S5"], spent=10.0) == 35 - PLACES["S5"].minutes
    assert minutes_for(["S13", "S14"], spent=44.0) == 1


@pytest.mark.parametrize(
    ("figure", "missed"),
    [
        (Figure("a", 5.0, "s", most=5.0), False),
        (Figure("a", 5.1, "s", most=5.0), True),
        (Figure("a", 0.8, "", least=0.9), True),
        (Figure("a", math.nan, "s", most=5.0), True),
        (Figure("a", math.nan, "s", least=5.0), True),
        (Figure("a", math.nan, "s"), False),
        (Figure("a", 3.0, "s", most=5.0, least=4.0), True),
    ],
)
def test_a_figure_that_falls_short_of_its_target_is_missed(figure: Figure, missed: bool) -> None:
    assert figure.is_missed is missed


def test_the_table_says_miss_beside_what_falls_short_and_nowhere_else(results: list[Result]) -> None:
    header, first, note, second, third = table(results).splitlines()
    assert header.split() == ["row", "what", "measured", "target", "reference", "ratio"]
    assert first.split() == ["S4", "turnaround", "3.20", "s", "≤", "5.00", "s", "190", "s", "59.4×"]
    assert note.strip() == "pool 100,000"
    assert second.split()[-1] == "MISS" and "≥ 25.0 images/s" in second
    assert "MISS" not in first + third


def test_the_table_compares_with_an_earlier_run_by_ratio(results: list[Result]) -> None:
    lines = table(results, {("S4", "turnaround"): 6.4, ("S4", "limit"): 1.0}).splitlines()
    assert lines[0].split()[-2:] == ["earlier", "now/earlier"]
    assert lines[1].split()[-3:] == ["6.40", "s", "0.500"]
    assert lines[-1].split() == ["S1", "limit", "30.0", "images/s"]


@pytest.mark.parametrize(
    ("figure", "better"),
    [
        (Figure("a", 2.0, "s", reference=10.0), 5.0),
        (Figure("a", 10.0, "images/s", reference=2.0), 5.0),
        (Figure("a", 10.0, "%", least=3.0, reference=2.0), 5.0),
        (Figure("a", 10.0, "s"), None),
    ],
)
def test_how_many_times_better_than_the_plain_reference(figure: Figure, better: float | None) -> None:
    assert times_better(figure) == better


def test_the_summary_counts_figures_and_names_the_rows_that_fall_short(results: list[Result]) -> None:
    assert summary(results, 2280) == "3 figures, 1 reach their target, 1 MISS: S1; 38 min"
    assert summary(results[:1], 12) == "1 figures, 1 reach their target, 0 MISS; 12 s"
    ended = [Result("S5", [], 3.0, "It was interrupted."), Result("S13", [], 3.0)]
    assert summary([*results, *ended], 60).endswith("3 MISS: S1, S5, S13; 60 s")


def test_a_row_that_ends_with_an_error_is_a_miss_that_says_why() -> None:
    text = table([Result("S4", [GOOD], 1.0, "OSError: disk full"), Result("S5", [], 1.0)])
    assert [line.split()[-1] for line in text.splitlines() if "whole row" in line] == ["MISS", "MISS"]
    assert "OSError: disk full" in text and "It gave no figure." in text


def test_json_holds_all_and_is_read_as_the_earlier_run(tmp_path: Path, results: list[Result]) -> None:
    results.append(Result("S9", [Figure("none", math.nan, "s", most=1.0)], 1.0, "an error", {"torch": 2}))
    stored = tmp_path / "stored.json"
    stored.write_text(as_json(results, {"commit": "abc", "machine": {"cores": 2}}), encoding="utf-8")
    read = json.loads(stored.read_text(encoding="utf-8"))
    assert (read["commit"], read["machine"]) == ("abc", {"cores": 2})
    assert read["rows"]["S9"]["error"] == "an error" and read["rows"]["S9"]["threads"] == {"torch": 2}
    assert read["rows"]["S9"]["figures"][0]["value"] is None and read["rows"]["S9"]["figures"][0]["missed"]
    assert as_figure(read["rows"]["S4"]["figures"][0]) == GOOD
    assert read_earlier(stored) == {("S4", "turnaround"): 3.2, ("S1", "first pass"): 20.0, ("S1", "limit"): 30.0}


def test_a_file_that_is_no_earlier_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ValueError, match="no table"):
        read_earlier(tmp_path / "a.json")


def test_a_row_that_raises_keeps_the_figures_that_it_had(tmp_path: Path, broken_row: str) -> None:
    assert run_here(broken_row, Run(tmp_path), tmp_path / "written") == 0
    written = [json.loads(line) for line in (tmp_path / "written").read_text(encoding="utf-8").splitlines()]
    assert as_figure(written[0]) == GOOD
    assert written[1] == {"error": "RuntimeError: the disk is full"}


@pytest.mark.slow
def test_a_child_that_ends_without_a_word_and_one_that_takes_too_long_are_misses(tmp_path: Path) -> None:
    (tmp_path / "S0").mkdir()
    unknown = run_in_child("S99", Run(tmp_path / "S0", tiny=True), minutes=1)
    assert "KeyError" in unknown.error and unknown.n_missed == 1
    slow = run_in_child("S12", Run(tmp_path / "S0", tiny=True), minutes=0.0001)
    assert "share of the time" in slow.error


def test_the_program_goes_on_after_a_miss_removes_its_folders_and_writes_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stand_in(row: str, run: Run, *, minutes: float | None) -> Result:
        (run.folder / "big").write_text("big", encoding="utf-8")
        return Result(row, [], 1.0, "OSError: gone") if row == "S2" else Result(row, [GOOD], 1.0)

    monkeypatch.setattr(program, "run_in_child", stand_in)
    out = tmp_path / "now.json"
    assert program.main(["--rows", "S10,S2", "--json", str(out), "--folder", str(tmp_path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].startswith("2 figures, 1 reach their target, 1 MISS: S2;")
    assert [line.split()[0] for line in printed if line.startswith("S")] == ["S2", "S10"]
    assert set(json.loads(out.read_text(encoding="utf-8"))["rows"]) == {"S2", "S10"}
    assert [path.name for path in tmp_path.iterdir()] == ["now.json"]


def test_an_interruption_prints_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stand_in(row: str, run: Run, *, minutes: float | None) -> Result:
        if row == "S2":
            return Result(row, [], 1.0, "It was interrupted.")
        return Result(row, [GOOD], 1.0)

    monkeypatch.setattr(program, "run_in_child", stand_in)
    assert program.main(["--rows", "S1,S2,S3", "--folder", str(tmp_path)]) == 130
    printed = capsys.readouterr().out
    assert "S1 " in printed and "It was interrupted." in printed and "\nS3" not in printed
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_row_is_said_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--rows", "S77"]) == 2
    assert "S77" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_each_row_still_runs(row: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--rows", row, "--tiny", "--folder", str(tmp_path)]
    out = tmp_path / "out.json"
    subprocess.run([*command, "--json", str(out)], cwd=ROOT, check=True, timeout=600)
    result = json.loads(out.read_text(encoding="utf-8"))["rows"][row]
    assert result["error"] == "" and result["figures"]
    assert all(figure["value"] is not None for figure in result["figures"])
    texts = [figure["text"] for figure in result["figures"]]
    assert len(set(texts)) == len(texts), "an earlier run's figures are told apart by their texts"
