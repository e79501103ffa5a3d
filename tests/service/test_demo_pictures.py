"""The pictures that the demo ships: enough, balanced, licensed, readable, and no copies across the three parts."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

FOLDER = Path(__file__).resolve().parents[2] / "service" / "demo_pictures"
PARTS = ("train", "unlabelled", "held_out")
MAX_BYTES = 6_000_000
NEAR_COPY_BITS = 20


def pictures(part):
    return sorted(path for path in (FOLDER / part).rglob("*") if path.is_file())


def read_csv(name):
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def classes(part):
    return Counter(path.parent.name for path in pictures(part))


@pytest.fixture(scope="module")
def truth():
    return read_csv("truth.csv")


def test_there_are_enough_pictures_of_enough_species(truth):
    assert len(Counter(row["Species"] for row in truth)) >= 8
    assert len(truth) >= 300
    assert len(pictures("held_out")) >= 200


def test_every_part_knows_the_same_species(truth):
    species = {row["Species"] for row in truth}
    assert set(classes("train")) == set(classes("held_out")) == species
    assert set(classes("train").values()) == {1}


def test_always_answering_the_commonest_species_would_score_badly(truth):
    assert max(classes("held_out").values()) < 0.15 * len(pictures("held_out"))
    assert max(Counter(row["Species"] for row in truth).values()) < 0.25 * len(truth)


def test_the_truth_covers_the_pool_exactly(truth):
    named = [(row["RelativePath"], row["File"]) for row in truth]
    assert sorted(named) == sorted((path.parent.name, path.name) for path in pictures("unlabelled"))


def test_the_same_file_name_occurs_at_several_sites_with_different_animals(truth):
    by_name = {}
    for row in truth:
        by_name.setdefault(row["File"], []).append(row["Species"])
    assert len({row["RelativePath"] for row in truth}) == 5
    assert sum(len(set(species)) > 1 for species in by_name.values()) >= 50


def test_each_picture_has_a_source_a_licence_and_the_recorded_content():
    sources = {row["File"]: row for row in read_csv("SOURCES.csv")}
    files = [path for part in PARTS for path in pictures(part)]
    assert sorted(sources) == sorted(path.relative_to(FOLDER).as_posix() for path in files)
    for path in files:
        row = sources[path.relative_to(FOLDER).as_posix()]
        assert row["Licence"] == "CC BY 4.0"
        assert row["SourcePath"].startswith("101_ObjectCategories/")
        assert len(row["SourceSHA256"]) == 64
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row["SHA256"], path


def test_no_original_is_used_twice():
    assert max(Counter(row["SourceSHA256"] for row in read_csv("SOURCES.csv")).values()) == 1


def test_the_notes_name_authors_licence_and_changes():
    notes = (FOLDER / "README.md").read_text(encoding="utf-8")
    for words in ("Fei-Fei", "Fergus", "Perona", "CC BY 4.0", "Resized"):
        assert words in notes


def test_each_picture_is_a_small_colour_jpeg_that_timelapse_loads():
    for part in PARTS:
        for path in pictures(part):
            assert path.suffix == ".jpg"
            with Image.open(path) as image:
                image.load()
                assert (image.format, image.mode) == ("JPEG", "RGB")
                assert 32 <= max(image.size) <= 224, path
                assert not image.getexif(), path


def test_all_of_it_is_small_enough_for_a_wheel():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= MAX_BYTES


def difference_hash(image):
    """Return 256 bits: is each of 16×16 cells brighter than its left neighbour."""
    cells = np.asarray(image.convert("L").resize((17, 16), Image.Resampling.LANCZOS), dtype=np.int16)
    return (cells[:, 1:] > cells[:, :-1]).ravel()


@pytest.mark.slow
def test_no_picture_is_a_near_copy_of_another_even_mirrored():
    files = [path for part in PARTS for path in pictures(part)]
    images = [Image.open(path).convert("RGB") for path in files]
    hashes = np.array([difference_hash(image) for image in images], dtype=np.float32)
    mirrored = np.array([difference_hash(ImageOps.mirror(image)) for image in images], dtype=np.float32)
    for other in (hashes, mirrored):
        bits_apart = hashes @ (1 - other).T + (1 - hashes) @ other.T
        np.fill_diagonal(bits_apart, 256)
        near = [(files[a], files[b]) for a, b in zip(*np.nonzero(bits_apart <= NEAR_COPY_BITS), strict=True)]
        assert near == []
