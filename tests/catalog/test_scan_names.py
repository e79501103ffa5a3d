"""What a scan passes over, and names of every kind."""

from __future__ import annotations

import csv
import inspect
import logging
import os
import socket
import sys
from pathlib import Path

import pytest
from scanning import put, scan

from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.catalog.found import POOL
from camera_trap_al.catalog.scan import KINDS, Tally, is_safe_name, printable, walk
from camera_trap_al.core.matching import KnownImages
from camera_trap_al.labels.lines import LabelLines, SelectorLines
from camera_trap_al.labels.timelapse import write_labels, write_selector

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names or files")


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog.open(tmp_path / "catalog.sqlite")


def look(pool: Path, **options: object) -> tuple[list[str], Tally]:
    tally = Tally()
    given = {"tool": "timelapse", "leave_out": None, **options}
    return [f.path for f in walk(pool, POOL, tally=tally, **given) if f.listed], tally  # type: ignore[arg-type]


def test_folders_of_other_programs_and_hidden_files_are_passed_over_in_silence(tmp_path: Path) -> None:
    pool = put(
        tmp_path / "pool",
        [
            *(
                f"{name}/1.jpg"
                for name in ("Backups", "BACKUPS 2", "DeletedFiles", ".vthumb", "@Recycle", ".Trash-1000")
            ),
            *(
                "._1.jpg",
                ".DS_Store",
                "Thumbs.db",
                "thumbs.DB",
                "desktop.ini",
                "TimelapseData.ddb",
                "TimelapseTemplate.tdb",
            ),
            "a/1.jpg",
        ],
    )
    found, tally = look(pool)
    assert found == ["BACKUPS 2/1.jpg", "a/1.jpg"] and tally.counts == {}


@POSIX
def test_links_are_not_followed_and_pipes_and_sockets_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = put(tmp_path / "pool", ["a/1.jpg", "folder.jpg/2.jpg"])
    put(tmp_path / "elsewhere", ["3.jpg"])
    (pool / "a" / "loop").symlink_to(pool)
    (pool / "a" / "self").symlink_to(pool / "a" / "self")
    (pool / "out").symlink_to(tmp_path / "elsewhere")
    (pool / "out.jpg").symlink_to(tmp_path / "elsewhere" / "3.jpg")
    (pool / "dangling.jpg").symlink_to(tmp_path / "nothing")
    os.mkfifo(pool / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(pool)
        listener.bind("socket.jpg")
        found, tally = look(pool)
    assert found == ["a/1.jpg", "folder.jpg/2.jpg"] and tally.counts == {"link": 5, "other": 2}


def test_our_work_folder_is_left_out_by_what_it_is_not_by_how_it_is_called(tmp_path: Path) -> None:
    pool = put(tmp_path / "pool", ["work/test_results/figure.jpg", "1.jpg"])
    if sys.platform == "win32":
        assert look(pool, leave_out=Path(str(pool).upper(), "WORK"))[0] == ["1.jpg"]
        return
    (tmp_path / "link").symlink_to(pool)
    assert look(pool, leave_out=tmp_path / "link" / "work")[0] == ["1.jpg"]
    assert look(tmp_path / "link", leave_out=pool / "work")[0] == ["1.jpg"]


def test_what_timelapse_cannot_show_is_counted_and_not_listed(tmp_path: Path) -> None:
    long = "/".join(["a folder with a name of some length"] * 7)
    names = ["1.JpG", "2.jpeg", "3.png", "4.tif", "v.MP4", "v.avi", "raw.cr2", f"{long}/5.jpg"]
    pool = put(tmp_path / "pool", names)
    found, tally = look(pool)
    assert found == ["1.JpG"]
    assert tally.counts == {"not shown": 3, "video": 2, "other": 1, "long path": 1}
    assert set(tally.counts) <= set(KINDS)
    assert set(look(pool, tool="any")[0]) == {"1.JpG", "2.jpeg", "3.png", "4.tif", f"{long}/5.jpg"}


FORMULAS = ["=cmd|' /C calc'!A0.jpg", "+1(2).jpg", "-a!b.jpg", "@SUM(1).jpg", "=f/x(1).jpg", "a/=x|.jpg"]
HARMLESS = ["=a.jpg", "-1.jpg", "+x.jpg", "@home.jpg", "a(1).jpg", "a!b|c.jpg"]


@POSIX
def test_names_that_a_spreadsheet_could_run_are_reported_and_not_listed_unless_allowed(tmp_path: Path) -> None:
    pool = put(tmp_path / "pool", [*FORMULAS, *HARMLESS])
    found, tally = look(pool)
    assert sorted(found) == sorted(HARMLESS) and tally.counts == {"unsafe name": len(FORMULAS)}
    found, tally = look(pool, allow_formula=True)
    assert sorted(found) == sorted(FORMULAS + HARMLESS) and tally.counts == {}


@pytest.mark.parametrize("bad", ["\n", "\r", "\t", "\0", "\x1b", "\x7f", "\x85", "\u2028", "\u2029"])
def test_line_breaks_and_control_characters_are_never_safe(bad: str) -> None:
    assert not is_safe_name(f"a{bad}b.jpg", allow_formula=True) and not is_safe_name(f"{bad}a.jpg", allow_formula=True)


@POSIX
def test_names_that_are_no_text_are_counted_and_harm_nothing(
    catalog: Catalog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pool = put(tmp_path / "pool", ["1.jpg"])
    try:
        put(pool, ["\udcff\udcfe.jpg", "folder \udce9/2.jpg", "line\nbreak.jpg"])
    except OSError:
        pytest.skip("this file system refuses names that are no text")
    found = scan(catalog, {POOL: pool})
    assert found.tallies[POOL].counts == {"name": 2, "unsafe name": 1}
    assert [key.path for key in catalog.pool_keys(listed_only=True)] == ["1.jpg"]
    for examples in found.tallies[POOL].examples.values():
        for text in examples:
            text.encode("utf-8")
            assert "\n" not in text
            logging.getLogger("names").warning("%s", text)


NAMES = [
    *("ümläut é.jpg", "e\u0301 nfd.jpg", "日本語.jpg", "🦊.jpg", "Ω ≠ ß.JPG", "ﬁ ligature.jpg", "İstanbul.jpg"),
    *(
        "a b  c.jpg",
        "100% #1 & 'x';+$~.jpg",
        "a,b.jpg",
        "a;b.jpg",
        'q"q.jpg',
        "{a}[b]^`.jpg",
        "dots...jpg",
        "..jpg.jpg",
    ),
    *(
        "CON.jpg",
        "x" * 240 + ".jpg",
        "no\u200bwidth.jpg",
        "\u202eright.jpg",
        "a\u00a0b.jpg",
        "site 1/same.jpg",
        "SITE 2/same.jpg",
    ),
]


def test_any_legal_name_is_found_written_and_matched_again(catalog: Catalog, tmp_path: Path) -> None:
    names = [name for name in NAMES if sys.platform != "win32" or not set(name) & set('"*:<>?|') and "CON" not in name]
    pool = tmp_path / "p"
    for name in names:
        try:
            put(pool, [name])
        except OSError as error:
            pytest.skip(f"this file system refuses {name!r}: {error}")
    scan(catalog, {POOL: pool}, tool="any")
    keys = list(catalog.pool_keys(listed_only=True))
    there = {
        path.relative_to(pool).as_posix() for path in pool.rglob("*.[jJ][pP][gG]") if not path.name.startswith(".")
    }
    assert {key.path for key in keys} == there
    items = catalog.items([int(row) for row in catalog.live_rows(POOL)], {POOL: str(pool)})
    assert all(Path(item.path).is_file() for item in items)
    write_selector(tmp_path / "selector.csv", SelectorLines(keys), keys)
    write_labels(tmp_path / "labels.csv", LabelLines(keys), keys, ["fox"] * len(keys))
    with (tmp_path / "selector.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["RelativePath"], row["File"]) for row in csv.DictReader(file)]
    assert rows == [tuple(key) for key in keys]
    images = KnownImages(keys, ())
    assert all(key in images for key in keys)


def test_a_tree_deeper_than_python_recurses_is_walked(tmp_path: Path) -> None:
    depth = 100 if sys.platform != "win32" else 60
    pool = put(tmp_path / "pool", ["1.jpg", "/".join(["d"] * depth) + "/2.jpg"])
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + depth // 2 + 20)
    try:
        found, tally = look(pool, tool="any")
    finally:
        sys.setrecursionlimit(before)
    assert len(found) == 2 and tally.counts == {}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no paths that long")
def test_a_folder_whose_path_is_too_long_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = put(tmp_path / "pool", ["1.jpg"])
    monkeypatch.chdir(pool)
    for _ in range(25):
        Path("x" * 200).mkdir()
        os.chdir("x" * 200)
    Path("2.jpg").write_bytes(b"x")
    found, tally = look(pool, tool="any")
    assert found == ["1.jpg"] and tally.counts == {"no access": 1}


def test_text_for_people_holds_no_control_character() -> None:
    assert printable("a\nb\x1b[31m\udcff\u2028é") == "a\\nb\\x1b[31m\\udcff\\u2028é"
