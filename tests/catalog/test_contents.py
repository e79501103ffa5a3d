"""A file with another time, another size or another content: what is embedded again, what is tried again, what is not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from scanning import Reads, put, scan

from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.catalog.found import POOL
from camera_trap_al.catalog.sightings import QUARANTINED_AFTER_TRIES
from camera_trap_al.core.records import ImageKey
from camera_trap_al.images import hash_file

HOUR_NS = 3600 * 10**9


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog.open(tmp_path / "catalog.sqlite")


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    folder = tmp_path / "pool"
    for i in range(12):
        put(folder, [f"{i:02d}.jpg"], b"content %02d" % i)
    return folder


def rows_of(catalog: Catalog) -> dict[str, int]:
    rows = [int(row) for row in catalog.live_rows(POOL)]
    return {key.path: row for key, row in zip(catalog.keys_of(rows), rows, strict=True)}


def embed(catalog: Catalog, pool: Path, problems: dict[str, tuple[str, str]] | None = None, shard: str = "1") -> None:
    """Absorb a shard that holds all images as they are now."""
    rows = rows_of(catalog)
    hashes = {row: hash_file(pool / path) for path, row in rows.items()}
    catalog.absorb(shard, {rows[path]: problem for path, problem in (problems or {}).items()}, hashes)


def move_time(path: Path, by_ns: int) -> None:
    before = path.stat()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + by_ns))


def rewrite(path: Path, content: bytes, by_ns: int = 10**9) -> None:
    before = path.stat().st_mtime_ns
    path.write_bytes(content)
    os.utime(path, ns=(before + by_ns, before + by_ns))


@pytest.mark.parametrize("n", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_copied_files_keep_their_rows_and_only_their_times_are_noted(catalog: Catalog, tmp_path: Path, n: int) -> None:
    pool = tmp_path / "pool"
    for i in range(n):
        put(pool, [f"site {i % 7}/{i:04d}.jpg"], b"picture %04d" % i)
    scan(catalog, {POOL: pool})
    embed(catalog, pool)
    before, version = rows_of(catalog), catalog.fact("pool_version")
    shutil.copytree(pool, tmp_path / "copy")
    shutil.rmtree(pool)
    (tmp_path / "copy").rename(pool)
    for path in pool.rglob("*.jpg"):
        move_time(path, 5 * HOUR_NS)
    reads = Reads()
    found = scan(catalog, {POOL: pool}, reads=reads)
    assert (rows_of(catalog), catalog.fact("pool_version"), found.changed) == (before, version, 0)
    assert len(reads.paths) == n, "each is read once, none is decoded"
    scan(catalog, {POOL: pool}, reads=reads)
    assert len(reads.paths) == n, "the new times were noted"


@pytest.mark.parametrize("by_ns", [HOUR_NS, -HOUR_NS, 2 * 10**9, 1, -(10**18)])
def test_times_that_a_file_system_shifts_change_nothing(catalog: Catalog, pool: Path, by_ns: int) -> None:
    scan(catalog, {POOL: pool})
    embed(catalog, pool)
    before = rows_of(catalog)
    for path in pool.iterdir():
        move_time(path, by_ns)
    scan(catalog, {POOL: pool})
    assert rows_of(catalog) == before


def test_other_content_of_the_same_size_is_a_new_row_and_its_label_is_flagged_until_it_is_given_again(
    catalog: Catalog, pool: Path
) -> None:
    scan(catalog, {POOL: pool})
    embed(catalog, pool)
    catalog.project(
        {ImageKey("", "03.jpg"): ("fox", None, 2), ImageKey("", "05.jpg"): ("fox", None, 2)}.items(), 2, identity="x"
    )
    before = rows_of(catalog)
    rewrite(pool / "03.jpg", b"CONTENT 03")
    rewrite(pool / "04.jpg", b"CONTENT 04")
    found = scan(catalog, {POOL: pool})
    after = rows_of(catalog)
    assert found.changed == 2 and {path for path in after if after[path] != before[path]} == {"03.jpg", "04.jpg"}
    assert [(path, species) for path, species, _ in catalog.altered()] == [("03.jpg", "fox")]
    assert catalog.counts().altered == 1 and catalog.counts().labelled == 2, "the label stays"
    catalog.project({ImageKey("", "03.jpg"): ("deer", None, 3)}.items(), 3, identity="x")
    assert catalog.altered() == [] and catalog.counts().altered == 0


def test_another_size_is_a_new_row_without_reading_the_file(catalog: Catalog, pool: Path) -> None:
    scan(catalog, {POOL: pool})
    embed(catalog, pool)
    catalog.project({ImageKey("", "03.jpg"): ("fox", None, 2)}.items(), 2, identity="x")
    before, reads = rows_of(catalog), Reads()
    (pool / "03.jpg").write_bytes(b"longer than it was")
    scan(catalog, {POOL: pool}, reads=reads)
    assert rows_of(catalog)["03.jpg"] != before["03.jpg"] and not reads.paths and len(catalog.altered()) == 1


def test_a_new_time_of_an_image_never_embedded_is_not_read_and_flags_nothing(catalog: Catalog, pool: Path) -> None:
    scan(catalog, {POOL: pool})
    catalog.project({ImageKey("", "03.jpg"): ("fox", None, 2)}.items(), 2, identity="x")
    before, reads = rows_of(catalog), Reads()
    move_time(pool / "03.jpg", HOUR_NS)
    scan(catalog, {POOL: pool}, reads=reads)
    assert not reads.paths and catalog.altered() == []
    # An embedding that was under way while the time changed is of the old row, so it cannot be taken for the new content.
    catalog.absorb("1", {}, {before["03.jpg"]: "of what was there before"})
    now = rows_of(catalog)["03.jpg"]
    assert now != before["03.jpg"]
    catalog.absorb("2", {}, {now: hash_file(pool / "03.jpg")})
    move_time(pool / "03.jpg", HOUR_NS)
    assert scan(catalog, {POOL: pool}).changed == 0


def test_content_that_changed_between_two_learners_gets_a_new_row(catalog: Catalog, pool: Path) -> None:
    scan(catalog, {POOL: pool})
    embed(catalog, pool, shard="gen-000001/shard-000000")
    before = rows_of(catalog)
    catalog.absorb(
        "gen-000002/shard-000000", {}, {before["03.jpg"]: "another", before["04.jpg"]: hash_file(pool / "04.jpg")}
    )
    after = rows_of(catalog)
    assert {path for path in after if after[path] != before[path]} == {"03.jpg"}


def test_damaged_content_is_tried_again_only_when_it_changes(catalog: Catalog, pool: Path) -> None:
    scan(catalog, {POOL: pool})
    embed(catalog, pool, {"03.jpg": ("truncated", "cut")})
    assert "03.jpg" not in rows_of(catalog)
    scan(catalog, {POOL: pool})
    move_time(pool / "03.jpg", HOUR_NS)
    scan(catalog, {POOL: pool})
    assert "03.jpg" not in rows_of(catalog) and catalog.counts().quarantined == 1, "the same damage under a new time"
    rewrite(pool / "03.jpg", b"WHOLE ONES")
    scan(catalog, {POOL: pool})
    assert "03.jpg" in rows_of(catalog) and catalog.problems() == []


def test_a_file_without_permission_is_tried_at_each_scan_and_quarantined_after_three(
    catalog: Catalog, pool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan(catalog, {POOL: pool})
    row = rows_of(catalog)["03.jpg"]
    catalog.absorb("1", {row: ("no_permission", "may not be read")})
    key = ImageKey("", "03.jpg")

    class Locked(Reads):
        def __call__(self, path: Path) -> str:
            self.paths.append(path)
            raise PermissionError(13, "denied", str(path))

    locked = Locked()
    for tries in range(2, QUARANTINED_AFTER_TRIES + 2):
        assert "03.jpg" not in rows_of(catalog), "not asked for meanwhile"
        assert catalog.unusable([key]) == {} and catalog.problems() == [], tries
        scan(catalog, {POOL: pool}, reads=locked)
        if tries == QUARANTINED_AFTER_TRIES:
            break
    assert catalog.unusable([key]) == {key: "unreadable"} and catalog.problems()[0][2] == "no_permission"
    assert len(locked.paths) == 2
    scan(catalog, {POOL: pool}, reads=locked)
    assert len(locked.paths) == 3, "tried again after that, too"
    scan(catalog, {POOL: pool})
    assert rows_of(catalog)["03.jpg"] > row and catalog.problems() == []


def test_reading_contents_never_takes_more_than_a_slice_at_a_time(
    catalog: Catalog, pool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from camera_trap_al.catalog import scan as module

    scan(catalog, {POOL: pool})
    embed(catalog, pool)
    for path in pool.iterdir():
        move_time(path, HOUR_NS)
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])

    def slow(path: Path) -> str:
        clock[0] += 0.4
        return hash_file(path)

    one = module.Scan(catalog, {POOL: pool}, hash_file=slow, tool="any", leave_out=None)
    read, ended = [], False
    while not ended:
        before = clock[0]
        ended = one.run_slice()
        read.append(round((clock[0] - before) / 0.4))
    assert sum(read) == 12 and max(read) == 3
    assert one.finish(600.0) == {} and len(rows_of(catalog)) == 12


def test_skips_that_end_by_themselves_keep_no_image_back(catalog: Catalog, pool: Path) -> None:
    scan(catalog, {POOL: pool})
    catalog.project(
        {
            ImageKey("", "01.jpg"): (None, "missing", 2),
            ImageKey("", "02.jpg"): (None, "unreadable", 2),
            ImageKey("", "03.jpg"): (None, "cannot_tell", 2),
            ImageKey("", "04.jpg"): (None, "several_species", 2),
            ImageKey("", "05.jpg"): (None, "withdrawn", 2),
        }.items(),
        2,
        identity="x",
    )
    askable = {key.path for key in catalog.keys_of(catalog.askable()[0])}
    assert {"01.jpg", "02.jpg"} <= askable and not {"03.jpg", "04.jpg", "05.jpg"} & askable
    assert catalog.counts().skipped == 3
