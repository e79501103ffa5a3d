"""The verb `detections` and `init --detections`: what a detector saw is said, kept and used; people are kept back."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from season import QUICK, Season

from camera_trap_al.core.records import Box, ImageKey
from camera_trap_al.work import Work
from camera_trap_al_service.checking import check_work
from camera_trap_al_service.cli import main
from camera_trap_al_service.detections import check_detections
from camera_trap_al_service.findings import Case, finding_line
from camera_trap_al_service.reading import status_text

ANIMAL, PERSON, VEHICLE = "1", "2", "3"
WORDS = {ANIMAL: "animal", PERSON: "person", VEHICLE: "vehicle"}
CORNER = [0.1, 0.2, 0.3, 0.4]


def seen(conf: float, category: str = ANIMAL, box: list[float] | None = None) -> dict[str, Any]:
    return {"category": category, "conf": conf, "bbox": box or CORNER}


def md(path: Path, images: dict[str, Any], **more: Any) -> Path:
    """Write a file in MegaDetector's format."""
    listed = [
        {"file": name, "failure": "corrupt"} if boxes is None else {"file": name, "detections": boxes}
        for name, boxes in images.items()
    ]
    info = {"format_version": "1.4", "detector": "md_v5a.0.0.pt", "detection_completion_time": "2026-11-22 10:00:00"}
    path.write_text(
        json.dumps({"info": info, "detection_categories": WORDS, "images": listed, **more}), encoding="utf-8"
    )
    return path


FOUND: dict[str, Any] = {
    "IMG_0000.JPG": [seen(0.9), seen(0.8, box=[0.5, 0.5, 0.2, 0.2]), seen(0.1, box=[0.0, 0.0, 0.1, 0.1])],
    "IMG_0001.JPG": [seen(0.9), seen(0.5, PERSON)],
    "IMG_0002.JPG": [seen(0.3, VEHICLE)],
    "site a\\IMG_0000.JPG": [],
    "site a/IMG_0001.JPG": [seen(0.1), seen(0.1, PERSON)],
    "site a/IMG_0002.JPG": None,
    "site b/IMG_0000.JPG": [seen(0.2)],
    "elsewhere/IMG_0000.JPG": [seen(0.9)],
}


def give(season: Season, *arguments: str) -> int:
    return main(["detections", str(season.work), *arguments])


def counted(season: Season) -> dict[str, int]:
    work = Work.open(season.work)
    try:
        return vars(work.catalog.counts())
    finally:
        work.close()


def test_what_a_detector_saw_is_said_and_counts(season: Season, tmp_path: Path, capsys: Any) -> None:
    before = counted(season)
    assert give(season, str(md(tmp_path / "md.json", FOUND))) == 0
    out = capsys.readouterr().out
    for words in (
        "md_v5a.0.0.pt, 2026-11-22 10:00:00",
        "2 images have animals, 3 in all",
        "2 images have people or vehicles: they are kept back",
        "in 2 images the detector saw nothing: they are used as whole images",
        "of 54 images here it says nothing",
        "1 images that it names are not known here",
        "of 2 images each animal is looked at by itself, 2 with people or vehicles are kept back",
    ):
        assert words in out, out
    after = counted(season)
    assert (after["private"], after["with_animals"], after["looked_at"], after["without_animal"]) == (2, 2, 6, 0)
    assert after["unlabelled"] == before["unlabelled"] - 2, "an image of several animals is one image"
    assert give(season, str(tmp_path / "md.json")) == 0
    assert "given before" in capsys.readouterr().out and counted(season) == after


def test_doctor_says_how_many_images_are_kept_back(season: Season, tmp_path: Path) -> None:
    def said() -> str:
        return " ".join(finding_line("detections", finding) for finding in check_detections(Case(season.work)))

    assert said() == ""
    give(season, str(md(tmp_path / "md.json", FOUND)))
    assert "ok       detections: 2 images with animals, 2 kept back for people or vehicles, 0 left out" in said()
    assert "54 without detections" in said()
    config = season.work / "config.toml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("detection_threshold = 0.2", "detection_threshold = 0.6"), encoding="utf-8")
    assert "changed. → Nothing to do: `run` takes it in" in said()
    kept = season.work / "data" / "detections.jsonl"
    whole = kept.read_bytes()
    assert f"{kept}: 7 images, good" in check_work(season.work)[0]
    kept.write_bytes(whole.replace(b"0.9", b"0.8"))
    assert not check_work(season.work)[1]
    kept.write_bytes(whole[:-20])
    assert "detections.jsonl, what the detector saw, is damaged." in said()
    kept.unlink()
    assert "detections.jsonl is gone" in said()


def test_status_says_how_many_images_are_kept_back() -> None:
    counts = dict.fromkeys(("unlabelled", "labelled", "skipped", "train", "validation", "quarantined", "missing"), 1)
    counts |= {"not_listed": 0, "looked_at": 5, "with_animals": 2, "private": 3, "without_animal": 1}
    status = {"state": "asking", "running": False, "holder": "", "round": 1, "images": counts, "open": False}
    status |= {"learner": 1, "checkpoint": 1, "accuracy": None, "hint": "Nothing."}
    said = "2 images with animals, 3 kept back for people or vehicles, 1 left out since nothing was seen in them"
    assert said in status_text(status)
    counts["looked_at"] = 0
    assert "Detections" not in status_text(status)


def test_a_file_of_another_folder_is_refused_and_nothing_is_kept(season: Season, tmp_path: Path, capsys: Any) -> None:
    assert give(season, str(md(tmp_path / "md.json", {"x/1.jpg": [seen(0.9)]}))) == 2
    assert "names no image in" in capsys.readouterr().err
    assert give(season, str(md(tmp_path / "above.json", {"pool/IMG_0000.JPG": [seen(0.9)]}))) == 2
    assert f"--from '{season.root}'" in capsys.readouterr().err
    (tmp_path / "cut.json").write_bytes((tmp_path / "md.json").read_bytes()[:-30])
    assert give(season, str(tmp_path / "cut.json")) == 2
    assert give(season, str(tmp_path / "none.json")) == 2
    assert not (season.work / "data" / "detections.jsonl").exists()


def test_the_detector_may_have_been_started_above_or_below_the_images(
    season: Season, tmp_path: Path, capsys: Any
) -> None:
    above = {f"pool/{name}": boxes for name, boxes in FOUND.items()} | {"train/red/0.jpg": [seen(0.9)]}
    assert give(season, str(md(tmp_path / "above.json", above)), "--from", str(season.root)) == 0
    assert "left out: 1 times an image outside the folder of images" in capsys.readouterr().out
    counts = counted(season)
    assert (counts["private"], counts["with_animals"], counts["looked_at"]) == (2, 2, 6)
    absolute = {
        str(season.root / name).replace("/pool/site a\\", "/pool/site a/"): boxes for name, boxes in above.items()
    }
    assert give(season, str(md(tmp_path / "absolute.json", absolute)), "--from", str(season.root)) == 0
    assert "given before" in capsys.readouterr().out
    below = {"IMG_0000.JPG": [seen(0.9)], "IMG_0001.JPG": [seen(0.9, PERSON)]}
    assert give(season, str(md(tmp_path / "below.json", below)), "--from", str(season.root / "pool" / "site a")) == 0
    counts = counted(season)
    assert (counts["private"], counts["with_animals"], counts["looked_at"]) == (1, 1, 2)
    assert give(season, str(tmp_path / "below.json"), "--from", str(tmp_path / "elsewhere")) == 2
    assert give(season, str(tmp_path / "below.json"), "--from", str(season.root)) == 2
    assert counted(season) == counts, "what is refused changes nothing"


def test_the_detections_can_be_dropped_again(season: Season, tmp_path: Path, capsys: Any) -> None:
    before = counted(season)
    give(season, str(md(tmp_path / "md.json", FOUND)))
    assert give(season, "--none") == 0
    out = capsys.readouterr().out
    assert "used as a whole again" in out and "No detections count any more" in out
    assert counted(season) == before
    with pytest.raises(SystemExit):
        give(season)


def test_an_open_request_goes_on_without_images_of_people(season: Season, tmp_path: Path, capsys: Any) -> None:
    asked = season.asked()
    key = ImageKey.of(asked[0])
    give(season, str(md(tmp_path / "md.json", {asked[0]: [seen(0.9, PERSON)], asked[1]: [seen(0.9)]})))
    season.turn()
    with season.opened() as loop:
        awaited = loop.work.history.awaited()
        assert key not in awaited and ImageKey.of(asked[1]) in awaited and len(awaited) == len(asked) - 1
    capsys.readouterr()
    assert main(["labels", str(season.work), asked[0]]) == 0
    assert "people or a vehicle are in it, so it is kept back" in capsys.readouterr().out
    assert main(["status", str(season.work)]) == 0


def test_a_new_work_folder_begins_with_detections(pictures: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(pictures / "pool", tmp_path / "pool")
    pool, work = str(tmp_path / "pool"), tmp_path / "work"
    options = [word for key, value in QUICK.items() for word in ("-o", f"{key}={value}")]
    wrong = md(tmp_path / "wrong.json", {"x/1.jpg": [seen(0.9)]})
    command = ["init", str(work), "--unlabelled", pool, *options, "--detections"]
    assert main([*command, str(wrong)]) == 2 and not work.exists()
    assert main([*command, str(md(tmp_path / "md.json", FOUND))]) == 0
    assert "2 images have people or vehicles" in capsys.readouterr().out
    season = Season(tmp_path, {})
    season.turn()
    with season.opened() as loop:
        catalog = loop.work.catalog
        assert catalog.counts().private == 2
        (two,) = catalog.detections_of([ImageKey("", "IMG_0000.JPG")])
        assert two is not None and [d.confidence for d in two] == [0.9, 0.8, 0.1]
        rows = catalog.live_rows("pool").tolist()
        boxes = [
            box
            for box, key in zip(catalog.boxes_of(rows), catalog.keys_of(rows), strict=True)
            if key.file == "IMG_0000.JPG" and not key.relative_path
        ]
        assert sorted(filter(None, boxes)) == [Box(*CORNER), Box(0.5, 0.5, 0.2, 0.2)]
    assert not set(season.asked()) & {"IMG_0001.JPG", "IMG_0002.JPG"}
    assert main(["detections", str(work), str(tmp_path / "md.json")]) == 0
    assert "given before" in capsys.readouterr().out


def test_a_file_can_be_given_before_the_first_start(pictures: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(pictures / "pool", tmp_path / "pool")
    work = tmp_path / "work"
    main(["init", str(work), "--unlabelled", str(tmp_path / "pool")])
    capsys.readouterr()
    assert main(["detections", str(work), str(md(tmp_path / "wrong.json", {"x/1.jpg": []}))]) == 2
    assert main(["detections", str(work), str(md(tmp_path / "md.json", FOUND))]) == 0
    assert "2 images have people or vehicles" in capsys.readouterr().out


def test_before_the_first_start_names_stored_in_pieces_and_late_in_the_file_are_known(
    tmp_path: Path, capsys: Any
) -> None:
    name = "fl\u00e4che/IMG_0000.JPG"
    stored = tmp_path / "pool" / unicodedata.normalize("NFD", name)
    stored.parent.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(stored)
    work = tmp_path / "work"
    main(["init", str(work), "--unlabelled", str(tmp_path / "pool")])
    others = {f"elsewhere/{i}.JPG": [] for i in range(1500)}
    file = str(md(tmp_path / "md.json", {**others, name: [seen(0.9, PERSON)]}))
    assert main(["detections", str(work), file]) == 0
    assert "1 images have people" in capsys.readouterr().out
    (tmp_path / "pool").rename(tmp_path / "away")
    assert main(["detections", str(work), file]) == 2
    assert "is not there. Nothing was changed." in capsys.readouterr().err


def test_categories_that_mean_nothing_here_are_said_since_they_may_be_people(
    season: Season, tmp_path: Path, capsys: Any
) -> None:
    file = md(tmp_path / "md.json", FOUND, detection_categories={**WORDS, PERSON: "Mensch"})
    assert give(season, str(file)) == 0
    out = capsys.readouterr().out
    assert "CAREFUL: in 1 images are boxes of 'mensch'" in out and "write 'person'" in out


def test_images_without_an_animal_cannot_be_predicted_as_a_class_without_a_name(
    pictures: Path, tmp_path: Path, capsys: Any
) -> None:
    command = ["init", str(tmp_path / "work"), "--unlabelled", str(pictures / "pool")]
    assert main([*command, "-o", "items.without_detection=empty"]) == 2
    assert "classes.empty names no class" in capsys.readouterr().err and not (tmp_path / "work").exists()
