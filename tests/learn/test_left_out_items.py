"""Cross-validation of images with several items: never split, judged once, by the surest item."""

from __future__ import annotations

import numpy as np
import pytest

from camera_trap_al.learn.calibration import MOST_ROWS, calibrate, looked_at, predict_left_out
from camera_trap_al.learn.worth import compare_embeddings

N, CROPS = 60, 3
IMAGES = np.repeat(np.arange(N), CROPS)
NAMES = [("deer", "fox")[i % 2] for i in np.random.default_rng(3).permutation(N)[IMAGES]]
# Of each image alike, and saying nothing of its class: who knows one item knows the others, and nothing else.
VECTORS = np.random.default_rng(1).normal(size=(N, 64)).astype(np.float32)[IMAGES]
ALONE = np.arange(len(IMAGES))


def right(left: object) -> float:
    return float((left.proba.argmax(axis=1) == left.targets).mean())  # type: ignore[attr-defined]


def test_what_is_known_of_one_item_tells_nothing_of_the_others_of_its_image() -> None:
    # Groups that leave nothing to learn from, so that rows are dealt out.
    groups = np.zeros(len(IMAGES), np.int64)
    split = predict_left_out(VECTORS, NAMES, groups, "logistic", 1)
    assert split.by == "image" and right(split) > 0.9
    whole = predict_left_out(VECTORS, NAMES, groups, "logistic", 1, images=IMAGES)
    assert whole.by == "image" and right(whole) < 0.75


def test_an_image_is_judged_once_by_its_surest_item_in_the_order_of_images() -> None:
    rng = np.random.default_rng(5)
    order = rng.permutation(len(IMAGES))
    images, names = IMAGES[order], [NAMES[i] for i in order]
    vectors = rng.normal(size=(len(images), 4)).astype(np.float32)
    left = predict_left_out(vectors, names, images, "logistic", 1, images=images)
    alone = predict_left_out(vectors, names, images, "logistic", 1)
    assert len(left.places) == len(left.proba) == len(left.targets) == len(left.judged) == N
    assert images[left.places].tolist() == list(dict.fromkeys(images.tolist()))
    for place in left.places:
        here = images == images[place]
        # Another temperature changes how sure each is, not which is surest.
        assert alone.proba[place].max() == alone.proba[here].max()


def test_one_item_each_is_as_no_items_at_all() -> None:
    one = predict_left_out(VECTORS, NAMES, ALONE, "logistic", 1, images=ALONE[::-1].copy())
    other = predict_left_out(VECTORS, NAMES, ALONE, "logistic", 1)
    assert np.array_equal(one.proba, other.proba) and one.places.tolist() == other.places.tolist() == ALONE.tolist()


def test_heads_are_judged_by_images() -> None:
    found = calibrate(VECTORS, NAMES, IMAGES, ("logistic",), 1, images=IMAGES)
    assert found.n_judged == N and found.scores["logistic"].accuracy < 0.75
    few = IMAGES < 15
    assert not calibrate(
        VECTORS[few], np.array(NAMES)[few].tolist(), IMAGES[few], ("logistic",), 1, images=IMAGES[few]
    ).scores


def test_two_networks_are_compared_by_images() -> None:
    signal = np.array([[1.0 if name == "deer" else -1.0] for name in NAMES], np.float32)
    worth = compare_embeddings(signal, VECTORS, NAMES, IMAGES, "logistic", 1, images=IMAGES)
    assert worth is not None and worth.n_judged == N and worth.accuracy == 1.0 and worth.helped == "yes"


@pytest.mark.parametrize("n", [MOST_ROWS, MOST_ROWS + 500])
def test_of_many_images_some_are_looked_at_with_all_their_items(n: int) -> None:
    images = np.random.default_rng(2).permutation(np.repeat(np.arange(n), 2))
    places = looked_at(images, 7)
    assert len(places) == 2 * MOST_ROWS and len(set(images[places].tolist())) == MOST_ROWS
    assert (np.diff(places) > 0).all()
