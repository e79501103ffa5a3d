"""Vectors on disk: how they are stored, that they come back whatever is asked for, and that damage is never read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camera_trap_al.errors import ModelError
from camera_trap_al.store import embeddings, shards
from camera_trap_al.store.embeddings import Vectors

D = 5


def made(n: int, seed: int = 0) -> np.ndarray:
    """Return (n, 5) float32 vectors that are float16 numbers."""
    return np.random.default_rng(seed).normal(size=(n, D)).astype(np.float16).astype(np.float32)


def write(folder: Path, rows: list[int], vectors: np.ndarray | None = None, **given: Any) -> str:
    every = made(100) if vectors is None else vectors
    return shards.write_shard(folder, np.array(rows), every[rows] if vectors is None else every, {}, "m", **given)


def stored(folder: Path, name: str) -> np.ndarray:
    return np.load(folder / f"{name}.npy", allow_pickle=False)


def test_vectors_take_two_bytes_a_number_and_come_back_to_three_digits(tmp_path: Path) -> None:
    vectors = np.random.default_rng(1).normal(size=(50, 8)).astype(np.float32)
    vectors[3] = 0
    name = write(tmp_path, list(range(50)), vectors)
    assert stored(tmp_path, name).dtype == np.float16
    read = Vectors(tmp_path, "m").read(np.arange(50))
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, vectors, rtol=2**-11, atol=1e-7)


@pytest.mark.parametrize("kind", ["too large", "mostly too small"])
def test_vectors_that_a_short_number_cannot_hold_are_stored_as_they_are(tmp_path: Path, kind: str) -> None:
    vectors = made(6) * np.float32(1e5 if kind == "too large" else 1e-6)
    name = write(tmp_path, list(range(6)), vectors)
    assert stored(tmp_path, name).dtype == np.float32
    assert (Vectors(tmp_path, "m").read(np.arange(6)) == vectors).all()


@pytest.mark.parametrize("asked", [[0], [3, 900], [999, 0, 500, 0], list(range(0, 1000, 15)), list(range(0, 1000, 17))])
def test_vectors_far_apart_and_close_together_are_the_right_ones(tmp_path: Path, asked: list[int]) -> None:
    every = made(1000)
    write(tmp_path, list(range(1000)), every)
    vectors = Vectors(tmp_path, "m")
    for _ in range(2):
        assert (vectors.read(np.array(asked)) == every[asked]).all()


def test_every_finite_short_number_is_widened_to_itself() -> None:
    half = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = half[np.isfinite(half)]
    wide = shards.widened(finite.reshape(2, -1)).ravel()
    assert wide.dtype == np.float32 and (wide == finite.astype(np.float32)).all()
    assert (np.signbit(wide) == np.signbit(finite)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused_and_nothing_is_written(tmp_path: Path, bad: float) -> None:
    vectors = made(6)
    vectors[4, 2] = bad
    with pytest.raises(ModelError, match="no number for 1 of 6 images.*row 14 .*models"):
        shards.write_shard(tmp_path, np.arange(10, 16), vectors, {}, "m")
    assert not list(tmp_path.iterdir())


def test_a_shard_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """Vectors of four bytes a number, hashes as entries of their own, no checksum of the facts."""
    vectors = np.random.default_rng(3).normal(size=(3, D)).astype(np.float32)
    name = write(tmp_path, [0, 1, 2], vectors * np.float32(1e6))
    np.save(tmp_path / f"{name}.npy", vectors)
    facts = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
    del facts["facts_crc32"], facts["contents"]
    facts |= {"rows": [7, 3, 5], "hashes": {"3": "0a"}, "crc32": shards._crc32(vectors)}
    (tmp_path / f"{name}.json").write_text(json.dumps(facts), encoding="utf-8")
    assert shards.damaged_shards(tmp_path) == []
    assert shards.read_shard_facts(tmp_path, name).hashes == {3: "0a"}
    assert (Vectors(tmp_path, "m").read(np.array([3, 5, 7])) == vectors[[1, 2, 0]]).all()


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_every_row_asked_for_comes_once_with_its_own_vector(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder, n = tmp_path_factory.mktemp("shards"), data.draw(st.integers(1, 30))
    order = data.draw(st.permutations(range(n)))
    cuts = sorted(data.draw(st.sets(st.integers(1, n), max_size=4)) | {n})
    for start, end in zip([0, *cuts], cuts, strict=False):
        write(folder, order[start:end])
    asked = np.array(data.draw(st.lists(st.sampled_from(range(n)), unique=True)), np.int64)
    vectors, every = Vectors(folder, "m"), made(100)
    assert not len(asked) or (vectors.read(asked) == every[asked]).all()
    seen: list[int] = []
    for places, block in vectors.blocks(asked):
        assert (block == every[asked[places]]).all()
        seen += asked[places].tolist()
    assert sorted(seen) == sorted(asked.tolist())
    twice = np.concatenate([asked, asked])
    assert not len(asked) or (vectors.read(twice) == every[twice]).all()


def test_a_pass_over_the_pool_reads_each_file_once_without_gathering(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = np.random.default_rng(0).permutation(100)
    for start in range(0, 100, 4):
        write(tmp_path, order[start : start + 4].tolist())
    opened: list[str] = []
    load = np.load

    def count(path: Path, **given: Any) -> Any:
        opened.append(Path(path).name)
        return load(path, **given)

    monkeypatch.setattr(np, "load", count)
    vectors = Vectors(tmp_path, "m")
    assert opened == []
    in_shards = Vectors(tmp_path, "m")
    pieces = list(in_shards.pieces(order))
    assert all(isinstance(places, slice) for places, _ in pieces)
    assert [load.args[1] for _, load in pieces] == [slice(0, 4)] * 25  # type: ignore[attr-defined]
    for _ in vectors.blocks(np.arange(100)):
        pass
    assert len(opened) == len(set(opened)) == 25


def flip(path: Path, at: int = -3) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(bytes(content))


def saying(name: str, value: object) -> Callable[[Path], object]:
    """Return what has the facts of a shard say something else."""

    def say(path: Path) -> None:
        facts = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**facts, name: value}), encoding="utf-8")

    return say


NPY: dict[str, Callable[[Path], object]] = {
    "a bit flipped": flip,
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-2]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "fewer vectors": lambda path: np.save(path, np.zeros((2, D), np.float16)),
    "of another model": lambda path: np.save(path, np.zeros((3, D + 1), np.float16)),
    "of whole numbers": lambda path: np.save(path, np.zeros((3, D), np.int16)),
    "of objects": lambda path: np.save(path, np.array([{}, {}, {}]), allow_pickle=True),
}
JSON: dict[str, Callable[[Path], object]] = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "empty": lambda path: path.write_bytes(b""),
    "of other rows": saying("rows", [8, 4, 5]),
    "of another model": saying("made_by", "n"),
    "another broken image": saying("problems", {"3": ["truncated", "cut"]}),
    "another content": saying("contents", "0a,,"),
    "a list": lambda path: path.write_text("[]", encoding="utf-8"),
    "rows that are no numbers": lambda path: path.write_text('{"rows": ["a"]}', encoding="utf-8"),
}


def good_and_bad(folder: Path) -> np.ndarray:
    """Write rows 0 to 8 as three shards, and return a scaler of their dimension."""
    for rows in ([0, 1, 2], [3, 4, 5], [6, 7, 8]):
        write(folder, rows)
    return np.stack([np.zeros(D), np.ones(D)])


@pytest.mark.parametrize("damage", NPY.values(), ids=NPY)
def test_damaged_vectors_are_never_read_and_embedded_again(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    scaler = good_and_bad(tmp_path)
    vectors = Vectors(tmp_path, "m", scaler)
    damage(tmp_path / "shard-000001.npy")
    with pytest.raises(ModelError, match=r"shard-000001.*embedded again"):
        list(vectors.blocks(np.arange(9)))
    every = np.arange(9)
    assert vectors.covers(every).tolist() == [True] * 3 + [False] * 3 + [True] * 3
    assert (vectors.read(np.array([8, 0])) == made(100)[[8, 0]]).all()
    assert write(tmp_path, [3, 4, 5]) == "shard-000003"
    vectors.refresh()
    assert (vectors.read(every) == made(100)[every]).all()
    assert (Vectors(tmp_path, "m", scaler).read(every) == made(100)[every]).all()


@pytest.mark.parametrize("damage", JSON.values(), ids=JSON)
def test_a_shard_with_damaged_facts_covers_nothing_and_is_no_other_learners(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    good_and_bad(tmp_path)
    damage(tmp_path / "shard-000001.json")
    vectors = Vectors(tmp_path, "m")
    assert vectors.covers(np.arange(9)).tolist() == [True] * 3 + [False] * 3 + [True] * 3
    assert not shards.is_foreign(tmp_path, "m"), "the other shards are still good"
    said = shards.set_damaged_shards_aside(tmp_path, seen=shards.glance(tmp_path))
    assert len(said) == 1 and "shard-000001" in said[0]
    assert shards.shard_names(tmp_path) == ["shard-000000", "shard-000002"]
    with pytest.raises(ModelError, match="damaged"):
        shards.read_shard_facts(tmp_path, "shard-000001")


@pytest.mark.parametrize("what", ["cut short", "gone", "empty", "fewer vectors"])
def test_a_start_that_reads_no_vectors_still_sees_those_cut_short(tmp_path: Path, what: str) -> None:
    good_and_bad(tmp_path)
    NPY[what](tmp_path / "shard-000001.npy")
    flip(tmp_path / "shard-000002.npy")
    assert [shard.name for shard in shards.glance(tmp_path) if not shard.is_whole] == ["shard-000001"]
    assert shards.damaged_shards(tmp_path) == ["shard-000001", "shard-000002"]


def test_all_damaged_shards_are_set_aside_at_once(tmp_path: Path) -> None:
    scaler = good_and_bad(tmp_path)
    for name in ("shard-000000.npy", "shard-000002.npy"):
        flip(tmp_path / name)
    vectors = Vectors(tmp_path, "m", scaler)
    with pytest.raises(ModelError, match="2 files"):
        vectors.read(np.array([1]))
    assert shards.shard_names(tmp_path) == ["shard-000001"]


def test_a_disk_that_does_not_answer_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scaler = good_and_bad(tmp_path)

    def fail(*given: Any, **options: Any) -> Any:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(np, "load", fail)
        with pytest.raises(OSError, match="Input/output"):
            Vectors(tmp_path, "m", scaler).read(np.arange(9))
    assert len(shards.shard_names(tmp_path)) == 3
    assert (Vectors(tmp_path, "m", scaler).read(np.arange(9)) == made(100)[:9]).all()


@pytest.mark.parametrize("asked", [[3, 4, 5], [5], [5, 8]], ids=str)
def test_a_shard_that_is_cut_short_while_it_is_in_use_is_damage(tmp_path: Path, asked: list[int]) -> None:
    """Were it memory-mapped, the system would end the process."""
    vectors = Vectors(tmp_path, "m", good_and_bad(tmp_path))
    vectors.read(np.arange(9))
    for path in tmp_path.glob("shard-*.npy"):
        os.truncate(path, 130)
    with pytest.raises(ModelError, match="3 files"):
        vectors.read(np.array(asked))
    assert not vectors.covers(np.arange(9)).any()


def test_facts_that_cannot_be_read_now_are_read_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good_and_bad(tmp_path)

    def fail(*given: Any, **options: Any) -> Any:
        raise PermissionError(13, "held by another program")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", fail)
        vectors = Vectors(tmp_path, "m")
        assert not vectors.covers(np.arange(9)).any() and not shards.is_foreign(tmp_path, "m")
    vectors.refresh()
    assert vectors.covers(np.arange(9)).all()


def test_shards_that_another_process_sets_aside_are_let_go_of(tmp_path: Path) -> None:
    good_and_bad(tmp_path)
    vectors = Vectors(tmp_path, "m")
    before = vectors.changes
    vectors.refresh()
    assert vectors.changes == before == 3
    shards.set_aside(tmp_path, "shard-000000")
    shards.write_shard(tmp_path, np.array([0]), made(1), {0: ("truncated", "cut")}, "m")
    vectors.refresh()
    assert vectors.covers(np.arange(9)).tolist() == [True, False, False] + [True] * 6
    assert vectors.changes == 5 and vectors.unreadable == {0}
    assert vectors.usable(np.arange(9)).tolist() == [False] * 3 + [True] * 6
    shards.set_aside(tmp_path, "shard-000003")
    vectors.refresh()
    assert vectors.unreadable == set() and not vectors.covers(np.array([0])).any()


def test_a_name_that_was_set_aside_is_not_given_again(tmp_path: Path) -> None:
    good_and_bad(tmp_path)
    shards.set_aside(tmp_path, "shard-000002")
    assert write(tmp_path, [6, 7, 8]) == "shard-000003"


def test_a_scaler_of_mixed_shards_is_of_what_is_stored(tmp_path: Path) -> None:
    exact = np.random.default_rng(2).normal(size=(6, D)).astype(np.float32)
    write(tmp_path, [0, 1, 2], exact[:3])
    write(tmp_path, [3, 4, 5], exact[3:] * np.float32(1e5))
    vectors = Vectors(tmp_path, "m")
    scaler = embeddings.fit_scaler(vectors.blocks(np.arange(6)), normalize=True)
    scaled = Vectors(tmp_path, "m", scaler).read(np.arange(6))
    assert scaled.min(axis=0).tolist() == [0] * D and scaled.max(axis=0).tolist() == [1] * D


def test_damage_that_another_process_has_set_aside_already_is_told_all_the_same(tmp_path: Path) -> None:
    vectors = Vectors(tmp_path, "m", good_and_bad(tmp_path))
    flip(tmp_path / "shard-000001.npy")
    shards.set_aside(tmp_path, "shard-000001")
    with pytest.raises(ModelError, match="shard-000001"):
        vectors.read(np.arange(9))
    assert vectors.covers(np.array([2, 3])).tolist() == [True, False]


def test_a_shard_knows_when_images_were_taken_and_an_older_one_does_not(tmp_path: Path) -> None:
    rows = np.arange(3)
    name = shards.write_shard(tmp_path, rows, np.ones((3, 2), np.float32), {}, "m", times={0: 5000, 2: 0})
    assert shards.read_shard_facts(tmp_path, name).times == {0: 5000, 2: 0}
    path = tmp_path / f"{name}.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**facts, "times": ",,7"}), encoding="utf-8")
    assert shards.read_facts(tmp_path, name) == {}, "its checksum covers them"
    del facts["times"]
    path.write_text(json.dumps({**facts, "facts_crc32": shards._facts_crc32(facts, rows)}), encoding="utf-8")
    assert shards.read_shard_facts(tmp_path, name).times == {}
