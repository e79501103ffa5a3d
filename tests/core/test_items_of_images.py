"""Several items of one image: against slow, obvious versions, and what a request may hold of them."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from camera_trap_al.core.composition import Askable, compose
from camera_trap_al.core.grouping import (
    NO_TIME,
    Names,
    best_in_order,
    best_of_image,
    first_of_image,
    is_single,
    n_images,
    numbered_from_first,
    sequence_numbers,
)
from camera_trap_al.core.seeds import key_hash

ITEMS = st.lists(st.tuples(st.integers(0, 12), st.sampled_from([0.25, 0.5, 0.75])), max_size=30)


@given(ITEMS)
def test_one_item_stands_for_an_image_as_a_slow_search_finds_it(items: list[tuple[int, float]]) -> None:
    images, top = np.array([i for i, _ in items], np.int64), np.array([p for _, p in items], np.float32)
    order = list(dict.fromkeys(images.tolist()))
    best = {}
    for place, (image, value) in enumerate(items):
        if image not in best or value > top[best[image]]:
            best[image] = place
    assert best_of_image(images, top).tolist() == sorted(best.values())
    assert best_in_order(images, top).tolist() == [best[image] for image in order]
    assert first_of_image(images).tolist() == [image not in images[:n] for n, image in enumerate(images)]
    assert numbered_from_first(images).tolist() == [order.index(image) for image in images]
    assert n_images(images) == len(order) and is_single(images) == (len(order) == len(items))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 30), st.integers(-1, 12)),
        unique_by=lambda one: one[:2],
        max_size=25,
    ),
    st.sampled_from([0.0, 2.0, 60.0]),
    st.randoms(),
)
def test_sequences_are_those_of_the_images_however_many_items_they_have(
    images: list[tuple[str, int, int]], gap_s: float, random: object
) -> None:
    paths = [f"{folder}/{number:03d}.jpg" for folder, number, _ in images]
    times = [1000 * second if second >= 0 else NO_TIME for _, _, second in images]
    whole, by_time = sequence_numbers(
        Names.of([(row, key_hash(path), path) for row, path in enumerate(paths)]),
        np.array(times, np.int64),
        gap_s=gap_s,
    )
    items = [place for place in range(len(paths)) for _ in range(random.randint(1, 60))]  # type: ignore[attr-defined]
    random.shuffle(items)  # type: ignore[attr-defined]
    names = Names.of([(row, key_hash(paths[place]), paths[place]) for row, place in enumerate(items)])
    taken = np.array([times[place] for place in items], np.int64)
    found, timed = sequence_numbers(names, taken, gap_s=gap_s, images=np.array(items, np.int64))
    assert len(set(zip(found.tolist(), whole[items].tolist(), strict=True))) == len(set(whole.tolist()))
    assert timed.tolist() == by_time[items].tolist()


def with_items(images: list[int], sequences: list[int], folders: list[int]) -> Askable:
    """Return rows of images whose numbers are given, with sequence and folder of each image."""
    hashes = np.random.default_rng(4).integers(0, 2**64, max(images, default=0) + 1, np.uint64)
    of = np.array(images, np.int64)
    rows = np.arange(len(images)) * 3
    return Askable(rows, hashes[of], np.array(sequences, np.int64)[of], np.array(folders, np.int64)[of], of)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=50),
    st.lists(st.integers(0, 3), min_size=10, max_size=10),
    st.integers(0, 14),
    st.integers(0, 5),
    st.integers(0, 2),
    st.booleans(),
    st.randoms(),
)
def test_a_request_never_holds_an_image_twice_and_is_never_short(
    images: list[int], sequences: list[int], n: int, n_drawn: int, cap: int, has_vectors: bool, random: object
) -> None:
    askable, wishes = with_items(images, sequences, [0] * 10), list(range(len(images)))
    random.shuffle(wishes)  # type: ignore[attr-defined]
    points = np.random.default_rng(1).integers(0, 3, (len(images), 2))

    def choose(may: np.ndarray, wanted: int) -> np.ndarray:
        assert 0 < wanted <= may.sum()
        return askable.rows[[place for place in wishes if may[place]][:wanted]]

    read = (lambda rows: points[rows // 3]) if has_vectors else None
    rows, drawn = compose(askable, n, n_drawn=n_drawn, per_sequence=cap, seed=1, choose=choose, read=read)
    found = [images[place] for place in rows // 3]
    assert len(set(found)) == len(found) == min(n, len(set(images)))
    assert drawn == min(n_drawn, n, len(set(images)))
    if not cap and not n_drawn:
        wanted = list(dict.fromkeys(images[place] for place in wishes))[:n]
        assert found == wanted, "the image whose best item is wanted most comes first"


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(1, 6), min_size=20, max_size=20),
    st.lists(st.integers(0, 2), min_size=20, max_size=20),
    st.integers(1, 15),
    st.integers(0, 1000),
)
def test_the_random_share_draws_images_however_many_boxes_they_have(
    boxes: list[int], folders: list[int], n: int, seed: int
) -> None:
    def drawn(images: list[int]) -> list[int]:
        askable = with_items(images, list(range(20)), folders)
        rows, _ = compose(askable, n, n_drawn=n, per_sequence=1, seed=seed, choose=lambda may, wanted: askable.rows[:0])
        return [images[place] for place in rows // 3]

    assert drawn([image for image, n_boxes in enumerate(boxes) for _ in range(n_boxes)]) == drawn(list(range(20)))


def test_an_image_of_a_hundred_boxes_leaves_room_for_others() -> None:
    images = [0] * 100 + list(range(1, 21))
    askable = with_items(images, list(range(21)), [0] * 21)
    rows, _ = compose(
        askable,
        10,
        n_drawn=0,
        per_sequence=1,
        seed=1,
        choose=lambda may, wanted: askable.rows[np.flatnonzero(may)[:wanted]],
    )
    assert Counter(images[place] for place in rows // 3) == dict.fromkeys(range(10), 1)


def test_herds_leave_no_part_of_a_request_to_chance() -> None:
    """The 150 images that a strategy wants most have 60 animals each: it is asked for as many rows as that takes."""
    counts = np.array([60] * 150 + [1] * 1000)
    images = np.repeat(np.arange(len(counts)), counts)
    rows, rank = np.arange(len(images)), np.random.default_rng(4).permutation(len(counts))
    rank[:150], rank[150:] = np.sort(rank[:150]) - 10_000, rank[150:]
    hashes = images.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)

    def choose(may: np.ndarray, most: int) -> np.ndarray:
        left = np.flatnonzero(may)
        wanted: np.ndarray = rows[left[np.argsort(rank[images[left]], kind="stable")[:most]]]
        return wanted

    askable = Askable(rows, hashes, images, np.zeros(len(rows), np.int64), images)
    chosen, _ = compose(askable, 100, n_drawn=0, per_sequence=0, seed=1, choose=choose)
    assert images[chosen].tolist() == list(range(100))
