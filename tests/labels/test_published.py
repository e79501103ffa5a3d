"""What may be confirmed: everything that was ever published as a prediction, by a request or in the predictions CSV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camera_trap_al.core.records import ImageKey
from camera_trap_al.core.seeds import key_hash
from camera_trap_al.labels.published import Noted, Published, note_published, read_published

A, B, C = (ImageKey(folder, name) for folder, name in [("", "a.JPG"), ("S1", "b.JPG"), ("S1", "c.JPG")])
KEYS = [ImageKey("S", f"{n}.JPG") for n in range(6)]
NAMES = [f"species {n}" for n in range(20)]


def note(path: Path, said: dict[ImageKey, str], classes: list[str]) -> None:
    hashes = np.array([key_hash(key.path) for key in said], dtype=np.int64)
    species = np.array([classes.index(name) for name in said.values()], dtype=np.int32)
    note_published(path, hashes, species, classes)


def test_what_older_files_said_may_still_be_confirmed_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "published.npz"
    note(path, {A: "fox", B: "deer"}, ["deer", "fox"])
    note(path, {A: "owl", C: "fox"}, ["fox", "owl", "дом"])
    published = Published({B: {"lynx"}}, path)
    found = {key.file: set(published.get(key, frozenset())) for key in (A, B, C)}
    assert found == {"a.JPG": {"fox", "owl"}, "b.JPG": {"deer", "lynx"}, "c.JPG": {"fox"}}
    assert published.get(ImageKey("S2", "a.JPG"), frozenset()) == frozenset()
    assert published.get(ImageKey("S2", "\udcff.JPG"), frozenset()) == frozenset()


def test_without_a_file_what_requests_said_is_left(tmp_path: Path) -> None:
    published = Published({A: {"fox"}}, tmp_path / "published.npz")
    assert published.get(A, frozenset()) == {"fox"} and published.get(B, frozenset()) == frozenset()


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"no", "half"])
def test_a_damaged_file_is_as_none_and_is_written_anew(tmp_path: Path, damage: bytes | str) -> None:
    path = tmp_path / "published.npz"
    note(path, {A: "fox"}, ["fox"])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if isinstance(damage, str) else damage)
    assert read_published(path).species(A) == frozenset()
    note(path, {B: "fox"}, ["fox"])
    assert read_published(path).species(B) == {"fox"}


@given(st.lists(st.dictionaries(st.sampled_from(KEYS), st.sampled_from(NAMES)), max_size=5))
def test_all_that_was_noted_is_known_of_its_image_alone(rounds: list[dict[ImageKey, str]]) -> None:
    noted, wanted = Noted(), dict[ImageKey, set[str]]()
    for said in rounds:
        classes = sorted(set(said.values()))
        hashes = np.array([key_hash(key.path) for key in said], dtype=np.int64)
        noted = noted.with_more(hashes, np.array([classes.index(n) for n in said.values()], dtype=np.int32), classes)
        for key, name in said.items():
            wanted.setdefault(key, set()).add(name)
    assert {key: set(noted.species(key)) for key in KEYS} == {key: wanted.get(key, set()) for key in KEYS}
