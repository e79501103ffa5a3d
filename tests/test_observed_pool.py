"""What counts of an image: boxes from the threshold on, and what a person said before what the classifier sees."""

from __future__ import annotations

from pathlib import Path

import pytest

from camera_trap_al.core.observed import Detection, Named, ObservedImage
from camera_trap_al.core.records import ImageKey
from camera_trap_al.exporters.counts import write_counts
from camera_trap_al.observed_pool import counted, said_by_person
from camera_trap_al.report_pictures import may_be_shown

KEY = ImageKey("site", "1.JPG")
DEER, FOX = (Named("deer", 0.9), Named("fox", 0.1)), (Named("fox", 0.8),)
ONE, TWO, LOW = Detection("animal", 0.9, named=DEER), Detection("animal", 0.4, named=FOX), Detection("animal", 0.1)
PERSON, BICYCLE = Detection("person", 0.5), Detection("bicycle", 0.7)


def seen(*boxes: Detection) -> ObservedImage:
    return ObservedImage(KEY, boxes, DEER)


def test_boxes_below_the_threshold_do_not_count() -> None:
    assert counted(seen(ONE, LOW, TWO), 0.2).detections == (ONE, TWO)
    assert counted(seen(ONE, TWO), 0.4).detections == (ONE, TWO)
    assert counted(ObservedImage(KEY, None, DEER), 0.2).detections is None


@pytest.mark.parametrize(
    ("image", "species", "rows"),
    [
        (seen(ONE, TWO), None, ["deer,1", "fox,1"]),
        (seen(ONE, TWO, BICYCLE), "boar", ["bicycle,1", "boar,2"]),
        (seen(ONE, TWO), "nothing", [",0"]),
        (seen(ONE, BICYCLE), "nothing", ["bicycle,1"]),
        (seen(), None, [",0"]),
        (seen(), "nothing", [",0"]),
        (seen(), "boar", ["boar,"]),
        (seen(ONE, PERSON), "boar", ["deer,1", "person,1"]),
        (ObservedImage(KEY, None, DEER), None, ["deer,"]),
        (ObservedImage(KEY, None, ()), "boar", ["boar,"]),
        (ObservedImage(KEY, None, ()), None, [","]),
    ],
)
def test_a_label_says_what_the_animals_of_an_image_are(
    image: ObservedImage, species: str | None, rows: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "counts.csv"
    write_counts(path, [said_by_person(image, species, "nothing")], 60.0)
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    assert sorted(",".join(line.split(",")[3:5]) for line in lines) == rows


def test_classes_that_people_named_are_private_like_those_known_by_their_words() -> None:
    assert may_be_shown("Förster", {"Förster": 0.9})
    assert not may_be_shown("Förster", {"Förster": 0.9}, ("Förster",))
    assert not may_be_shown("deer", {"deer": 0.8, "Förster": 0.2}, ("Förster",))
    assert may_be_shown("deer", {"deer": 0.95, "Förster": 0.05}, ("Förster",))
    assert not may_be_shown("förster", {}, ("Förster",)) and not may_be_shown("deer", {"FÖRSTER": 0.2}, ("Förster",))
