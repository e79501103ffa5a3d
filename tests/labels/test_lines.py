"""The lines of CSV files with one for every image are those that a CSV writer would write, whichever end otherwise."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camera_trap_al.core.records import ImageKey
from camera_trap_al.core.seeds import key_hash
from camera_trap_al.labels import lines
from camera_trap_al.labels.lines import LabelLines, PoolLines, SelectorLines, cell

NAMES = st.text(st.sampled_from("aé,\";'\r\n =\t"), min_size=1, max_size=5)
KEYS = st.lists(st.builds(ImageKey, st.one_of(st.just(""), NAMES), NAMES), max_size=8, unique=True)


def written(these: PoolLines, endings: dict[ImageKey, str]) -> bytes:
    file = io.BytesIO()
    these.write(file, endings, list(endings.values()))
    return file.getvalue()


def as_csv(*rows: list[str]) -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\r\n").writerows(rows)
    return file.getvalue().encode("utf-8")


@given(KEYS, st.data())
def test_lines_are_those_of_a_csv_writer(keys: list[ImageKey], data: st.DataObject) -> None:
    said = data.draw(st.dictionaries(st.sampled_from(keys), NAMES)) if keys else {}
    flags = [[key.file, key.relative_path, "true" if key in said else "false"] for key in keys]
    assert written(SelectorLines(keys), dict.fromkeys(said, "true")) == as_csv(
        ["File", "RelativePath", "Selected"], *flags
    )
    labels = [[key.path, said.get(key, "unlabelled")] for key in keys]
    endings = {key: cell(text) for key, text in said.items()}
    assert written(LabelLines(keys), endings) == as_csv(["path", "label"], *labels)


def test_an_image_without_a_line_changes_nothing() -> None:
    these = SelectorLines([ImageKey("a", "1.jpg"), ImageKey("a", "2.jpg")])
    assert written(these, {ImageKey("a", "3.jpg"): "true", ImageKey("", "a"): "true"}) == written(these, {})
    assert written(SelectorLines([]), {ImageKey("a", "1.jpg"): "true"}) == b"File,RelativePath,Selected\r\n"


def test_thousands_of_other_endings_are_all_written() -> None:
    keys = [ImageKey(f"site {i % 7}", f"{i:05d}.jpg") for i in range(6000)]
    endings = {key: "true" for i, key in enumerate(keys) if i % 3}
    rows = [[key.file, key.relative_path, "true" if i % 3 else "false"] for i, key in enumerate(keys)]
    assert written(SelectorLines(keys), endings) == as_csv(["File", "RelativePath", "Selected"], *rows)


def test_among_images_of_one_hash_the_text_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "key_hash", lambda path: 7)
    keys = [ImageKey("", f"{i}.jpg") for i in range(4)]
    rows = written(SelectorLines(keys), {keys[2]: "true"}).splitlines()
    assert [row.endswith(b"true") for row in rows[1:]] == [False, False, True, False]


def test_places_and_beginnings_are_found_by_hash() -> None:
    keys = [ImageKey("a", "1.jpg"), ImageKey("", "2.jpg")]
    these = SelectorLines(keys)
    hashes = np.array([key_hash(path) for path in ("2.jpg", "none.jpg", "a/1.jpg")])
    assert these.places(hashes).tolist() == [1, -1, 0]
    assert list(these.beginnings(np.array([1, 0]))) == [b"2.jpg,,", b"1.jpg,a,"]
    assert SelectorLines([]).places(hashes).tolist() == [-1, -1, -1]
