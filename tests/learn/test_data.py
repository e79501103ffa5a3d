"""Batches, transforms, statistics and reading ahead."""

import errno
import shutil
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from camera_trap_al.core.records import Item
from camera_trap_al.errors import ImagesOfflineError, ModelError, StopRequested
from camera_trap_al.learn.batches import balanced_batches, single_batches

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=60).map(np.array)
SEEDS = st.integers(0, 2**70)


@pytest.fixture(scope="module", autouse=True)
def imports():
    """Import what needs torch as the first of these tests runs: every test process reads this file, one runs it."""
    global PixelMemory, augment, centre_crop, map_ahead, mean_std, read_item, read_or_say_why
    from camera_trap_al.learn.data import (
        PixelMemory,
        augment,
        centre_crop,
        map_ahead,
        mean_std,
        read_item,
        read_or_say_why,
    )


@settings(deadline=None)
@given(labels=LABELS, batch_size=st.integers(2, 20), seed=SEEDS, epoch=st.integers(0, 9))
def test_single_batches_are_seeded_bounded_and_never_of_one_class(labels, batch_size, seed, epoch):
    batches = single_batches(labels, batch_size, seed=seed, epoch=epoch)
    again = single_batches(labels, batch_size, seed=seed, epoch=epoch)
    assert [b.tolist() for b in batches] == [b.tolist() for b in again]
    assert len(batches) == -(-len(labels) // batch_size)
    assert sum(map(len, batches)) == len(labels) and max(map(len, batches)) <= batch_size
    if len(set(labels.tolist())) > 1:
        assert all(len(set(labels[b].tolist())) > 1 for b in batches if len(b) > 1)


def test_single_batches_visit_each_image_once():
    labels = np.arange(300) % 7
    batches = single_batches(labels, seed=1, epoch=0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(300))
    assert [len(b) for b in batches] == [100, 100, 100]


@settings(deadline=None)
@given(labels=LABELS, n_classes=st.integers(1, 8), n_samples=st.integers(1, 12), seed=SEEDS)
def test_balanced_batches_hold_equally_many_of_each_class(labels, n_classes, n_samples, seed):
    batches = balanced_batches(labels, n_classes, n_samples, seed=seed, epoch=3)
    present = len(set(labels.tolist()))
    classes = min(present, max(2, n_classes))
    assert len(batches) == max(1, len(labels) // (classes * n_samples))
    for batch in batches:
        counts = np.bincount(labels[batch])
        assert sorted(counts[counts > 0].tolist()) == [n_samples] * classes
        for label in np.unique(labels[batch]):
            drawn, owned = batch[labels[batch] == label], int((labels == label).sum())
            repeats = np.bincount(drawn)
            assert repeats.max() <= -(-n_samples // owned)


def test_thirty_images_of_three_classes_give_a_balanced_batch():
    batches = balanced_batches(np.repeat([0, 1, 2], 10), seed=0, epoch=0)
    assert [len(b) for b in batches] == [30]


def test_epochs_and_seeds_give_other_batches():
    labels = np.arange(200) % 4
    for make in (single_batches, balanced_batches):
        drawn = {tuple(make(labels, seed=s, epoch=e)[0].tolist()) for s in (0, 1) for e in (0, 1)}
        assert len(drawn) == 4


def test_batches_over_an_epoch_use_a_large_class_evenly():
    labels = np.repeat([0, 1], 100)
    used = np.bincount(np.concatenate(balanced_batches(labels, 2, 10, seed=0, epoch=0)), minlength=200)
    assert used.tolist() == [1] * 200


def picture(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (256, 256, 3), dtype=np.uint8)


def test_a_transform_is_the_same_for_the_same_seed_and_differs_otherwise():
    first, erased = augment(picture(), np.random.default_rng([1, 2]))
    again, erased_again = augment(picture(), np.random.default_rng([1, 2]))
    other, _ = augment(picture(), np.random.default_rng([1, 3]))
    assert first.shape == (224, 224, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert (erased is None) == (erased_again is None)


def test_transforms_happen_about_as_often_as_they_should():
    image = np.full((256, 256, 3), (200, 100, 50), np.uint8)
    grey = erased = 0
    for seed in range(150):
        result, erasure = augment(image, np.random.default_rng(seed))
        centre = result[112, 112].astype(int)
        grey += np.ptp(centre) == 0
        erased += erasure is not None
        if erasure is not None:
            h, w, _ = erasure.noise.shape
            assert erasure.top + h <= 224 and erasure.left + w <= 224
            assert 0.01 * 224**2 < h * w < 0.34 * 224**2
    assert 5 <= grey <= 30
    assert 55 <= erased <= 95


def test_the_centre_crop_takes_the_middle():
    image = picture()
    assert np.array_equal(centre_crop(image[None])[0], image[16:240, 16:240])


def make_items(folder, colours):
    items = []
    for row, colour in enumerate(colours):
        path = folder / f"{row}.png"
        Image.new("RGB", (20, 10), colour).save(path)
        items.append(Item(row, str(path)))
    return items


def test_mean_and_std_are_over_all_pixels(tmp_path):
    items = make_items(tmp_path, [(0, 255, 51), (255, 255, 51), (255, 255, 51), (255, 255, 51)])
    mean, std = mean_std(items, seed=0)
    assert mean == pytest.approx([0.75, 1.0, 0.2])
    assert std[0] == pytest.approx(np.std([0, 1, 1, 1]))
    assert std.min() > 0 and mean.dtype == std.dtype == np.float64


def test_mean_and_std_agree_with_numpy_and_leave_out_what_cannot_be_read(tmp_path):
    pixels = {row: picture(row) for row in range(5)}
    items = [Item(row, str(tmp_path / f"{row}.png")) for row in pixels]
    for row, item in enumerate(items):
        Image.fromarray(pixels[row]).save(item.path)
    (tmp_path / "0.png").write_bytes(b"broken")
    mean, std = mean_std(items, seed=0)
    all_pixels = np.concatenate([pixels[row].reshape(-1, 3) for row in range(1, 5)]) / 255
    assert mean == pytest.approx(all_pixels.mean(0), abs=1e-12)
    assert std == pytest.approx(all_pixels.std(0), abs=1e-9)


def test_the_sample_for_mean_and_std_is_bounded_and_seeded(tmp_path):
    items = [Item(row, str(tmp_path / "none.png")) for row in range(50)]
    seen: list[set[int]] = []
    for seed in (0, 0, 1):
        rows: set[int] = set()

        def read(item, rows=rows):
            rows.add(item.row)
            return np.full((256, 256, 3), item.row, np.uint8)

        mean_std(items, limit=10, seed=seed, read=read)
        seen.append(rows)
    assert len(seen[0]) == 10 and seen[0] == seen[1] != seen[2]


def test_nothing_to_measure_is_an_error_that_says_so(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(ModelError, match="Not one of 1 images could be read"):
        mean_std([Item(0, str(tmp_path / "a.jpg"))], seed=0)


def test_pixel_memory_decodes_once_and_only_while_there_is_room(tmp_path):
    items = make_items(tmp_path, [(9, 9, 9)] * 3)
    decoded: list[int] = []

    def read(item):
        decoded.append(item.row)
        return read_item(item)

    memory = PixelMemory(read, max_bytes=2 * 256 * 256 * 3)
    for _ in range(3):
        for item in items:
            assert memory(item)[0, 0].tolist() == [9, 9, 9]
    assert sorted(decoded) == [0, 1, 2, 2, 2]


def test_pixel_memory_leaves_to_the_cache_what_that_keeps(tmp_path):
    items, read = make_items(tmp_path, [(9, 9, 9)] * 3), []
    memory = PixelMemory(lambda item: read.append(item.row) or read_item(item), lambda item: item.row == 1)
    for _ in range(3):
        for item in items:
            memory(item)
    assert sorted(read) == [0, 1, 1, 1, 2]


def test_an_unreadable_image_has_its_code(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"")
    code, text = read_or_say_why(Item(0, str(path)), read_item)
    assert code == "empty_file" and "a.jpg" in text


def test_a_file_that_is_gone_is_missing_only_while_its_folder_answers(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "other.jpg").write_bytes(b"x")
    gone = Item(0, str(folder / "gone.jpg"))
    assert read_or_say_why(gone, read_item)[0] == "missing"
    (folder / "other.jpg").unlink()
    with pytest.raises(ImagesOfflineError, match="site"):
        read_or_say_why(gone, read_item)
    shutil.rmtree(folder)
    with pytest.raises(ImagesOfflineError):
        read_or_say_why(gone, read_item)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_failing_disk_is_no_fault_of_the_image(tmp_path, number):
    def read(item):
        raise OSError(number, "the disk is away")

    assert read_or_say_why(Item(0, __file__), read)[0] == "missing"
    with pytest.raises(ImagesOfflineError):
        read_or_say_why(Item(0, str(tmp_path / "no" / "a.jpg")), read)


def test_a_file_without_permission_says_so():
    def read(item):
        raise PermissionError(errno.EACCES, "Permission denied")

    assert read_or_say_why(Item(0, __file__), read)[0] == "no_permission"


def test_reading_ahead_keeps_the_order_and_a_bounded_lead():
    started: list[int] = []
    lock = threading.Lock()

    def work(n):
        with lock:
            started.append(n)
        return n * n

    results = map_ahead(work, range(100), ahead=5)
    assert [next(results) for _ in range(10)] == [n * n for n in range(10)]
    assert len(started) <= 16
    results.close()
    assert len(started) <= 16


def test_a_stop_passes_through_the_statistics(tmp_path):
    def stop(progress):
        raise StopRequested

    with pytest.raises(StopRequested):
        mean_std(make_items(tmp_path, [(1, 2, 3)] * 3), seed=0, tick=stop)
