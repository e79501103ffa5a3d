from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from scanning import scan

from camera_trap_al.catalog import schema
from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.catalog.found import POOL, TRAIN
from camera_trap_al.catalog.scan import Scan, Tally, is_safe_name, walk
from camera_trap_al.catalog.sightings import MISSING_AFTER_SCANS, ROWS_AT_ONCE
from camera_trap_al.core.records import ImageKey
from camera_trap_al.images import hash_file


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    files = "pool/a/1.jpg pool/a/2.JPG pool/3.jpg pool/b/4.png pool/b/v.mp4 pool/Backups/x.jpg pool/.h/y.jpg pool/mine/z.jpg"
    for name in [*files.split(), "train/fox/1.jpg", "train/deer/2.jpg", "train/top.jpg"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not opened by a scan")
    return {TRAIN: tmp_path / "train", POOL: tmp_path / "pool"}


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog.open(tmp_path / "catalog.sqlite")


def test_a_scan_finds_images_at_all_levels_and_counts_the_rest(catalog: Catalog, folders: dict[str, Path]) -> None:
    found = scan(catalog, folders)
    assert [key.path for key in catalog.pool_keys()] == ["3.jpg", "a/1.jpg", "a/2.JPG", "b/4.png"]
    assert [key.path for key in catalog.pool_keys(listed_only=True)] == ["3.jpg", "a/1.jpg", "a/2.JPG"]
    assert found.tallies[POOL].counts == {"video": 1, "not shown": 1} and found.tallies[TRAIN].counts == {"top": 1}
    assert catalog.folder_classes() == ["deer", "fox"] and catalog.labelled()[1] == ["deer", "fox"]


def test_a_second_scan_changes_nothing(catalog: Catalog, folders: dict[str, Path]) -> None:
    scan(catalog, folders)
    before = (catalog.fact("pool_version"), catalog.askable()[0].tolist())
    assert scan(catalog, folders).changed == 0
    assert (catalog.fact("pool_version"), catalog.askable()[0].tolist()) == before


def test_rows_are_never_used_again_and_a_changed_image_keeps_its_label(
    catalog: Catalog, folders: dict[str, Path]
) -> None:
    scan(catalog, folders)
    key = ImageKey("a", "1.jpg")
    catalog.project({key: ("fox", None, 5)}.items(), 5, identity="x")
    before = dict(zip(*[list(x) for x in catalog.labelled()], strict=True))
    (folders[POOL] / "a/1.jpg").write_bytes(b"another content")
    scan(catalog, folders)
    after = dict(zip(*[list(x) for x in catalog.labelled()], strict=True))
    assert sorted(before.values()) == sorted(after.values()) and max(after) > max(before)


def test_a_label_that_came_first_meets_its_image_later(catalog: Catalog, folders: dict[str, Path]) -> None:
    catalog.project({ImageKey("new", "9.jpg"): ("fox", None, 2)}.items(), 2, identity="x")
    scan(catalog, folders)
    n = len(catalog.labelled()[0])
    (folders[POOL] / "new").mkdir()
    (folders[POOL] / "new/9.jpg").write_bytes(b"x")
    scan(catalog, folders)
    assert len(catalog.labelled()[0]) == n + 1 and catalog.mark == 2


def test_a_vanished_image_is_given_up_only_after_three_scans_and_comes_back(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    for i in range(10):
        (tmp_path / f"pool/{i}.jpg").write_bytes(b"x")
    folders = {POOL: tmp_path / "pool"}
    scan(catalog, folders)
    (tmp_path / "pool/3.jpg").unlink()
    for n in range(MISSING_AFTER_SCANS):
        assert len(list(catalog.pool_keys())) == 10, n
        scan(catalog, folders)
    assert ImageKey("", "3.jpg") not in list(catalog.pool_keys())
    assert catalog.unusable([ImageKey("", "3.jpg"), ImageKey("", "4.jpg")]) == {ImageKey("", "3.jpg"): "missing"}
    (tmp_path / "pool/3.jpg").write_bytes(b"x")
    scan(catalog, folders)
    assert len(list(catalog.pool_keys())) == 10


def test_a_half_empty_folder_is_taken_for_a_lost_share(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    for i in range(10):
        (tmp_path / f"pool/{i}.jpg").write_bytes(b"x")
    folders = {POOL: tmp_path / "pool"}
    scan(catalog, folders)
    for i in range(5):
        (tmp_path / f"pool/{i}.jpg").unlink()
    for _ in range(5):
        scan(catalog, folders)
    assert len(list(catalog.pool_keys())) == 10


def test_quarantine_follows_the_row_and_ends_when_the_file_changes(catalog: Catalog, folders: dict[str, Path]) -> None:
    scan(catalog, folders)
    row = int(catalog.askable()[0][0])
    catalog.absorb("gen-000001/shard-000000", {row: ("truncated", "cut")})
    (key,) = catalog.keys_of([row])
    assert row not in catalog.askable()[0] and catalog.unusable([key]) == {key: "unreadable"}
    assert catalog.absorbed_shards() == {"gen-000001/shard-000000"} and catalog.problems()[0][2] == "truncated"
    (folders[POOL] / key.path).write_bytes(b"whole now, and longer")
    scan(catalog, folders)
    assert not catalog.problems() and key in catalog.keys_of(catalog.askable()[0])


def test_what_an_interrupted_scan_found_counts_when_a_later_one_ends(
    catalog: Catalog, folders: dict[str, Path]
) -> None:
    scan(catalog, folders)
    version, n = catalog.fact("pool_version"), len(catalog.askable()[0])
    (folders[POOL] / "new.jpg").write_bytes(b"x")
    Scan(catalog, folders, hash_file=hash_file, tool="timelapse", leave_out=folders[POOL] / "mine").run_slice()
    assert catalog.fact("pool_version") == version, "what depends on the whole pool is computed anew when a scan ends"
    assert scan(catalog, folders).changed == 0
    assert catalog.fact("pool_version") == version + 1 and len(catalog.askable()[0]) == n + 1
    scan(catalog, folders)
    assert catalog.fact("pool_version") == version + 1


def test_skips_and_labels_leave_the_askable(catalog: Catalog, folders: dict[str, Path]) -> None:
    scan(catalog, folders)
    keys = catalog.keys_of(catalog.askable()[0])
    catalog.project({keys[0]: ("fox", None, 2), keys[1]: (None, "cannot_tell", 2)}.items(), 2, identity="x")
    counts = catalog.counts()
    assert (counts.labelled, counts.skipped, counts.unlabelled, counts.not_listed) == (1, 1, 1, 1)
    catalog.project({keys[0]: (None, None, 0)}.items(), 3, identity="x")
    assert catalog.counts().labelled == 0


def test_an_image_that_is_projected_twice_at_once_has_one_answer(catalog: Catalog, folders: dict[str, Path]) -> None:
    scan(catalog, folders)
    image, other = list(catalog.pool_keys())[:2]
    before = catalog.counts().unlabelled
    catalog.project([(image, ("elk", None, 2)), (other, (None, None, 0))] * 2, 2, identity="x")
    assert catalog.counts().unlabelled == before - 1 and catalog.labelled()[1].count("elk") == 1


@pytest.mark.parametrize("n", [ROWS_AT_ONCE - 1, ROWS_AT_ONCE, ROWS_AT_ONCE + 1, 3 * ROWS_AT_ONCE + 7])
def test_many_answers_at_once_are_each_taken_changed_and_removed(catalog: Catalog, tmp_path: Path, n: int) -> None:
    keys = [ImageKey("new", f"{i}.jpg") for i in range(n)]
    said = {key: ("deer" if i % 3 else None, None if i % 3 else "cannot_tell", 1) for i, key in enumerate(keys)}
    catalog.project(said.items(), 1, identity="x")
    changed = {key: ("fox", None, 2) if i % 2 else (None, None, 0) for i, key in enumerate(keys) if i % 5}
    catalog.project(changed.items(), 2, identity="x")
    left = {key.path: answer for key, answer in (said | changed).items() if answer != (None, None, 0)}
    with closing(sqlite3.connect(tmp_path / "catalog.sqlite")) as database:
        rows = database.execute("SELECT path, species, skip, seq FROM labels").fetchall()
    assert {path: tuple(answer) for path, *answer in rows} == left and len(rows) == len(left)


def test_links_are_not_followed_and_a_file_in_a_forbidden_folder_is_counted(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool/loop").symlink_to(tmp_path / "pool")
    (tmp_path / "pool/l.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    tally = Tally()
    assert list(walk(tmp_path / "pool", POOL, tool="any", leave_out=None, tally=tally)) == []
    assert tally.counts == {"link": 2}


@pytest.mark.parametrize(
    ("path", "safe"), [("=cmd|' /C calc'!A0.jpg", False), ("a/+x(1).jpg", False), ("-a.jpg", True), ("a\tb.jpg", False)]
)
def test_names_that_a_spreadsheet_could_run_are_known(path: str, safe: bool) -> None:
    assert is_safe_name(path) is safe


def test_a_catalogue_of_format_1_gets_its_new_columns_and_loses_skips_that_end_by_themselves(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(path)) as old, old:
        old.executescript(FORMAT_1)
    catalog = Catalog.open(path)
    assert [key.path for key in catalog.keys_of(catalog.askable()[0])] == ["1.jpg", "2.jpg"]
    assert catalog.counts().missing == 1 and catalog.counts().skipped == 1
    assert catalog.fact("format") == 4 and catalog.times(catalog.askable()[0]).tolist() == [-1, -1]
    catalog.note_times({1: 5})
    assert catalog.times(catalog.askable()[0]).tolist() == [5, -1] and Catalog.open(path).fact("catalog_id") == "abc"


def test_half_a_migration_never_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(path)) as old, old:
        old.executescript(FORMAT_1)

    before = schema.MIGRATIONS
    monkeypatch.setattr(schema, "MIGRATIONS", (before[0], lambda c: (before[1](c), pytest.fail("cut"))))
    with pytest.raises(pytest.fail.Exception):
        Catalog.open(path)
    monkeypatch.setattr(schema, "MIGRATIONS", before)
    assert Catalog.open(path).counts().unlabelled == 2


def test_rollback_journals_not_write_ahead_logs_are_used(catalog: Catalog, tmp_path: Path) -> None:
    catalog.note("x", 1)
    with closing(sqlite3.connect(tmp_path / "catalog.sqlite")) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("delete",)


FORMAT_1 = """
CREATE TABLE meta (key VARCHAR NOT NULL, value VARCHAR NOT NULL, PRIMARY KEY (key));
CREATE TABLE images (id INTEGER NOT NULL, root VARCHAR NOT NULL, path VARCHAR NOT NULL, size BIGINT NOT NULL,
 mtime_ns BIGINT NOT NULL, class_name VARCHAR NOT NULL, listed BOOLEAN NOT NULL, key_hash BIGINT NOT NULL,
 seen INTEGER NOT NULL, missed INTEGER NOT NULL, problem VARCHAR NOT NULL, problem_text VARCHAR NOT NULL,
 problem_since VARCHAR NOT NULL, PRIMARY KEY (id));
CREATE UNIQUE INDEX images_by_path ON images (root, path);
CREATE TABLE items ("row" INTEGER NOT NULL, image INTEGER NOT NULL, live BOOLEAN NOT NULL, PRIMARY KEY ("row"));
CREATE INDEX ix_items_image ON items (image);
CREATE TABLE labels (path VARCHAR NOT NULL, species VARCHAR, skip VARCHAR, seq INTEGER NOT NULL, PRIMARY KEY (path));
CREATE TABLE absorbed (shard VARCHAR NOT NULL, PRIMARY KEY (shard));
INSERT INTO meta VALUES ('format', '1'), ('catalog_id', '"abc"'), ('scanned', 'true'), ('scan', '4');
INSERT INTO images VALUES (1, 'pool', '1.jpg', 1, 1, '', 1, 11, 4, 0, '', '', ''),
 (2, 'pool', '2.jpg', 1, 1, '', 1, 12, 4, 0, '', '', ''), (3, 'pool', '3.jpg', 1, 1, '', 1, 13, 1, 3, '', '', ''),
 (4, 'pool', '4.jpg', 1, 1, '', 1, 14, 4, 0, '', '', '');
INSERT INTO items VALUES (1, 1, 1), (2, 2, 1), (3, 3, 1), (4, 4, 1);
INSERT INTO labels VALUES ('2.jpg', NULL, 'missing', 3), ('4.jpg', NULL, 'cannot_tell', 3);
"""
