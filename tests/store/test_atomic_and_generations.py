from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from camera_trap_al.store import atomic, embeddings, generations, shards
from camera_trap_al.store.atomic import failpoints, replace_bytes, replace_file


@pytest.fixture(autouse=True)
def _disarm() -> Iterator[None]:
    yield
    failpoints.fail_at = 0


def writer_that_fails_after(n: int) -> Callable[[BinaryIO], None]:
    def write(file: BinaryIO) -> None:
        file.write(b"x" * n)
        raise OSError(errno.ENOSPC, "disk full")

    return write


def test_a_full_disk_leaves_the_old_file_and_no_leftovers(tmp_path: Path) -> None:
    selector = tmp_path / "timelapse_selector.csv"
    selector.write_bytes(b"old")
    with pytest.raises(OSError, match="disk full"):
        replace_file(selector, writer_that_fails_after(50))
    assert selector.read_bytes() == b"old" and list(tmp_path.iterdir()) == [selector]


@pytest.mark.parametrize("point", [1, 2, 3, 4, 5])
def test_a_replace_that_fails_at_any_operation_leaves_the_old_or_the_new_file(tmp_path: Path, point: int) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    failpoints.count, failpoints.fail_at, failpoints.mode = 0, point, "eio"
    with pytest.raises(OSError):
        replace_bytes(path, b"new")
    assert path.read_bytes() == (b"old" if point < 5 else b"new") and list(tmp_path.iterdir()) == [path]


def test_a_link_in_the_place_of_our_file_is_replaced_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"theirs")
    link = tmp_path / "ours"
    link.symlink_to(outside)
    replace_bytes(link, b"new")
    assert outside.read_bytes() == b"theirs" and link.read_bytes() == b"new" and not link.is_symlink()


def committed(parent: Path, content: bytes) -> generations.Generation:
    number = generations.next_number(parent)
    hidden = generations.hidden_folder_of(parent, number)
    atomic.make_folder(hidden)
    replace_bytes(hidden / "a", content)
    return generations.commit(parent, number, {"kind": "test"})


def test_the_newest_whole_generation_counts_and_a_damaged_one_is_set_aside(tmp_path: Path) -> None:
    committed(tmp_path, b"one")
    second = committed(tmp_path, b"two")
    newest = generations.newest(tmp_path)
    assert newest is not None and newest.number == 2 and newest.manifest["kind"] == "test"
    (second.folder / "a").write_bytes(b"TWO")
    generations._verified.clear()
    assert generations.set_damaged_aside(tmp_path) and generations.numbers(tmp_path) == [1]
    assert generations.next_number(tmp_path) == 3, "a number is never used twice"


def test_a_generation_that_was_not_committed_does_not_exist(tmp_path: Path) -> None:
    hidden = generations.hidden_folder_of(tmp_path, 1)
    atomic.make_folder(hidden)
    generations.write_manifest(hidden, {})
    assert generations.newest(tmp_path) is None


def test_what_a_kill_left_half_written_is_not_part_of_a_generation(tmp_path: Path) -> None:
    hidden = generations.hidden_folder_of(tmp_path, 1)
    atomic.make_folder(hidden)
    replace_bytes(hidden / "a", b"a")
    for name in (generations.MANIFEST, "a"):
        atomic.partial_of(hidden / name).write_bytes(b"half")
    made = generations.commit(tmp_path, 1, {})
    assert list(made.manifest["files"]) == ["a"] and generations.newest(tmp_path) is not None
    assert sorted(path.name for path in made.folder.iterdir()) == ["a", generations.MANIFEST]


def test_of_what_was_set_aside_the_newest_few_stay_and_no_number_is_used_again(tmp_path: Path) -> None:
    for number in (1, 2, 3, 5, 9):
        (tmp_path / f".bad-gen-{number:06d}").mkdir()
    generations.hidden_folder_of(tmp_path, 4).mkdir()
    generations.commit(tmp_path, 4, {})
    generations.forget_damaged(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".bad-gen-000005", ".bad-gen-000009", "gen-000004"]
    assert generations.next_number(tmp_path) == 10


def test_vectors_come_back_by_row_scaled_whatever_the_shards(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(10, 3)).astype(np.float16).astype(np.float32)
    rows = np.array([4, 9, 2, 0, 7, 1, 3, 8, 5, 6])
    shards.write_shard(tmp_path, rows[:6], vectors[:6], {}, made_by="m")
    shards.write_shard(tmp_path, rows[6:], vectors[6:], {8: ("truncated", "cut")}, made_by="m")
    raw = embeddings.Vectors(tmp_path, "m")
    scaler = embeddings.fit_scaler(raw.blocks(rows), normalize=True)
    scaled = embeddings.Vectors(tmp_path, "m", scaler).read(np.array([0, 6, 4]))
    low, high = vectors.min(axis=0), vectors.max(axis=0)
    expected = (vectors[[3, 9, 0]] - low) / (high - low)
    np.testing.assert_allclose(scaled, expected, rtol=1e-5)
    assert raw.covers(np.array([0, 9, 10, 99])).tolist() == [True, True, False, False]
    assert raw.unreadable == {8}


def test_a_shard_names_the_contents_it_was_made_from_and_old_ones_name_none(tmp_path: Path) -> None:
    rows, vectors = np.arange(2), np.zeros((2, 3), np.float32)
    problems = {1: ("truncated", "cut")}
    name = shards.write_shard(tmp_path, rows, vectors, problems, "m", hashes={0: "0a", 1: "1b"})
    facts = shards.read_shard_facts(tmp_path, name)
    assert facts.hashes == {0: "0a", 1: "1b"} and facts.problems == problems and facts.rows.tolist() == [0, 1]
    told = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
    del told["contents"], told["facts_crc32"]
    (tmp_path / f"{name}.json").write_text(json.dumps(told), encoding="utf-8")
    assert shards.read_shard_facts(tmp_path, name).hashes == {}


def test_a_constant_dimension_scales_without_dividing_by_zero(tmp_path: Path) -> None:
    shards.write_shard(tmp_path, np.arange(3), np.full((3, 2), 5, np.float32), {}, made_by="m")
    raw = embeddings.Vectors(tmp_path, "m")
    scaler = embeddings.fit_scaler(raw.blocks(np.arange(3)), normalize=True)
    assert embeddings.scale(raw.read(np.arange(3)), scaler).tolist() == [[0, 0]] * 3


def test_a_shard_of_other_bytes_is_set_aside(tmp_path: Path) -> None:
    shards.write_shard(tmp_path, np.arange(3), np.ones((3, 2), np.float32), {}, made_by="m")
    np.save(tmp_path / "shard-000000.npy", np.zeros((3, 2), np.float32))
    assert len(shards.set_damaged_shards_aside(tmp_path)) == 1
    assert not embeddings.Vectors(tmp_path, "m").covers(np.arange(3)).any()


def test_a_shard_of_another_model_or_catalogue_is_never_read(tmp_path: Path) -> None:
    shards.write_shard(tmp_path, np.arange(3), np.ones((3, 2), np.float32), {}, made_by="m")
    shards.write_shard(tmp_path, np.arange(3, 6), np.ones((3, 2), np.float32), {}, made_by="other")
    assert embeddings.Vectors(tmp_path, "m").covers(np.arange(6)).tolist() == [True] * 3 + [False] * 3
    assert shards.is_foreign(tmp_path, "m")


def models_and_embedding(tmp_path: Path, *kept_back: bool) -> tuple[Path, Path]:
    models, embedding = tmp_path / "models", tmp_path / "embedding"
    for path in (models, embedding):
        path.mkdir()
    for number, held in enumerate(kept_back, start=1):
        committed(models, b"model %d" % number)
        folder = generations.folder_of(embedding, number)
        atomic.make_folder(folder)
        mark = embeddings.made_by(models, number, "catalogue")
        embeddings.commit_learner(folder, np.ones((2, 2)), {"kept_back": held, "made_by": mark})
    return models, embedding


def test_a_learner_that_was_kept_back_is_not_current_and_no_candidate(tmp_path: Path) -> None:
    models, embedding = models_and_embedding(tmp_path, False, True)
    current = embeddings.current_learner(embedding, models, "catalogue")
    assert current is not None and current.number == 1
    assert embeddings.candidate(embedding, models, "catalogue") is None


def test_with_the_current_learner_lost_its_model_is_the_candidate_again(tmp_path: Path) -> None:
    models, embedding = models_and_embedding(tmp_path, False, True)
    (embedding / "gen-000001" / "manifest.json").unlink()
    candidate = embeddings.candidate(embedding, models, "catalogue")
    assert candidate is not None and candidate.number == 1


def test_another_model_of_the_same_number_does_not_get_the_old_vectors(tmp_path: Path) -> None:
    models, embedding = models_and_embedding(tmp_path, False)
    (models / "gen-000001").rename(models / "away")
    committed(models, b"another model")
    assert embeddings.current_learner(embedding, models, "catalogue") is None
    assert embeddings.current_learner(embedding, models, "another catalogue") is None
