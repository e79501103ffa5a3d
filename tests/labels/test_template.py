"""Making and reading Timelapse templates."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camera_trap_al.errors import TemplateError
from camera_trap_al.labels import sqlite_files
from camera_trap_al.labels.template import Field, Template, find_templates, make_template, missing_fields, read_template
from camera_trap_al.store.atomic import failpoints

AWKWARD_CLASSES = [
    "none",
    "red fox",
    'deer, "young"',
    "bird (other), or [bat,]",
    "кабан",
    "Bär's Dachs",
    "🦌\u200d👩",
    "back\\slash |pipe| <EMPTY>",
    "x" * 300,
]

ORDINARY = st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"))
CLASS_NAMES = st.text(ORDINARY, min_size=1, max_size=30).map(str.strip).filter(bool)


def stored_rows(path: Path) -> list[dict[str, object]]:
    with closing(sqlite3.connect(path)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute("SELECT * FROM TemplateTable ORDER BY SpreadsheetOrder")]


def changed(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)
    return path


@pytest.fixture
def tdb(tmp_path: Path) -> Path:
    path = tmp_path / "TimelapseTemplate.tdb"
    make_template(path, ["deer", "fox"])
    return path


def test_a_new_template_has_the_standard_and_the_project_fields_in_order(tdb: Path) -> None:
    described = [
        (r["DataLabel"], r["Type"], r["DefaultValue"], r["ExportToCSV"], r["Copyable"]) for r in stored_rows(tdb)
    ]
    assert described == [
        ("File", "File", "", "true", "false"),
        ("RelativePath", "RelativePath", "", "true", "false"),
        ("DateTime", "DateTime", "2026-01-01 12:00:00", "true", "false"),
        ("DeleteFlag", "DeleteFlag", "false", "false", "false"),
        ("Species", "FixedChoice", "", "true", "true"),
        ("Selected", "Flag", "false", "true", "false"),
        ("Prediction", "Note", "", "true", "false"),
        ("Confidence", "Note", "", "true", "false"),
        ("Confirmed", "Flag", "false", "true", "false"),
        ("Count", "Counter", "0", "true", "false"),
    ]


def test_a_new_template_keeps_to_the_rules_that_break_timelapse_silently(tdb: Path) -> None:
    rows = stored_rows(tdb)
    assert [r["ControlOrder"] for r in rows] == [r["SpreadsheetOrder"] for r in rows] == list(range(1, 11))
    assert [r["TXTBOXWIDTH"] for r in rows] == ["100", "100", "160", "20", "100", "20", "100", "100", "20", "30"]
    assert all(value is not None for row in rows for value in row.values())
    assert all(row["Tooltip"] and row["Visible"] == "true" for row in rows)
    assert len({row["Label"] for row in rows}) == len(rows)
    with closing(sqlite3.connect(tdb)) as database:
        assert database.execute("SELECT * FROM TemplateInfo").fetchall() == [("2.3.0.0", "2.3.0.0", "")]
        assert database.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert database.execute("PRAGMA encoding").fetchone() == ("UTF-8",)
        declared = {row[1]: row[2] for row in database.execute("PRAGMA table_info(TemplateTable)")}
    assert [declared[name] for name in ("Id", "ControlOrder", "SpreadsheetOrder")] == ["INTEGER"] * 3


def test_the_species_menu_offers_the_empty_item_and_the_classes_as_given(tmp_path: Path) -> None:
    path = tmp_path / "a.tdb"
    make_template(path, AWKWARD_CLASSES)
    [species] = [row for row in stored_rows(path) if row["DataLabel"] == "Species"]
    assert json.loads(str(species["List"])) == {"IncludeEmptyChoice": True, "ChoiceListNonEmpty": AWKWARD_CLASSES}


@given(classes=st.lists(CLASS_NAMES, unique=True, max_size=20))
@settings(max_examples=15, deadline=None)
def test_what_is_made_reads_back(tmp_path_factory: pytest.TempPathFactory, classes: list[str]) -> None:
    path = tmp_path_factory.mktemp("template") / "TimelapseTemplate.tdb"
    make_template(path, classes)
    template = read_template(path)
    kind = "FixedChoice" if classes else "Note"
    assert template.field("Species") == Field("Species", kind, "", tuple(classes), "Species")
    assert template.field("Count") == Field("Count", "Counter", "0", (), "Count")
    assert template.field("species") is None
    assert missing_fields(template) == []


def test_nothing_but_the_template_is_left_in_the_folder(tdb: Path) -> None:
    assert list(tdb.parent.iterdir()) == [tdb]


@pytest.mark.parametrize("name", ["TimelapseTemplate.tdb", "Other.TDB", "стар.Tdb"])
def test_a_folder_with_any_template_gets_no_second_one(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(TemplateError, match="holds a Timelapse template already: .*Selected"):
        make_template(tmp_path / "TimelapseTemplate.tdb", ["fox"])
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(name, b"mine")]


def test_templates_are_found_in_any_letter_case_but_not_below_the_folder(tmp_path: Path) -> None:
    for name in ("b.TDB", "a.tdb", "c.tdb.partial", "c.ddb"):
        (tmp_path / name).touch()
    (tmp_path / "folder.tdb").mkdir()
    (tmp_path / "folder.tdb" / "d.tdb").touch()
    assert [path.name for path in find_templates(tmp_path)] == ["a.tdb", "b.TDB"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="away cannot be read.*share is connected"):
        make_template(tmp_path / "away" / "TimelapseTemplate.tdb", ["fox"])


@pytest.mark.parametrize("mode", ["enospc", "eio"])
@pytest.mark.parametrize("point", [1, 2, 3])
def test_a_template_that_cannot_be_written_leaves_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: int, mode: str
) -> None:
    monkeypatch.setattr(failpoints, "count", 0)
    monkeypatch.setattr(failpoints, "fail_at", point)
    monkeypatch.setattr(failpoints, "mode", mode)
    with pytest.raises(TemplateError, match="could not be written.*Make room on the disk"):
        make_template(tmp_path / "TimelapseTemplate.tdb", ["fox"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a folder that this user cannot write")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(TemplateError, match="could not be written"):
            make_template(tmp_path / "TimelapseTemplate.tdb", ["fox"])
    finally:
        tmp_path.chmod(0o755)


def test_classes_that_no_menu_can_hold_are_named_together(tmp_path: Path) -> None:
    with pytest.raises(TemplateError) as caught:
        make_template(tmp_path / "a.tdb", ["fox", "fox", "", " owl", "two\nlines", "bad\udc80"])
    assert str(caught.value) == (
        "Timelapse cannot show all classes in a menu: 'fox' is listed 2 times; '' is blank; ' owl' has spaces around"
        " it; 'two\\nlines' holds a line break or another unreadable character; 'bad\\udc80' holds a line break or"
        " another unreadable character. Rename these classes or their folders. No template was written."
    )
    assert list(tmp_path.iterdir()) == []


def test_reading_changes_nothing_and_works_beside_an_open_timelapse(tdb: Path) -> None:
    before = (tdb.read_bytes(), tdb.stat().st_mtime_ns)
    with closing(sqlite3.connect(tdb)) as timelapse:
        timelapse.execute("SELECT * FROM TemplateTable").fetchone()
        read_template(tdb)
    assert (tdb.read_bytes(), tdb.stat().st_mtime_ns) == before
    assert list(tdb.parent.iterdir()) == [tdb]


def test_a_locked_template_is_reported_as_in_use(tdb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_files, "BUSY_TIMEOUT_S", 0.01)
    with closing(sqlite3.connect(tdb, isolation_level=None)) as timelapse:
        timelapse.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TemplateError, match="in use by another program.*Template Editor"):
            read_template(tdb)


def test_a_path_with_url_characters_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "a?mode=rw#100% кабан & co"
    folder.mkdir()
    make_template(folder / "x y.tdb", ["fox"])
    assert missing_fields(read_template(folder / "x y.tdb")) == []


def test_a_list_with_timelapses_trailing_commas_is_read(tdb: Path) -> None:
    items = '{"IncludeEmptyChoice":true ,"ChoiceListNonEmpty":["bat,]", "say \\"a,}\\"", 7, ]}'
    changed(tdb, f"UPDATE TemplateTable SET List = '{items}' WHERE DataLabel = 'Species'")
    species = read_template(tdb).field("Species")
    assert species is not None and species.choices == ("bat,]", 'say "a,}"', "7")


@pytest.mark.parametrize(
    "items", ["deer|fox|<EMPTY>", "[]", "null", '{"ChoiceListNonEmpty": "fox"}', "{}", "[" * 10_000]
)
def test_a_list_that_timelapse_cannot_read_is_an_empty_menu(tdb: Path, items: str) -> None:
    changed(tdb, f"UPDATE TemplateTable SET List = '{items}' WHERE DataLabel = 'Species'")
    species = read_template(tdb).field("Species")
    assert species is not None and species.choices == ()


def test_empty_cells_read_as_empty_texts(tdb: Path) -> None:
    changed(tdb, "UPDATE TemplateTable SET DefaultValue = NULL, List = NULL, Label = NULL WHERE DataLabel = 'Species'")
    assert read_template(tdb).field("Species") == Field("Species", "FixedChoice", "", (), "")


def test_missing_fields_count_letter_case_and_type() -> None:
    flag = Field("Selected", "Flag", "false", (), "Selected")
    lower = Field("species", "FixedChoice", "", ("fox",), "Species")
    note, number = Field("Species", "Note", "", (), "Species"), Field("Species", "Counter", "0", (), "Species")
    assert missing_fields(Template((flag, lower))) == ["Species"]
    assert missing_fields(Template((flag, note))) == []
    assert missing_fields(Template((flag, number))) == ["Species"]
    assert missing_fields(Template(())) == ["Species", "Selected"]


def test_a_template_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="There is no template .*away.tdb"):
        read_template(tmp_path / "away.tdb")
    with pytest.raises(TemplateError, match="There is no template"):
        read_template(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"hello", b"SQLite format 3\0" + b"\xff" * 3000, "cut", "torn"])
def test_a_damaged_template_is_refused_with_a_way_out(tdb: Path, content: bytes | str) -> None:
    whole = tdb.read_bytes()
    if content == "cut":
        content = whole[: len(whole) // 2]
    elif content == "torn":
        content = whole[:4096] + b"\x07" * (len(whole) - 4096)
    assert isinstance(content, bytes)
    tdb.write_bytes(content)
    with pytest.raises(TemplateError, match="cannot be read as a Timelapse template.*Backups"):
        read_template(tdb)


@pytest.mark.parametrize(
    "statements",
    [
        ("DROP TABLE TemplateTable",),
        ("ALTER TABLE TemplateTable RENAME TO Other",),
        ("ALTER TABLE TemplateTable RENAME COLUMN List TO Items",),
        ("DELETE FROM TemplateTable WHERE Type = 'File'",),
        ("CREATE TABLE DataTable (Id INTEGER)",),
        ("UPDATE TemplateTable SET DataLabel = CAST(x'ff' AS TEXT) WHERE Type = 'Flag'",),
    ],
)
def test_a_database_of_another_kind_is_refused(tdb: Path, statements: tuple[str, ...]) -> None:
    with pytest.raises(TemplateError, match="cannot be read as a Timelapse template"):
        read_template(changed(tdb, *statements))


@pytest.mark.parametrize(
    "statement",
    ["DROP TABLE TemplateInfo", "INSERT INTO TemplateTable (Type, DataLabel) VALUES ('UtcOffset', 'UtcOffset')"],
)
def test_a_template_from_before_2_3_is_refused_with_a_way_out(tdb: Path, statement: str) -> None:
    with pytest.raises(TemplateError, match="from a Timelapse before 2.3.*upgrade it"):
        read_template(changed(tdb, statement))
