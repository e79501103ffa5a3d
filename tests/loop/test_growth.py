"""New data and classes in mid-run, small beginnings, odd pictures, and what a person does differently."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from season import draw

from camera_trap_al.catalog import sightings
from camera_trap_al.core.records import ImageKey
from camera_trap_al.errors import JournalDamagedError, UsageError
from camera_trap_al.loop import Loop, is_idle
from camera_trap_al.store import generations
from camera_trap_al.store.journal import read_journal
from camera_trap_al.work import Work

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_torch")]


def lines(season: Any, kind: str) -> list[dict[str, Any]]:
    return [line for line in read_journal(season.work / "data" / "journal.jsonl")[0] if line["kind"] == kind]


def answer(season: Any, name: str, rows: list[tuple[ImageKey, str]]) -> None:
    with (season.work / "new_labels_bin" / name).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["RootFolder", "File", "RelativePath", "Species"])
        writer.writerows([["pool", key.file, key.relative_path.replace("/", "\\"), species] for key, species in rows])


def receipt(season: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (season.work / "new_labels_bin" / f"{name}.receipt.json").read_text(encoding="utf-8")
    )
    return found


def selected(season: Any) -> list[str]:
    with (season.work / "timelapse_selector.csv").open(encoding="utf-8", newline="") as file:
        return [row["File"] for row in csv.DictReader(file) if row["Selected"] == "true"]


def test_without_any_training_folder_or_class_it_learns_what_is_typed(new_season: Callable[..., Any]) -> None:
    season = new_season(folders=())
    (request,) = season.run()
    answer(season, "1.csv", [(key, f"{season.truth[key]} ё") for key in request])
    assert len(season.run()) == 2
    assert generations.newest(season.work / "checkpoints") is not None
    assert {r[2] for line in lines(season, "labels") for r in line["rows"]} <= {"red ё", "green ё", "blue ё"}
    assert lines(season, "labels")[0]["new_classes"]


def test_images_and_classes_that_come_later_join(new_season: Callable[..., Any]) -> None:
    season = new_season(daemon__rescan_s=1.0)
    season.run()
    rng = np.random.default_rng(9)
    draw(season.root / "train" / "violet" / "1.jpg", 0.8, rng)
    draw(season.root / "pool" / "new site" / "late.JPG", 0.8, rng)
    import time

    time.sleep(1.1)
    (request, *_) = season.run()
    answer(season, "1.csv", [(key, season.truth[key]) for key in request])
    season.run()
    checkpoint = generations.newest(season.work / "checkpoints")
    assert checkpoint is not None and checkpoint.manifest["classes"] == ["blue", "green", "red", "violet"]
    assert "late.JPG" in (season.work / "data" / "labels.csv").read_text(encoding="utf-8")


def test_one_labelled_image_a_class_is_enough_to_begin(new_season: Callable[..., Any]) -> None:
    season = new_season()
    for path in (season.root / "train").glob("*/1.jpg"):
        path.unlink()
    season.run()
    checkpoint = generations.newest(season.work / "checkpoints")
    assert checkpoint is not None and checkpoint.manifest["n_labels"] == 3


def test_a_partial_answer_is_taken_and_the_rest_stays_awaited(new_season: Callable[..., Any]) -> None:
    season = new_season()
    (request,) = season.run()
    answer(season, "part.csv", [(key, season.truth[key]) for key in request[:4]] + [(request[4], "unicorn")])
    assert len(season.run()) == 1, "four of nine do not close the round"
    assert receipt(season, "part.csv")["verdict"] == "partial" and receipt(season, "part.csv")["requested_left"] == 5
    report = (season.work / "new_labels_bin" / "part.csv.report.txt").read_text(encoding="utf-8-sig")
    assert "unknown_species" in report and "unicorn" in report
    answer(season, "rest.csv", [(key, season.truth[key]) for key in request[4:]])
    assert len(season.run()) == 2


def test_a_correction_counts_and_the_file_is_answered_once(new_season: Callable[..., Any]) -> None:
    season = new_season()
    (request,) = season.run()
    answer(season, "1.csv", [(key, season.truth[key]) for key in request])
    season.run()
    wrong = next(name for name in ("red", "green", "blue") if name != season.truth[request[0]])
    answer(season, "2.csv", [(request[0], wrong)])
    season.run()
    season.run()
    assert [line["name"] for line in lines(season, "labels")] == ["1.csv", "2.csv"]
    assert receipt(season, "2.csv")["accepted"][0]["was"] == season.truth[request[0]]
    rows = (season.work / "data" / "labels.csv").read_text(encoding="utf-8").splitlines()
    assert f"{request[0].path},{wrong}" in rows


def test_broken_pictures_are_listed_and_never_asked_for(new_season: Callable[..., Any]) -> None:
    season = new_season()
    for i in range(0, 20, 2):
        (season.root / "pool" / "site a" / f"IMG_{i:04d}.JPG").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    (season.root / "train" / "red" / "0.jpg").write_bytes(b"")
    (request,) = season.run()
    assert not [key for key in request if key.relative_path == "site a" and int(key.file[4:8]) % 2 == 0]
    listed = (season.work / "data" / "quarantine.csv").read_text(encoding="utf-8")
    assert listed.count("site a") == 10 and "red/0.jpg" in listed and generations.newest(season.work / "checkpoints")


def test_an_image_of_the_request_that_vanishes_is_skipped(
    new_season: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sightings, "MISSING_AFTER_S", 0.0)
    season = new_season(daemon__rescan_s=1.0)
    (request,) = season.run()
    (season.root / "pool" / request[0].path).unlink()
    for _ in range(3):
        season.run()
    assert [line["skips"][0][2] for line in lines(season, "skip")] == ["missing"]


def test_a_labelled_image_with_other_content_is_embedded_again_and_listed(new_season: Callable[..., Any]) -> None:
    season = new_season(finetune__epochs=0, train__epochs=0)
    (request,) = season.run()
    answer(season, "1.csv", [(key, season.truth[key]) for key in request])
    season.run()
    path = season.root / "pool" / request[0].path
    draw(path, 0.5, np.random.default_rng(4))
    path.write_bytes(path.read_bytes() + b"of another size")
    for other in (season.root / "pool" / "site b").iterdir():
        os.utime(other, (2_000_000_000, 2_000_000_000))
    n_rows = sum(len(np.load(p)) for p in (season.work / "embedding").rglob("*.npy"))
    season.run()
    assert sum(len(np.load(p)) for p in (season.work / "embedding").rglob("*.npy")) == n_rows + 1
    listed = (season.work / "data" / "altered.csv").read_text(encoding="utf-8-sig").splitlines()
    assert listed[0] == "path,label,since" and len(listed) == 2
    assert listed[1].startswith(f"{request[0].path},{season.truth[request[0]]},")
    checkpoint = generations.newest(season.work / "checkpoints")
    assert checkpoint is not None and checkpoint.manifest["n_labels"] == 6 + len(request), "the label stays"


def test_without_any_image_it_waits_for_some_and_says_so(new_season: Callable[..., Any]) -> None:
    season = new_season(daemon__rescan_s=1.0)
    (season.root / "pool").rename(season.root / "later")
    (season.root / "pool").mkdir()
    assert season.run() == []
    told = json.loads((season.work / "data" / "label_request.json").read_text(encoding="utf-8"))
    assert "Waiting for images" in told["why"] and generations.newest(season.work / "models") is None
    (season.root / "pool").rmdir()
    (season.root / "later").rename(season.root / "pool")
    assert len(season.run()) == 1


def test_the_pool_is_used_up_to_the_last_image_and_then_nothing_is_selected(new_season: Callable[..., Any]) -> None:
    season = new_season(query__batch=31)
    for n in (1, 2):
        request = season.run()[-1]
        answer(season, f"{n}.csv", [(key, season.truth[key]) for key in request])
    season.run()
    assert selected(season) == []
    told = json.loads((season.work / "data" / "label_request.json").read_text(encoding="utf-8"))
    assert told["round"] == "finished" and "No image is left" in told["why"]


def test_the_budget_ends_the_asking(new_season: Callable[..., Any]) -> None:
    season = new_season(query__budget=12)
    for n in (1, 2):
        request = season.run()[-1]
        answer(season, f"{n}.csv", [(key, season.truth[key]) for key in request])
    assert [len(r) for r in season.run()] == [9, 3] and selected(season) == []


def test_what_was_trained_with_other_settings_stays_and_the_new_ones_are_named(
    new_season: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    season = new_season(train__epochs=0)
    season.run()
    path = season.work / "config.toml"
    path.write_text(path.read_text(encoding="utf-8").replace("feat_dim = 8", "feat_dim = 16"), encoding="utf-8")
    season.run()
    assert "feat_dim" in caplog.text and "is not used" in caplog.text


@pytest.mark.parametrize(
    "lost", ["data/catalog.sqlite", "models", "embedding", "checkpoints", "timelapse_selector.csv"]
)
def test_everything_but_the_journal_can_be_made_anew(new_season: Callable[..., Any], lost: str) -> None:
    season = new_season()
    (request,) = season.run()
    answer(season, "1.csv", [(key, season.truth[key]) for key in request[:5]])
    season.run()
    target = season.work / lost
    if target.is_dir():
        shutil.rmtree(target)
        target.mkdir()
    else:
        target.write_bytes(b"damaged")
    assert season.run() == [request]
    assert generations.newest(season.work / "checkpoints") is not None
    assert sorted(selected(season)) == sorted(key.file for key in request)


def test_the_image_folder_is_never_written_to(new_season: Callable[..., Any]) -> None:
    season = new_season()

    def look(folder: Path) -> list[tuple[str, bytes]]:
        return sorted((str(p), p.read_bytes()) for p in folder.rglob("*") if p.is_file())

    before = look(season.root / "pool"), look(season.root / "train")
    (request,) = season.run()
    answer(season, "1.csv", [(key, season.truth[key]) for key in request])
    bin_before = look(season.work / "new_labels_bin")
    season.run()
    assert (look(season.root / "pool"), look(season.root / "train")) == before
    assert set(bin_before) <= set(look(season.work / "new_labels_bin"))


def test_options_of_label_files_have_their_effect(new_season: Callable[..., Any]) -> None:
    season = new_season(labels__column="Animal", labels__unrequested="accept", labels__skip_words=["keine Ahnung"])
    (request,) = season.run()
    other = next(ImageKey(*key) for key in sorted(season.truth) if ImageKey(*key) not in request)
    with (season.work / "new_labels_bin" / "1.csv").open("w", encoding="utf-8", newline="") as file:
        rows = [(key, season.truth[key]) for key in request[1:]] + [(request[0], "Keine Ahnung"), (other, "red")]
        csv.writer(file).writerows(
            [["File", "RelativePath", "Animal"], *([k.file, k.relative_path, s] for k, s in rows)]
        )
    assert len(season.run()) == 2
    (line,) = lines(season, "labels")
    assert (*other, "red", "oracle") in line["rows"] and line["skips"] == [[*request[0], "cannot_tell"]]


def test_options_of_requests_have_their_effect(new_season: Callable[..., Any]) -> None:
    season = new_season(query__strategy="uniform", query__first="wait", query__min_answered=0.4)
    (request,) = season.run()
    assert lines(season, "request")[0]["checkpoint"] == 1, (
        "with first = wait a classifier is there before the first request"
    )
    answer(season, "1.csv", [(key, season.truth[key]) for key in request[:4]])
    season.run()
    assert [line["strategy"] for line in lines(season, "request")] == ["uniform", "uniform"]


def test_private_files_can_live_elsewhere(new_season: Callable[..., Any], tmp_path: Path) -> None:
    season = new_season(daemon__state_dir=str(tmp_path / "local"))
    work = Work.open(season.work)
    try:
        Loop(work).run(until=is_idle)
    finally:
        work.close()
    assert (tmp_path / "local" / "data" / "journal.jsonl").is_file() and not (season.work / "models").exists()
    assert (season.work / "timelapse_selector.csv").is_file() and (season.work / "export" / "model.onnx").is_file()


def test_an_older_journal_put_back_gets_its_labels_again_from_the_files_in_the_bin(
    new_season: Callable[..., Any],
) -> None:
    season = new_season()
    (request,) = season.run()
    older = (season.work / "data" / "journal.jsonl").read_bytes()
    answer(season, "1.csv", [(key, season.truth[key]) for key in request])
    season.run()
    (season.work / "data" / "journal.jsonl").write_bytes(older)
    assert season.run()[0] == request
    assert [line["name"] for line in lines(season, "labels")] == ["1.csv"]


def test_a_journal_that_is_gone_stops_the_program_and_nothing_is_changed(new_season: Callable[..., Any]) -> None:
    season = new_season()
    season.run()
    journal = season.work / "data" / "journal.jsonl"
    for content in (None, b"", b"garbage\n" * 9):
        journal.unlink(missing_ok=True)
        if content is not None:
            journal.write_bytes(content)
        with pytest.raises(JournalDamagedError, match="Restore (it|the file) from a backup"):
            season.run()
        assert not journal.exists() if content is None else journal.read_bytes() == content


def test_an_earlier_version_of_a_file_put_back_is_answered_once(new_season: Callable[..., Any]) -> None:
    season = new_season()
    (request,) = season.run()
    path = season.work / "new_labels_bin" / "week.csv"
    answer(season, "week.csv", [(key, season.truth[key]) for key in request[:3]])
    os.utime(path, (1_700_000_000, 1_700_000_000))
    first = path.read_bytes()
    season.run()
    answer(season, "week.csv", [(key, season.truth[key]) for key in request[:6]])
    season.run()
    path.write_bytes(first)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    season.run()
    assert len(lines(season, "labels")) == 2 and receipt(season, "week.csv")["seq"] == lines(season, "labels")[0]["seq"]


def test_with_the_models_removed_nothing_of_the_old_network_is_used(new_season: Callable[..., Any]) -> None:
    season = new_season()
    season.run()
    shutil.rmtree(season.work / "models")
    config = season.work / "config.toml"
    config.write_text(config.read_text(encoding="utf-8").replace("feat_dim = 8", "feat_dim = 12"), encoding="utf-8")
    season.run()
    checkpoint = generations.newest(season.work / "checkpoints")
    assert checkpoint is not None
    model = generations.folder_of(season.work / "models", checkpoint.manifest["learner"])
    assert json.loads((model / "model.json").read_text(encoding="utf-8"))["settings"]["feat_dim"] == 12
    assert json.loads((season.work / "export" / "check.json").read_text(encoding="utf-8"))["ok"]


def test_other_pictures_under_the_same_names_are_refused(new_season: Callable[..., Any]) -> None:
    season = new_season()
    season.run()
    for path in (season.root / "pool").rglob("*.JPG"):
        target = season.root / "next season" / path.relative_to(season.root / "pool")
        draw(target, 0.5, np.random.default_rng(len(path.name)))
        target.write_bytes(target.read_bytes() + b"of another size")
    config = season.work / "config.toml"
    text = config.read_text(encoding="utf-8").replace(str(season.root / "pool"), str(season.root / "next season"))
    config.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="holds other pictures"):
        season.run()


def test_names_of_later_class_folders_are_checked_too(new_season: Callable[..., Any]) -> None:
    season = new_season()
    season.run()
    for name in ("Red", "unlabelled"):
        draw(season.root / "train" / name / "1.jpg", 0.0, np.random.default_rng(3))
    season.run()
    assert {n for line in lines(season, "classes") for n in line["names"]} == {"red", "green", "blue"}
