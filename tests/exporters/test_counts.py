"""Counts of animals: of each image, and of a burst as the most that one of its frames shows."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from camera_trap_al.core.observed import Detection, Named, ObservedImage
from camera_trap_al.core.records import ImageKey
from camera_trap_al.exporters.counts import COLUMNS, write_counts


def box(species: str = "", probability: float = 0.9, category: str = "animal") -> Detection:
    return Detection(category, 0.8, named=(Named(species, probability),) if species else ())


def image(path: str, second: int | None, *boxes: Detection) -> ObservedImage:
    captured = "" if second is None else f"2026-05-01T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
    return ObservedImage(ImageKey.of(path), boxes, captured=captured)


def count(path: Path, *images: ObservedImage, gap_s: float = 5, min_confidence: float = 0.0) -> list[dict[str, str]]:
    write_counts(path, iter(images), gap_s, min_confidence=min_confidence)
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        assert tuple(reader.fieldnames or ()) == COLUMNS
        return list(reader)


def short(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in ("File", "Species", "Count", "Sequence", "SequenceImages", "SequenceCount"))


def test_a_burst_counts_the_most_that_one_of_its_frames_shows(tmp_path: Path) -> None:
    frames = [box("deer")] * 2, [box("deer")] * 3 + [box("fox")], []
    burst = [image(f"s/{n}.jpg", 2 * n, *boxes) for n, boxes in enumerate(frames)]
    rows = count(tmp_path / "c.csv", *burst, image("s/9.jpg", 60, box("deer")))
    assert [short(row) for row in rows] == [
        ("0.jpg", "deer", "2", "1", "3", "3"),
        ("1.jpg", "deer", "3", "1", "3", "3"),
        ("1.jpg", "fox", "1", "1", "3", "1"),
        ("2.jpg", "", "0", "1", "3", "0"),
        ("9.jpg", "deer", "1", "2", "1", "1"),
    ]
    assert (rows[0]["RelativePath"], rows[0]["DateTime"]) == ("s", "2026-05-01 00:00:00")
    passed = {(row["Sequence"], row["Species"]): int(row["SequenceCount"]) for row in rows}
    assert sum(passed.values()) == 5


def test_images_of_different_folders_are_never_one_burst(tmp_path: Path) -> None:
    rows = count(tmp_path / "c.csv", image("a/1.jpg", 0, box("deer")), image("b/1.jpg", 0, box("deer")))
    assert [row["Sequence"] for row in rows] == ["1", "2"]


def test_without_times_names_that_count_up_are_a_burst(tmp_path: Path) -> None:
    names = ("IMG_0001.jpg", "IMG_0002.jpg", "IMG_0007.jpg")
    rows = count(tmp_path / "c.csv", *(image(f"s/{name}", None, box("deer")) for name in names))
    assert [(row["Sequence"], row["DateTime"]) for row in rows] == [("1", ""), ("1", ""), ("2", "")]


def test_what_is_not_named_counts_as_what_the_detector_calls_it(tmp_path: Path) -> None:
    boxes = (box(), box(category="person"), box(category="person"), box("deer", 0.4), box("=deer", 0.9))
    rows = count(tmp_path / "c.csv", image("a.jpg", 0, *boxes), min_confidence=0.5)
    assert {row["Species"]: row["Count"] for row in rows} == {
        "animal": "1",
        "person": "2",
        "unknown": "1",
        "'=deer": "1",
    }


def test_an_image_that_no_detector_looked_at_is_not_counted(tmp_path: Path) -> None:
    whole = ObservedImage(ImageKey("s", "2.jpg"), named=(Named("deer", 0.9),), captured="2026-05-01T00:00:01")
    broken = ObservedImage(ImageKey("t", "3.jpg"), problem="cut off")
    rows = count(tmp_path / "c.csv", image("s/1.jpg", 0, box("deer"), box("deer")), whole, broken)
    assert [short(row) for row in rows] == [
        ("1.jpg", "deer", "2", "1", "2", "2"),
        ("2.jpg", "deer", "", "1", "2", "2"),
        ("3.jpg", "", "", "2", "1", ""),
    ]


SPECIES = st.sampled_from(["deer", "fox", "owl"])
FRAMES = st.lists(st.tuples(st.integers(0, 30), st.lists(SPECIES, max_size=4)), max_size=12)


@settings(max_examples=25, deadline=None)
@given(FRAMES)
def test_counts_are_those_of_a_slow_obvious_way(frames: list[tuple[int, list[str]]]) -> None:
    import tempfile

    images = [
        image(f"s/x{'a' * n}.jpg", 10 * second, *(box(name) for name in names))
        for n, (second, names) in enumerate(frames)
    ]
    with tempfile.TemporaryDirectory() as folder:
        rows = count(Path(folder) / "c.csv", *images, gap_s=15)
    most: dict[tuple[str, str], int] = defaultdict(int)
    for row in rows:
        names = frames[len(row["File"]) - len("x.jpg")][1]
        assert int(row["Count"]) == (names.count(row["Species"]) if names else 0)
        most[row["Sequence"], row["Species"]] = max(most[row["Sequence"], row["Species"]], int(row["Count"]))
    assert all(int(row["SequenceCount"]) == most[row["Sequence"], row["Species"]] for row in rows)
    assert sum(int(row["Count"]) for row in rows) == sum(len(names) for _, names in frames)
    assert len({row["File"] for row in rows}) == len(frames)
