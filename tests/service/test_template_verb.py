"""The verb `template`: what it says of a template, what it makes, and what it adds."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from doctor_world import World

from camera_trap_al.labels import template_classes
from camera_trap_al.labels.template import read_template
from camera_trap_al_service.cli import main

SPECIES = "UPDATE TemplateTable SET {} WHERE DataLabel = 'Species'"
Said = Callable[..., tuple[int, str, str]]


def menu(*names: str) -> str:
    return json.dumps({"IncludeEmptyChoice": True, "ChoiceListNonEmpty": names})


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def template(world: World, capsys: pytest.CaptureFixture[str]) -> Said:
    """Return a function that runs the verb on the world's work folder: its status, what it says, what it complains of."""

    def run(*more: str) -> tuple[int, str, str]:
        code = main(["template", str(world.work), *more])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def choices(world: World) -> tuple[str, ...]:
    species = read_template(world.pool / "TimelapseTemplate.tdb").field("Species")
    assert species is not None
    return species.choices


def test_a_good_template_is_said_to_be_one_and_left_alone(world: World, template: Said) -> None:
    before = world.tree()
    code, out, _ = template()
    assert code == 0 and out.splitlines() == [
        f"The Timelapse template {world.pool / 'TimelapseTemplate.tdb'}:",
        "It can be used.",
    ]
    assert template("--add-classes")[:1] == (0,) and "offers all 2 classes already" in template("--add-classes")[1]
    assert world.tree() == before


def test_where_there_is_none_one_is_made_as_by_init(world: World, template: Said) -> None:
    for more in ((), ("--add-classes",)):
        (world.pool / "TimelapseTemplate.tdb").unlink()
        code, out, _ = template(*more)
        assert code == 0 and f"Made the Timelapse template {world.pool / 'TimelapseTemplate.tdb'}" in out
        assert choices(world) == ("fox", "lynx", "unsure") and "It can be used" in template()[1]


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("DELETE FROM TemplateTable WHERE DataLabel = 'Selected'", "no field with the data label Selected"),
        (SPECIES.format("Type = 'MultiLine'"), "the field Species is of the type MultiLine"),
        (SPECIES.format("DefaultValue = 'fox'"), "has the default value 'fox'"),
        ("DROP TABLE TemplateInfo", "from a Timelapse before 2.3"),
        ("DROP TABLE TemplateTable", "cannot be read as a Timelapse template"),
    ],
)
def test_one_that_cannot_be_used_ends_with_1_and_is_left_alone(
    world: World, template: Said, statement: str, words: str
) -> None:
    world.template(statement)
    before = world.tree()
    code, out, _ = template()
    assert code == 1 and words in out and "It cannot be used as it is" in out
    assert world.tree() == before


@pytest.mark.parametrize(
    ("statement", "words", "status"),
    [
        (
            "UPDATE TemplateTable SET DefaultValue = 'true' WHERE DataLabel = 'Confirmed'",
            "Confirmed is on by default",
            1,
        ),
        ("UPDATE TemplateTable SET ExportToCSV = 'false' WHERE DataLabel = 'Prediction'", "Prediction is left out", 0),
        ("UPDATE TemplateTable SET ExportToCSV = 'false' WHERE DataLabel = 'Confirmed'", "Confirmed is left out", 0),
    ],
)
def test_a_confirmed_that_nobody_gave_or_that_is_never_seen_is_told(
    world: World, template: Said, statement: str, words: str, status: int
) -> None:
    world.template(statement)
    code, out, _ = template()
    assert code == status and words in out


def test_fields_that_a_template_need_not_have_are_told_and_no_more(world: World, template: Said) -> None:
    world.template("DELETE FROM TemplateTable WHERE DataLabel IN ('Prediction', 'Confidence', 'Count')")
    world.template("UPDATE TemplateTable SET Type = 'Note' WHERE DataLabel = 'Confirmed'")
    code, out, _ = template()
    assert code == 0 and "no Prediction and no Confidence" in out and "It can be used" in out
    assert "the field Confirmed is of the type Note" in out and "Make it a Flag" in out


def test_classes_without_item_and_items_without_class_are_named(world: World, template: Said) -> None:
    world.template(SPECIES.format("List = ?"), menu("Fox", "wolf", "unsure", *(f"bird {n:03}" for n in range(30))))
    code, out, _ = template()
    assert code == 0 and "lacks the classes lynx," in out and "--add-classes" in out
    assert "offers bird 000," in out and "and 11 more, which are no classes" in out


def test_classes_are_added_behind_what_is_there(world: World, template: Said) -> None:
    world.template(SPECIES.format("List = ?"), menu("Fox", "wolf", "unsure"))
    world.configure(classes__names=("owl",), classes__empty="nothing")
    content = (world.pool / "TimelapseTemplate.tdb").read_bytes()
    code, out, _ = template("--add-classes")
    assert code == 0 and "Added to the Species menu" in out and "lynx, nothing, owl" in out
    assert choices(world) == ("Fox", "wolf", "unsure", "lynx", "nothing", "owl")
    [backup] = world.pool.glob("*.tdb.bak")
    assert backup.read_bytes() == content and backup.name in out
    assert "lacks" not in template()[1] and "nothing was changed" in template("--add-classes")[1]


def test_a_species_that_is_typed_needs_no_menu(world: World, template: Said) -> None:
    world.template(SPECIES.format("Type = 'Note', List = ''"))
    before = world.tree()
    code, out, _ = template("--add-classes")
    assert code == 0 and "any name can be typed" in out and world.tree() == before


def test_a_template_that_is_open_gets_one_sentence(
    world: World, template: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_classes, "WAIT_S", 0.01)
    world.template(SPECIES.format("List = ?"), menu("fox"))
    database = world.put("pool/TimelapseData.ddb")
    code, out, err = template("--add-classes")
    assert code == 1 and not out and err.count("\n") == 1 and "seems to be open" in err and choices(world) == ("fox",)
    os.utime(database, (time.time() - 600,) * 2)
    with closing(sqlite3.connect(world.pool / "TimelapseTemplate.tdb", isolation_level=None)) as editor:
        editor.execute("BEGIN IMMEDIATE")
        code, out, err = template("--add-classes")
    assert code == 1 and "in use by another program" in err and choices(world) == ("fox",)
    assert template("--add-classes")[0] == 0 and choices(world) == ("fox", "lynx")


def test_of_several_templates_none_is_changed(world: World, template: Said) -> None:
    (world.pool / "Other.tdb").write_bytes((world.pool / "TimelapseTemplate.tdb").read_bytes())
    before = world.tree()
    code, _, err = template("--add-classes")
    assert code == 2 and "There are 2 templates" in err and world.tree() == before
    code, out, _ = template()
    assert code == 0 and "there are 2 templates" in out


def test_images_that_are_away_are_said_to_be_so(world: World, template: Said) -> None:
    world.pool.rename(world.root / "elsewhere")
    code, _, err = template()
    assert code == 2 and "is not there" in err and "relocate" in err
    assert not world.pool.exists()
