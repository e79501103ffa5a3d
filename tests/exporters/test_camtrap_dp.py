"""A Camera Trap Data Package: every cell as the standard has it, and written whole or not at all."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from camtrap_standard import TABLES, cell_problem, columns, description_problems, problems, read_table, table_problems
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from camera_trap_al.core.observed import Detection, Named, ObservedImage
from camera_trap_al.core.records import Box, ImageKey
from camera_trap_al.errors import UsageError
from camera_trap_al.exporters.camtrap_dp import NO_TIME, Package, PackageFacts, write_package
from camera_trap_al.exporters.camtrap_dp_rows import HumanLabel
from camera_trap_al.store.atomic import failpoints

SAMPLE = Path(__file__).parents[2].parent / "shared" / "data" / "ena24-md" / "camtrap_dp_small"
FACTS = PackageFacts("camera_trap_al, model 7", datetime(2026, 11, 22, 9, 30, tzinfo=timezone.utc), "md_v5a", "+02:00")
NOON = "2026-05-01T12:00:00"
FOX, DEER = (Named("Vulpes vulpes", 0.87), Named("deer", 0.1)), (Named("deer", 0.6),)


def seen(path: str, *boxes: Detection, captured: str = NOON, **facts: object) -> ObservedImage:
    return ObservedImage(ImageKey.of(path), boxes, captured=captured, **facts)  # type: ignore[arg-type]


CORNER = Box(0.1, 0.2, 0.3, 0.4)


def animal(*named: Named, box: Box = CORNER, confidence: float = 0.9) -> Detection:
    return Detection("animal", confidence, box, named)


def write(
    folder: Path, *images: ObservedImage, facts: PackageFacts = FACTS
) -> tuple[Package, dict[str, list[dict[str, str]]]]:
    package = write_package(folder, iter(images), ["deer", "Vulpes vulpes"], facts)
    assert problems(folder) == []
    return package, {name: read_table(folder, name) for name in TABLES}


def described(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "datapackage.json").read_text(encoding="utf-8"))
    return found


def test_each_box_is_an_observation_that_says_who_saw_what_and_how_surely(tmp_path: Path) -> None:
    boxes = (animal(*FOX), Detection("vehicle", 0.4, Box(0, 0, 1, 1)))
    package, tables = write(tmp_path / "dp", seen("site 1/deep/a.JPG", *boxes))
    assert (package.n_images, package.n_observations, package.n_deployments) == (1, 2, 1)
    fox, car = tables["observations"]
    assert (fox["observationType"], fox["scientificName"], fox["count"]) == ("animal", "Vulpes vulpes", "1")
    assert (fox["bboxX"], fox["bboxY"], fox["bboxWidth"], fox["bboxHeight"]) == ("0.1", "0.2", "0.3", "0.4")
    assert fox["classificationMethod"] == "machine" and fox["classifiedBy"] == "camera_trap_al, model 7"
    assert (fox["classificationProbability"], fox["classificationTimestamp"]) == ("0.87", "2026-11-22T09:30:00Z")
    assert (car["observationType"], car["scientificName"], car["classifiedBy"]) == ("vehicle", "", "md_v5a")
    assert fox["mediaID"] == tables["media"][0]["mediaID"] and fox["observationLevel"] == "media"
    (media,) = tables["media"]
    assert (media["filePath"], media["fileName"]) == ("site 1/deep/a.JPG", "a.JPG")
    assert (media["fileMediatype"], media["filePublic"], media["timestamp"]) == ("image/jpeg", "false", f"{NOON}+02:00")


def test_an_image_without_boxes_is_one_observation(tmp_path: Path) -> None:
    whole = ObservedImage(ImageKey("s", "whole.png"), named=FOX, captured=NOON)
    images = (
        whole,
        seen("s/nothing.jpg"),
        ObservedImage(ImageKey("s", "seen empty.jpg"), named=(Named("empty", 0.9),), captured=NOON),
        ObservedImage(ImageKey("s", "broken.jpg"), captured=NOON, problem="The file is cut off."),
        seen("s/broken too.jpg", problem="The file is cut off."),
    )
    _, tables = write(tmp_path / "dp", *images)
    kinds = {row["mediaID"]: (row["observationType"], row["classificationMethod"]) for row in tables["observations"]}
    assert kinds == {
        "s/whole.png": ("animal", "machine"),
        "s/nothing.jpg": ("blank", "machine"),
        "s/seen empty.jpg": ("blank", "machine"),
        "s/broken.jpg": ("unclassified", ""),
        "s/broken too.jpg": ("unclassified", ""),
    }
    assert tables["observations"][0]["bboxX"] == "" and tables["observations"][0]["count"] == ""
    assert tables["observations"][3]["observationComments"] == "The file is cut off."


def test_what_nobody_is_sure_of_is_not_named(tmp_path: Path) -> None:
    images = (
        seen("s/box.jpg", animal(*DEER)),
        ObservedImage(ImageKey("s", "whole.jpg"), named=DEER, captured=NOON),
        seen("s/not an animal.jpg", animal(Named("empty", 0.99))),
        seen("s/not classified.jpg", animal()),
        seen("s/other.jpg", Detection("boat", 0.5)),
        seen("s/just.jpg", animal(Named("deer", 0.69999))),
    )
    _, tables = write(tmp_path / "dp", *images, facts=replace(FACTS, min_confidence=0.7))
    found = [(row["observationType"], row["scientificName"]) for row in tables["observations"]]
    assert found == [
        ("animal", ""),
        ("unknown", ""),
        ("unknown", ""),
        ("animal", ""),
        ("unknown", ""),
        ("animal", "deer"),
    ]
    assert tables["observations"][4]["observationTags"] == "detection:boat"


@pytest.mark.parametrize(
    ("name", "kind"), [("person", "human"), ("Human", "human"), ("Homo sapiens", "human"), ("Car", "vehicle")]
)
def test_a_class_that_means_people_or_vehicles_is_published_as_no_animal(name: str, kind: str, tmp_path: Path) -> None:
    whole = ObservedImage(ImageKey("s", "a.jpg"), named=(Named(name, 0.9),), captured=NOON)
    _, tables = write(tmp_path / "dp", whole, seen("s/b.jpg", animal(Named(name, 0.9))))
    found = [(row["observationType"], row["scientificName"]) for row in tables["observations"]]
    assert found == [(kind, "")] * 2 and described(tmp_path / "dp")["taxonomic"] == []


def test_what_a_person_said_takes_the_place_of_what_programs_saw(tmp_path: Path) -> None:
    labels = {
        ImageKey("s", "a.jpg"): HumanLabel("Lutra lutra", "Jane", "2026-11-20T10:00:00+01:00"),
        ImageKey("s", "b.jpg"): HumanLabel("empty"),
        ImageKey("s", "c.jpg"): HumanLabel("person"),
    }
    boxes = (animal(*FOX), animal(*DEER))
    _, tables = write(
        tmp_path / "dp", *(seen(f"s/{name}.jpg", *boxes) for name in "abc"), facts=replace(FACTS, labels=labels)
    )
    first, second, third = tables["observations"]
    assert (first["classificationMethod"], first["classifiedBy"]) == ("human", "Jane")
    assert first["classificationProbability"] == "" and first["scientificName"] == "Lutra lutra"
    assert first["classificationTimestamp"] == "2026-11-20T10:00:00+01:00"
    assert (second["observationType"], third["observationType"]) == ("blank", "human")


def test_a_deployment_is_a_top_folder_and_spans_its_images(tmp_path: Path) -> None:
    times = ("2026-05-01T12:00:00", "2026-04-01T00:00:00", "2026-07-09T23:59:59")
    images = [seen(f"north/{n}/i.jpg", animal(*FOX), captured=time) for n, time in enumerate(times)]
    _, tables = write(tmp_path / "dp", *images, seen("top.jpg", animal(*DEER)))
    north, top = sorted(tables["deployments"], key=lambda row: row["deploymentID"], reverse=True)
    assert (north["deploymentID"], top["deploymentID"]) == ("north", "(top folder)")
    assert (
        north["deploymentStart"] == "2026-04-01T00:00:00+02:00"
        and north["deploymentEnd"] == "2026-07-09T23:59:59+02:00"
    )
    assert north["timestampIssues"] == "false"
    package = described(tmp_path / "dp")
    assert package["temporal"] == {"start": "2026-04-01", "end": "2026-07-09"}
    assert package["taxonomic"] == [{"scientificName": "deer"}, {"scientificName": "Vulpes vulpes"}]


def test_what_is_not_known_is_valid_and_says_so(tmp_path: Path) -> None:
    images = (seen("s/a.jpg", animal(*DEER), captured=""), seen("s/b.jpg", animal(*DEER)), seen("t/c.jpg", captured=""))
    package, tables = write(tmp_path / "dp", *images, facts=replace(FACTS, time_zone=""))
    s, t = tables["deployments"]
    assert (s["latitude"], s["longitude"], s["coordinateUncertainty"]) == ("0", "0", "20037509")
    assert "location is not known" in s["deploymentComments"]
    assert (s["timestampIssues"], s["deploymentStart"], t["deploymentStart"]) == ("true", f"{NOON}Z", f"{NO_TIME}Z")
    assert [row["timestamp"] for row in tables["media"]] == [f"{NO_TIME}Z", f"{NOON}Z", f"{NO_TIME}Z"]
    assert tables["media"][0]["mediaComments"] and not tables["media"][1]["mediaComments"]
    where, zone, times, names = package.remarks
    assert "Fill in latitude, longitude" in where and "time zone" in zone and times.startswith("2 images")
    assert "hardly scientific: deer." in names


def test_paths_that_the_standard_cannot_hold_are_left_out_and_said(tmp_path: Path) -> None:
    names = ["ok.jpg", "two..dots.jpg", "~a.jpg", "=cmd(1)/x.jpg", "\udcff.jpg"]
    package, tables = write(tmp_path / "dp", *(seen(name, animal(*FOX)) for name in names))
    assert [row["filePath"] for row in tables["media"]] == ["ok.jpg"]
    assert package.left_out == tuple(names[1:]) and package.n_images == 1
    assert package.remarks[-1].startswith("4 images are left out")


def test_text_that_a_spreadsheet_would_run_is_made_safe(tmp_path: Path) -> None:
    _, tables = write(tmp_path / "dp", seen("s/a.jpg", animal(Named("=HYPERLINK()", 0.9))))
    assert tables["observations"][0]["scientificName"] == "'=HYPERLINK()"


@pytest.mark.parametrize("zone", ["CET", "+2", "+02:00:00", "+15:00", "Z\n", "-0200"])
def test_a_time_zone_that_is_none_is_refused_before_anything_is_written(tmp_path: Path, zone: str) -> None:
    with pytest.raises(UsageError, match="no time zone") as caught:
        write_package(tmp_path / "dp", [], [], replace(FACTS, time_zone=zone))
    assert "+02:00" in str(caught.value) and not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_never_written_into(tmp_path: Path) -> None:
    folder = tmp_path / "dp"
    folder.mkdir()
    write(folder, seen("s/a.jpg", animal(*FOX)))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(before) == ["datapackage.json", "deployments.csv", "media.csv", "observations.csv"]
    with pytest.raises(UsageError, match="not an empty folder"):
        write(folder, seen("s/b.jpg"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError):
        write(tmp_path / "file", seen("s/b.jpg"))
    with pytest.raises(UsageError, match="no folder"):
        write(tmp_path / "away" / "dp", seen("s/b.jpg"))


def test_what_fails_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    def images() -> Iterator[ObservedImage]:
        yield seen("s/a.jpg", animal(*FOX))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_package(tmp_path / "dp", images(), [], FACTS)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_full_disk_at_any_moment_leaves_nothing_or_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoints, "mode", "enospc")
    n = 0
    while True:
        n += 1
        monkeypatch.setattr(failpoints, "count", 0)
        monkeypatch.setattr(failpoints, "fail_at", n)
        folder = tmp_path / f"dp{n}"
        try:
            write_package(folder, [seen("s/a.jpg", animal(*FOX))], [], FACTS)
        except OSError:
            monkeypatch.setattr(failpoints, "fail_at", 0)
            assert not folder.exists() or problems(folder) == []
            write_package(tmp_path / f"again{n}", [seen("s/a.jpg")], [], FACTS)
            continue
        break
    assert n > 10 and not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\"), min_size=1, max_size=12)
FRACTIONS = st.floats(0, 1)
NAMED = st.lists(st.builds(Named, TEXTS, FRACTIONS), max_size=2).map(tuple)
BOXES = st.builds(Box, *[st.floats(-0.5, 1.5)] * 2, *[st.floats(0, 1.5)] * 2)
DETECTIONS = st.builds(Detection, st.sampled_from(["animal", "person", "vehicle", "x"]), FRACTIONS, BOXES, NAMED)
TIMES = st.datetimes(datetime(1999, 1, 1), datetime(2030, 1, 1)).map(lambda time: time.isoformat()) | st.just("")
IMAGES = st.builds(
    ObservedImage,
    st.builds(ImageKey, st.lists(TEXTS, max_size=2).map("/".join), TEXTS),
    st.none() | st.lists(DETECTIONS, max_size=3).map(tuple),
    NAMED,
    TIMES,
    st.just("") | TEXTS,
)


# No shrinking, which would write thousands of packages.
@settings(max_examples=12, deadline=None, phases=[Phase.reuse, Phase.generate])
@given(st.lists(IMAGES, max_size=12, unique_by=lambda image: image.key), st.sampled_from(["", "Z", "-03:30"]))
def test_whatever_was_seen_the_package_follows_the_standard(images: list[ObservedImage], zone: str) -> None:
    parent = Path(tempfile.mkdtemp())
    try:
        package, tables = write(parent / "dp", *images, facts=replace(FACTS, time_zone=zone, title="Ä"))
        assert package.n_images + len(package.left_out) == len(images)
        assert {row["mediaID"] for row in tables["observations"]} == {row["mediaID"] for row in tables["media"]}
    finally:
        shutil.rmtree(parent)


def test_the_check_itself_finds_what_is_wrong(tmp_path: Path) -> None:
    assert cell_problem(TABLES["deployments"]["latitude"], "91") and cell_problem(TABLES["deployments"]["latitude"], "")
    assert cell_problem(TABLES["media"]["filePath"], "../a.jpg") and cell_problem(TABLES["media"]["timestamp"], NOON)
    assert cell_problem(TABLES["observations"]["bboxWidth"], "0") and cell_problem(
        TABLES["observations"]["count"], "1.5"
    )
    assert cell_problem(TABLES["observations"]["observationType"], "Animal")
    write(tmp_path / "dp", seen("s/a.jpg", animal(*FOX)))
    package = described(tmp_path / "dp")
    assert description_problems(package | {"created": "today"}) == ["created"]
    (tmp_path / "dp" / "deployments.csv").write_text("deploymentID\r\nt\r\n", encoding="utf-8")
    assert [problem.partition(":")[0] for problem in problems(tmp_path / "dp")] == ["deployments"] + [
        "no such deployment"
    ] * 2


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the sample package of shared/ is not here")
def test_a_package_of_other_people_passes_the_same_check() -> None:
    for name in TABLES:
        assert table_problems(SAMPLE, name) == []
        theirs = columns(SAMPLE, name)
        assert theirs == [column for column in TABLES[name] if column in theirs]
