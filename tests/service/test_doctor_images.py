"""What `doctor` says of images and templates: each problem is made, and its line and way out are seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from doctor_world import World, is_well, only

from camera_trap_al.catalog import scan
from camera_trap_al.labels.template import make_template
from camera_trap_al_service import doctor_images, doctor_template, findings
from camera_trap_al_service.doctor_images import (
    check_classes,
    check_images,
    check_names,
    check_overlap,
    check_shown,
)
from camera_trap_al_service.doctor_template import check_species, check_template, check_timelapse

SPECIES = "UPDATE TemplateTable SET {} WHERE DataLabel = 'Species'"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def menu(*names: str) -> str:
    return json.dumps({"IncludeEmptyChoice": True, "ChoiceListNonEmpty": list(names)})


def test_images_are_counted_and_what_is_passed_over_is_told(world: World) -> None:
    assert is_well(world.look(check_images)) and len(world.look(check_images)) == 3
    world.put("train/top.jpg")
    world.put("pool/a/none.jpg", b"")
    world.put("pool/a/clip.mp4")
    found = world.look(check_images)
    notes = {finding.text: finding.fix for finding in found if finding.level == "note"}
    assert any("top.jpg" in text and "folder of its class" in fix for text, fix in notes.items())
    assert any("1 files" in text and "0 bytes" in text for text in notes) and any("1 videos" in text for text in notes)


def test_images_at_the_top_that_are_left_out_are_told(world: World) -> None:
    world.configure(selector__top_images=False)
    assert "1 images lie directly in" in only(world.look(check_images), "note").text


def test_links_are_told(world: World) -> None:
    try:
        (world.pool / "more").symlink_to(world.root / "train", target_is_directory=True)
    except OSError:
        pytest.skip("this system lets this user make no links")
    assert "not followed (more)" in only(world.look(check_images), "note").text


def test_a_folder_without_images_or_that_is_away_is_a_problem(world: World) -> None:
    (world.root / "empty").mkdir()
    world.configure(data__unlabelled=str(world.root / "empty"))
    found = only(world.look(check_images), "problem")
    assert "there is no image" in found.text and "relocate WORK --unlabelled" in found.fix
    world.configure(data__unlabelled=str(world.root / "gone"))
    found = only(world.look(check_images), "problem")
    assert "cannot be looked through" in found.text and "relocate WORK --unlabelled" in found.fix
    assert world.look(check_shown) == world.look(check_template) == world.look(check_timelapse) == []


def test_images_that_cannot_be_read_are_a_problem(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def refuse(path: Path, *arguments: str, **options: str) -> object:
        if path.parent.parent == world.pool:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)  # type: ignore[call-overload]

    (world.pool / "2.JPG").unlink()
    monkeypatch.setattr(Path, "open", refuse)
    assert "cannot be read: Permission denied" in only(world.look(check_images), "problem").text


def test_pictures_that_timelapse_cannot_show_are_counted_by_kind(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_well(world.look(check_shown))
    for name in ("1.jpeg", "2.JPEG", "3.png"):
        world.put(f"pool/{name}")
    jpeg, png = world.look(check_shown)
    assert jpeg.text.startswith("2 .jpeg") and "Rename them to .jpg" in jpeg.fix
    assert png.text.startswith("1 .png") and "Save copies" in png.fix and 'tool = "any"' in png.fix
    world.configure(labels__tool="any")
    assert world.look(check_shown) == []
    world.configure()
    monkeypatch.setattr(scan, "TIMELAPSE_MAX_PATH", len(str(world.pool)) + 6)
    assert any("a/1.jpg" in finding.text and "259" in finding.text for finding in world.look(check_shown))


def test_names_that_a_spreadsheet_would_run_are_told(world: World) -> None:
    assert is_well(world.look(check_names))
    world.put("pool/=1+cmd(1).jpg")
    assert "=1+cmd(1).jpg" in only(world.look(check_names), "note").text


def test_folders_that_differ_by_case_only_are_told_once(world: World) -> None:
    world.put("pool/Site/deep/1.jpg")
    try:
        (world.pool / "site").mkdir()
    except FileExistsError:
        pytest.skip("this file system takes both names for one")
    world.put("pool/site/deep/2.jpg")
    found = only(world.look(check_names), "note")
    assert "'Site' and 'site'" in found.text and "Rename one" in found.fix


def test_class_folders_with_few_images_or_unusable_names_are_told(world: World) -> None:
    assert is_well(world.look(check_classes)) and "2 classes" in world.look(check_classes)[0].text
    (world.root / "train" / "otter").mkdir()
    world.put("train/badger/1.jpg")
    world.put("train/unlabelled/1.jpg")
    world.put("train/unlabelled/2.jpg")
    found = world.look(check_classes)
    none, one = (finding for finding in found if finding.level == "note")
    assert "no image: 'otter'" in none.text and "one image: 'badger'" in one.text
    assert "'unlabelled'" in only(found, "problem").text and only(found, "problem").fix == "Rename it."


def test_class_folders_that_are_one_class_in_two_spellings_are_a_problem(world: World) -> None:
    (world.root / "train" / "lynx ").mkdir(exist_ok=True)
    names = [path.name for path in (world.root / "train").iterdir()]
    if "lynx " not in names:
        pytest.skip("this file system drops blanks at the end of names")
    assert any("Put their images into one folder" in finding.fix for finding in world.look(check_classes))


@pytest.mark.parametrize("where", ["train/lynx/copy.jpg", "pool/a/copy.jpg"])
def test_validation_images_that_also_train_are_a_problem(world: World, where: str) -> None:
    assert is_well(world.look(check_overlap))
    content = (world.root / "validation" / "fox" / "1.jpg").read_bytes()
    world.put(where, bytes(len(content)))
    assert is_well(world.look(check_overlap)), "the same size is not the same image"
    world.put(where, content)
    found = only(world.look(check_overlap), "problem")
    assert found.text.startswith("1 validation images") and "accuracy" in found.text
    world.configure(data__validation="")
    assert world.look(check_overlap) == []


def test_that_only_some_files_were_compared_is_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (findings, doctor_images):
        monkeypatch.setattr(module, "MOST_TWINS", 1)
    world.put("pool/a/other.jpg", bytes(len((world.root / "validation" / "fox" / "1.jpg").read_bytes())))
    assert "1 files of the same size were compared" in only(world.look(check_overlap), "ok").text


def test_without_a_template_the_fields_are_named(world: World) -> None:
    assert is_well(world.look(check_template))
    (world.pool / "TimelapseTemplate.tdb").unlink()
    found = only(world.look(check_template), "problem")
    assert "Template Editor" in found.fix and "Species (Choice) and Selected (Flag)" in found.fix
    assert world.look(check_species) == []


@pytest.mark.parametrize(
    ("statement", "says", "fix"),
    [
        (SPECIES.format("DefaultValue = 'fox'"), "labels every image before anybody looks", "Empty its default"),
        (SPECIES.format("DataLabel = 'species'"), "only species", 'set column = "species" under [labels]'),
        (SPECIES.format("Type = 'MultiLine'"), "of the type MultiLine", "Choice or Note"),
        (SPECIES.format("ExportToCSV = 'false'"), "left out of exported files", "Tick its export"),
        ("UPDATE TemplateTable SET Type = 'Note' WHERE DataLabel = 'Selected'", "of the type Note", "Make it a Flag"),
        ("DELETE FROM TemplateTable WHERE DataLabel = 'Selected'", "no field with the data label Selected", "a Flag"),
        ("UPDATE TemplateTable SET DefaultValue = 'True' WHERE DataLabel = 'Selected'", "on by default", "to false"),
        ("UPDATE TemplateTable SET ExportToCSV = NULL WHERE DataLabel = 'File'", "File is left out", "Tick"),
        ("DROP TABLE TemplateInfo", "before 2.3", "Timelapse 2.3 or later"),
    ],
)
def test_a_template_that_spoils_the_answers_is_a_problem(world: World, statement: str, says: str, fix: str) -> None:
    world.template(statement)
    found = only(world.look(check_template), "problem")
    assert says in found.text and fix in found.fix


def test_a_template_without_fields_for_predictions_is_told(world: World) -> None:
    world.template("DELETE FROM TemplateTable WHERE DataLabel IN ('Prediction', 'Confidence')")
    found = only(world.look(check_template), "note")
    assert "no Prediction and no Confidence" in found.text and "as Notes" in found.fix


def test_a_template_without_a_column_for_exports_exports_all(world: World) -> None:
    world.template("ALTER TABLE TemplateTable DROP COLUMN ExportToCSV")
    assert is_well(world.look(check_template))


def test_a_template_where_timelapse_does_not_open_it_is_a_problem(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = world.pool / "TimelapseTemplate.tdb"
    monkeypatch.setattr(doctor_template.os, "access", lambda path, mode: False)
    assert "write-protected" in only(world.look(check_template), "problem").text
    monkeypatch.undo()
    monkeypatch.setattr(doctor_template, "LONGEST_PATH", len(str(template)))
    assert "too long for Timelapse" in only(world.look(check_template), "problem").text
    monkeypatch.undo()
    template.rename(world.pool / "Mine.TDB")
    assert only(world.look(check_template), "problem").fix == "Rename it to Mine.tdb, in lower case."
    (world.pool / "Mine.TDB").rename(template)
    (world.pool / "other.tdb").write_bytes(template.read_bytes())
    assert "Keep one" in only(world.look(check_template), "note").fix
    template.write_bytes(b"no database")
    assert any("cannot be read as a Timelapse template" in finding.text for finding in world.look(check_template))


def test_a_menu_that_lacks_classes_or_offers_others_is_a_problem(world: World) -> None:
    assert is_well(world.look(check_species))
    world.template(SPECIES.format("List = ?"), menu("Fox", "wolf", "unsure"))
    lacks, more = world.look(check_species)
    assert lacks.level == more.level == "problem"
    assert "lacks the classes lynx," in lacks.text and "Close Timelapse" in lacks.fix
    assert "offers wolf," in more.text and "[classes]" in more.fix
    world.configure(classes__auto_add=True)
    assert "become classes" in only(world.look(check_species), "note").text
    world.configure(classes__names=("wolf",))
    assert [finding.text for finding in world.look(check_species)] == [lacks.text]


def test_species_that_are_typed_have_no_menu_to_check(world: World) -> None:
    (world.pool / "TimelapseTemplate.tdb").unlink()
    make_template(world.pool / "TimelapseTemplate.tdb", [])
    assert world.look(check_species) == []


def test_what_else_lies_in_the_image_folder_is_told(world: World) -> None:
    assert "Load template" in only(world.look(check_timelapse), "note").fix
    world.put("pool/TimelapseData.ddb")
    assert is_well(world.look(check_timelapse))
    world.put("pool/Backups/TimelapseData.2026-11-22.10-30-00.ddb")
    assert "Backups is left out" in only(world.look(check_timelapse), "ok").text
    world.put("pool/Second.ddb")
    assert "2 image databases" in only(world.look(check_timelapse), "note").text
    world.put("pool/other.lnk")
    assert "other.lnk" in only(world.look(check_timelapse), "problem").text


def test_pictures_in_a_work_folder_below_the_images_are_a_problem(world: World) -> None:
    world.configure(data__unlabelled=str(world.root))
    assert not [finding for finding in world.look(check_timelapse) if finding.level == "problem"]
    world.put("work/new_labels_bin/IMG_1.JPG")
    found = only(world.look(check_timelapse), "problem")
    assert "IMG_1.JPG" in found.text and "out of the work folder" in found.fix
