"""What a detector saw decides the items of an image: which are cut out, which are kept back, and which rows stay."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scanning import put, scan

from camera_trap_al.catalog import detections as of_detections
from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.catalog.detections import (
    HAS_ANIMAL,
    LEFT_OUT,
    LOOKED_AT,
    PRIVATE,
    Cutting,
    ListedImage,
    cut_out,
)
from camera_trap_al.catalog.found import POOL, TRAIN, VALIDATION
from camera_trap_al.core.crops import MOST_CROPS
from camera_trap_al.core.observed import ANIMAL, PERSON, VEHICLE, Detection
from camera_trap_al.core.records import Box, ImageKey
from camera_trap_al.learn import observing

A, B, C = Box(0.1, 0.1, 0.2, 0.2), Box(0.5, 0.5, 0.25, 0.25), Box(0.0, 0.0, 1.0, 1.0)
CATEGORIES = (ANIMAL, PERSON, VEHICLE, "bag")
NAMES = ("a/one.jpg", "a/two.jpg", "a/person.jpg", "a/nothing.jpg", "a/unseen.jpg")
USUAL = Cutting()
Known = dict[str, list[tuple[str, float, Box]]]
FIRST: Known = {
    "a/one.jpg": [(ANIMAL, 0.9, A), (ANIMAL, 0.1, B)],
    "a/two.jpg": [(ANIMAL, 0.9, A), ("bag", 0.9, C), (ANIMAL, 0.3, B)],
    "a/person.jpg": [(ANIMAL, 0.9, A), (PERSON, 0.2, B)],
    "a/nothing.jpg": [(VEHICLE, 0.1, A)],
    "b/later.jpg": [(ANIMAL, 0.9, C)],
}
boxes = st.builds(Box, *[st.sampled_from([0.0, 0.25, 0.5])] * 4)
seen_in_one = st.lists(
    st.builds(Detection, st.sampled_from(CATEGORIES), st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0]), boxes), max_size=8
)


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    put(tmp_path / "train", ["deer/1.jpg"])
    put(tmp_path / "validation", ["deer/2.jpg", "human/3.jpg"])
    return {
        POOL: put(tmp_path / "pool", NAMES),
        TRAIN: tmp_path / "train",
        VALIDATION: tmp_path / "validation",
    }


@pytest.fixture
def catalog(tmp_path: Path, folders: dict[str, Path]) -> Iterator[Catalog]:
    opened = Catalog.open(tmp_path / "catalog.sqlite")
    scan(opened, folders)
    yield opened
    opened.close()


def take(catalog: Catalog, known: Known, cutting: Cutting = USUAL) -> None:
    found = [
        ListedImage(path, [(CATEGORIES.index(word), conf, *box) for word, conf, box in seen])
        for path, seen in known.items()
    ]
    catalog.take_detections(repr(known), CATEGORIES, found)
    catalog.cut(cutting)


def rows(catalog: Catalog, root: str = POOL) -> dict[str, dict[Box | None, int]]:
    """Return the usable rows by path and box."""
    live = catalog.live_rows(root).tolist()
    found: dict[str, dict[Box | None, int]] = {}
    for row, key, box in zip(live, catalog.keys_of(live), catalog.boxes_of(live), strict=True):
        found.setdefault(key.path, {})[box] = row
    return found


def label(catalog: Catalog, *paths: str, species: str = "deer") -> None:
    answers = [(ImageKey.of(path), (species, None, 1)) for path in paths]
    catalog.project(answers, catalog.mark + 1, identity="x")


@given(seen_in_one, st.sampled_from([0.0, 0.2, 0.6]), st.sampled_from(["whole", "skip", "empty"]))
def test_an_image_is_cut_as_predict_does_it(seen: list[Detection], threshold: float, without: str) -> None:
    crops, bits = cut_out(tuple(seen), Cutting(threshold, 1.0, without))
    counted = tuple(d for d in seen if d.confidence >= threshold)
    wanted = [counted[i].box for i in observing._looked_at(counted)]
    assert crops == list(dict.fromkeys(wanted))
    is_private = any(d.category in (PERSON, VEHICLE) for d in counted)
    assert bool(bits & PRIVATE) == is_private and bool(bits & HAS_ANIMAL) == bool(crops) and bits & LOOKED_AT
    assert bool(bits & LEFT_OUT) == (not crops and not is_private and without != "whole")


def test_of_very_many_animals_the_surest_are_cut_out_in_the_order_of_the_file() -> None:
    many = tuple(Detection(ANIMAL, 0.3 + i % 7 / 10, Box(i / 1000, 0.0, 0.1, 0.1)) for i in range(3 * MOST_CROPS))
    crops, _ = cut_out(many, Cutting())
    least = sorted((seen.confidence for seen in many), reverse=True)[MOST_CROPS - 1]
    surer = [seen.box for seen in many if seen.confidence > least]
    as_sure = [seen.box for seen in many if seen.confidence == least][: MOST_CROPS - len(surer)]
    assert crops == [seen.box for seen in many if seen.box in {*surer, *as_sure}] and len(crops) == MOST_CROPS


def test_each_animal_is_an_item_and_people_are_kept_back(catalog: Catalog, folders: dict[str, Path]) -> None:
    label(catalog, "a/two.jpg", "a/person.jpg")
    before = rows(catalog)
    take(catalog, FIRST)
    after = rows(catalog)
    assert {path: set(found) for path, found in after.items()} == {
        "a/one.jpg": {A},
        "a/two.jpg": {A, B},
        "a/nothing.jpg": {None},
        "a/unseen.jpg": {None},
    }
    assert after["a/nothing.jpg"] == before["a/nothing.jpg"] and after["a/unseen.jpg"] == before["a/unseen.jpg"]
    labelled, species = catalog.labelled()
    assert set(labelled.tolist()) - set(rows(catalog, TRAIN)["deer/1.jpg"].values()) == set(after["a/two.jpg"].values())
    assert species == ["deer"] * 3
    askable = {key.path for key in catalog.keys_of(catalog.askable()[0].tolist())}
    assert askable == {"a/one.jpg", "a/nothing.jpg", "a/unseen.jpg"}
    in_order = {key.path for key in catalog.keys_of(catalog.in_order(1, POOL).tolist())}
    assert in_order == set(after), "images of people are not even embedded"
    counts = catalog.counts()
    assert (counts.private, counts.labelled, counts.unlabelled, counts.pool) == (1, 1, 3, 4)
    assert (counts.with_animals, counts.looked_at, counts.without_animal) == (2, 4, 0)
    (item,) = catalog.items([after["a/two.jpg"][B]], {POOL: str(folders[POOL])})
    assert item.box == B and item.path == str(folders[POOL] / "a" / "two.jpg")
    assert catalog.unusable([ImageKey("a", "person.jpg"), ImageKey("a", "one.jpg")]) == {
        ImageKey("a", "person.jpg"): "person"
    }


def test_rows_of_one_image_know_it_live_or_not(catalog: Catalog) -> None:
    old = rows(catalog)
    take(catalog, FIRST)
    new = rows(catalog)
    one, two, unseen = catalog.images_of(
        np.array([new["a/two.jpg"][A], new["a/two.jpg"][B], new["a/unseen.jpg"][None]])
    )
    assert one == two != unseen
    assert catalog.images_of(np.array([old["a/two.jpg"][None], new["a/two.jpg"][A]])).tolist() == [one, one]
    assert catalog.images_of(np.empty(0, dtype=np.int64)).tolist() == []
    assert set(catalog.keys_of([old["a/two.jpg"][None]])) == {ImageKey("a", "two.jpg")}


def test_all_boxes_are_remembered_as_they_were_given(catalog: Catalog) -> None:
    assert catalog.detections_of([ImageKey("a", "one.jpg")]) == [None]
    take(catalog, FIRST)
    keys = [ImageKey("a", "unseen.jpg"), ImageKey("b", "later.jpg"), ImageKey("a", "two.jpg")]
    unseen, later, two = catalog.detections_of(keys)
    assert unseen is None and later == (Detection(ANIMAL, 0.9, C),)
    assert two == tuple(Detection(*one) for one in FIRST["a/two.jpg"])
    take(catalog, {"a/nothing.jpg": []})
    assert catalog.detections_of([*keys, ImageKey("a", "nothing.jpg")]) == [None, None, None, ()]


def test_a_new_file_changes_only_what_it_changes(catalog: Catalog) -> None:
    take(catalog, FIRST)
    label(catalog, "a/two.jpg")
    before, newest = rows(catalog), catalog.newest_row()
    take(catalog, FIRST)
    assert rows(catalog) == before and catalog.newest_row() == newest, "the same again changes nothing"
    second = {**FIRST, "a/two.jpg": [(ANIMAL, 0.5, B), (ANIMAL, 0.9, C)], "a/person.jpg": [(ANIMAL, 0.9, A)]}
    take(catalog, second)
    after = rows(catalog)
    assert after["a/one.jpg"] == before["a/one.jpg"] and after["a/two.jpg"][B] == before["a/two.jpg"][B]
    assert set(after["a/two.jpg"]) == {B, C} and after["a/two.jpg"][C] > newest
    assert set(after["a/person.jpg"]) == {A}, "kept back no longer"
    assert catalog.counts().labelled == 1 and set(after["a/two.jpg"].values()) <= set(catalog.labelled()[0].tolist())
    take(catalog, {})
    assert {path: set(found) for path, found in rows(catalog).items()} == {path: {None} for path in NAMES}


def test_options_change_only_the_rows_that_they_concern(catalog: Catalog) -> None:
    take(catalog, FIRST)
    before = rows(catalog)
    catalog.cut(Cutting(0.1))
    lower = rows(catalog)
    assert set(lower["a/one.jpg"]) == {A, B} and lower["a/one.jpg"][A] == before["a/one.jpg"][A]
    assert "a/nothing.jpg" not in lower, "a vehicle counts now"
    catalog.cut(Cutting(0.2, 1.5))
    padded = rows(catalog)
    assert set(padded["a/one.jpg"]) == {A} and padded["a/one.jpg"][A] > lower["a/one.jpg"][B], (
        "other pixels, another row"
    )
    assert padded["a/unseen.jpg"] == before["a/unseen.jpg"] and padded["a/nothing.jpg"] == before["a/nothing.jpg"]
    catalog.cut(Cutting(0.2, 1.5, "skip"))
    assert rows(catalog) == {path: found for path, found in padded.items() if path != "a/nothing.jpg"}
    assert (catalog.counts().without_animal, catalog.counts().private) == (1, 1)
    key = ImageKey("a", "nothing.jpg")
    assert catalog.unusable([key]) == {key: "without_animal"}


def test_where_labels_are_not_shared_images_of_several_animals_train_nothing(
    catalog: Catalog, folders: dict[str, Path], tmp_path: Path
) -> None:
    take(catalog, FIRST)
    label(catalog, "a/one.jpg", "a/two.jpg")
    other = Catalog.open(tmp_path / "catalog.sqlite", share_label=False, read_only=True)
    found = rows(catalog)
    expected = {found["a/one.jpg"][A], *rows(catalog, TRAIN)["deer/1.jpg"].values()}
    labelled, species = other.labelled()
    assert set(labelled.tolist()) == expected and species == ["deer", "deer"]
    assert other.counts() == catalog.counts()
    other.close()


def test_classes_of_people_neither_train_nor_measure(catalog: Catalog, tmp_path: Path) -> None:
    label(catalog, "a/one.jpg", species="Human ")
    other = Catalog.open(tmp_path / "catalog.sqlite", people=["human"], read_only=True)
    assert other.labelled()[1] == ["deer"] and sorted(catalog.labelled()[1]) == ["Human ", "deer"]
    assert other.validation()[1] == ["deer"] and sorted(catalog.validation()[1]) == ["deer", "human"]
    assert other.counts().labelled == 1, "the label stays"
    other.close()


def test_images_that_are_found_later_meet_their_detections(catalog: Catalog, folders: dict[str, Path]) -> None:
    take(catalog, {**FIRST, "b/someone.jpg": [(PERSON, 0.9, A)]})
    put(folders[POOL], ["b/later.jpg", "b/someone.jpg", "b/other.jpg"])
    put(folders[TRAIN], ["b/later.jpg"])
    scan(catalog, folders)
    found = rows(catalog)
    assert set(found["b/later.jpg"]) == {C} and set(found["b/other.jpg"]) == {None} and "b/someone.jpg" not in found
    assert set(rows(catalog, TRAIN)["b/later.jpg"]) == {None}, "detections are of the images to label"
    assert catalog.counts().private == 2


def test_a_name_stored_in_pieces_meets_its_detections(catalog: Catalog, folders: dict[str, Path]) -> None:
    whole = "Zoë/Übung.jpg"
    in_pieces = unicodedata.normalize("NFD", whole)
    take(catalog, {whole: [(ANIMAL, 0.9, A)]})
    put(folders[POOL], [in_pieces])
    scan(catalog, folders)
    assert set(rows(catalog)[in_pieces]) == {A}
    assert catalog.detections_of([ImageKey.of(in_pieces)]) == [(Detection(ANIMAL, 0.9, A),)]
    take(catalog, {whole: [(ANIMAL, 0.9, B)]})
    assert set(rows(catalog)[in_pieces]) == {B}


def test_a_content_that_changed_gets_new_rows_with_the_same_boxes(catalog: Catalog, folders: dict[str, Path]) -> None:
    take(catalog, FIRST)
    before = rows(catalog)
    put(folders[POOL], ["a/two.jpg", "a/person.jpg"], b"another picture, of another size")
    scan(catalog, folders)
    after = rows(catalog)
    assert set(after["a/two.jpg"]) == {A, B} and not set(after["a/two.jpg"].values()) & set(
        before["a/two.jpg"].values()
    )
    assert "a/person.jpg" not in after and after["a/one.jpg"] == before["a/one.jpg"]


def test_the_crops_of_an_image_that_turns_out_to_be_another_are_renewed_once(catalog: Catalog) -> None:
    take(catalog, FIRST)
    two = rows(catalog)["a/two.jpg"]
    catalog.absorb("s/1", {}, {two[A]: "aa"})
    catalog.absorb("s/2", {}, {two[A]: "bb", two[B]: "bb"})
    after = rows(catalog)["a/two.jpg"]
    assert set(after) == {A, B} and len(catalog.live_rows(POOL)) == 5 and min(after.values()) > max(two.values())


def test_a_crop_that_cannot_be_read_is_of_an_image_that_cannot(catalog: Catalog) -> None:
    take(catalog, FIRST)
    two = rows(catalog)["a/two.jpg"]
    catalog.absorb("s/1", {two[A]: ("truncated", "cut short"), two[B]: ("truncated", "cut short")}, {})
    assert "a/two.jpg" not in rows(catalog) and catalog.counts().quarantined == 1 and len(catalog.problems()) == 1
    assert catalog.retry_damaged() == 1 and set(rows(catalog)["a/two.jpg"]) == {A, B}


class Stop(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("n", range(1, 12))
def test_an_interruption_anywhere_leaves_it_to_be_done_again(
    catalog: Catalog, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_detections, "ROWS_AT_ONCE", 2)
    take(catalog, FIRST)
    first = {path: set(boxes) for path, boxes in rows(catalog).items()}
    second: Known = {"a/one.jpg": [(ANIMAL, 0.9, C)], "a/two.jpg": [(PERSON, 0.9, C)], "a/unseen.jpg": []}
    write, calls = catalog._write, []

    def interrupted() -> Any:
        calls.append(1)
        if len(calls) == n:
            raise Stop
        return write()

    monkeypatch.setattr(catalog, "_write", interrupted)
    try:
        take(catalog, second, Cutting(0.2, 2.0))
        is_over = True
    except Stop:
        is_over = False
        assert catalog.fact(of_detections.CUT) != [repr(second), 0.2, 2.0, "whole"], "nothing says that it is done"
    monkeypatch.setattr(catalog, "_write", write)
    take(catalog, second, Cutting(0.2, 2.0))
    assert catalog.fact(of_detections.CUT) == [repr(second), 0.2, 2.0, "whole"]
    found = {path: set(boxes) for path, boxes in rows(catalog).items()}
    expected: dict[str, set[Box | None]] = {"a/one.jpg": {C}} | {
        f"a/{name}.jpg": {None} for name in ("person", "nothing")
    }
    assert found == expected | {"a/unseen.jpg": {None}}
    assert is_over == (n == 11), "all of them were tried"
    take(catalog, FIRST)
    assert {path: set(boxes) for path, boxes in rows(catalog).items()} == first


def test_a_catalogue_of_format_3_learns_of_detections(catalog: Catalog, tmp_path: Path) -> None:
    before = rows(catalog)
    with catalog._write() as connection:
        connection.exec_driver_sql("DROP TABLE detections")
        connection.exec_driver_sql("ALTER TABLE images DROP COLUMN detected")
        for column in ("left", "top", "width", "height"):
            connection.exec_driver_sql(f"ALTER TABLE items DROP COLUMN {column}")
        connection.exec_driver_sql("UPDATE meta SET value = '3' WHERE key = 'format'")
    catalog.close()
    migrated = Catalog.open(tmp_path / "catalog.sqlite")
    assert rows(migrated) == before and migrated.fact("format") == 4 and migrated.counts().looked_at == 0
    take(migrated, FIRST)
    assert set(rows(migrated)["a/two.jpg"]) == {A, B} and migrated.counts().private == 1
    migrated.close()
