"""Seasons of bursts: one request holds one image of each; what times are worth; the random share; labels that spread."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from security.small_world import COLOURS, OPTIONS, answer, run

from camera_trap_al.core.records import ImageKey, Request
from camera_trap_al.facts import fit_rows
from camera_trap_al.propagation import propagated
from camera_trap_al.sequences import sequences_of
from camera_trap_al.store.journal import read_journal
from camera_trap_al.work import Work
from camera_trap_al_service.init import init

pytestmark = pytest.mark.usefixtures("no_torch")
NOON_S = 43_200
Burst = tuple[str, str, int, int]
"""Folder, colour, images, second of the first."""


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("camera_trap_al.learn.evaluate.confusion_figure", lambda *given: b"figure")
    monkeypatch.setattr("camera_trap_al.learn.evaluate.curve_figure", lambda *given: b"figure")


def draw(path: Path, colour: str, shade: int, second: int | None = None) -> None:
    exif = Image.Exif()
    if second is not None:
        clock = f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
        exif.get_ifd(0x8769)[0x9003] = f"2026:11:22 {clock}"
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(shade).normal(COLOURS[colour], 25, (12, 16, 3)).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path, exif=exif, quality=95)


def season(root: Path, bursts: Sequence[Burst], **options: Any) -> Path:
    """Draw bursts, numbered on without a gap; return the work folder."""
    number, shade = Counter[str](), 0
    for folder, colour, n, second in bursts:
        for i in range(n):
            number[folder] += 1
            shade += 1
            name = f"IMG_{number[folder]:04d}_{colour}.jpg"
            draw(root / "pool" / folder / name, colour, shade, second + i)
    for i, colour in enumerate(COLOURS):
        draw(root / "train" / colour / "1.jpg", colour, 1000 + i)
        draw(root / "train" / colour / "2.jpg", colour, 1010 + i)
    given = {"data.unlabelled": str(root / "pool"), "data.train": str(root / "train")}
    init(root / "work", given, {**OPTIONS, **{key.replace("__", "."): value for key, value in options.items()}})
    return root / "work"


def play(work: Path, rounds: int) -> list[Request]:
    run(work)
    for number in range(rounds - 1):
        answer(work, f"round {number}.csv")
        run(work)
    with closing(Work.open(work)) as opened:
        return list(opened.history.requests)


def burst_of(key: ImageKey, n: int = 4) -> tuple[str, int]:
    return key.relative_path, (int(key.file[4:8]) - 1) // n


def colours() -> Iterator[str]:
    while True:
        yield from COLOURS


def twelve_bursts() -> list[Burst]:
    seconds = [NOON_S + 300 * i for i in range(6)]
    return [(site, c, 4, s) for site in ("a", "b") for c, s in zip(colours(), seconds, strict=False)]


@pytest.mark.slow
def test_a_request_holds_one_image_of_each_burst_and_more_only_when_there_is_no_other(tmp_path: Path) -> None:
    requests = play(season(tmp_path, twelve_bursts(), query__batch=6), 5)
    for request in requests:
        assert max(Counter(map(burst_of, request.keys)).values()) == 1 and len(request.keys) == 6
    larger = tmp_path / "larger"
    (request,) = play(season(larger, twelve_bursts(), query__batch=24), 1)
    assert set(Counter(map(burst_of, request.keys)).values()) == {2}, "there are twelve bursts"


@pytest.mark.slow
@pytest.mark.parametrize("first", ["now", "embedded"])
def test_numbers_far_beyond_the_season_ask_for_all_of_it(tmp_path: Path, first: str) -> None:
    options = {"query__batch": 10**20, "query__per_sequence": 10**20, "query__first": first}
    (request,) = play(season(tmp_path, twelve_bursts()[:2], **options), 1)
    assert len(request.keys) == 8


@pytest.mark.slow
def test_without_a_cap_the_strategy_has_its_way(tmp_path: Path) -> None:
    requests = play(
        season(
            tmp_path,
            twelve_bursts(),
            query__batch=12,
            query__strategy="margin",
            query__per_sequence=0,
            query__random_share=0.0,
        ),
        3,
    )
    counts = [max(Counter(map(burst_of, request.keys)).values()) for request in requests]
    assert max(counts) > 1 and [request.strategy for request in requests][1:] == ["margin"] * 2
    assert not any(request.random for request in requests[1:])


@pytest.mark.slow
def test_a_giant_burst_neither_fills_a_request_nor_keeps_one_from_being_filled(tmp_path: Path) -> None:
    others = [("b", colour, 2, NOON_S + 200 * i) for i, colour in zip(range(5), colours(), strict=False)]
    requests = play(season(tmp_path, [("a", "red", 40, NOON_S), *others], query__batch=8), 3)
    of_giant = [sum(key.relative_path == "a" for key in request.keys) for request in requests]
    assert [len(request.keys) for request in requests] == [8, 8, 8]
    assert max(of_giant[:2]) <= 4 and of_giant[2] == 8, "after ten others nothing else is left"


@pytest.mark.slow
def test_times_that_were_copied_are_told_once_and_names_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    work = season(tmp_path, [("a", colour, 20, NOON_S) for colour in COLOURS], query__batch=4)
    for path in (tmp_path / "pool" / "a").iterdir():
        draw(path, path.stem.split("_")[2], int(path.stem[4:8]), NOON_S)
    with caplog.at_level(logging.INFO):
        requests = play(work, 3)
    for request in requests:
        assert max(Counter(burst_of(key, 10) for key in request.keys).values()) == 1, "one of each ten numbers"
    said = [record.getMessage() for record in caplog.records if "looks copied" in record.getMessage()]
    assert len(said) == 3, "once in each life of the program"
    assert said[0].startswith("sequences: 40 images") or "such as those in a/" in said[0]


@pytest.mark.slow
def test_the_random_share_stands_in_the_journal_with_what_was_predicted_before(tmp_path: Path) -> None:
    options = {"query__batch": 6, "query__random_share": 0.5, "query__first": "now"}
    work = season(tmp_path, twelve_bursts(), **options)
    requests = play(work, 3)
    lines = [line for line in read_journal(work / "data" / "journal.jsonl")[0] if line["kind"] == "request"]
    assert [line["random"] for line in lines] == [list(range(6)), [0, 1, 2], [0, 1, 2]]
    for line, request in zip(lines, requests, strict=True):
        assert request.random == {ImageKey(*line["keys"][place]) for place in line["random"]}
    assert requests[0].strategy == "uniform" and requests[0].predictions == {}
    assert all(key in request.predictions for request in requests[1:] for key in request.random)


@pytest.mark.slow
def test_near_copies_in_other_folders_are_not_asked_for_together(tmp_path: Path) -> None:
    root, options = tmp_path / "s", {"query__batch": 8, "query__random_share": 0.0}
    bursts = [(f"site {i}", colour, 1, NOON_S) for colour, i in zip(colours(), range(30), strict=False)]
    work = season(root, bursts, **options)
    copied = (root / "pool" / "site 7").glob("*.jpg")
    data = next(copied).read_bytes()
    for i in range(20):
        (root / "pool" / f"copy {i}").mkdir()
        (root / "pool" / f"copy {i}" / "IMG_0001_green.jpg").write_bytes(data)
    for request in play(work, 3):
        assert len(request.keys) == 8
        assert sum(key.relative_path.startswith("copy") or key.relative_path == "site 7" for key in request.keys) <= 1


@pytest.mark.slow
def test_labels_spread_along_bursts_for_training_only_and_not_against_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bursts = [*twelve_bursts(), ("c", "red", 3, NOON_S)]
    work = season(tmp_path, bursts, query__batch=8, sequences__propagate=True)
    # The middle of the last burst shows something else.
    draw(tmp_path / "pool" / "c" / "IMG_0002_red.jpg", "green", 99, NOON_S + 1)
    play(work, 3)
    key = ImageKey("c", "IMG_0001_red.jpg")
    with closing(Work.open(work)) as opened:
        checkpoint, learner = opened.checkpoint(), opened.learner()
        assert checkpoint is not None and learner is not None
        assert checkpoint.manifest["n_labels"] == len(opened.history.labels) + 4
        assert checkpoint.manifest["n_propagated"] > 4
        assert {label.provenance for label in opened.history.labels.values()} == {"oracle"}
        found = sequences_of(opened)
        rows, species = fit_rows(opened, learner.number)
        of_key = dict(zip(opened.catalog.keys_of(found.names.rows), found.names.rows.tolist(), strict=True))
        if key not in opened.history.labels:
            rows, species = np.append(rows, of_key[key]), [*species, "red"]
        more, theirs = propagated(opened, learner.number, rows, species)
        said = dict(zip(opened.catalog.keys_of(more), theirs, strict=True))
        assert not set(said) & set(opened.history.labels)
        assert all(colour in image.file for image, colour in said.items())
        odd = ImageKey("c", "IMG_0002_red.jpg")
        assert odd not in said or odd in opened.history.labels, "the model is sure of another class"
        assert ImageKey("c", "IMG_0003_red.jpg") in {**said, **opened.history.labels}
        contrary = [*species[:-1], "green"]
        if key not in opened.history.labels:
            more, _ = propagated(opened, learner.number, rows, contrary)
            assert ImageKey("c", "IMG_0003_red.jpg") not in opened.catalog.keys_of(more)
    shown = json.loads((work / "data" / "label_request.json").read_text(encoding="utf-8"))
    assert not set(shown["images"]) & {f"{k.relative_path}/{k.file}" for k in opened.history.labels}


@pytest.mark.slow
def test_to_let_labels_spread_or_not_makes_another_classifier_at_once(tmp_path: Path) -> None:
    work = season(tmp_path, twelve_bursts(), query__batch=6)
    play(work, 2)
    config = (work / "config.toml").read_text(encoding="utf-8")
    n_propagated = []
    for value in ("false", "true", "true", "false"):
        (work / "config.toml").write_text(config.replace("propagate = false", f"propagate = {value}"), encoding="utf-8")
        run(work)
        with closing(Work.open(work)) as opened:
            checkpoint = opened.checkpoint()
            assert checkpoint is not None
            n_propagated.append((checkpoint.number, checkpoint.manifest["n_propagated"] > 0))
    first = n_propagated[0][0]
    assert n_propagated == [(first, False), (first + 1, True), (first + 1, True), (first + 2, False)]
