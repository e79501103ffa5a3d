"""Templates and image databases of the real Timelapse, and the project's independent re-statement of its rules."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from image_database import CLASSES, answer, write_database

from camera_trap_al.errors import TemplateError, TimelapseDatabaseError
from camera_trap_al.labels.template import make_template
from camera_trap_al.labels.template_classes import add_choices
from camera_trap_al.labels.timelapse_database import read_image_database

SHARED = next(
    (p / "shared" / "timelapse" for p in Path(__file__).resolve().parents if (p / "shared" / "timelapse").is_dir()),
    None,
)
SAMPLES = Path() if SHARED is None else SHARED / "samples"
pytestmark = pytest.mark.skipif(SHARED is None, reason="shared/timelapse is not beside this checkout")


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    assert SHARED is not None
    spec = importlib.util.spec_from_file_location("timelapse_oracle_too", SHARED / "timelapse_oracle.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def controls(reference: ModuleType, path: Path) -> list[dict[str, Any]]:
    return [dict(vars(control)) for control in reference.Template.open(path).controls]


@pytest.mark.parametrize(
    ("name", "field"),
    [("template_2.3_alberta.tdb", "species"), ("template_2.3_camtrapdp.tdb", "observationType"), ("", "Species")],
)
def test_added_choices_are_all_that_timelapse_finds_changed(
    reference: ModuleType, tmp_path: Path, name: str, field: str
) -> None:
    path = tmp_path / "TimelapseTemplate.tdb"
    if name:
        shutil.copyfile(SAMPLES / name, path)
    else:
        make_template(path, CLASSES)
    before, complaints = controls(reference, path), [str(finding) for finding in reference.check_tdb(path)]
    add_choices(path, field, ["Bär's Dachs", 'say "x", y'])
    after = controls(reference, path)
    assert [str(finding) for finding in reference.check_tdb(path)] == complaints
    for old, new in zip(before, after, strict=True):
        if old["data_label"] == field:
            items = reference.Choices.from_json(old.pop("list_json"))
            added = reference.Choices.from_json(new.pop("list_json"))
            assert added.items == [*items.items, "Bär's Dachs", 'say "x", y']
            assert added.include_empty == items.include_empty
        assert old == new


def test_an_image_set_that_was_made_before_opens_with_the_new_choices(reference: ModuleType, tmp_path: Path) -> None:
    template, database = tmp_path / "TimelapseTemplate.tdb", tmp_path / "TimelapseData.ddb"
    (tmp_path / "1.JPG").touch()
    make_template(template, CLASSES)
    with reference.ImageSet.open(tmp_path, template, ddb=database) as images:
        images.set_value(images.find("", "1.JPG")["Id"], "Species", "red")
    hour_ago = time.time() - 3600
    os.utime(database, (hour_ago, hour_ago))
    add_choices(template, "Species", ["lynx"])
    with reference.ImageSet.open(tmp_path, template) as images:
        images.set_value(images.find("", "1.JPG")["Id"], "Species", "lynx")


def test_a_template_from_before_2_3_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "TimelapseTemplate.tdb"
    shutil.copyfile(SAMPLES / "template_pre2.3_utc.tdb", path)
    before = path.read_bytes()
    with pytest.raises(TemplateError, match="before 2.3"):
        add_choices(path, "Species", ["lynx"])
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_real_image_database_is_read(tmp_path: Path) -> None:
    found = read_image_database(SAMPLES / "imagedata_2.3.3_three_levels.ddb", "img_species")
    assert found.version == "2.3.3.0" and found.n_rows == 4 and found.defaults == frozenset()
    said = [(row.relative_path, row.file, row.species, row.delete_flag) for row in found.rows]
    assert said == [
        ("Station1/Deployment1a", "IMG_001.jpg", "anteater", "false"),
        ("Station1/Deployment1a", "IMG_002.jpg", "elephant", "false"),
        ("Station1/Deployment1b", "IMG_001.jpg", "tapir", "false"),
        ("Station2/Deployment2a", "IMG_001.jpg", "jaguar", "false"),
    ]
    with pytest.raises(TimelapseDatabaseError, match="no field Species. It has: File, .*img_species.*labels.column"):
        read_image_database(SAMPLES / "imagedata_2.3.3_three_levels.ddb", "Species")


@pytest.mark.parametrize("name", ["template_2.3_alberta.tdb", "template_pre2.3_utc.tdb"])
def test_real_templates_are_no_image_databases(name: str) -> None:
    with pytest.raises(TimelapseDatabaseError, match="but a template"):
        read_image_database(SAMPLES / name, "species")


def test_what_is_set_there_is_read_here(reference: ModuleType, tmp_path: Path) -> None:
    for name in ("1.JPG", "site, 1/2.JPG", "site, 1/3.JPG"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    make_template(tmp_path / "TimelapseTemplate.tdb", CLASSES)
    database = tmp_path / "TimelapseData.ddb"
    with reference.ImageSet.open(tmp_path, tmp_path / "TimelapseTemplate.tdb", ddb=database) as images:
        images.set_value(images.find("site, 1", "2.JPG")["Id"], "Species", "red")
        images.set_value(images.find("site, 1", "3.JPG")["Id"], "DeleteFlag", True)
        images.set_value(images.duplicate(images.find("site, 1", "2.JPG")["Id"]), "Species", "blue")
        found = read_image_database(database, "Species")
    assert found.n_rows == 4
    said = [(row.relative_path, row.file, row.species, row.delete_flag) for row in found.rows]
    assert said == [
        ("site, 1", "2.JPG", "red", "false"),
        ("site, 1", "2.JPG", "blue", "false"),
        ("site, 1", "3.JPG", "", "true"),
    ]


def test_the_databases_of_our_tests_are_what_timelapse_opens(reference: ModuleType, tmp_path: Path) -> None:
    path = write_database(
        tmp_path / "TimelapseData.ddb", [answer("site a/1.JPG", "red", Confirmed="true")], default="x"
    )
    assert [str(finding) for finding in reference.check_ddb(path)] == []
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT RelativePath, Species FROM DataTable").fetchall() == [("site a", "red")]
