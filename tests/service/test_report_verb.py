"""The verb `report` and REPORTING's page: what they are made from, that they write one file, and whom they never show."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from season import Season, make_season

from camera_trap_al import reporting
from camera_trap_al.engine import shared
from camera_trap_al.errors import ImageUnreadableError, WorkFolderError
from camera_trap_al.giving_way import GaveWay
from camera_trap_al.lock import take_lock
from camera_trap_al.report_pictures import SIDE_PX, is_private_class, may_be_shown, small_picture
from camera_trap_al.results import report as reporting_step
from camera_trap_al.work import Work
from camera_trap_al_service.cli import main

QUICK_START = {"train.epochs": 0, "finetune.epochs": 0, "query.per_sequence": 0}


@pytest.fixture(scope="module")
def labelled(pictures: Path, tmp_path_factory: pytest.TempPathFactory, no_torch: None) -> Season:
    """Return a season with validation images, of which thirty images are labelled and learned."""
    options = {**QUICK_START, "query.batch": 30}
    season = make_season(pictures, tmp_path_factory.mktemp("report") / "season", ("train", "validation"), options)
    season.run()
    season.person()()
    season.run()
    return season


def page_of(work: Path) -> str:
    return (work / "report.html").read_text(encoding="utf-8")


def seen_in(page: str) -> str:
    return re.sub(r"<[^>]*>", "\n", page.partition("</style>")[2])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_before_the_first_run_the_page_says_so(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    season = make_season(pictures, tmp_path / "season", ("train",), {})
    before = contents(season.work)
    assert main(["report", str(season.work)]) == 0
    assert "report.html" in capsys.readouterr().out
    seen = seen_in(page_of(season.work))
    assert reporting.NOT_STARTED in seen and "camera-trap-al run" in seen
    assert {name: data for name, data in contents(season.work).items() if name != "report.html"} == before


def test_a_folder_that_is_no_work_folder_gets_no_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == WorkFolderError.exit_code
    assert not any(tmp_path.iterdir()) and str(tmp_path) in capsys.readouterr().err


@pytest.mark.slow
def test_the_daemon_writes_the_page_and_the_verb_the_same_beside_it(labelled: Season) -> None:
    page = page_of(labelled.work)
    assert page.count("<svg class=") >= 2 and "data:image/png;base64," in page
    before = contents(labelled.work)
    held = take_lock(labelled.work / "daemon.lock")
    assert held is not None
    try:
        assert main(["report", str(labelled.work)]) == 0
        first = (labelled.work / "report.html").read_bytes()
        assert main(["report", str(labelled.work)]) == 0
    finally:
        held.release()
    after = contents(labelled.work)
    assert after.pop("report.html") == first and before.pop("report.html")
    assert {name for name in after if after[name] != before.get(name)} <= {"lease.json", "daemon.lock"}
    ours = [part.partition("</section>")[0] for part in page_of(labelled.work).split("<section")[2:]]
    assert ours == [part.partition("</section>")[0] for part in page.split("<section")[2:]]


@pytest.mark.slow
def test_its_figures_are_those_of_the_other_results(labelled: Season) -> None:
    seen = seen_in(page_of(labelled.work))
    curve = (labelled.work / "test_results" / "learning_curve.csv").read_text(encoding="utf-8").splitlines()
    accuracy = float(curve[-1].split(",")[1])
    assert f"Of 12 images {100 * accuracy:.1f} % are right" in seen
    assert "Measured on 12 of 12 validation images" in seen
    n_labels = sum(species != "unlabelled" for species in labelled.labels_csv().values())
    assert n_labels == 30
    sites = seen.partition("A site is a folder")[2].partition("Labels by day")[0].split()
    assert {"a", "b", "folder)"} <= set(sites) and sum(
        int(n) for n in sites[sites.index("Compared") :] if n == "20"
    ) == 60


@pytest.fixture
def work(labelled: Season) -> Iterator[Work]:
    opened = Work.open(labelled.work)
    yield opened
    opened.close()


@pytest.mark.slow
def test_a_page_that_fails_lets_reporting_rest_and_the_old_one_stay(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, reported = work.folder.report.read_bytes(), work.folder.reported.read_bytes()

    def fail(*_: Any) -> bytes:
        raise OSError(28, "No space left on device", str(work.folder.report))

    monkeypatch.setattr(reporting, "report_page", fail)
    with pytest.raises(OSError, match="No space"):
        reporting_step(work)
    assert (work.folder.report.read_bytes(), work.folder.reported.read_bytes()) == (old, reported)


@pytest.mark.slow
def test_the_page_gives_way_to_a_label_file(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    old = work.folder.report.read_bytes()
    source = reporting.Source.of(work)
    new = work.folder.bin / "new.csv"
    new.write_text("File,RelativePath,Species\r\nIMG_0001.JPG,,red\r\n", encoding="utf-8", newline="")
    try:
        work.inbox.files(0.0)
        with pytest.raises(GaveWay):
            reporting.write_report(source)
    finally:
        new.unlink()
    assert work.folder.report.read_bytes() == old


@pytest.mark.slow
def test_nobody_is_shown_whose_image_may_hold_a_person(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "is_private_class", lambda name: name == "red")
    monkeypatch.setattr("camera_trap_al.report_pictures.is_private_class", lambda name: name == "red")
    report = reporting.collect(reporting.Source.of(work), {})
    shown = {*report.best, *report.worst}
    assert shown and not any("red" in (one.truth, one.predicted) for one in shown)
    assert not any("red" in (one.given, one.looks_like) for one in report.doubts)


@pytest.mark.slow
@pytest.mark.parametrize("folders", [("train",), ()])
def test_without_validation_images_labels_are_predicted_without_themselves(
    folders: tuple[str, ...], pictures: Path, tmp_path: Path, no_torch: None
) -> None:
    season = make_season(
        pictures, tmp_path / "season", folders, {**QUICK_START, "classes.names": ["red", "green", "blue"]}
    )
    season.run()
    if folders:
        assert "so nothing was measured. There are 6 labels of 3 classes" in seen_in(page_of(season.work))
    label = season.person()
    for _ in range(3):
        label()
        season.run()
    seen = seen_in(page_of(season.work))
    assert "There are no validation images, so" in seen and "labels were compared" in seen
    assert "Reliability" not in seen or "Said to be sure" in seen


@pytest.mark.slow
def test_with_one_class_the_page_says_what_is_missing(pictures: Path, tmp_path: Path, no_torch: None) -> None:
    season = make_season(pictures, tmp_path / "season", (), {**QUICK_START, "classes.names": ["red"]})
    season.run()
    season.drop("one.csv", dict.fromkeys(season.asked(), "red"))
    season.run()
    assert not (season.work / "report.html").exists()
    assert main(["report", str(season.work)]) == 0
    seen = seen_in(page_of(season.work))
    assert "of 1 classes, too few to compare" in seen and "none yet" in seen
    assert "Labels by site" in seen and "site a" in seen


@pytest.mark.parametrize(
    "name",
    [
        "person",
        "Person",
        "PEOPLE",
        "human_being",
        "Vehicle (car)",
        "humans",
        "Homo sapiens",
        "truck",
        "person2",
        "hiker",
    ]
    + ["Personne", "Mensch", "Veículo", "Ve\u0301hicule", "ЧЕЛОВЕК", "人"],
)
def test_people_and_vehicles_are_private(name: str) -> None:
    assert is_private_class(name)
    assert not may_be_shown(name, {})
    assert not may_be_shown("deer", {"deer": 0.85, name: 0.15})
    assert may_be_shown("deer", {"deer": 0.99, name: 0.01})


@pytest.mark.parametrize(
    "name", ["roe deer", "impersonator", "humanoid-crab", "peoplefish", "Manis javanica", "carnivore", ""]
)
def test_other_classes_are_not(name: str) -> None:
    assert not is_private_class(name) and may_be_shown(name, {name: 1.0})


@pytest.mark.parametrize(("orientation", "size"), [(1, (160, 80)), (6, (80, 160))])
def test_a_small_picture_is_upright_and_says_nothing_of_where_it_was_taken(
    orientation: int, size: tuple[int, int], tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "SecretCamera"
    exif.get_ifd(0x8825)[2] = (52.0, 42.0, 1.0)
    path = tmp_path / "taken.jpg"
    noise = np.random.default_rng(2).integers(0, 255, (200, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, exif=exif, comment=b"52.7 N, 23.8 E")
    png, found = small_picture(str(path), shared())
    assert found == size and max(size) <= SIDE_PX
    with Image.open(io.BytesIO(png)) as small:
        small.load()
        assert small.size == size and small.format == "PNG" and not small.info and not small.getexif()
    assert b"Secret" not in png and b"52.7" not in png
    assert set(re.findall(rb"[A-Z]{4}|tEXt|iTXt|zTXt|eXIf", png[:64])) <= {b"IHDR", b"PLTE"}


def test_a_damaged_image_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8 not an image")
    with pytest.raises(ImageUnreadableError):
        small_picture(str(tmp_path / "bad.jpg"), shared())
