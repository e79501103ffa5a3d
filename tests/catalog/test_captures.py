"""Capture times in the catalogue: taken in with what was decoded, and forgotten with the content they were of."""

from __future__ import annotations

from pathlib import Path

import pytest
from scanning import put, scan

from camera_trap_al.catalog.captures import TAKEN
from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.catalog.found import POOL, TRAIN
from camera_trap_al.core.grouping import NO_TIME


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog.open(tmp_path / "catalog.sqlite")


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    pool = put(tmp_path / "pool", ["a/IMG_0001.jpg", "a/IMG_0002.jpg", "b/1.jpg"])
    return {POOL: pool, TRAIN: put(tmp_path / "train", ["red/1.jpg"])}


def test_names_are_those_of_images_to_label_in_the_order_of_their_rows(
    catalog: Catalog, folders: dict[str, Path]
) -> None:
    scan(catalog, folders)
    names = catalog.names()
    assert [key.path for key in catalog.keys_of(names.rows)] == ["a/IMG_0001.jpg", "a/IMG_0002.jpg", "b/1.jpg"]
    assert names.numbers.tolist() == [1, 2, 1] and names.folder_names == ("a/", "b/")
    assert set(names.key_hashes.tolist()) == set(catalog.askable()[1].tolist())


def test_times_come_with_shards_and_are_noted_once(catalog: Catalog, folders: dict[str, Path]) -> None:
    scan(catalog, folders)
    rows = catalog.names().rows
    assert catalog.times(rows).tolist() == [NO_TIME] * 3 and catalog.fact(TAKEN, 0) == 0
    first, last = int(rows[0]), int(rows[2])
    catalog.absorb("1", {}, {first: "a hash"}, {first: 5000, last: 0})
    assert catalog.times(rows).tolist() == [5000, NO_TIME, 0] and catalog.times(rows[1:2]).tolist() == [NO_TIME]
    catalog.absorb("2", {}, {}, {first: 5000})
    assert catalog.fact(TAKEN) == 1, "nothing changed"
    catalog.note_times({last: 7})
    assert catalog.times(rows).tolist() == [5000, NO_TIME, 7] and catalog.fact(TAKEN) == 2


def test_another_content_has_another_time(catalog: Catalog, folders: dict[str, Path]) -> None:
    scan(catalog, folders)
    row = int(catalog.names().rows[0])
    catalog.absorb("1", {}, {row: "a hash"}, {row: 5000})
    (folders[POOL] / "a" / "IMG_0001.jpg").write_bytes(b"another picture of another size")
    scan(catalog, folders)
    names = catalog.names()
    assert row not in names.rows.tolist() and catalog.times(names.rows).tolist() == [NO_TIME] * 3
    catalog.note_times({row: 5000})
    assert catalog.times(names.rows).tolist() == [NO_TIME] * 3, "what was decoded before is no longer there"
