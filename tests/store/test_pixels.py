"""The decoded cache: what it gives back is what was put in, or nothing; whatever happens to its files."""

from __future__ import annotations

import logging
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from camera_trap_al.store import atomic, pixels
from camera_trap_al.store.pixels import PixelCache

PX = 8
ONE = PX * PX * 3
MARK = "catalogue a"
PACK_IMAGES = 40
ROWS = np.arange(400)


@pytest.fixture(autouse=True)
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "PACK_IMAGES", PACK_IMAGES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def opened(folder: Path, mark: str = MARK, px: int = PX, **options: Any) -> PixelCache:
    return PixelCache(folder, mark, px=px, **{"max_bytes": 10**9, "live": ROWS, **options})


def picture(row: int, px: int = PX) -> np.ndarray:
    return np.random.default_rng(row).integers(0, 256, (px, px, 3), dtype=np.uint8)


def content(row: int) -> str:
    return f"{row:032x}"


def keep(cache: PixelCache, rows: Any, **options: Any) -> None:
    for row in rows:
        cache.keep(row, row + 7, picture(row, cache.px), content(row), **options)


def kept(cache: PixelCache, rows: Any = range(20)) -> list[int]:
    """Return which of the rows it gives, each as it was."""
    found = []
    for row in rows:
        image = cache.read(row, row + 7)
        if image is not None:
            assert np.array_equal(image.pixels, picture(row, cache.px)) and image.content == content(row)
            found.append(row)
    return found


@pytest.fixture
def pack(folder: Path) -> Path:
    """Return the one pack of a cache of rows 0 to 19."""
    cache = opened(folder)
    keep(cache, range(20))
    cache.close()
    (path,) = folder.iterdir()
    return path


def test_images_are_there_before_and_after_they_are_in_a_pack(folder: Path) -> None:
    cache = opened(folder)
    keep(cache, range(PACK_IMAGES + 3))
    assert kept(cache, range(PACK_IMAGES + 9)) == list(range(PACK_IMAGES + 3))
    assert cache.holds(3) and not cache.holds(PACK_IMAGES + 3) and cache.n_images == PACK_IMAGES + 3
    cache.close()
    assert sorted(path.name for path in folder.iterdir()) == ["pack-000000.bin", "pack-000001.bin"]
    again = opened(folder)
    assert kept(again, range(PACK_IMAGES + 9)) == list(range(PACK_IMAGES + 3))
    keep(again, [5, 99])
    again.close()
    assert len(list(folder.iterdir())) == 3, "what is there is not written again"
    assert again.n_images == PACK_IMAGES + 4


def test_what_it_gives_cannot_be_changed_by_mistake(folder: Path) -> None:
    cache = opened(folder)
    keep(cache, [1])
    image = cache.read(1, 8)
    assert image is not None and not image.pixels.flags.writeable
    cache.close()


def test_an_image_of_another_stamp_is_not_used_and_makes_room_for_the_right_one(pack: Path) -> None:
    cache = opened(pack.parent)
    assert cache.read(3, 99) is None and not cache.holds(3)
    cache.keep(3, 99, picture(50), content(50))
    image = cache.read(3, 99)
    assert image is not None and image.content == content(50) and cache.read(3, 10) is None
    cache.close()
    later = opened(pack.parent).read(3, 99)
    assert later is not None and np.array_equal(later.pixels, picture(50)), "the newest counts"


@pytest.mark.parametrize("other", [{"mark": "catalogue b"}, {"px": 16}])
def test_images_of_another_catalogue_or_size_are_removed(
    pack: Path, caplog: pytest.LogCaptureFixture, other: dict[str, Any]
) -> None:
    with caplog.at_level(logging.INFO):
        cache = opened(pack.parent, **other)
    assert kept(cache) == [] and not pack.exists()
    assert ["another catalogue or size" in record.getMessage() for record in caplog.records] == [True]


def flipped(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("at", range(0, pixels.HEAD.size + 20 * pixels.ENTRY.itemsize, 17))
def test_an_index_with_a_flipped_bit_is_never_used(pack: Path, caplog: pytest.LogCaptureFixture, at: int) -> None:
    flipped(pack, at)
    cache = opened(pack.parent)
    assert kept(cache) == [] and not pack.exists()
    keep(cache, range(20))
    cache.close()
    assert kept(opened(pack.parent)) == list(range(20)), "it is made anew"


@pytest.mark.parametrize("size", [0, 5, 36, 200, -1, -ONE, 10**6])
def test_a_pack_that_is_cut_or_too_long_is_removed_and_reported(
    pack: Path, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    os.truncate(pack, size if size >= 0 else pack.stat().st_size + size)
    assert kept(opened(pack.parent)) == [] and not pack.exists()
    assert ["1 files" in record.getMessage() for record in caplog.records] == [True]


def test_an_image_with_a_flipped_bit_is_not_used_and_the_others_are(
    pack: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flipped(pack, pixels.HEAD.size + 20 * pixels.ENTRY.itemsize + 4 * ONE + 100)
    cache = opened(pack.parent)
    good = [row for row in range(20) if row != 4]
    assert kept(cache) == good and kept(cache) == good
    assert not cache.holds(4)
    keep(cache, range(20))
    assert kept(cache) == list(range(20))
    cache.close()
    assert ["1 images" in record.getMessage() for record in caplog.records] == [True]
    assert kept(opened(pack.parent)) == list(range(20)), "the good copy counts from now on"


def test_a_pack_that_is_cut_while_it_is_in_use_gives_nothing(pack: Path) -> None:
    cache = opened(pack.parent)
    os.truncate(pack, pack.stat().st_size - 5 * ONE)
    assert kept(cache) == list(range(15)) and cache.n_damaged == 5
    pack.unlink()
    assert kept(cache) == []


def test_packs_without_any_row_of_use_and_what_a_killed_process_left_are_removed(pack: Path) -> None:
    partial = atomic.partial_of(pack.with_name("pack-000001.bin"))
    partial.write_bytes(b"half")
    assert kept(opened(pack.parent, live=np.array([19, 40]))) == list(range(20)) and not partial.exists()
    assert kept(opened(pack.parent, live=np.array([20, 40]))) == [] and not pack.exists()
    assert kept(opened(pack.parent, live=np.zeros(0, np.int64))) == []


def test_a_smaller_bound_removes_packs_and_none_removes_all(folder: Path) -> None:
    cache = opened(folder)
    keep(cache, range(3 * PACK_IMAGES))
    cache.close()
    assert len(kept(opened(folder, max_bytes=2 * PACK_IMAGES * ONE), ROWS)) == 2 * PACK_IMAGES
    nothing = opened(folder, max_bytes=0)
    keep(nothing, range(5))
    nothing.close()
    assert kept(nothing) == [] and list(folder.iterdir()) == []


def test_the_pool_leaves_a_fifth_of_the_room_to_labelled_images(folder: Path) -> None:
    cache = opened(folder, max_bytes=100 * ONE)
    keep(cache, range(200))
    assert cache.n_images == 80
    keep(cache, range(300, 350), is_labelled=True)
    assert kept(cache, ROWS) == [*range(80), *range(300, 320)], "nothing is evicted"
    cache.close()
    assert opened(folder, max_bytes=100 * ONE).n_images == 100


def test_a_full_cache_is_reported_once_and_one_that_is_switched_off_is_not(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for max_bytes, said in ((100 * ONE, ["is full with 80 images; 10 more times"]), (0, [])):
        caplog.clear()
        cache = opened(folder / str(max_bytes), max_bytes=max_bytes)
        keep(cache, range(90))
        cache.close()
        assert len(caplog.messages) == len(said)
        assert all(part in message for part, message in zip(said, caplog.messages, strict=True))


def test_it_takes_half_of_what_is_free_at_most(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "free_bytes", lambda path: 100 * ONE)
    cache = opened(folder)
    keep(cache, range(90), is_labelled=True)
    cache.close()
    assert cache.n_images == 50
    monkeypatch.setattr(atomic, "free_bytes", lambda path: 50 * ONE)
    assert len(kept(opened(folder), range(90))) == 50, "what it takes already is counted in, and kept"


def test_a_disk_that_others_fill_meanwhile_lowers_the_bound(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = opened(folder)
    monkeypatch.setattr(atomic, "free_bytes", lambda path: 0)
    keep(cache, range(PACK_IMAGES))
    assert cache._writing is not None
    cache._writing.result()
    keep(cache, range(PACK_IMAGES, 2 * PACK_IMAGES))
    cache.close()
    assert cache.n_images == PACK_IMAGES


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have packs written by the thread that fills them, so that their operations count among the failpoints."""
    monkeypatch.setattr(atomic.failpoints, "leave_out_this_thread", lambda: None)
    yield
    atomic.failpoints.fail_at, atomic.failpoints.mode = 0, "kill"


@pytest.mark.parametrize("mode", ["eio", "enospc", "short"])
def test_whatever_operation_fails_images_are_given_or_decoded_again_and_it_is_said_once(
    folder: Path, at_once: None, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    for n in range(1, 30):
        shutil.rmtree(folder, ignore_errors=True)
        caplog.clear()
        points = atomic.failpoints
        points.count, points.fail_at, points.mode = 0, n, mode
        cache = opened(folder)
        keep(cache, range(PACK_IMAGES + 5))
        cache.close()
        was_reached, points.fail_at = points.count >= n, 0
        given = kept(cache, ROWS)
        assert set(given) <= set(kept(opened(folder), ROWS)) and not list(folder.glob(".*"))
        assert len(given) == PACK_IMAGES + 5 or len(caplog.records) == 1
        if not was_reached:
            assert n > 8 and len(given) == PACK_IMAGES + 5
            return
    raise AssertionError("more operations than expected")


@pytest.mark.skipif(os.name != "posix" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="rights of a user")
def test_a_folder_that_may_not_be_written_is_read(pack: Path, caplog: pytest.LogCaptureFixture) -> None:
    pack.parent.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        cache = opened(pack.parent)
        keep(cache, range(30))
        cache.close()
        assert kept(cache, range(30)) == list(range(20)) and len(caplog.records) == 1
    finally:
        pack.parent.chmod(stat.S_IRWXU)


def test_a_file_in_the_place_of_the_folder_is_no_reason_to_stop(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder.write_text("no folder")
    cache = opened(folder)
    keep(cache, range(5))
    cache.close()
    assert kept(cache, range(5)) == []
    assert ["cannot be kept" in record.getMessage() for record in caplog.records] == [True]


def test_capture_times_are_kept_and_packs_of_before_they_were_are_used(folder: Path) -> None:
    cache = opened(folder)
    keep(cache, range(5))
    cache.close()
    (pack,) = folder.glob("pack-*.bin")
    data, begin = pack.read_bytes(), pixels.HEAD.size + 5 * pixels.ENTRY.itemsize
    entries = np.frombuffer(data[pixels.HEAD.size : begin], pixels.ENTRY)
    fields = list(pixels.ENTRY_WITHOUT_TIME.names or ())
    before = entries[fields].astype(pixels.ENTRY_WITHOUT_TIME)
    mark, magic = pixels.HEAD.unpack(data[: pixels.HEAD.size])[1], pixels.MAGIC_WITHOUT_TIMES
    pack.write_bytes(pixels._head(mark, PX, before, magic) + before.tobytes() + data[begin:])
    cache = opened(folder)
    keep(cache, range(5, 8), taken=1234)
    keep(cache, range(8, 10))
    cache.close()
    cache = opened(folder)
    assert kept(cache) == list(range(10)) and cache.n_damaged == 0
    read = [cache.read(row, row + 7) for row in range(10)]
    assert [image and image.taken for image in read] == [None] * 5 + [1234] * 3 + [-1] * 2
