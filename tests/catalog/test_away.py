"""Folders that fail, are empty or show half of what they hold: nothing is given up, and all comes back by itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fake_listing import EACCES, EIO, ESTALE, FakeListing
from scanning import Reads, put, scan

from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.catalog.found import POOL, TRAIN, VALIDATION
from camera_trap_al.catalog.scan import Scan
from camera_trap_al.catalog.sightings import MISSING_AFTER_S, MISSING_AFTER_SCANS
from camera_trap_al.core.records import ImageKey
from camera_trap_al.images import hash_file

N = 40


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog.open(tmp_path / "catalog.sqlite")


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    for kind in (TRAIN, VALIDATION):
        put(tmp_path / kind, [f"{name}/{i}.jpg" for name in ("fox", "deer") for i in range(3)])
    put(tmp_path / POOL, [f"site {i % 4}/{i:03d}.jpg" for i in range(N)])
    return {kind: tmp_path / kind for kind in (TRAIN, VALIDATION, POOL)}


def counted(catalog: Catalog) -> tuple[int, int, int, int, int]:
    counts = catalog.counts()
    return counts.train, counts.validation, counts.unlabelled, counts.missing, counts.quarantined


ALL = (6, 6, N, 0, 0)
ERRORS = pytest.mark.parametrize("number", [EIO, *(pytest.param(n, marks=pytest.mark.slow) for n in (ESTALE, EACCES))])


@ERRORS
def test_a_pool_that_cannot_be_listed_ends_the_scan_and_changes_nothing(
    catalog: Catalog, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    scan(catalog, folders)
    listing = FakeListing(folders[POOL], monkeypatch)
    listing.error = number
    for _ in range(MISSING_AFTER_SCANS + 1):
        with pytest.raises(OSError, match=os.strerror(number)):
            scan(catalog, folders)
    listing.error = 0
    assert scan(catalog, folders).changed == 0 and counted(catalog) == ALL


@pytest.mark.parametrize(
    ("kind", "left_out"),
    [
        *((POOL, left_out) for left_out in (0.3, 0.5, 1.0)),
        *((kind, 1.0) for kind in (TRAIN, VALIDATION)),
        *(pytest.param(kind, part, marks=pytest.mark.slow) for kind in (TRAIN, VALIDATION) for part in (0.3, 0.5)),
    ],
)
def test_a_folder_that_shows_a_part_or_nothing_is_away_and_only_that_folder(
    catalog: Catalog, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, kind: str, left_out: float
) -> None:
    scan(catalog, folders)
    listing = FakeListing(folders[kind], monkeypatch)
    listing.left_out = left_out
    for _ in range(MISSING_AFTER_SCANS + 1):
        found = scan(catalog, folders)
        assert list(found.away) == [kind] == catalog.fact("away")  # type: ignore[attr-defined]
        assert counted(catalog) == ALL
    listing.left_out = 0
    assert scan(catalog, folders).changed == 0 and counted(catalog) == ALL and catalog.fact("away") == []


@pytest.mark.parametrize("kind", [TRAIN, VALIDATION])
def test_images_to_train_on_may_be_unplugged_while_the_pool_is_looked_through(
    catalog: Catalog, folders: dict[str, Path], kind: str
) -> None:
    scan(catalog, folders)
    folders[kind].rename(folders[kind].with_name("elsewhere"))
    put(folders[POOL], ["new.jpg"])
    for _ in range(MISSING_AFTER_SCANS + 1):
        assert scan(catalog, folders).tallies[kind].counts == {"away": 1}
    assert counted(catalog) == (6, 6, N + 1, 0, 0)
    folders[kind].mkdir()
    for _ in range(MISSING_AFTER_SCANS + 1):
        assert list(scan(catalog, folders).away) == [kind], "an empty folder where a disk was mounted"  # type: ignore[attr-defined]
    assert counted(catalog) == (6, 6, N + 1, 0, 0)
    folders[kind].rmdir()
    folders[kind].with_name("elsewhere").rename(folders[kind])
    assert scan(catalog, folders).changed == 0


def test_the_first_scan_waits_for_all_folders(catalog: Catalog, folders: dict[str, Path]) -> None:
    folders[TRAIN].rename(folders[TRAIN].with_name("elsewhere"))
    with pytest.raises(FileNotFoundError):
        scan(catalog, folders)
    assert not catalog.fact("scanned", False)


@ERRORS
def test_images_in_a_folder_that_cannot_be_listed_are_kept_and_counted(
    catalog: Catalog, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    put(folders[POOL], [f"other {i}/{i}.jpg" for i in range(3 * N)])
    scan(catalog, folders)
    FakeListing(folders[POOL], monkeypatch).errors = {"site 1": number}
    (folders[POOL] / "site 2" / "002.jpg").unlink()
    for _ in range(MISSING_AFTER_SCANS):
        found = scan(catalog, folders)
    assert found.tallies[POOL].counts["no access"] == 1
    assert counted(catalog) == (6, 6, 4 * N - 1, 1, 0), "one is missing, those without access are not"


def test_a_folder_that_vanishes_while_it_is_looked_through_does_not_end_the_scan(
    catalog: Catalog, folders: dict[str, Path]
) -> None:
    scan(catalog, folders)
    one = Scan(catalog, folders, hash_file=hash_file, tool="any", leave_out=None)
    walk = one._walk
    seen = [next(walk)]
    while seen[-1][1].path != "site 0/000.jpg":
        seen.append(next(walk))
    for path in (folders[POOL] / "site 3").iterdir():
        path.unlink()
    (folders[POOL] / "site 3").rmdir()
    for path in (folders[POOL] / "site 0").iterdir():
        path.unlink()
    assert one.run_slice() and POOL in one.finish(600.0)
    assert counted(catalog) == ALL


def test_missing_takes_three_scans_and_ten_minutes_and_ends_when_the_image_is_back(
    catalog: Catalog, folders: dict[str, Path]
) -> None:
    scan(catalog, folders)
    key = ImageKey("site 0", "000.jpg")
    (folders[POOL] / key.path).unlink()
    for _ in range(3 * MISSING_AFTER_SCANS):
        scan(catalog, folders, elapsed_s=MISSING_AFTER_S / 10)
    assert catalog.unusable([key]) == {}, "many scans, but few minutes"
    for _ in range(3):
        scan(catalog, folders, elapsed_s=MISSING_AFTER_S / 10)
    assert catalog.unusable([key]) == {key: "missing"} and counted(catalog) == (6, 6, N - 1, 1, 0)
    put(folders[POOL], [key.path])
    scan(catalog, folders)
    assert catalog.unusable([key]) == {} and counted(catalog) == ALL
    (folders[POOL] / key.path).unlink()
    for _ in range(MISSING_AFTER_SCANS - 1):
        scan(catalog, folders, elapsed_s=10 * MISSING_AFTER_S)
    assert catalog.unusable([key]) == {}, "many minutes, but few scans"


def test_one_image_deleted_of_few_is_missing_but_the_last_one_is_not(catalog: Catalog, tmp_path: Path) -> None:
    folders = {POOL: put(tmp_path / POOL, ["1.jpg", "2.jpg", "3.jpg"])}
    scan(catalog, folders)
    (folders[POOL] / "1.jpg").unlink()
    for _ in range(MISSING_AFTER_SCANS):
        scan(catalog, folders)
    assert catalog.counts().missing == 1
    (folders[POOL] / "2.jpg").unlink()
    (folders[POOL] / "3.jpg").unlink()
    for _ in range(MISSING_AFTER_SCANS + 1):
        scan(catalog, folders)
    assert catalog.counts().missing == 1


def test_what_is_not_known_yet_is_not_missing(catalog: Catalog, folders: dict[str, Path]) -> None:
    key = ImageKey("", "asked for before the catalogue was lost.jpg")
    assert catalog.unusable([key]) == {}
    scan(catalog, folders)
    assert catalog.unusable([key]) == {key: "missing"}


def test_a_share_that_goes_while_contents_are_read_ends_the_scan(
    catalog: Catalog, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    scan(catalog, folders)
    rows = [int(row) for row in catalog.live_rows(POOL)]
    catalog.absorb("1", {}, dict.fromkeys(rows, "a hash"))
    for path in folders[POOL].rglob("*.jpg"):
        os.utime(path, (1, 1))
    listing = FakeListing(folders[POOL], monkeypatch)

    class Away(Reads):
        def __call__(self, path: Path) -> str:
            listing.error = EIO
            raise OSError(EIO, "away")

    with pytest.raises(OSError, match="away"):
        scan(catalog, folders, reads=Away())
    assert counted(catalog) == ALL
