"""Reading the images of a work folder: decoded once, contents are remembered; a file that is gone, a folder away."""

import errno

import numpy as np
import pytest
from PIL import Image

from camera_trap_al.catalog.found import POOL, TRAIN
from camera_trap_al.config import build
from camera_trap_al.core.records import Item
from camera_trap_al.errors import ImagesOfflineError, ImageUnreadableError
from camera_trap_al.images import DecodeLimits, hash_file
from camera_trap_al.reading import ImageReader, decode_limits
from camera_trap_al.store.pixels import PixelCache


@pytest.fixture
def pool(tmp_path):
    folder = tmp_path / "pool" / "site"
    folder.mkdir(parents=True)
    for name in ("a.jpg", "b.jpg"):
        Image.effect_noise((90, 90), 50).save(folder / name)
    (folder / "b.jpg").write_bytes((folder / "b.jpg").read_bytes()[:-200])
    return tmp_path / "pool"


def reader_of(pool, known_top=("site",), **options):
    return ImageReader(build(options, "test"), {POOL: str(pool)}, known_top)


def code_of(reader, path):
    with pytest.raises(ImageUnreadableError) as caught:
        reader(Item(0, str(path)))
    return caught.value.code


def test_the_configuration_says_what_is_refused():
    config = build({"images.allow_truncated": True, "images.max_pixels": 5, "images.max_side": 4}, "test")
    assert decode_limits(config) == DecodeLimits(5, 4, allow_truncated=True)
    assert decode_limits(build({}, "test")) == DecodeLimits()


def test_contents_are_remembered_of_good_and_damaged_files_until_they_are_taken(pool):
    reader = reader_of(pool)
    assert reader(Item(7, str(pool / "site" / "a.jpg"))).shape == (256, 256, 3)
    with pytest.raises(ImageUnreadableError):
        reader(Item(8, str(pool / "site" / "b.jpg")))
    with pytest.raises(ImageUnreadableError):
        reader(Item(9, str(pool / "site" / "gone.jpg")))
    assert reader.take_hashes() == {n: hash_file(pool / "site" / name) for n, name in ((7, "a.jpg"), (8, "b.jpg"))}
    assert reader.take_hashes() == {}


def test_limits_of_the_configuration_reach_the_decoder(pool):
    assert code_of(reader_of(pool, **{"images.max_side": 89}), pool / "site" / "a.jpg") == "too_large"
    assert code_of(reader_of(pool), pool / "site" / "b.jpg") == "truncated"
    reader = reader_of(pool, **{"images.allow_truncated": True})
    assert reader(Item(0, str(pool / "site" / "b.jpg"))).any()


def test_a_site_that_is_gone_is_missing_and_a_root_that_is_gone_is_offline(pool):
    reader, gone = reader_of(pool), pool / "old site" / "a.jpg"
    assert code_of(reader, gone) == "missing"
    pool.rename(pool.with_name("away"))
    with pytest.raises(ImagesOfflineError, match=r"a\.jpg"):
        reader(Item(0, str(gone)))
    pool.mkdir()
    with pytest.raises(ImagesOfflineError):
        reader(Item(0, str(gone)))
    (pool / "another disk").mkdir()
    with pytest.raises(ImagesOfflineError):
        reader(Item(0, str(gone)))


def test_other_folders_are_away_when_they_are_empty(pool):
    reader = ImageReader(build({}, "test"), {TRAIN: str(pool)}, ())
    assert code_of(reader, pool / "fox" / "a.jpg") == "missing"
    pool.rename(pool.with_name("away"))
    with pytest.raises(ImagesOfflineError):
        reader(Item(0, str(pool / "fox" / "a.jpg")))


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_a_share_that_stumbles_once_costs_no_image(pool, monkeypatch, number):
    reader = reader_of(pool)
    read, failures = reader._decoders.read, [OSError(number, "stumbles")]

    def stumbling(*args, **options):
        if failures:
            raise failures.pop()
        return read(*args, **options)

    monkeypatch.setattr(reader._decoders, "read", stumbling)
    good = Item(0, str(pool / "site" / "a.jpg"))
    assert reader(good).shape == (256, 256, 3)
    failures += [OSError(number, "stumbles")] * 2
    assert code_of(reader, pool / "site" / "a.jpg") == "missing"


def test_no_permission_is_for_the_caller_to_judge(pool, monkeypatch):
    reader = reader_of(pool)

    def refuse(*args, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(reader._decoders, "read", refuse)
    with pytest.raises(PermissionError):
        reader(Item(0, str(pool / "site" / "a.jpg")))


def cached_reader(pool, folder, px=256):
    cache = PixelCache(folder, "catalogue", px=px, max_bytes=10**9, live=np.arange(10))
    return ImageReader(build({}, "test"), {POOL: str(pool)}, (), px=px, cache=cache), cache


@pytest.mark.parametrize("px", [256, 64])
def test_an_image_from_the_cache_is_as_it_was_decoded_and_so_is_its_hash(pool, tmp_path, px):
    item, found = Item(3, str(pool / "site" / "a.jpg"), size=7), []
    hashed = {3: hash_file(item.path)}
    for _ in range(2):
        reader, cache = cached_reader(pool, tmp_path / "cache", px)
        found += [reader(item), reader(item)]
        assert reader.keeps(item) and reader.take_hashes() == hashed
        cache.close()
        (pool / "site" / "a.jpg").unlink(missing_ok=True)
    assert all(np.array_equal(image, found[0]) for image in found) and found[0].shape == (256, 256, 3)


def test_neither_another_image_of_the_same_row_nor_one_that_cannot_be_read_comes_from_the_cache(pool, tmp_path):
    reader, cache = cached_reader(pool, tmp_path / "cache")
    first = reader(Item(3, str(pool / "site" / "a.jpg"), size=7))
    Image.new("RGB", (90, 90)).save(pool / "site" / "c.jpg")
    assert not np.array_equal(reader(Item(3, str(pool / "site" / "c.jpg"), size=7)), first)
    assert code_of(reader, pool / "site" / "b.jpg") == "truncated"
    assert not reader.keeps(Item(0, ""))
    cache.close()


def test_a_moved_folder_keeps_its_decoded_images(pool, tmp_path):
    reader, cache = cached_reader(pool, tmp_path / "cache")
    first = reader(Item(3, str(pool / "site" / "a.jpg"), size=7))
    moved = ImageReader(build({}, "test"), {POOL: str(tmp_path / "elsewhere")}, ("site",), cache=cache)
    assert np.array_equal(moved(Item(3, str(tmp_path / "elsewhere" / "site" / "a.jpg"), size=7)), first)
    with pytest.raises(ImagesOfflineError):
        moved(Item(3, str(tmp_path / "elsewhere" / "other site" / "a.jpg"), size=7))
    cache.close()


def test_capture_times_come_with_the_pixels_from_files_and_from_the_cache(pool, tmp_path, monkeypatch):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "1970:01:01 00:00:05"
    timed, untimed = (Item(row, str(pool / "site" / name)) for row, name in ((3, "timed.jpg"), (4, "a.jpg")))
    Image.new("RGB", (20, 20)).save(timed.path, exif=exif)
    for _ in range(2):
        reader, cache = cached_reader(pool, tmp_path / "cache")
        assert reader(timed).shape == reader(untimed).shape
        assert reader.take_times() == {3: 5000} and reader.take_times() == {}
        cache.close()
        monkeypatch.setattr("camera_trap_al.reading.read_capture_time", lambda path: pytest.fail("opened again"))
    monkeypatch.undo()
    reader, cache = cached_reader(pool, tmp_path / "cache")
    without = cache.read
    monkeypatch.setattr(cache, "read", lambda row, stamp: without(row, stamp)._replace(taken=None))
    assert reader(timed).shape == reader(untimed).shape
    assert reader.take_times() == {3: 5000}, "a cache of before times were kept: the header says it"
