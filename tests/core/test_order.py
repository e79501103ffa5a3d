"""The order in which images are embedded: random, and fair to each folder at every length."""

from __future__ import annotations

import numpy as np
import pytest

from camera_trap_al.core.order import stratified_order


def make(sizes: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    folders = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(seed).integers(0, 2**64, len(folders), np.uint64), folders


@pytest.mark.parametrize("sizes", [[1000, 500, 250, 30, 1], [7] * 90, [5, 2000]])
def test_every_beginning_holds_each_folder_by_its_share(sizes: list[int]) -> None:
    hashes, folders = make(sizes)
    order = stratified_order(hashes, folders, 5)
    assert sorted(order.tolist()) == list(range(len(folders)))
    shares = np.array(sizes) / len(folders)
    taken = np.cumsum(np.eye(len(sizes), dtype=int)[folders[order]], axis=0)
    wanted = np.arange(1, len(folders) + 1)[:, None] * shares
    assert np.abs(taken - wanted).max() < 2.5


def test_folders_of_one_image_take_part_from_the_start() -> None:
    hashes, folders = make([500, *[1] * 500])
    first = folders[stratified_order(hashes, folders, 1)[:200]]
    assert 70 < (first == 0).sum() < 130


def test_it_is_seeded_and_depends_on_neither_the_order_nor_the_numbers_of_folders() -> None:
    hashes, folders = make([40, 60, 3])
    order = stratified_order(hashes, folders, 9)
    shuffled = np.random.default_rng(3).permutation(len(hashes))
    again = stratified_order(hashes[shuffled], 17 - folders[shuffled], 9)
    assert hashes[shuffled][again].tolist() == hashes[order].tolist()
    assert stratified_order(hashes, folders, 10).tolist() != order.tolist()


def test_within_a_folder_the_order_is_random() -> None:
    hashes, folders = make([2000])
    halves = [stratified_order(hashes, folders, seed)[:1000].mean() for seed in range(20)]
    assert abs(np.mean(halves) - 999.5) < 30 and np.std(halves) > 5


def test_none_and_one() -> None:
    nothing = np.zeros(0, np.int64)
    assert stratified_order(nothing.view(np.uint64), nothing, 1).tolist() == []
    assert stratified_order(np.array([7], np.uint64), np.array([3]), 1).tolist() == [0]
