"""Recognitions as Timelapse takes them, whatever was seen."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from camera_trap_al.core.observed import Detection, DetectorInfo, Named, ObservedImage
from camera_trap_al.core.records import Box, ImageKey
from camera_trap_al.exporters.recognitions import Written, write_recognitions
from camera_trap_al.importers.reading import read_detections

CLASSES = ("deer", "empty", "fox")
DEER = (Named("deer", 0.87), Named("fox", 0.09), Named("empty", 0.04))
EMPTY = (Named("empty", 0.9), Named("deer", 0.1))
BOX = Box(0.1, 0.2, 0.3, 0.4)
ORACLE = Path(__file__).parents[2].parent / "shared" / "timelapse" / "timelapse_oracle.py"


def key(name: str) -> ImageKey:
    return ImageKey.of(name)


def write(
    folder: Path,
    images: Iterable[ObservedImage],
    classes: tuple[str, ...] = CLASSES,
    detector: DetectorInfo | None = None,
) -> tuple[Written, dict[str, Any]]:
    path = folder / "recognitions.json"
    facts = {"classifier": "camera_trap_al checkpoint 7", "written_at": "2026-11-22 10:00:00", "empty": "empty"}
    written = write_recognitions(path, images, classes, detector=detector, **facts)  # type: ignore[arg-type]
    return written, json.loads(path.read_text(encoding="utf-8"))


BY_DETECTOR = [
    ObservedImage(key("s1/a.jpg"), (Detection("animal", 0.9, BOX, DEER), Detection("animal", 0.04, BOX)), DEER),
    ObservedImage(key("s1/b.jpg"), (Detection("person", 0.8, BOX), Detection("animal", 0.9, BOX))),
    ObservedImage(key("c.jpg"), ()),
    ObservedImage(key("d.jpg"), (Detection("drone", 0.7, BOX),)),
    ObservedImage(key("e.jpg"), (Detection("animal", 0.9, BOX),), problem="cut short"),
    ObservedImage(key("f.jpg"), None, DEER),
]


def test_the_boxes_stay_the_detectors_own_and_get_our_classes(tmp_path: Path) -> None:
    detector = DetectorInfo("md_v5a", "2024-01-01 10:00:00", {"typical_detection_threshold": 0.15, "x": "y"})
    written, data = write(tmp_path, BY_DETECTOR, detector=detector)
    assert written == Written(6, 0)
    assert [image["file"] for image in data["images"]] == ["s1/a.jpg", "s1/b.jpg", "c.jpg", "d.jpg", "e.jpg", "f.jpg"]
    first, low = data["images"][0]["detections"]
    numbered = data["classification_categories"]
    named = [(numbered[number], p) for number, p in first.pop("classifications")]
    assert named == [("deer", 0.87), ("fox", 0.09)]
    assert first == {"category": "1", "conf": 0.9, "bbox": [0.1, 0.2, 0.3, 0.4]} and low["conf"] == 0.04
    assert [d["category"] for d in data["images"][1]["detections"]] == ["2", "1"]
    assert data["images"][2]["detections"] == []
    assert data["detection_categories"] == {"1": "animal", "2": "person", "3": "vehicle", "4": "drone"}
    assert data["info"]["detector"] == "md_v5a"
    assert data["info"]["detection_completion_time"] == "2024-01-01 10:00:00"
    metadata = data["info"]["detector_metadata"]
    assert (metadata["typical_detection_threshold"], metadata["conservative_detection_threshold"]) == (0.15, 0.05)


def test_whole_images_get_a_box_around_all_and_empty_ones_none(tmp_path: Path) -> None:
    images = [
        ObservedImage(key("a.jpg"), None, DEER),
        ObservedImage(key("b.jpg"), None, EMPTY),
        ObservedImage(key("c.jpg"), None, (Named("unknown", 0.3), *DEER)),
        ObservedImage(key("d.jpg"), problem="cut short"),
        ObservedImage(key("\udcff.jpg"), None, DEER),
    ]
    written, data = write(tmp_path, images)
    assert written == Written(2, 3)
    (box,) = data["images"][0]["detections"]
    assert (box["conf"], box["bbox"]) == (1.0, [0.0, 0.0, 1.0, 1.0])
    assert data["images"][1] == {"file": "b.jpg", "detections": []}


def test_a_class_called_as_a_category_is_not_the_first(tmp_path: Path) -> None:
    _, data = write(tmp_path, BY_DETECTOR, classes=("animal", "deer", "fox", "empty"))
    assert data["classification_categories"]["0"] == "deer"
    assert sorted(data["classification_categories"].values()) == ["animal", "deer", "empty", "fox"]


def test_a_class_that_means_people_makes_the_box_one_of_a_person(tmp_path: Path) -> None:
    images = [ObservedImage(key("a.jpg"), None, (Named("Human", 0.8),)), ObservedImage(key("b.jpg"), None, DEER)]
    _, data = write(tmp_path, images, classes=("Human", "deer", "fox", "empty"))
    assert [image["detections"][0]["category"] for image in data["images"]] == ["2", "1"]


def test_what_is_written_is_what_is_read_again(tmp_path: Path) -> None:
    write(tmp_path, BY_DETECTOR)
    found = read_detections(tmp_path / "recognitions.json")
    for image in BY_DETECTOR[:5]:
        assert [(d.category, d.confidence, d.box) for d in found.of(image.key) or ()] == [
            (d.category, d.confidence, d.box) for d in image.detections or ()
        ]


def test_names_are_no_json_of_their_own_and_thresholds_are_numbers(tmp_path: Path) -> None:
    odd = ('"},{"', "fox\\", "empty", "Ünïcøde")
    images = [ObservedImage(key('a"b.jpg'), None, (Named(odd[0], 0.9), Named(odd[1], 0.1)))]
    detector = DetectorInfo('m"d', "", {"typical_detection_threshold": "high"})
    _, data = write(tmp_path, images, odd, detector)
    assert data["images"][0]["file"] == 'a"b.jpg'
    assert set(data["classification_categories"].values()) == set(odd)
    assert data["info"]["detector_metadata"]["typical_detection_threshold"] == 0.2
    assert data["info"]["detection_completion_time"] == "unknown"


def test_images_are_written_as_they_come(tmp_path: Path) -> None:
    def images() -> Iterable[ObservedImage]:
        yield ObservedImage(key("a.jpg"), None, DEER)
        raise KeyboardInterrupt

    (tmp_path / "recognitions.json").write_text("old", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, images())
    assert [path.name for path in tmp_path.iterdir()] == ["recognitions.json"]
    assert (tmp_path / "recognitions.json").read_text(encoding="utf-8") == "old"


@pytest.mark.skipif(not ORACLE.is_file(), reason="needs the stand-in for Timelapse beside the repository")
@pytest.mark.parametrize("detector", [None, DetectorInfo("md_v5a")])
def test_the_stand_in_for_timelapse_takes_all_of_it_without_a_warning(
    detector: DetectorInfo | None, tmp_path: Path
) -> None:
    spec = importlib.util.spec_from_file_location("timelapse_oracle", ORACLE)
    assert spec is not None and spec.loader is not None
    oracle = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(__import__("sys").modules, "timelapse_oracle", oracle)
        spec.loader.exec_module(oracle)
        _, data = write(tmp_path, BY_DETECTOR, detector=detector)
        files = [(image.key.relative_path.replace("/", "\\"), image.key.file) for image in BY_DETECTOR]
        assert not oracle.check_recognitions(tmp_path / "recognitions.json", files).errors
        result = oracle.simulate_recognitions(data, [(n, *pair) for n, pair in enumerate(files, 1)])
    assert result.imported and result.matched_files == 6
    assert {finding.severity for finding in result.findings} <= {"info"}
    assert result.label_of("s1", "a.jpg") == ("deer", 0.87) and result.label_of("", "f.jpg") == ("deer", 0.87)
    assert [d.category for d in result.detections if d.file == "c.jpg"] == ["0"]
