"""Reading the images of a work folder: contents are remembered, and a file that is gone differs from a folder away."""

import errno

import pytest
from PIL import Image

from camera_trap_al.catalog.found import POOL, TRAIN
from camera_trap_al.config import build
from camera_trap_al.core.records import Item
from camera_trap_al.errors import ImagesOfflineError, ImageUnreadableError
from camera_trap_al.images import DecodeLimits, hash_file
from camera_trap_al.reading import ImageReader, decode_limits


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
