"""Adding classes to the menu of a template that is there."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from source_code import ROOT

from camera_trap_al.errors import TemplateError
from camera_trap_al.labels import sqlite_files, template_classes
from camera_trap_al.labels.template import find_templates, make_template, read_template
from camera_trap_al.labels.template_classes import add_choices
from camera_trap_al.store.atomic import failpoints

ORDINARY = st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"))
NAMES = st.lists(st.text(ORDINARY, min_size=1, max_size=20).map(str.strip).filter(bool), unique=True, max_size=8)
LIST = "UPDATE TemplateTable SET List = ? WHERE DataLabel = 'Species'"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("made") / "a.tdb"
    make_template(path, ["deer", "fox"])
    return path.read_bytes()


@pytest.fixture
def tdb(tmp_path: Path, made: bytes) -> Path:
    path = tmp_path / "Mine.tdb"
    path.write_bytes(made)
    return path


def change(path: Path, statement: str, *values: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(statement, values)


def cells(path: Path) -> dict[tuple[str, int, str], Any]:
    """Return every cell of every table."""
    found = {}
    with closing(sqlite3.connect(path)) as database:
        names = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in names:
            rows = database.execute(f"SELECT rowid, * FROM {name}")
            columns = [column[0] for column in rows.description]
            for rowid, *values in rows:
                found |= {(name, rowid, column): value for column, value in zip(columns[1:], values, strict=True)}
        found["schema", 0, ""] = database.execute("SELECT name, sql FROM sqlite_master").fetchall()
    return found


def listed(path: Path) -> str:
    with closing(sqlite3.connect(path)) as database:
        return str(database.execute("SELECT List FROM TemplateTable WHERE DataLabel = 'Species'").fetchone()[0])


def refused(path: Path, words: str) -> None:
    """See that classes are refused with these words, and that nothing is changed or left."""
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    with pytest.raises(TemplateError, match=words):
        add_choices(path, "Species", ["lynx"])
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_the_list_alone_is_changed_and_what_was_is_kept_beside_it(tdb: Path) -> None:
    before, content = cells(tdb), tdb.read_bytes()
    backup = add_choices(tdb, "Species", ["lynx", "Bär's Dachs"])
    after = cells(tdb)
    [changed] = [place for place in before if before[place] != after[place]]
    assert changed[2] == "List" and before.keys() == after.keys()
    expected = {"IncludeEmptyChoice": True, "ChoiceListNonEmpty": ["deer", "fox", "lynx", "Bär's Dachs"]}
    assert json.loads(listed(tdb)) == expected
    assert backup.read_bytes() == content and sorted(tdb.parent.iterdir()) == sorted([backup, tdb])
    assert backup.name.startswith("Mine.") and backup.suffix == ".bak" and find_templates(tdb.parent) == [tdb]
    assert add_choices(tdb, "Species", ["owl"]) != backup, "a copy is never overwritten"


@settings(max_examples=10)
@given(items=NAMES, names=NAMES.filter(bool), has_comma=st.booleans(), has_empty=st.booleans())
def test_items_are_kept_in_their_order_and_names_come_behind_them(
    tmp_path_factory: pytest.TempPathFactory,
    made: bytes,
    items: list[str],
    names: list[str],
    has_comma: bool,
    has_empty: bool,
) -> None:
    path = tmp_path_factory.mktemp("template") / "a.tdb"
    path.write_bytes(made)
    written = ", ".join(json.dumps(item, ensure_ascii=False) for item in items) + ", " * (has_comma and bool(items))
    change(path, LIST, f'{{"IncludeEmptyChoice":{json.dumps(has_empty)} ,"ChoiceListNonEmpty":[{written}]}}')
    add_choices(path, "Species", names)
    assert json.loads(listed(path)) == {"IncludeEmptyChoice": has_empty, "ChoiceListNonEmpty": items + names}
    species = read_template(path).field("Species")
    assert species is not None and species.choices == (*items, *names)


def test_a_list_without_items_gets_the_empty_one_too(tdb: Path) -> None:
    change(tdb, LIST, "")
    add_choices(tdb, "Species", ["lynx"])
    assert json.loads(listed(tdb)) == {"IncludeEmptyChoice": True, "ChoiceListNonEmpty": ["lynx"]}


def write_into(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def read_on(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM TemplateTable").fetchone()
        yield


@pytest.mark.parametrize("hold", [write_into, read_on])
def test_a_template_that_another_program_has_open_is_refused(
    tdb: Path, monkeypatch: pytest.MonkeyPatch, hold: Callable[[Path], Iterator[None]]
) -> None:
    monkeypatch.setattr(template_classes, "WAIT_S", 0.01)
    monkeypatch.setattr(sqlite_files, "BUSY_TIMEOUT_S", 0.01)
    for _ in hold(tdb):
        refused(tdb, "in use by another program.*Template Editor")
    add_choices(tdb, "Species", ["lynx"])


@pytest.mark.parametrize("name", ["Mine.tdb-journal", "Mine.ddb-journal"])
def test_a_journal_beside_the_template_or_the_images_says_that_somebody_writes(tdb: Path, name: str) -> None:
    for file in (tdb.with_name(name), tdb.with_name("Mine.ddb")):
        file.write_bytes(b"x")
    refused(tdb, f"{name} is there: .* being written, or .*close it, and try again")


def test_a_template_that_a_power_cut_left_half_written_is_said_to_be_so(tdb: Path) -> None:
    tdb.with_name("Mine.tdb-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(600))
    with pytest.raises(TemplateError, match="was cut off; Mine.tdb-journal .*Open it once in Timelapse"):
        read_template(tdb)


def test_images_written_a_moment_ago_say_that_timelapse_is_open(tdb: Path) -> None:
    database = tdb.with_name("Mine.DDB")
    database.write_bytes(b"x")
    refused(tdb, "wrote into .*Mine.DDB less than 60 seconds ago.*try again in a minute")
    hour_ago = time.time() - 3600
    os.utime(database, (hour_ago, hour_ago))
    add_choices(tdb, "Species", ["lynx"])


def test_a_template_that_changes_while_it_is_copied_is_refused(tdb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stamps = iter([(1, 1), (1, 2)])
    monkeypatch.setattr(template_classes, "_stamp", lambda path: next(stamps))
    refused(tdb, "in use by another program")


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE TemplateTable SET List = 'deer|fox' WHERE DataLabel = 'Species'", "list of Species .* cannot be read"),
        ("UPDATE TemplateTable SET Type = 'Note' WHERE DataLabel = 'Species'", "no Choice with the data label Species"),
        ("UPDATE TemplateTable SET DataLabel = 'species' WHERE DataLabel = 'Species'", "no Choice"),
        ("DROP TABLE TemplateInfo", "before 2.3.*upgrade it"),
        ("CREATE TABLE DataTable (Id INTEGER)", "tables are not those of a template"),
        (
            "CREATE TRIGGER t AFTER UPDATE ON TemplateTable BEGIN UPDATE TemplateInfo SET Standard = 'x'; END",
            "holds triggers",
        ),
        (
            "CREATE TRIGGER t BEFORE UPDATE ON TemplateTable BEGIN SELECT RAISE(ABORT, 'no room'); END",
            "could not be added.*no room.*left as it was",
        ),
    ],
)
def test_a_template_that_cannot_be_added_to_is_left_as_it_is(tdb: Path, statement: str, words: str) -> None:
    change(tdb, statement)
    refused(tdb, words)


@pytest.mark.parametrize("cut", [0, 1000, 5000])
def test_a_damaged_template_is_left_as_it_is(tdb: Path, cut: int) -> None:
    tdb.write_bytes(tdb.read_bytes()[:cut])
    refused(tdb, "cannot be read as a Timelapse template.*Backups")


def test_names_that_no_menu_can_hold_are_refused(tdb: Path) -> None:
    with pytest.raises(TemplateError, match="two.*line break"):
        add_choices(tdb, "Species", ["two\nlines"])
    assert list(tdb.parent.iterdir()) == [tdb]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_is_not_followed(tdb: Path) -> None:
    link = tdb.with_name("Link.tdb")
    link.symlink_to(tdb)
    refused(link, "is a link to another place")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a file that this user cannot write")
def test_a_write_protected_template_is_left_as_it_is(tdb: Path) -> None:
    tdb.chmod(0o444)
    refused(tdb, "could not be added.*not write-protected")


@pytest.mark.parametrize("mode", ["enospc", "eio"])
@pytest.mark.parametrize("point", [1, 2, 3])
def test_without_a_whole_copy_nothing_is_changed(
    tdb: Path, monkeypatch: pytest.MonkeyPatch, point: int, mode: str
) -> None:
    monkeypatch.setattr(failpoints, "count", 0)
    monkeypatch.setattr(failpoints, "fail_at", point)
    monkeypatch.setattr(failpoints, "mode", mode)
    refused(tdb, "could not be added.*there is room")


CUT_OFF = """
import os, sys
from pathlib import Path
from camera_trap_al.labels import sqlite_files, template_classes
class Cut:
    def __init__(self, database):
        self.database = database
    def execute(self, statement, *values):
        if statement == "COMMIT":
            self.database.execute("PRAGMA cache_spill = 1")
            if sys.argv[2] == "after":
                self.database.execute(statement)
            os._exit(9)
        return self.database.execute(statement, *values)
    def __getattr__(self, name):
        return getattr(self.database, name)
real = sqlite_files.connect
sqlite_files.connect = lambda path, mode="ro", **more: Cut(real(path, mode, **more)) if mode == "rw" else real(path)
template_classes.add_choices(Path(sys.argv[1]), "Species", ["lynx"] + ["x" * n for n in range(1, 300)])
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_process_that_ends_there_leaves_the_old_menu_or_the_new_one(tdb: Path, when: str) -> None:
    content = tdb.read_bytes()
    command = [sys.executable, "-c", CUT_OFF, str(tdb), when]
    assert subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode == 9
    with closing(sqlite3.connect(tdb)) as timelapse:  # opens it for writing, as Timelapse does
        assert timelapse.execute("PRAGMA quick_check").fetchall() == [("ok",)]
        timelapse.execute("SELECT * FROM TemplateTable").fetchall()
    species = read_template(tdb).field("Species")
    assert species is not None and len(species.choices) == (302 if when == "after" else 2)
    [backup] = tdb.parent.glob("*.bak")
    assert backup.read_bytes() == content
