from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camera_trap_al.errors import DurableWriteError, JournalDamagedError, WorkFolderError
from camera_trap_al.store.atomic import failpoints
from camera_trap_al.store.journal import LabelJournal, decode_line, encode_line, read_journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    journal = LabelJournal.create(tmp_path / "journal.jsonl", "abc", "0")
    journal.append("labels", {"rows": [["Ä", "IMG.JPG", "雪豹", "oracle"]]})
    journal.append("close", {"round": 1})
    journal.close()
    return tmp_path / "journal.jsonl"


@given(st.dictionaries(st.text(), st.one_of(st.none(), st.text(), st.integers(), st.lists(st.text())), max_size=4))
def test_a_line_comes_back_as_it_was_written(fields: dict[str, object]) -> None:
    line = {"seq": 3, **{k: v for k, v in fields.items() if k not in ("seq", "crc32")}}
    back = decode_line(encode_line(line), 3)
    assert back is not None and {k: v for k, v in back.items() if k != "crc32"} == line


def test_every_line_comes_back_in_order(path: Path) -> None:
    journal = LabelJournal.open(path)
    assert [line["seq"] for line in journal.lines] == [1, 2, 3]
    assert journal.lines[1]["rows"] == [("Ä", "IMG.JPG", "雪豹", "oracle")]
    assert journal.append("close", {"round": 2})["seq"] == 4


@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_a_journal_cut_at_any_byte_opens_with_the_whole_lines_before_the_cut(path: Path, step: int) -> None:
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    for cut in sorted({*range(ends[0], len(whole), step), *ends[:-1], *(end - 1 for end in ends[1:])}):
        path.write_bytes(whole[:cut])
        journal = LabelJournal.open(path)
        journal.close()
        assert journal.end == sum(end <= cut for end in ends)
        assert path.read_bytes() == whole[: max(end for end in ends if end <= cut)]


def test_the_torn_end_is_kept_beside_the_journal(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b'{"seq": 4, "kind"')
    LabelJournal.open(path)
    assert [p.read_bytes() for p in path.parent.glob(".torn-4-*")] == [b'{"seq": 4, "kind"']


def test_damage_before_a_good_line_stops_and_changes_nothing(path: Path) -> None:
    damaged = path.read_bytes().replace(b"IMG.JPG", b"IMG.JPX")
    path.write_bytes(damaged)
    with pytest.raises(JournalDamagedError, match="line 2, is damaged, and good lines follow"):
        LabelJournal.open(path)
    assert path.read_bytes() == damaged


def test_a_newer_format_is_refused_by_version(tmp_path: Path) -> None:
    line = {"seq": 1, "kind": "open", "format": 99, "identity": "x", "version": "7.0"}
    (tmp_path / "j").write_bytes(encode_line(line))
    with pytest.raises(WorkFolderError, match="version 7.0"):
        LabelJournal.open(tmp_path / "j")


@pytest.mark.parametrize("operation", [1, 2])
def test_a_failed_append_stops_and_leaves_what_was_acknowledged(path: Path, operation: int) -> None:
    journal = LabelJournal.open(path)
    failpoints.count, failpoints.fail_at, failpoints.mode = 0, operation, "enospc"
    try:
        with pytest.raises(DurableWriteError, match="already acknowledged are safe"):
            journal.append("close", {"round": 9})
    finally:
        failpoints.fail_at = 0
    assert [line["kind"] for line in read_journal(path)[0]][:3] == ["open", "labels", "close"]


def test_another_writer_is_noticed(path: Path) -> None:
    journal = LabelJournal.open(path)
    with path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(DurableWriteError):
        journal.append("close", {"round": 2})
