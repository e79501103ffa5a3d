"""Files of detectors: every version and slip of them, or one sentence; nothing is guessed."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camera_trap_al.core.observed import Detection
from camera_trap_al.core.records import Box, ImageKey
from camera_trap_al.importers import json_stream
from camera_trap_al.importers.detections import DetectionFileError, Detections, clipped, key_of
from camera_trap_al.importers.json_stream import JsonStream, NotJson
from camera_trap_al.importers.reading import read_detections

BOX = {"category": "1", "conf": 0.9, "bbox": [0.1, 0.2, 0.3, 0.4]}
SEEN = Detection("animal", 0.9, Box(0.1, 0.2, 0.3, 0.4))
USUAL = {"1": "animal", "2": "person", "3": "vehicle"}
SEEDS = Path(__file__).parents[2].parent / "shared" / "data"


def read(folder: Path, value: Any, root: Path | None = None) -> Detections:
    path = folder / "md.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return read_detections(path, root)


def of_one(folder: Path, *boxes: Any, **members: Any) -> Detections:
    return read(folder, {"images": [{"file": "a.jpg", "detections": list(boxes)}], **members})


def why_not(folder: Path, value: Any) -> str:
    with pytest.raises(DetectionFileError) as raised:
        read(folder, value)
    return str(raised.value)


def left_out(found: Detections) -> dict[str, int]:
    return {why: n for why, n, _ in found.left_out()}


A = ImageKey("", "a.jpg")


def test_half_characters_which_no_file_can_hold_are_replaced(tmp_path: Path) -> None:
    half = json.loads('"\\ud800"')
    info = {"detector": half, "detector_metadata": {half: half}}
    found = of_one(tmp_path, {**BOX, "category": half}, BOX, info=info, detection_categories={"1": f"{half}x"})
    boxes = found.of(A)
    assert boxes is not None and [d.category for d in boxes] == ["?", "?x"]
    assert (found.info.name, found.info.metadata) == ("?", {"?": "?"})


@pytest.mark.parametrize("version", [None, "1.0", "1.1", "1.2", "1.3", "1.4", "1.5", "1.6", 1.4])
def test_each_version_of_the_format_is_read(version: object, tmp_path: Path) -> None:
    info: dict[str, Any] = {"detector": "md_v5a", "detection_completion_time": "2024-01-01 10:00:00"}
    info |= {"detector_metadata": {"typical_detection_threshold": 0.15, "odd": [1], "none": None}}
    info |= {} if version is None else {"format_version": version}
    found = of_one(tmp_path, BOX, info=info, detection_categories=USUAL)
    assert found.of(A) == (SEEN,) and found.left_out() == []
    assert (found.info.name, found.info.completed) == ("md_v5a", "2024-01-01 10:00:00")
    assert found.info.metadata == {"typical_detection_threshold": 0.15}


def test_categories_count_by_name_wherever_their_table_stands(tmp_path: Path) -> None:
    boxes = [{**BOX, "category": number} for number in ("1", "2", "7", "9", 3)]
    table = {"1": "Person", "2": "animal", "3": "VEHICLE", "7": "human"}
    for value in ({"detection_categories": table, "images": []}, {"images": [], "detection_categories": table}):
        value["images"] = [{"file": "a.jpg", "detections": boxes}]
        assert [d.category for d in read(tmp_path, value).of(A) or ()] == ["person", "animal", "person", "9", "vehicle"]
    assert [d.category for d in of_one(tmp_path, *boxes).of(A) or ()] == ["animal", "person", "7", "9", "vehicle"]


def test_a_person_is_one_whatever_the_table_of_categories_lacks(tmp_path: Path) -> None:
    boxes = [{**BOX, "category": category} for category in ("1", "2", 2.0, 3, "4", "5")]
    found = of_one(tmp_path, *boxes, detection_categories={"1": "animal", "4": "Homo sapiens"})
    assert [d.category for d in found.of(A) or ()] == ["animal", "person", "person", "vehicle", "person", "5"]
    other = of_one(tmp_path, {**BOX, "category": "1"}, detection_categories={"0": "animal"}).of(A) or ()
    assert other[0].category == "1"


def test_numbers_from_0_without_names_are_refused_since_a_person_could_pass_for_an_animal(tmp_path: Path) -> None:
    boxes = [{**BOX, "category": "0"}, {**BOX, "category": "1"}]
    assert "numbers its categories from 0" in why_not(tmp_path, {"images": [{"file": "a.jpg", "detections": boxes}]})
    header = "image,confidence,x1,y1,x2,y2,category\n"
    assert "numbers its categories from 0" in why_not(tmp_path, f"{header}a.jpg,0.9,0,0,1,1,0\n")
    found = read(tmp_path, f"{header}a.jpg,0.9,0,0,1,1,2.0\n")
    assert [d.category for d in found.of(A) or ()] == ["person"]


def test_no_answer_of_the_detector_is_another_thing_than_no_box(tmp_path: Path) -> None:
    images: list[dict[str, Any]] = [
        {"file": "empty.jpg", "detections": []},
        {"file": "null.jpg", "detections": None},
        {"file": "missing.jpg"},
        {"file": "failed.jpg", "failure": "Failure image access", "detections": None},
    ]
    found = read(tmp_path, {"images": images})
    assert len(found) == 4 and found.of(ImageKey("", "empty.jpg")) == ()
    for name in ("null.jpg", "missing.jpg", "failed.jpg"):
        assert ImageKey("", name) in found and found.of(ImageKey("", name)) is None
    assert ImageKey("", "other.jpg") not in found and found.of(ImageKey("", "other.jpg")) is None


def test_numbers_may_be_texts_and_what_is_none_is_left_out_and_counted(tmp_path: Path) -> None:
    found = of_one(
        tmp_path,
        {"category": 1, "conf": "0.9", "bbox": ["0.1", "0.2", "0.3", "0.4"]},
        {**BOX, "conf": "much"},
        {**BOX, "conf": float("nan")},
        {**BOX, "conf": 1.5},
        {**BOX, "conf": None},
        {**BOX, "bbox": [0.1, 0.2, 0.3]},
        {**BOX, "bbox": [0.1, float("nan"), 0.3, 0.4]},
        {**BOX, "bbox": [0.1, 0.2, 0, 0.4]},
        {**BOX, "bbox": [1.5, 0.2, 0.3, 0.4]},
        {**BOX, "bbox": [300, 200, 50, 60]},
        {**BOX, "bbox": [0.8, -0.2, 0.5, 0.4]},
        {**BOX, "category": None},
        "a box",
    )
    kept = found.of(A) or ()
    assert kept[0] == SEEN and len(kept) == 2
    assert kept[1].box == pytest.approx((0.8, 0.0, 0.2, 0.2))
    assert left_out(found) == {
        "a box whose confidence is no number between 0 and 1": 4,
        "a box without a size, or outside the image": 3,
        "a box that is not four numbers": 2,
        "a part of a box outside the image": 1,
        "a box without a category": 1,
        "a detection that is no object": 1,
    }


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("s1/a.jpg", "s1/a.jpg"),
        ("s1\\deep\\a.jpg", "s1/deep/a.jpg"),
        (".\\s1/./a.jpg", "s1/a.jpg"),
        ("/photos/cams/s1/a.jpg", "s1/a.jpg"),
        ("/photos/other/s1/a.jpg", None),
        ("/photos/cams", None),
        ("E:\\photos\\a.jpg", None),
        ("../a.jpg", None),
        ("s1/../../a.jpg", None),
        ("", None),
    ],
)
def test_a_path_means_the_image_that_it_means_on_any_system(text: str, meant: str | None) -> None:
    key = key_of(text, Path("/photos/cams"))
    assert (key.path if isinstance(key, ImageKey) else None) == meant


def test_absolute_paths_are_taken_from_the_folder_however_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cams" / "x").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "cams" / "x")
    assert key_of(f"{tmp_path.as_posix()}/cams/a.jpg", Path("..")) == A
    assert key_of("\\\\Server\\Share\\cams\\a.jpg", Path("//server/share/cams")) == A


def test_names_agree_however_a_system_spells_accents(tmp_path: Path) -> None:
    found = read(tmp_path, {"images": [{"file": "e\u0301.jpg", "detections": []}]})
    assert found.of(ImageKey("", "\u00e9.jpg")) == () and found.of(ImageKey("", "e\u0301.jpg")) == ()


def test_an_image_listed_twice_counts_as_it_stands_last_and_videos_are_left_out(tmp_path: Path) -> None:
    images: list[Any] = [
        {"file": "a.jpg", "detections": []},
        {"file": ".\\a.jpg", "detections": [BOX]},
        {"file": "v.mp4", "frame_rate": 30, "detections": []},
        {"file": "w.mp4", "detections": [{**BOX, "frame_number": 7}]},
        {"detections": []},
        "a.jpg",
    ]
    found = read(tmp_path, {"images": images})
    assert found.of(A) == (SEEN,) and [key.path for key in found] == ["a.jpg"]
    assert left_out(found) == {"listed twice, the later one counts": 1, "a video": 2, "an entry without a file": 2}


def test_other_files_are_refused_in_one_sentence_each(tmp_path: Path) -> None:
    whole = json.dumps({"images": [{"file": "a.jpg", "detections": [BOX]}] * 3})
    assert "cut short" in why_not(tmp_path, whole[:-20])
    assert "is empty" in why_not(tmp_path, "")
    assert "SpeciesNet's own list" in why_not(tmp_path, {"predictions": [{"filepath": "a.jpg"}]})
    assert "PytorchWildlife's own list" in why_not(tmp_path, {"annotations": [{"img_id": "a.jpg"}], "categories": {}})
    assert "COCO" in why_not(tmp_path, {"images": [{"file_name": "a.jpg"}], "annotations": [{"image_id": 1}]})
    assert "PytorchWildlife" in why_not(tmp_path, [{"img_id": "a.jpg", "labels": ["animal 0.9"]}])
    assert "a shorter number is missing" in why_not(
        tmp_path, '{"images": [{"file": "a.jpg", "x": ' + "9" * 5000 + "}]}"
    )
    assert "no list `images`" in why_not(tmp_path, '{"type": "FeatureCollection"}')
    assert "lists no images" in why_not(tmp_path, '{"images": [], "detection_categories": {}}')
    assert "formats 1.0 to 1.6" in why_not(tmp_path, {"info": {"format_version": "2.0"}, "images": [{"file": "a"}]})
    assert "no image that can be used: 1 times an absolute path" in why_not(
        tmp_path, {"images": [{"file": "/x/a.jpg"}]}
    )
    assert "is missing after" in why_not(tmp_path, '{"images": [{"file": "a.jpg"} {"file": "b.jpg"}]}')
    assert "brackets" in why_not(tmp_path, '{"images": ' + "[" * 100_000)
    (tmp_path / "md.json").write_bytes(b'{"images": "\xff\xfe"}')
    with pytest.raises(DetectionFileError, match="no UTF-8"):
        read_detections(tmp_path / "md.json")
    with pytest.raises(DetectionFileError, match="cannot be read"):
        read_detections(tmp_path / "gone.json")


NUMBERED = st.dictionaries(
    st.text(max_size=3), st.integers() | st.floats(allow_nan=False) | st.text(max_size=5), max_size=3
)


@settings(max_examples=60)
@given(before=NUMBERED, images=st.lists(NUMBERED | st.integers() | st.none()), after=NUMBERED, chars=st.integers(1, 40))
def test_reading_in_parts_is_reading_whole(
    before: dict[str, Any], images: list[Any], after: dict[str, Any], chars: int
) -> None:
    whole = {**before, "images": images, **{f"_{key}": value for key, value in after.items()}}
    text = json.dumps(whole, indent=chars % 3 or None)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(json_stream, "CHARS", chars)
        members = list(JsonStream(io.StringIO(text)).members("images"))
        assert [value for key, value in members if key == "images"] == images
        assert {key: value for key, value in members if key != "images"} == {
            key: value for key, value in whole.items() if key != "images"
        }
        with pytest.raises(NotJson):
            list(JsonStream(io.StringIO(text[: chars % len(text)])).members("images"))


@given(st.lists(st.floats(-2, 2), min_size=4, max_size=4))
def test_what_is_left_of_a_box_is_inside_the_image(numbers: list[float]) -> None:
    box, _ = clipped(Box(*numbers))
    if box is not None:
        assert box.left >= 0 and box.top >= 0 and box.width > 0 and box.height > 0
        assert box.left + box.width <= 1 + 1e-12 and box.top + box.height <= 1 + 1e-12


CSV = "Image Name,Confidence Score,{}\r\ns1\\a.jpg,0.950000,0.1,0.2,0.4,0.6\r\ns1/b.jpg,0.9,0,0,1,1\r\ns1/a.jpg,0.5,0,0,1,1\r\n"


def test_the_header_of_a_csv_says_which_edge_is_which(tmp_path: Path) -> None:
    key = ImageKey("s1", "a.jpg")
    x_first = read(tmp_path, CSV.format("BBox_X!,BBox_Y1,BBox_X2,BBox_Y2")).of(key) or ()
    y_first = read(tmp_path, "\ufeff" + CSV.format("BBox_Y1,BBox_X1,BBox_Y2,BBox_X2")).of(key) or ()
    assert [(d.category, d.confidence) for d in x_first] == [("animal", 0.95), ("animal", 0.5)]
    assert x_first[0].box == pytest.approx((0.1, 0.2, 0.3, 0.4))
    assert y_first[0].box == pytest.approx((0.2, 0.1, 0.4, 0.3))


def test_a_csv_without_a_header_could_mean_two_boxes_and_is_refused(tmp_path: Path) -> None:
    said = why_not(tmp_path, "a.jpg,0.95,0.1,0.2,0.4,0.6\n")
    assert "which one cannot be known" in said and "BBox_X1,BBox_Y1,BBox_X2,BBox_Y2" in said
    assert "no list of boxes" in why_not(tmp_path, "File,RelativePath,Species\na.jpg,,deer\n")
    assert "no list of boxes" in why_not(tmp_path, "just a text")


def test_the_csv_with_a_list_of_boxes_an_image_is_read(tmp_path: Path) -> None:
    text = 'image_path,max_confidence,detections\na.jpg,0.9,"[[0.2, 0.1, 0.6, 0.4, 0.9, 2], [0, 0, 1, 1, 0.3]]"\n'
    found = read(tmp_path, text + 'b.jpg,0,[]\nc.jpg,0,{"\nd.jpg\n')
    first, second = found.of(A) or ()
    assert (first.category, second.category) == ("person", "animal")
    assert first.box == pytest.approx((0.1, 0.2, 0.3, 0.4))
    assert found.of(ImageKey("", "b.jpg")) == ()
    assert sum(left_out(found).values()) >= 1


@pytest.mark.skipif(not SEEDS.is_dir(), reason="needs the real files beside the repository")
@pytest.mark.parametrize(("name", "n"), [("ena24-md/md_annotations.json", 21), ("jaguar-md/md_detections.json", 9)])
def test_real_files_of_detectors_are_read_whole(name: str, n: int) -> None:
    found = read_detections(SEEDS / name)
    assert len(found) == n and not found.left_out()
    assert all(found.of(key) for key in found)
