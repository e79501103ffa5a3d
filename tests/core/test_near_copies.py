"""Near-copies: told by the distances of the pool itself."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from camera_trap_al.core.near_copies import Apart, near_copy_distance


def test_the_limit_lies_between_copies_and_other_images_of_the_pool_whatever_its_scale() -> None:
    rng = np.random.default_rng(3)
    for scale in (1e-3, 1.0, 1e4):
        places = rng.normal(size=(100, 16)) * scale
        bursts = np.repeat(places, 3, axis=0) + rng.normal(size=(300, 16)) * scale * 0.01
        limit = near_copy_distance(bursts, np.repeat(np.arange(100), 3))
        fits = Apart(limit).choose(bursts).reshape(100, 3)
        assert fits.sum(axis=1).max() == 1 and fits.sum() >= 95


def test_many_equal_images_hide_no_near_copies_of_others() -> None:
    rng = np.random.default_rng(5)
    pairs = np.repeat(rng.normal(size=(100, 16)), 2, axis=0) + rng.normal(size=(200, 16)) * 0.01
    points = np.concatenate([pairs, rng.normal(size=(500, 16)), np.full((100, 16), 9.0)])
    fits = Apart(near_copy_distance(points, np.arange(len(points)))).choose(points)
    assert fits[:200].reshape(100, 2).sum(axis=1).max() == 1 and fits[700:].sum() == 1 and fits[200:700].sum() > 400


def test_images_of_one_sequence_alone_say_nothing_of_the_pool() -> None:
    assert near_copy_distance(np.ones((5, 2)), np.zeros(5, np.int64)) == -1
    assert Apart(-1.0).choose(np.ones((5, 2))).all()


def test_equal_images_are_near_copies_of_each_other() -> None:
    assert near_copy_distance(np.ones((4, 2)), np.arange(4)) == 0
    assert Apart(0.0).choose(np.ones((600, 2))).tolist() == [True] + [False] * 599


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 300), st.integers(0, 5), st.sampled_from([0.0, 0.02, 1.0]))
def test_it_chooses_as_one_by_one(n: int, before: int, limit: float) -> None:
    points = np.random.default_rng(n).integers(0, 8, (n + before, 2)) / 8
    apart, kept, wanted = Apart(limit), list(points[n:]), []
    apart.add(points[n:])
    for point in points[:n]:
        wanted.append(all(((point - other) ** 2).sum() > limit for other in kept))
        kept += [point] * wanted[-1]
    assert apart.choose(points[:n]).tolist() == wanted
