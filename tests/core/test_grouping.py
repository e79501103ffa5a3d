"""Sequences: against a slow, obvious version, and what cameras and copying programs really write."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camera_trap_al.core.grouping import (
    COPIED_FROM,
    COPIED_PER_S,
    FEW_ALIKE,
    LONGEST_GAPS,
    MOST_BY_NAME,
    MOST_IMAGES,
    MOST_SPREAD,
    NO_TIME,
    Names,
    looks_copied,
    sequence_numbers,
    spread,
    within_cap,
)
from camera_trap_al.core.seeds import key_hash

Images = list[tuple[str, int]]


def grouped(images: Images, gap_s: float = 60.0) -> set[frozenset[str]]:
    names = Names.of([(row, key_hash(path), path) for row, (path, _) in enumerate(images)])
    numbers, _ = sequence_numbers(names, np.array([taken for _, taken in images], np.int64), gap_s=gap_s)
    found: dict[int, set[str]] = {}
    for (path, _), number in zip(images, numbers.tolist(), strict=True):
        found.setdefault(number, set()).add(path)
    return {frozenset(paths) for paths in found.values()}


def slowly(images: Images, gap_s: float) -> set[frozenset[str]]:
    """Group as the documentation says, an image at a time; names are a letter and a number."""
    groups: list[list[str]] = []
    last_part: float = 0
    for folder in sorted({path.partition("/")[0] for path, _ in images}):
        here = [(path, taken) for path, taken in images if path.startswith(f"{folder}/")]
        times = sorted(taken for _, taken in here if taken != NO_TIME)
        alike = max((times.count(taken) for taken in times), default=0)
        fast = len(times) >= COPIED_FROM and len(times) > COPIED_PER_S * ((times[-1] - times[0]) / 1000 + 1)
        copied = len(times) >= FEW_ALIKE and alike > len(times) / 2 or fast
        timed = [(taken, key_hash(path) % 2**64, path) for path, taken in here if taken != NO_TIME and not copied]
        first = last = -(10**15)
        for taken, _, path in sorted(timed):
            chained = taken - last < gap_s * 1000 and bool(groups)
            if not chained:
                first = taken
            part = (taken - first) // (LONGEST_GAPS * gap_s * 1000) if gap_s else 0
            if not chained or part != last_part or len(groups[-1]) == MOST_IMAGES:
                groups.append([])
            groups[-1].append(path)
            last, last_part = taken, part
        named = [path for path, taken in here if taken == NO_TIME or copied]
        for letter in sorted({path.split("/")[1][0] for path in named}):
            numbers = sorted(int(p.split("/")[1][1:-4]) for p in named if p.split("/")[1][0] == letter)
            for before, number in pairwise([-9, *numbers]):
                if number - before > 1 or len(groups[-1]) == (MOST_BY_NAME if gap_s else 1):
                    groups.append([])
                groups[-1].append(f"{folder}/{letter}{number}.jpg")
    return {frozenset(group) for group in groups}


TIMES = st.one_of(
    st.just(NO_TIME),
    st.integers(0, 400).map(lambda s: s * 1000),
    st.integers(0, 4_000_000),
)
PATHS = st.tuples(st.sampled_from("fg"), st.sampled_from("ab"), st.integers(0, 90)).map(
    lambda p: "{}/{}{}.jpg".format(*p)
)


@settings(deadline=None)
@given(st.dictionaries(PATHS, TIMES, max_size=90), st.sampled_from([0.0, 1.5, 60.0]), st.randoms())
def test_sequences_are_those_of_the_slow_version_in_whatever_order_images_come(
    images: dict[str, int], gap_s: float, random: object
) -> None:
    given_ = list(images.items())
    random.shuffle(given_)  # type: ignore[attr-defined]
    assert grouped(given_, gap_s) == slowly(list(images.items()), gap_s)


def burst(folder: str, first: int, at_s: float, n: int, every_s: float = 1.0) -> Images:
    return [(f"{folder}/IMG_{first + i:04d}.JPG", round((at_s + i * every_s) * 1000)) for i in range(n)]


def test_images_less_than_a_gap_apart_are_one_sequence_and_other_folders_others() -> None:
    images = burst("a", 1, 0, 3) + burst("a", 4, 62, 3) + burst("b", 1, 0, 3)
    assert sorted(map(len, grouped(images))) == [3, 3, 3]
    assert sorted(map(len, grouped(images, gap_s=60.01))) == [3, 6], "from 2 s to 62 s are 60 s"
    assert len(grouped(images, gap_s=0)) == 9


def test_names_that_begin_anew_are_no_reason_to_part_what_times_hold_together() -> None:
    assert len(grouped([("a/IMG_9999.JPG", 0), ("a/IMG_0001.JPG", 1000), ("a/IMG_0002.JPG", 2000)])) == 1


def test_a_camera_that_never_rests_makes_many_sequences() -> None:
    found = grouped(burst("a", 0, 0, 9000, every_s=20))
    assert len(found) == 200 and max(map(len, found)) == 45, "15 minutes each"
    assert max(map(len, grouped(burst("a", 0, 0, 5000, every_s=0.9)))) == MOST_IMAGES


@pytest.mark.parametrize("at", [lambda i: 10**12, lambda i: 10**12 + 40 * i, lambda i: NO_TIME])
def test_where_times_are_equal_those_of_copying_or_absent_names_count(at: object) -> None:
    runs = [*range(1, 5), *range(9, 12), *range(100, 125)]
    found = grouped([(f"a/IMG_{i:04d}.JPG", at(i)) for i in runs])  # type: ignore[operator]
    assert sorted(map(len, found)) == [3, 4, 5, 10, 10]


def test_one_folder_with_copied_times_says_nothing_of_another() -> None:
    images = [(f"a/{i}.jpg", 5000) for i in range(0, 8, 2)] + burst("b", 0, 5, 4)
    names = Names.of([(row, row, path) for row, (path, _) in enumerate(images)])
    assert looks_copied(names.folders, np.array([taken for _, taken in images])).tolist() == [True] * 4 + [False] * 4


def test_most_times_the_same_are_copied_but_not_those_of_bursts() -> None:
    def copied(*times: int) -> bool:
        return bool(looks_copied(np.zeros(len(times), np.int64), np.array(times))[0])

    assert copied(5, 5, 5, 9000, 80_000) and not copied(5, 5, 9000, 80_000)
    assert not copied(5, 5) and not copied(NO_TIME, NO_TIME, NO_TIME)
    assert not copied(*[10_000 * (i // 3) + 300 * (i % 3) for i in range(60)]), "a burst every 10 s"
    assert copied(*[10 * i for i in range(20)])


def test_names_are_read_up_to_their_last_number() -> None:
    paths = [
        "s/IMG_7.JPG",
        "s/IMG_8 (edited).JPG",
        "s/IMG_9 (edited).JPG",
        "s/2.d/x.jpg",
        "11.jpg",
        "12.png",
        "s/11.jpg",
    ]
    names = Names.of([(row, row, path) for row, path in enumerate(paths)])
    assert names.numbers.tolist() == [7, 8, 9, -1, 11, 12, 11]
    assert names.folder_names == ("s/", "s/2.d/", "")
    found = grouped([(path, NO_TIME) for path in paths])
    assert {frozenset(["s/IMG_8 (edited).JPG", "s/IMG_9 (edited).JPG"]), frozenset(["11.jpg", "12.png"])} <= found
    assert len(found) == 5


def test_images_without_a_number_are_by_themselves() -> None:
    assert len(grouped([("a/x.jpg", NO_TIME), ("a/y.jpg", NO_TIME), ("a/x.png", NO_TIME)])) == 3


def test_nothing() -> None:
    assert grouped([]) == set()


@given(st.lists(st.integers(0, 4), max_size=30), st.lists(st.integers(0, 3), min_size=5, max_size=5), st.integers(0, 3))
def test_the_cap_counts_what_is_chosen_and_what_comes_before(of: list[int], chosen: list[int], cap: int) -> None:
    count, wanted = list(chosen), []
    for sequence in of:
        wanted.append(cap == 0 or count[sequence] < cap)
        count[sequence] += 1
    assert within_cap(np.array(of, np.int64), np.array(chosen), cap).tolist() == wanted


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30), st.sampled_from([None, 0, 1, 2])), max_size=40),
    st.sets(st.integers(0, 39)),
)
def test_labels_spread_where_they_agree_to_the_nearest_few(
    images: list[tuple[int, int, int | None]], answered: set[int]
) -> None:
    sequences, times = np.array([s for s, _, _ in images], np.int64), np.array([t for _, t, _ in images], np.int64)
    labelled = [i for i, (_, _, label) in enumerate(images) if label is not None]
    others = [i for i, (_, _, label) in enumerate(images) if label is None and i not in answered]
    wanted: dict[int, int] = {}
    for sequence in set(sequences.tolist()):
        here = [i for i in labelled if sequences[i] == sequence]
        said = {images[i][2] for i in here}
        if len(said) == 1:
            first = min(times[here])
            near = sorted((abs(times[i] - first), i) for i in others if sequences[i] == sequence)
            wanted |= {i: said.copy().pop() or 0 for _, i in near[: MOST_SPREAD * len(here)]}
    given_ = [np.array([images[i][2] for i in labelled], np.int64), np.array(others, np.int64)]
    places, labels = spread(sequences, times, np.array(labelled, np.int64), *given_)
    assert dict(zip(places.tolist(), labels.tolist(), strict=True)) == wanted and (np.diff(places) > 0).all()
