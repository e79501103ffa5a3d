"""Reading answers out of a Timelapse image database."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_database import answer, write_database

from camera_trap_al.core.records import LabelRow
from camera_trap_al.errors import TimelapseDatabaseError, UsageError
from camera_trap_al.labels import sqlite_files, timelapse_database
from camera_trap_al.labels.timelapse_database import ImageDatabase, read_image_database

ROWS = [
    answer("site b/1.JPG", "red"),
    answer("2.JPG", " blue "),
    answer("site a/deep, 2/3.JPG"),
    answer("site b/1.JPG", "green"),
    answer("4.JPG", Confirmed="True", Prediction="red"),
    answer("5.JPG", DeleteFlag="true"),
    answer("6.JPG", Selected="true", Prediction="blue", Count="3"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_database(tmp_path_factory.mktemp("made") / "a.ddb", ROWS).read_bytes()


@pytest.fixture
def ddb(tmp_path: Path, made: bytes) -> Path:
    path = tmp_path / "TimelapseData.ddb"
    path.write_bytes(made)
    return path


def change(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA synchronous = OFF")
        for statement in statements:
            database.execute(statement)
    return path


def refused(path: Path, words: str, column: str = "Species") -> None:
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    with pytest.raises(TimelapseDatabaseError, match=words):
        read_image_database(path, column)
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_answers_come_by_image_and_rows_without_one_stay(ddb: Path) -> None:
    found = read_image_database(ddb, "Species")
    assert found.n_rows == 7 and found.version == "2.5.0.6" and found.defaults == frozenset()
    assert found.rows == (
        LabelRow(2, "", "2.JPG", "blue", "false", "", "false"),
        LabelRow(5, "", "4.JPG", "", "True", "red", "false"),
        LabelRow(6, "", "5.JPG", "", "false", "", "true"),
        LabelRow(1, "site b", "1.JPG", "red", "false", "", "false"),
        LabelRow(4, "site b", "1.JPG", "green", "false", "", "false"),
    )


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_large_database_is_read_piece_by_piece(ddb: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    whole = read_image_database(ddb, "Species")
    monkeypatch.setattr(timelapse_database, "PIECE_ROWS", rows)
    assert read_image_database(ddb, "Species") == whole


def test_reading_changes_nothing_and_works_while_timelapse_is_about_to_write(ddb: Path) -> None:
    before = (ddb.read_bytes(), ddb.stat().st_mtime_ns)
    with closing(sqlite3.connect(ddb, isolation_level=None)) as timelapse:
        timelapse.execute("BEGIN IMMEDIATE")
        timelapse.execute("UPDATE DataTable SET Species = 'blue'")
        found = read_image_database(ddb, "Species")
        timelapse.execute("ROLLBACK")
    assert [row.species for row in found.rows] == ["blue", "", "", "red", "green"]
    assert (ddb.read_bytes(), ddb.stat().st_mtime_ns) == before and list(ddb.parent.iterdir()) == [ddb]


def test_a_database_that_is_being_written_is_waited_for_and_then_said_to_be_so(
    ddb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_files, "BUSY_TIMEOUT_S", 0.01)
    with closing(sqlite3.connect(ddb, isolation_level=None)) as timelapse:
        timelapse.execute("BEGIN EXCLUSIVE")
        refused(ddb, "Another program is writing into .*Wait until Timelapse is done")


def test_a_default_is_no_answer_but_what_else_the_row_says_is(tmp_path: Path) -> None:
    rows = [answer("1.JPG", "it's nothing"), answer("2.JPG", "it's nothing", Confirmed="true"), answer("3.JPG", "red")]
    found = read_image_database(write_database(tmp_path / "a.ddb", rows, default="it's nothing"), "Species")
    assert found.defaults == {"it's nothing"} and len(found.rows) == 3
    looked_at, n = found.looked_at()
    assert n == 2 and [(row.file, row.species) for row in looked_at] == [("2.JPG", ""), ("3.JPG", "red")]


def test_the_default_counts_that_new_rows_had_before_the_template_changed(tmp_path: Path) -> None:
    path = write_database(tmp_path / "a.ddb", [answer("1.JPG", "none")], default="none")
    change(path, "UPDATE TemplateTable SET DefaultValue = '' WHERE DataLabel = 'Species'")
    assert read_image_database(path, "Species").looked_at() == ((), 1)


def test_a_confirmation_that_is_there_from_the_start_is_no_answer(tmp_path: Path) -> None:
    on = {"Confirmed": "true", "Prediction": "red"}
    path = write_database(tmp_path / "a.ddb", [answer("1.JPG", **on), answer("2.JPG", "blue", **on)])
    assert read_image_database(path, "Species").looked_at()[1] == 0
    change(path, "UPDATE TemplateTable SET DefaultValue = 'True' WHERE DataLabel = 'Confirmed'")
    found = read_image_database(path, "Species")
    looked_at, n = found.looked_at()
    assert n == 1 and [(row.file, row.species, row.confirmed) for row in looked_at] == [("2.JPG", "blue", "")]
    assert len(found.rows) == 2


def test_a_field_of_any_name_can_hold_the_species(ddb: Path) -> None:
    change(
        ddb, 'ALTER TABLE DataTable ADD COLUMN "what ""is"" it" TEXT', "UPDATE DataTable SET [what \"is\" it] = 'owl'"
    )
    found = read_image_database(ddb, 'what "is" it')
    assert {row.species for row in found.rows} == {"owl"} and len(found.rows) == 7


def test_fields_that_are_no_needed_ones_may_be_missing(ddb: Path) -> None:
    change(ddb, *(f"ALTER TABLE DataTable DROP COLUMN {name}" for name in ("Confirmed", "Prediction", "DeleteFlag")))
    assert [row.species for row in read_image_database(ddb, "Species").rows] == ["blue", "red", "green"]


def test_cells_of_other_kinds_and_hidden_characters_are_texts_that_name_nothing(ddb: Path) -> None:
    change(
        ddb,
        "UPDATE DataTable SET Species = CAST(x'66006f78' AS TEXT) WHERE Id = 1",
        "UPDATE DataTable SET Species = NULL WHERE Id = 2",
        "UPDATE DataTable SET Species = x'ff' WHERE Id = 4",
        "UPDATE DataTable SET File = NULL, Species = 'a' || char(10) || 'b' WHERE Id = 5",
    )
    rows = {row.line: row for row in read_image_database(ddb, "Species").rows}
    assert rows[1].species == "f\ufffdox" and 2 not in rows and rows[4].species == "\ufffd"
    assert (rows[5].file, rows[5].species) == ("", "a\ufffdb")


@given(species=st.lists(st.text(max_size=12), max_size=6), default=st.sampled_from(["", "none", "a 'b'"]))
@settings(max_examples=8)
def test_every_text_that_a_field_can_hold_comes_back(
    tmp_path_factory: pytest.TempPathFactory, species: list[str], default: str
) -> None:
    folder = tmp_path_factory.mktemp("database")
    texts = [text.encode("utf-8", "replace").decode() for text in species]
    rows = [answer(f"{n}.JPG", text) for n, text in enumerate(texts)]
    found = read_image_database(write_database(folder / "a.ddb", rows, default=default), "Species")
    said = {row.file: row.species for row in found.rows}
    for n, text in enumerate(texts):
        if text.isprintable():
            assert said.get(f"{n}.JPG", "") == text.strip()
    assert isinstance(found, ImageDatabase) and found.n_rows == len(texts)


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        (("DROP TABLE DataTable",), "no image database of Timelapse but a template.*Name the .ddb"),
        (("DROP TABLE DataTable", "DROP TABLE TemplateTable"), "no image database of Timelapse.*Name the .ddb"),
        (("UPDATE ImageSetTable SET VersionCompatabily = '2.2.5.1'",), "before 2.3.*upgrade it"),
        (("UPDATE ImageSetTable SET VersionCompatabily = NULL",), "before 2.3"),
        (("ALTER TABLE ImageSetTable DROP COLUMN VersionCompatabily",), "before 2.3"),
        (("DELETE FROM ImageSetTable",), "before 2.3"),
        (("DROP TABLE ImageSetTable",), "before 2.3"),
        (("ALTER TABLE DataTable ADD COLUMN UtcOffset TEXT",), "before 2.3"),
        (
            ("ALTER TABLE DataTable RENAME COLUMN Species TO species2",),
            "no field Species. It has: File,.*labels.column",
        ),
        (("UPDATE DataTable SET Species = CAST(x'ff' AS TEXT)",), "cannot be read as an image database"),
        (("DROP INDEX IndexRelativePathFile", "ALTER TABLE DataTable DROP COLUMN File"), "no field File"),
    ],
)
def test_a_database_of_another_kind_or_age_is_refused(ddb: Path, statements: tuple[str, ...], words: str) -> None:
    refused(change(ddb, *statements), words)


@pytest.mark.parametrize("version", ["2.3.0.0", "2.3.3.0", "2.10.0.0", "3.0"])
def test_versions_from_2_3_on_are_read(tmp_path: Path, version: str) -> None:
    found = read_image_database(write_database(tmp_path / "a.ddb", ROWS, version=version), "Species")
    assert found.version == version


def no_database(content: bytes) -> bytes:
    return b"SQLite format 4\0" + content[16:]


def torn(content: bytes) -> bytes:
    return content[:4096] + b"\x07" * (len(content) - 4096)


@pytest.mark.parametrize(
    "damage", [lambda content: b"", lambda content: content[:3000], lambda content: content[:9000], torn, no_database]
)
def test_a_damaged_database_is_refused_in_one_sentence(ddb: Path, damage: Callable[[bytes], bytes]) -> None:
    ddb.write_bytes(damage(ddb.read_bytes()))
    refused(ddb, "cannot be read as an image database of Timelapse|is no image database of Timelapse")


def test_one_that_a_power_cut_left_half_written_is_mended_by_timelapse(ddb: Path) -> None:
    ddb.with_name(f"{ddb.name}-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(600))
    refused(ddb, "was cut off; TimelapseData.ddb-journal .*Open the images once in Timelapse")


def test_a_name_without_a_file_is_said_to_be_one(tmp_path: Path) -> None:
    for path in (tmp_path / "away.ddb", tmp_path):
        with pytest.raises(UsageError, match="There is no file"):
            read_image_database(path, "Species")
    assert list(tmp_path.iterdir()) == []
