"""What a detector saw as a work folder keeps it: written whole, taken in once, and the crops that come of it."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from season import Season

from camera_trap_al import detecting
from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.catalog.found import POOL
from camera_trap_al.config import build
from camera_trap_al.core.observed import ANIMAL, PERSON, Detection, DetectorInfo
from camera_trap_al.core.records import Box, ImageKey, Item
from camera_trap_al.engine import shared
from camera_trap_al.errors import CameraTrapAlError, StopRequested, UsageError
from camera_trap_al.granting import Wish
from camera_trap_al.importers.detections import DetectionFileError
from camera_trap_al.labels.template import find_templates, read_template
from camera_trap_al.layout import WorkFolder
from camera_trap_al.reading import ImageReader
from camera_trap_al.wishes import carry_out
from camera_trap_al.work import Work

LEFT = Box(0.0, 0.25, 0.5, 0.5)
INFO = DetectorInfo("md", "2026", {"typical_detection_threshold": 0.2, "megadetector_version": "v5"})
SEEN = {
    ImageKey("", "IMG_0000.JPG"): (Detection(ANIMAL, 0.9, LEFT), Detection(ANIMAL, 0.25)),
    ImageKey("site a", "IMG_0000.JPG"): (Detection(PERSON, 0.9, LEFT),),
    ImageKey("site b", "IMG_0000.JPG"): (),
}
numbers = st.floats(0, 1)
texts = st.text(min_size=1, max_size=5).filter(lambda text: "/" not in text)
detections = st.builds(Detection, texts, numbers, st.builds(Box, *[numbers] * 4))


@given(st.dictionaries(st.builds(ImageKey, texts, texts), st.lists(detections, max_size=3).map(tuple), max_size=4))
def test_what_is_kept_is_what_was_given(
    tmp_path_factory: pytest.TempPathFactory, seen: dict[ImageKey, tuple[Detection, ...]]
) -> None:
    path = tmp_path_factory.mktemp("kept") / "detections.jsonl"
    kept = detecting.keep(path, seen.items(), INFO)
    assert detecting.read_kept(path) == kept and kept.detector == INFO
    detecting.check_whole(path, kept)
    with path.open("rb") as file:
        lines = list(detecting._read_lines(file))
    found = [
        (line.path, tuple(Detection(kept.categories[int(n)], conf, Box(*box)) for n, conf, *box in line.boxes))
        for line in lines
    ]
    expected = []
    for key, boxes in seen.items():
        try:
            key.path.encode("utf-8")
        except UnicodeEncodeError:
            continue
        expected.append((detecting.nfc(key.path), boxes))
    assert found == expected and kept.images == len(expected)


def test_any_damage_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "detections.jsonl"
    kept = detecting.keep(path, SEEN.items(), INFO)
    whole = path.read_bytes()
    assert detecting.keep(path, SEEN.items(), INFO) == kept, "the same is the same"
    assert detecting.keep(path, SEEN.items(), DetectorInfo("other")).content != kept.content
    for damaged in (
        b"",
        b"{}\n",
        b"[]\n",
        whole[:-1],
        whole[: len(whole) // 2],
        whole.replace(b'"format":1', b'"format":2'),
        whole.replace(b"0.9", b"0.8"),
        whole.replace(b"v5", b"v6"),
        whole.split(b"\n", 1)[1],
    ):
        path.write_bytes(damaged)
        with pytest.raises(DetectionFileError, match=r"damaged|another version"):
            found = detecting.read_kept(path)
            assert found is not None
            detecting.check_whole(path, found)
    path.unlink()
    assert detecting.read_kept(path) is None


@pytest.mark.parametrize("n", [1, 3000])
def test_a_detector_of_many_long_categories_is_kept_too(tmp_path: Path, n: int) -> None:
    boxes = tuple(Detection(f"{i:04}{'x' * 100_000 * (n == 1)}", 0.5, LEFT) for i in range(n))
    kept = detecting.keep(tmp_path / "detections.jsonl", [(ImageKey("", "1.jpg"), boxes)], INFO)
    assert detecting.read_kept(tmp_path / "detections.jsonl") == kept and len(kept.categories) == n


def give(season: Season) -> None:
    """Put the file there as a verb does that is killed right then."""
    detecting.keep(WorkFolder.at(season.work).detections, SEEN.items(), INFO)


def crops(work: Work) -> set[tuple[str, Box]]:
    live = work.catalog.live_rows(POOL).tolist()
    pairs = zip(work.catalog.keys_of(live), work.catalog.boxes_of(live), strict=True)
    return {(key.path, box) for key, box in pairs if box is not None}


WANTED = {("IMG_0000.JPG", LEFT), ("IMG_0000.JPG", Box(0.0, 0.0, 1.0, 1.0))}


def test_what_a_killed_verb_kept_counts_from_the_next_start_on(season: Season) -> None:
    give(season)
    work = Work.open(season.work)
    assert crops(work) == WANTED and work.catalog.counts().private == 1
    assert work.catalog.fact(detecting.DETECTOR) == dataclasses.asdict(INFO)
    version = work.catalog.pool_stamp
    work.close()
    work = Work.open(season.work)
    assert work.catalog.pool_stamp == version, "and nothing is done twice"
    wish = Wish("ab" * 16, "rebuild-catalog")
    assert carry_out(work, wish).is_granted and work.catalog.counts().private == 0
    work.close()
    season.turn()
    work = Work.open(season.work)
    assert crops(work) == WANTED, "a catalogue that is made anew has them again"
    work.close()


def test_the_running_program_takes_them_in_as_a_wish(season: Season) -> None:
    with season.opened() as loop:
        give(season)
        answer = carry_out(loop.work, Wish("ab" * 16, "detections"))
        assert answer.is_granted and "of 1 images each animal is looked at by itself, 1 with people" in answer.text
        assert carry_out(loop.work, Wish("ab" * 16, "detections")) == answer, "twice comes to the same"
        assert crops(loop.work) == WANTED
        loop.work.folder.detections.write_bytes(b"{")
        assert carry_out(loop.work, Wish("ab" * 16, "detections")).is_granted, "what it said counts on"
        assert crops(loop.work) == WANTED


def test_options_count_from_the_next_start_on(season: Season) -> None:
    give(season)
    Work.open(season.work).close()
    config = season.work / "config.toml"
    text = config.read_text(encoding="utf-8").replace("detection_threshold = 0.2", "detection_threshold = 0.5")
    config.write_text(text.replace('without_detection = "whole"', 'without_detection = "skip"'), encoding="utf-8")
    work = Work.open(season.work)
    assert crops(work) == {("IMG_0000.JPG", LEFT)} and work.catalog.counts().without_animal == 1
    work.close()


def test_without_what_was_kept_nothing_is_begun_that_might_show_people(
    season: Season, caplog: pytest.LogCaptureFixture
) -> None:
    give(season)
    kept = WorkFolder.at(season.work).detections
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-9])
    with pytest.raises(CameraTrapAlError, match="damaged"):
        Work.open(season.work)
    kept.write_bytes(whole)
    Work.open(season.work).close()
    kept.write_bytes(whole[:-9])
    with caplog.at_level(logging.WARNING):
        work = Work.open(season.work)
    assert crops(work) == WANTED and "What it said counts on" in caplog.text
    wish = Wish("cd" * 16, "rebuild-catalog")
    assert not carry_out(work, wish).is_granted and crops(work) == WANTED, "the catalogue alone knows them now"
    work.close()
    kept.unlink()
    work = Work.open(season.work)
    assert crops(work) == WANTED
    answer = carry_out(work, wish)
    assert not answer.is_granted and "Give them again" in answer.text and crops(work) == WANTED
    work.close()


def test_a_class_of_people_can_be_chosen_and_teaches_nothing(new_season: Callable[..., Season]) -> None:
    season = new_season(classes__person=["blue", "Ranger"])
    (template,) = find_templates(season.root / "pool")
    species = read_template(template).field("Species")
    assert species is not None and "Ranger" in species.choices
    season.turn()
    with season.opened() as loop:
        assert {"Ranger", "blue"} <= set(loop.work.history.classes)
        assert set(loop.work.catalog.labelled()[1]) == set(loop.work.catalog.validation()[1]) == {"red", "green"}
        assert loop.work.catalog.counts().train == 6
    with pytest.raises(UsageError, match="'Blue' and 'blue'"):
        new_season(classes__person=["Blue"])


def test_a_stop_is_heeded_while_they_are_taken_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = WorkFolder.at(tmp_path)
    folder.data.mkdir()
    detecting.keep(folder.detections, SEEN.items(), INFO)
    catalog, stop = Catalog.open(folder.catalog), threading.Event()
    stop.set()
    with pytest.raises(StopRequested):
        detecting.take_kept(folder, build({}, "test"), catalog, stop)
    stop.clear()
    detecting.take_kept(folder, build({}, "test"), catalog, stop)
    assert catalog.detections_of(list(SEEN)) == list(SEEN.values())
    catalog.close()


def test_a_file_that_comes_while_one_is_taken_in_is_not_mixed_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = WorkFolder.at(tmp_path)
    folder.data.mkdir()
    detecting.keep(folder.detections, SEEN.items(), INFO)
    catalog, take = Catalog.open(folder.catalog), Catalog.take_detections
    image = ImageKey("site b", "IMG_0000.JPG")
    newer = {image: (Detection(PERSON, 0.9, LEFT),)}

    def replaced(*arguments: Any) -> None:
        detecting.keep(folder.detections, newer.items(), INFO)
        take(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "take_detections", replaced)
        detecting.take_kept(folder, build({}, "test"), catalog, threading.Event())
    assert catalog.detections_of(list(SEEN)) == list(SEEN.values())
    detecting.take_kept(folder, build({}, "test"), catalog, threading.Event())
    assert catalog.detections_of([image]) == [newer[image]]
    catalog.close()


@pytest.mark.parametrize("padding", [1.0, 1.6])
@pytest.mark.parametrize("px", [256, 96])
def test_the_loop_sees_of_a_crop_what_predict_sees(tmp_path: Path, padding: float, px: int) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (300, 500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "wide.png")
    read = ImageReader(build({"items.padding": padding}, "test"), {POOL: str(tmp_path)}, (), px=px)
    seen = read(Item(1, str(tmp_path / "wide.png"), box=LEFT))
    (wanted,) = shared().read_crops(tmp_path / "wide.png", [LEFT], px=px, padding=padding).pixels
    assert np.array_equal(np.array(Image.fromarray(wanted).resize((256, 256), Image.Resampling.BILINEAR)), seen)
    whole = read(Item(2, str(tmp_path / "wide.png")))
    assert whole.shape == seen.shape and not np.array_equal(whole, seen)
    assert read.take_hashes().keys() == {1, 2}
