"""What may have happened to the journal while nobody looked: crashes are mended, damage is named, good lines are saved."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from camera_trap_al.errors import DurableWriteError, JournalDamagedError, WorkFolderError
from camera_trap_al.store import atomic
from camera_trap_al.store.atomic import failpoints
from camera_trap_al.store.journal import (
    LabelJournal,
    decode_line,
    encode_line,
    has_first_line,
    journal_problems,
    read_journal,
    salvage,
)


@pytest.fixture(autouse=True)
def _disarm() -> Iterator[None]:
    yield
    failpoints.fail_at, failpoints.mode, failpoints.exception, failpoints.watch = 0, "kill", None, None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    journal = LabelJournal.create(tmp_path / "journal.jsonl", "abc", "0")
    for number in range(3):
        journal.append("close", {"round": number})
    journal.close()
    return tmp_path / "journal.jsonl"


def opened(path: Path) -> list[int]:
    journal = LabelJournal.open(path)
    journal.close()
    return [line["seq"] for line in journal.lines]


def last_line(path: Path) -> bytes:
    return path.read_bytes().splitlines(keepends=True)[-1]


@pytest.mark.parametrize("kept", [0, 1, 20, 60])
def test_zeros_in_the_place_of_the_last_line_are_cut(path: Path, kept: int) -> None:
    line, before = last_line(path), path.read_bytes()[: -len(last_line(path))]
    path.write_bytes(before + line[:kept] + bytes(5000))
    assert opened(path) == [1, 2, 3] and path.read_bytes() == before


def test_zeros_within_the_last_line_are_cut(path: Path) -> None:
    line, before = last_line(path), path.read_bytes()[: -len(last_line(path))]
    path.write_bytes(before + line[:10] + bytes(20) + line[30:])
    assert opened(path) == [1, 2, 3] and path.read_bytes() == before


def test_a_last_line_that_no_crash_damages_so_is_not_cut(path: Path) -> None:
    damaged = path.read_bytes().replace(b'"round": 2', b'"round": 9')
    path.write_bytes(damaged)
    with pytest.raises(JournalDamagedError, match="line 4, is damaged, and not as a crash leaves it"):
        LabelJournal.open(path)
    assert path.read_bytes() == damaged


def test_several_damaged_lines_at_the_end_are_not_cut(path: Path) -> None:
    damaged = path.read_bytes().replace(b'"round": ', b'"round":_')
    path.write_bytes(damaged)
    with pytest.raises(JournalDamagedError):
        LabelJournal.open(path)
    assert path.read_bytes() == damaged


def test_a_journal_with_windows_line_ends_is_named_and_can_be_saved(path: Path, tmp_path: Path) -> None:
    before = path.read_bytes()
    path.write_bytes(before.replace(b"\n", b"\r\n"))
    with pytest.raises(JournalDamagedError, match="line 1, ends as Windows programs end lines"):
        LabelJournal.open(path)
    assert salvage(path, tmp_path / "good.jsonl") == (4, 0)
    assert (tmp_path / "good.jsonl").read_bytes() == before


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_salvage_keeps_the_numbers_of_good_lines(path: Path, tmp_path: Path, lost: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(b"?" + line if n == lost else line for n, line in enumerate(lines, 1)))
    assert salvage(path, tmp_path / "good.jsonl") == (3, 1)
    good = read_journal(tmp_path / "good.jsonl")[0]
    assert opened(tmp_path / "good.jsonl") == [1, 2, 3, 4] and good[0]["kind"] == "open"
    assert [line.get("round") for line in good if line["seq"] not in (1, lost)] == [
        n for n in range(3) if n + 2 != lost
    ]


def test_salvage_takes_each_number_once_and_no_first_line_that_opens_nothing(path: Path, tmp_path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[3] + encode_line({"seq": 1, "kind": "close", "round": 8}) + b"".join(lines[1:]) + b"rest")
    assert salvage(path, tmp_path / "good.jsonl") == (3, 1)
    assert [line["kind"] for line in read_journal(tmp_path / "good.jsonl")[0]] == ["open", "close", "close", "close"]


def test_salvage_writes_over_nothing_and_makes_nothing_of_nothing(path: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkFolderError, match="is there already"):
        salvage(path, path)
    path.write_bytes(b"nothing good\n" + encode_line({"kind": "no number"}))
    with pytest.raises(WorkFolderError, match="Not one line"):
        salvage(path, tmp_path / "good.jsonl")


def test_problems_are_said_and_nothing_is_changed(path: Path) -> None:
    assert journal_problems(path) == []
    whole = path.read_bytes()
    for content, said in [
        (whole[:-5], "torn by a crash"),
        (whole.replace(b"abc", b"abd"), "line 1, is damaged, and good lines follow it"),
        (b"", "holds no line"),
    ]:
        path.write_bytes(content)
        assert any(said in problem for problem in journal_problems(path)) and path.read_bytes() == content
    path.unlink()
    assert "cannot be read" in journal_problems(path)[0]


def test_a_first_line_is_whole_or_not(path: Path) -> None:
    assert has_first_line(path)
    path.write_bytes(path.read_bytes()[:30])
    assert not has_first_line(path)
    path.unlink()
    assert not has_first_line(path)


def test_an_empty_journal_opens_without_lines(path: Path) -> None:
    path.write_bytes(b"")
    assert opened(path) == []


@pytest.mark.parametrize(
    "value", ["\udc80", "a\\\udcff", "\0\x1b", "雪\u2028", -0.0, 1e300, 10**30, None, [[]], {"": {}}]
)
def test_odd_values_come_back(value: object) -> None:
    raw = encode_line({"seq": 1, "value": value})
    line = decode_line(raw, 1)
    assert line is not None and line["value"] == value and raw.decode("utf-8").count("\n") == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_json_is_refused_before_a_byte_is_written(path: Path, value: float) -> None:
    journal, before = LabelJournal.open(path), path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        journal.append("close", {"round": value})
    assert path.read_bytes() == before and journal.append("close", {"round": 3})["seq"] == 5
    journal.close()


@pytest.mark.parametrize("raw", [b"", b"\n", b'{"seq": 1}\n', b"[" * 100_000 + b', "crc32": "'])
def test_what_is_no_line_is_none(raw: bytes) -> None:
    assert decode_line(raw, 1) is None


@pytest.mark.parametrize("body", [b"[", b'{"a": ' * 100_000, b'["seq"', b'{"seq": "1"', b'{"seq"'])
def test_a_whole_checksum_over_no_record_is_no_line(body: bytes) -> None:
    assert decode_line(body + b', "crc32": "%08x"}\n' % zlib.crc32(body), 1) is None


@pytest.mark.slow
def test_a_line_of_many_megabytes_comes_back(path: Path) -> None:
    journal = LabelJournal.open(path)
    journal.append("labels", {"text": "x" * 65_000_000})
    journal.close()
    assert opened(path) == [1, 2, 3, 4, 5] and path.stat().st_size > 65_000_000


@pytest.mark.parametrize("mode", ["eio", "enospc", "short"])
@pytest.mark.parametrize("n", range(1, 11))
def test_a_start_that_cannot_mend_the_journal_says_so_and_the_next_one_does(path: Path, n: int, mode: str) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"seq": 5, "to')
    failpoints.count, failpoints.fail_at, failpoints.mode = 0, n, mode
    try:
        LabelJournal.open(path).close()
    except DurableWriteError as error:
        assert "already acknowledged are safe" in str(error)
    reached = failpoints.count >= n
    failpoints.fail_at = 0
    assert reached, "a start that mends passes ten operations"
    assert opened(path) == [1, 2, 3, 4] and path.read_bytes() == whole
    assert {p.read_bytes() for p in path.parent.glob(".torn-5-*")} == {b'{"seq": 5, "to'}


@pytest.mark.parametrize("mode", ["eio", "enospc", "short"])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_a_journal_that_cannot_be_made_says_so(tmp_path: Path, n: int, mode: str) -> None:
    failpoints.count, failpoints.fail_at, failpoints.mode = 0, n, mode
    with pytest.raises(DurableWriteError):
        LabelJournal.create(tmp_path / "journal.jsonl", "abc", "0")


def test_a_failed_append_is_never_tried_again(path: Path) -> None:
    journal = LabelJournal.open(path)
    failpoints.count, failpoints.fail_at, failpoints.mode = 0, 1, "short"
    with pytest.raises(DurableWriteError):
        journal.append("close", {"round": 3})
    with pytest.raises(DurableWriteError):
        journal.append("close", {"round": 3})
    journal.close()
    assert opened(path) == [1, 2, 3, 4]


def test_a_journal_that_was_replaced_meanwhile_is_noticed(path: Path) -> None:
    journal, content = LabelJournal.open(path), path.read_bytes()
    path.rename(path.with_name("moved"))
    path.write_bytes(content)
    with pytest.raises(DurableWriteError, match="replaced it"):
        journal.append("close", {"round": 3})
    journal.close()


def test_a_journal_that_was_removed_meanwhile_is_noticed(path: Path) -> None:
    journal = LabelJournal.open(path)
    path.unlink()
    with pytest.raises(DurableWriteError):
        journal.append("close", {"round": 3})
    journal.close()


def test_each_start_writes_the_last_line_again(path: Path) -> None:
    seen: list[atomic.Operation] = []
    failpoints.watch = seen.append
    opened(path)
    assert [op.name for op in seen] == ["write", "sync", "open for appending"]
    assert seen[0].data == last_line(path) and seen[0].at == path.stat().st_size - len(last_line(path))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file")
def test_a_journal_that_may_not_be_read_is_an_error_for_people(path: Path) -> None:
    path.chmod(0)
    with pytest.raises(DurableWriteError, match="cannot be read"):
        read_journal(path)
