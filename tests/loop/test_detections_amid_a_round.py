"""Detections that come while a request is open: people in it are shown no more, and the next one is drawn from all images."""

from __future__ import annotations

import csv
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from season import Season, make_season
from seen_by_detector import ANIMAL, MIDDLE, PERSON, detections, key_of

from camera_trap_al.core.records import ImageKey
from camera_trap_al.work import Work
from camera_trap_al_service.detections import drop_detections, keep_detections

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_torch")]
NUMBER = {key_of(i): i for i in range(60)}


@pytest.fixture
def season(tmp_path: Path, pictures: Path) -> Season:
    options: dict[str, object] = {"train__epochs": 0, "finetune__epochs": 0}
    return make_season(pictures, tmp_path / "season", ("train", "validation"), options)


def give(season: Season, seen: Callable[[int], list[Any] | None]) -> None:
    keep_detections(season.work, detections(season.root / "md.json", seen))


def selected(season: Season) -> set[ImageKey]:
    with (season.work / "timelapse_selector.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["Selected"] == "true"]
    return {ImageKey(row["RelativePath"].replace("\\", "/"), row["File"]) for row in rows}


def test_people_in_an_open_request_are_taken_out_of_the_selector(season: Season) -> None:
    (asked,) = season.run()
    people = set(asked[:3])
    give(season, lambda i: [(PERSON if key_of(i) in people else ANIMAL, 0.9, MIDDLE)])
    assert season.run() == [asked]
    assert selected(season) == set(asked) - people
    assert season.placed() == 1 and set(season.asked()) == {key.path for key in selected(season)}
    season.person()()
    requests = season.run()
    assert len(requests) == 2 and people.isdisjoint(requests[1])


def test_the_next_request_is_drawn_from_all_images_and_not_only_from_those_that_stay_whole(season: Season) -> None:
    (asked,) = season.run()
    give(season, lambda i: [] if i % 4 == 0 else [(ANIMAL, 0.9, MIDDLE)])
    season.person()()
    requests = season.run()
    assert len(requests[1]) == 9
    assert sum(NUMBER[key] % 4 != 0 for key in requests[1]) >= 4


def test_without_detections_again_a_request_is_as_large_as_before(season: Season) -> None:
    give(season, lambda i: [(ANIMAL, 0.9, MIDDLE)])
    season.run()
    drop_detections(season.work)
    season.person()()
    assert [len(keys) for keys in season.run()] == [9, 9]
    with closing(Work.open(season.work)) as work:
        assert work.catalog.counts().private == 0
