"""`predict` with what a detector saw: animals are cropped and classified, people never, and each program gets its format."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_model import COLOURS, make_source, picture
from PIL import Image

from camera_trap_al.core import crops
from camera_trap_al.core.crops import square_around
from camera_trap_al.core.observed import Detection
from camera_trap_al.core.records import Box, ImageKey
from camera_trap_al.engine import Decoders, shared
from camera_trap_al.errors import UsageError
from camera_trap_al.exporters import exporters
from camera_trap_al.images import read_image
from camera_trap_al.learn import observing
from camera_trap_al.learn import predict as of_predict
from camera_trap_al.learn.predict import ExportedModel, open_export
from camera_trap_al_service.cli import main
from camera_trap_al_service.predicting import Asked, predict

# The classes of the fake model are its colours blue, green and red.
CLASSES = ("bluebird", "empty", "fox")
LEFT, RIGHT = [0.0, 0.0, 0.5, 0.5], [0.5, 0.0, 0.5, 0.5]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("work")
    (root / "export").mkdir()
    exporters["onnx"].write(make_source(root, CLASSES), root / "export")
    return root / "export"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Green images whose upper half is blue on the left and red on the right."""
    root = tmp_path / "images"
    for i, name in enumerate(["s1/two.jpg", "s1/person.jpg", "s1/nothing.jpg", "s2/new.jpg", "s2/failed.jpg"]):
        pixels = np.concatenate([picture(COLOURS["green"], i)] * 2, axis=1)
        pixels = np.concatenate([pixels, pixels])
        pixels[:256, :256], pixels[:256, 256:] = picture(COLOURS["blue"], i), picture(COLOURS["red"], i)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / name, quality=95)
    return root


def box(conf: float, corner: list[float], category: str = "1") -> dict[str, Any]:
    return {"category": category, "conf": conf, "bbox": corner}


@pytest.fixture
def detections(tmp_path: Path) -> Path:
    listed: list[dict[str, Any]] = [
        {"file": "s1\\two.jpg", "detections": [box(0.9, LEFT), box(0.1, [0.4, 0.4, 0.2, 0.2]), box(0.5, RIGHT)]},
        {"file": "s1/person.jpg", "detections": [box(0.9, LEFT), box(0.3, RIGHT, "2")]},
        {"file": "s1/nothing.jpg", "detections": [box(0.1, LEFT), box(0.15, LEFT, "2")]},
        {"file": "s2/failed.jpg", "failure": "no access", "detections": None},
        {"file": "elsewhere/x.jpg", "detections": [box(0.9, LEFT)]},
    ]
    path = tmp_path / "md.json"
    path.write_text(json.dumps({"images": listed, "info": {"detector": "md_v5a"}}), encoding="utf-8")
    return path


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["File"]: row for row in csv.DictReader(file)}


def test_animals_are_classified_by_their_crops_and_an_image_is_its_best_one(
    export: Path, images: Path, detections: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    done = predict(export, images, out, Asked(detections=detections, probabilities=True))
    rows = rows_of(out)
    assert list(rows["two.jpg"]) == [
        "RelativePath",
        "File",
        "Species",
        "Confidence",
        "Count",
        *(f"p_{c}" for c in CLASSES),
    ]
    found = {name: (row["Species"], row["Count"]) for name, row in rows.items()}
    assert found["two.jpg"][0] in ("bluebird", "fox") and found["two.jpg"][1] == "2"
    assert found["person.jpg"] == ("person", "1") and found["nothing.jpg"] == ("empty", "0")
    assert found["new.jpg"][1] == found["failed.jpg"][1] == ""
    assert rows["person.jpg"]["Confidence"] == rows["nothing.jpg"]["p_fox"] == ""
    assert float(rows["new.jpg"]["Confidence"]) > 0 and done.n == 5 and not done.unreadable
    said = "\n".join(done.lines)
    assert "Classified 3 images" in said and "1 images without an animal, and 1 with a person" in said
    assert "2 images have no detections" in said and "1 images that" in said and "are not in the folder" in said
    assert rows_of(tmp_path / "out.csv.counts.csv").keys() == rows.keys()


def test_each_image_is_decoded_once_and_those_with_people_never(
    export: Path, images: Path, detections: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[tuple[str, int]] = []
    read, read_crops = Decoders.read, Decoders.read_crops

    def whole(self: Decoders, path: Path, **given: Any) -> Any:
        decoded.append((path.name, 0))
        return read(self, path, **given)

    def crops(self: Decoders, path: Path, boxes: Any, **given: Any) -> Any:
        decoded.append((path.name, len(boxes)))
        return read_crops(self, path, boxes, **given)

    monkeypatch.setattr(Decoders, "read", whole)
    monkeypatch.setattr(Decoders, "read_crops", crops)
    predict(export, images, tmp_path / "out.csv", Asked(detections=detections))
    assert sorted(decoded) == [("failed.jpg", 0), ("new.jpg", 0), ("two.jpg", 2)]


def test_a_crop_gets_what_it_would_get_as_an_image_of_its_own(export: Path, images: Path) -> None:
    model, boxes = open_export(export), [Box(*LEFT), Box(0.3, 0.3, 0.4, 0.1), Box(*RIGHT)]
    path = images / "s1" / "two.jpg"
    pixels = shared().read_crops(path, boxes).pixels
    assert pixels.shape == (3, 256, 256, 3)
    whole = read_image(path, box=Box(*LEFT))
    assert np.array_equal(pixels[0], whole)
    together = model.probabilities(pixels)
    alone = np.concatenate([model.probabilities(pixels[i : i + 1]) for i in range(3)])
    assert np.array_equal(together, alone)
    assert [CLASSES[i] for i in together.argmax(axis=1)][::2] == ["bluebird", "fox"]


@pytest.mark.parametrize(
    ("box", "size", "padding", "square"),
    [
        ((0.4, 0.4, 0.2, 0.1), (100, 100), 1.0, (40, 35, 20)),
        ((0.4, 0.4, 0.2, 0.1), (100, 100), 2.0, (30, 25, 40)),
        ((0.0, 0.9, 0.2, 0.1), (100, 100), 1.0, (0, 80, 20)),
        ((0.9, 0.0, 0.1, 0.2), (100, 100), 1.5, (70, 0, 30)),
        ((0.0, 0.0, 1.0, 1.0), (200, 100), 1.0, (0, -50, 200)),
        ((0.5, 0.5, 1e-9, 1e-9), (100, 100), 1.0, (49.5, 49.5, 1)),
    ],
)
def test_a_square_is_centred_moved_into_the_image_and_squashes_nothing(
    box: tuple[float, ...], size: tuple[int, int], padding: float, square: tuple[float, ...]
) -> None:
    assert square_around(Box(*box), *size, padding=padding) == pytest.approx(square)


def test_what_a_square_has_beyond_the_image_is_black(tmp_path: Path) -> None:
    Image.new("RGB", (400, 200), (250, 250, 250)).save(tmp_path / "wide.png")
    (crop,) = shared().read_crops(tmp_path / "wide.png", [Box(0, 0, 1, 1)]).pixels
    assert crop[:60].max() == crop[-60:].max() == 0 and crop[70:-70].min() == 250


def test_recognitions_hold_all_boxes_of_the_user_and_classes_for_those_that_count(
    export: Path, images: Path, detections: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rec.json"
    done = predict(export, images, out, Asked(form="megadetector", detections=detections))
    data = json.loads(out.read_text(encoding="utf-8"))
    of = {image["file"]: image["detections"] for image in data["images"]}
    given = json.loads(detections.read_text(encoding="utf-8"))["images"][0]["detections"]
    assert [{name: d[name] for name in given[0]} for d in of["s1/two.jpg"]] == given
    names = data["classification_categories"]
    best = [names[d["classifications"][0][0]] if "classifications" in d else None for d in of["s1/two.jpg"]]
    assert best == ["bluebird", None, "fox"]
    assert not any("classifications" in d for d in of["s1/person.jpg"] + of["s1/nothing.jpg"])
    assert data["info"]["detector"] == "md_v5a" and data["info"]["classifier"] == "camera_trap_al checkpoint 1"
    assert not any("Warning" in line for line in done.lines)
    predict(export, images, out, Asked(form="megadetector", detections=detections, min_confidence=1.0))
    assert "classifications" not in out.read_text(encoding="utf-8").split('"images"')[1]


def test_without_detections_it_is_said_that_an_import_replaces_recognitions(
    export: Path, images: Path, tmp_path: Path
) -> None:
    done = predict(export, images, tmp_path / "rec.json", Asked(form="megadetector"))
    assert any(line.startswith("Warning") and "replaces the recognitions" in line for line in done.lines)
    data = json.loads((tmp_path / "rec.json").read_text(encoding="utf-8"))
    boxes = [d for image in data["images"] for d in image["detections"]]
    assert all(d["bbox"] == [0, 0, 1, 1] and d["conf"] == 1 for d in boxes)


def test_a_csv_for_timelapse_has_a_row_for_every_image(
    export: Path, images: Path, detections: Path, tmp_path: Path
) -> None:
    (images / "two.jpg").write_bytes(b"damaged")
    out = tmp_path / "tl.csv"
    done = predict(export, images, out, Asked(form="timelapse", detections=detections))
    lines = out.read_bytes().split(b"\r\n")
    assert lines[0] == b"File,RelativePath,Prediction,Confidence,Count"
    assert lines[1] == b"two.jpg,,,," and len(lines) == 8
    assert b"person.jpg,s1,person,,1" in lines and b"nothing.jpg,s1,empty,,0" in lines
    assert [path for path, _ in done.unreadable] == ["two.jpg"]


def test_a_package_and_sorted_copies_are_written_from_the_same_pass(
    export: Path, images: Path, detections: Path, tmp_path: Path
) -> None:
    asked = Asked(form="camtrap-dp", detections=detections, time_zone="+02:00", sort_into=tmp_path / "sorted")
    predict(export, images, tmp_path / "package", asked)
    with (tmp_path / "package" / "observations.csv").open(encoding="utf-8", newline="") as file:
        kinds = {row["observationType"] for row in csv.DictReader(file)}
    assert {"animal", "human", "blank"} <= kinds
    assert (tmp_path / "sorted" / "person" / "s1" / "person.jpg").is_file()
    assert (images / "s1" / "person.jpg").is_file()


def test_more_boxes_than_any_flock_has_fill_no_memory(
    export: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crops, "MOST_CROPS", 2)
    boxes = [box(0.2 + i / 100, LEFT) for i in range(5)]
    detections = tmp_path / "md.json"
    detections.write_text(json.dumps({"images": [{"file": "s1/two.jpg", "detections": boxes}]}), encoding="utf-8")
    out = tmp_path / "rec.json"
    predict(export, images / ".", out, Asked(form="megadetector", detections=detections))
    of = {image["file"]: image["detections"] for image in json.loads(out.read_text(encoding="utf-8"))["images"]}
    assert ["classifications" in d for d in of["s1/two.jpg"]] == [False, False, False, True, True]


def test_what_cannot_be_read_is_listed_even_where_sorting_is_refused(
    export: Path, images: Path, tmp_path: Path
) -> None:
    (images / "s1" / "two.jpg").write_bytes(b"no image")
    out, folder = tmp_path / "out.csv", tmp_path / "sorted"
    done = predict(export, images, out, Asked(sort_into=folder))
    assert any("1 images are in none of them" in line for line in done.lines)
    (tmp_path / "out.csv.unreadable.csv").unlink()
    next(folder.rglob("person.jpg")).write_bytes(b"my own file")
    with pytest.raises(UsageError, match="Nothing was copied"):
        predict(export, images, out, Asked(sort_into=folder))
    assert "two.jpg" in (tmp_path / "out.csv.unreadable.csv").read_text(encoding="utf-8")


def test_images_full_of_boxes_are_decoded_and_classified_a_few_at_once(
    export: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_predict, "CHUNK_IMAGES", 4)
    monkeypatch.setattr(of_predict, "DECODE_THREADS", 2)
    monkeypatch.setattr(of_predict, "usable_cores", lambda: 1)
    at_once: list[int] = []
    begun: list[ImageKey] = []
    model = open_export(export)
    usual = model.probabilities
    monkeypatch.setattr(model, "probabilities", lambda pixels: (at_once.append(len(pixels)), usual(pixels))[1])

    def detections_of(key: ImageKey) -> tuple[Detection, ...]:
        begun.append(key)
        return (Detection("animal", 0.9, Box(*LEFT)),) * 5

    keys = [ImageKey.of("s1/two.jpg"), ImageKey.of("s1/person.jpg")] * 10
    seen = observing.observe(model, images, keys, detections_of)
    next(seen)
    assert len(begun) <= 6
    assert 1 + len(list(seen)) == len(keys) and at_once == [5] * len(keys)


def test_an_uncertain_box_gets_no_class_even_where_one_is_called_unknown(
    images: Path, detections: Path, tmp_path: Path
) -> None:
    (tmp_path / "work" / "export").mkdir(parents=True)
    exporters["onnx"].write(
        make_source(tmp_path / "work", ("bluebird", "unknown", "fox")), tmp_path / "work" / "export"
    )
    out = tmp_path / "rec.json"
    asked = Asked(form="megadetector", detections=detections, min_confidence=1.0)
    predict(tmp_path / "work" / "export", images, out, asked)
    listed = json.loads(out.read_text(encoding="utf-8"))["images"]
    assert {image["file"] for image in listed} == {"s1/two.jpg", "s1/person.jpg", "s1/nothing.jpg"}
    assert not any("classifications" in d for image in listed for d in image["detections"])


def test_what_does_not_go_together_is_refused_before_anything_is_read(
    export: Path, images: Path, detections: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*given: object) -> ExportedModel:
        raise AssertionError

    monkeypatch.setattr("camera_trap_al_service.predicting.open_export", never)
    out = tmp_path / "out"
    for asked, said in [
        (Asked(form="timelapse", probabilities=True), "--probabilities does nothing without --format csv"),
        (Asked(padding=1.5), "--padding does nothing without --detections"),
        (Asked(detection_threshold=0.5), "--detection-threshold does nothing without --detections"),
        (Asked(link=True), "--link does nothing without --sort-into"),
        (Asked(time_zone="Z"), "--time-zone does nothing without --format camtrap-dp"),
        (Asked(sort_into=images / "sorted"), "Timelapse would load"),
    ]:
        with pytest.raises(UsageError, match=said):
            predict(export, images, out, asked)
    detections.write_text('{"info": {"detector": "md"}, "images": []}', encoding="utf-8")
    with pytest.raises(UsageError, match="holds something else"):
        predict(export, images, detections, Asked(form="megadetector"))


def test_detections_of_other_images_are_refused_and_nothing_is_written(
    export: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detections, out = tmp_path / "md.json", tmp_path / "out.csv"
    detections.write_text('{"images": [{"file": "other/y.jpg", "detections": []}]}', encoding="utf-8")
    command = ["predict", str(export), str(images), "--out", str(out), "--detections", str(detections)]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "names no image of" in said and "other/y.jpg" in said and "s1/nothing.jpg" in said
    detections.write_text('{"images": [{"file": ', encoding="utf-8")
    assert main(command) == 2
    assert "cut short" in capsys.readouterr().err and not out.exists()
