"""From file to private copy (docs/reliability.md 2.1)."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import BinaryIO

import pytest

from camera_trap_al.labels import inbox as inbox_module
from camera_trap_al.labels.inbox import (
    BinFile,
    Inbox,
    PrivateCopy,
    candidates,
    printable_name,
    take_private_copy,
)
from camera_trap_al.store import atomic

WHOLE = b"File,RelativePath,Species\r\nIMG_1.JPG,S1,deer\r\n"
SETTLE_S = 2.0


def only(files: list[BinFile]) -> BinFile:
    assert len(files) == 1
    return files[0]


def settled(folder: Path) -> BinFile:
    inbox = Inbox(folder, 0.0)
    return only([file for file in inbox.scan(0.0) if file.is_settled])


def taken(file: BinFile, intake: Path, **options: int) -> PrivateCopy:
    copy = take_private_copy(file, intake, **options)
    assert copy is not None
    return copy


@pytest.mark.parametrize("name", ["a.csv", "A.CSV", "week 3.Csv", "labels (1).csv", "Reh é.csv", "#1.csv", "=1.csv"])
def test_a_csv_file_of_any_case_is_a_label_file(name: str, bin_folder: Path) -> None:
    (bin_folder / name).write_bytes(WHOLE)
    assert only(candidates(bin_folder)).name == name


@pytest.mark.parametrize(
    "name",
    [
        ".a.csv", "~$labels.csv", "~a.csv", "._a.csv", ".csv", "a.csv~", "a.csv#", "a.csv.tmp", "a.csv.part",
        "a.csv.partial", "a.csv.crdownload", "a.csv.swp", "a.csv.receipt.json", "a.csv.report.txt", "a.xlsx", "csv",
    ],
)  # fmt: skip
def test_other_names_are_ignored(name: str, bin_folder: Path) -> None:
    (bin_folder / name).write_bytes(WHOLE)
    assert candidates(bin_folder) == []


def test_sub_folders_are_not_read(bin_folder: Path) -> None:
    (bin_folder / "Backups").mkdir()
    (bin_folder / "Backups" / "a.csv").write_bytes(WHOLE)
    (bin_folder / "folder.csv").mkdir()
    assert candidates(bin_folder) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_not_opened(bin_folder: Path) -> None:
    os.mkfifo(bin_folder / "x.csv")
    assert candidates(bin_folder) == []


def test_a_link_is_not_followed(bin_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(WHOLE)
    try:
        (bin_folder / "x.csv").symlink_to(tmp_path / "secret")
    except OSError:
        pytest.skip("no links here")
    assert candidates(bin_folder) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_or_link_that_takes_a_files_place_is_left_alone(bin_folder: Path, intake: Path) -> None:
    path = bin_folder / "a.csv"
    path.write_bytes(WHOLE)
    file = settled(bin_folder)
    path.unlink()
    os.mkfifo(path)
    assert take_private_copy(file, intake) is None
    path.unlink()
    path.symlink_to(intake)
    assert take_private_copy(file, intake) is None


def test_files_come_by_time_and_name(bin_folder: Path) -> None:
    for name, time_ns in [("b.csv", 2), ("a.csv", 2), ("c.csv", 1)]:
        (bin_folder / name).write_bytes(WHOLE)
        os.utime(bin_folder / name, ns=(time_ns * 10**9, time_ns * 10**9))
    assert [file.name for file in Inbox(bin_folder, 0.0).scan(0.0)] == ["c.csv", "a.csv", "b.csv"]


def test_a_file_settles_when_it_has_not_changed_for_a_while(bin_folder: Path) -> None:
    inbox = Inbox(bin_folder, SETTLE_S)
    (bin_folder / "a.csv").write_bytes(WHOLE)
    assert not only(inbox.scan(100.0)).is_settled
    assert not only(inbox.scan(101.9)).is_settled
    assert only(inbox.scan(102.0)).is_settled


def test_any_change_starts_the_wait_again(bin_folder: Path) -> None:
    inbox, path = Inbox(bin_folder, SETTLE_S), bin_folder / "a.csv"
    path.write_bytes(WHOLE)
    inbox.scan(0.0)
    path.write_bytes(WHOLE + b"IMG_2.JPG,S1,fox\r\n")
    assert not only(inbox.scan(2.0)).is_settled
    os.utime(path, ns=(1, 1))
    assert not only(inbox.scan(4.0)).is_settled
    other = bin_folder / "other"
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(1, 1))
    other.replace(path)
    assert not only(inbox.scan(6.0)).is_settled
    assert only(inbox.scan(8.0)).is_settled


def test_a_file_that_goes_and_comes_back_waits_again(bin_folder: Path) -> None:
    inbox, path = Inbox(bin_folder, SETTLE_S), bin_folder / "a.csv"
    path.write_bytes(WHOLE)
    inbox.scan(0.0)
    path.rename(bin_folder / "hidden")
    assert inbox.scan(1.0) == []
    (bin_folder / "hidden").rename(path)
    assert not only(inbox.scan(2.5)).is_settled


DOUBTFUL = {
    "no last line end": WHOLE + b"IMG_2.JPG,S1,Bird",
    "an open quote": WHOLE + b'IMG_2.JPG,S1,"Bird\r\n',
    "empty bytes at the end": WHOLE + bytes(100),
    "half a character of utf-16": WHOLE.decode().encode("utf-16")[:-1],
    "no last line end in utf-16": WHOLE.decode().rstrip().encode("utf-16"),
    "empty bytes at the end of utf-16": WHOLE.decode().encode("utf-16") + bytes(2),
    "no last line end in utf-16 big endian": b"\xfe\xff" + WHOLE.decode().rstrip().encode("utf-16-be"),
}


@pytest.mark.parametrize("data", DOUBTFUL.values(), ids=DOUBTFUL.keys())
def test_what_looks_like_a_copy_under_way_waits_five_times_as_long(data: bytes, bin_folder: Path) -> None:
    inbox = Inbox(bin_folder, SETTLE_S)
    (bin_folder / "a.csv").write_bytes(data)
    inbox.scan(0.0)
    file = only(inbox.scan(9.9))
    assert not file.is_settled
    assert file.doubt
    assert only(inbox.scan(10.0)).is_settled


SURE = {
    "line feeds": WHOLE.replace(b"\r\n", b"\n"),
    "carriage returns": WHOLE.replace(b"\r\n", b"\r"),
    "a Ctrl-Z": WHOLE + b"\x1a",
    "utf-16": WHOLE.decode().encode("utf-16"),
    "utf-16 big endian": b"\xfe\xff" + WHOLE.decode().encode("utf-16-be"),
    "quotes that close": WHOLE + b'IMG_2.JPG,S1,"Bird"\r\n',
}


@pytest.mark.parametrize("data", SURE.values(), ids=SURE.keys())
def test_a_whole_file_does_not_wait_longer(data: bytes, bin_folder: Path) -> None:
    inbox = Inbox(bin_folder, SETTLE_S)
    (bin_folder / "a.csv").write_bytes(data)
    inbox.scan(0.0)
    assert only(inbox.scan(SETTLE_S)).is_settled


def test_an_empty_file_waits_a_minute(bin_folder: Path) -> None:
    inbox = Inbox(bin_folder, SETTLE_S)
    (bin_folder / "a.csv").touch()
    inbox.scan(0.0)
    assert not only(inbox.scan(59.9)).is_settled
    assert only(inbox.scan(60.0)).is_settled


def test_a_file_that_cannot_be_opened_does_not_settle(bin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = Inbox(bin_folder, SETTLE_S)
    (bin_folder / "a.csv").write_bytes(WHOLE)
    inbox.scan(0.0)

    def denied(*args: object) -> int:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", denied)
        file = only(inbox.scan(100.0))
        assert "a.csv waits: it cannot be opened: Permission denied." in inbox.problems()[0]
    assert (file.is_settled, file.doubt) == (False, "it cannot be opened: Permission denied")
    assert only(inbox.scan(101.0)).is_settled
    assert inbox.problems() == []


def test_a_private_copy_holds_the_same_bytes_under_their_hash(bin_folder: Path, intake: Path) -> None:
    (bin_folder / "a.csv").write_bytes(WHOLE)
    os.utime(bin_folder / "a.csv", ns=(5, 7_000_000_000))
    copy = taken(settled(bin_folder), intake)
    digest = hashlib.sha256(WHOLE).hexdigest()
    assert copy == PrivateCopy(intake / f"{digest}.csv", "a.csv", digest, 7_000_000_000)
    assert copy.path.read_bytes() == WHOLE
    assert (bin_folder / "a.csv").read_bytes() == WHOLE
    assert [path.name for path in intake.iterdir()] == [copy.path.name]


def test_a_copy_that_is_there_is_used_and_a_damaged_one_replaced(bin_folder: Path, intake: Path) -> None:
    (bin_folder / "a.csv").write_bytes(WHOLE)
    file = settled(bin_folder)
    copy = taken(file, intake)
    before = atomic.failpoints.count
    assert taken(file, intake) == copy
    assert atomic.failpoints.count == before
    copy.path.write_bytes(b"damaged")
    assert taken(file, intake).path.read_bytes() == WHOLE


def test_a_vanished_file_is_no_error(bin_folder: Path, intake: Path) -> None:
    (bin_folder / "a.csv").write_bytes(WHOLE)
    file = settled(bin_folder)
    (bin_folder / "a.csv").unlink()
    assert take_private_copy(file, intake) is None
    assert list(intake.iterdir()) == []


def test_a_file_that_changed_since_the_scan_is_not_copied(bin_folder: Path, intake: Path) -> None:
    (bin_folder / "a.csv").write_bytes(WHOLE)
    file = settled(bin_folder)
    (bin_folder / "a.csv").write_bytes(WHOLE + b"more")
    assert take_private_copy(file, intake) is None
    assert list(intake.iterdir()) == []


def test_a_file_that_changes_while_it_is_read_is_read_again_later(bin_folder: Path, intake: Path) -> None:
    path = bin_folder / "a.csv"
    path.write_bytes(WHOLE)
    file = settled(bin_folder)

    def change(operation: atomic.Operation) -> None:
        with path.open("ab") as more:
            more.write(b"IMG_2.JPG,S1,fox\r\n")

    atomic.failpoints.watch = change
    try:
        assert take_private_copy(file, intake) is None
    finally:
        atomic.failpoints.watch = None
    assert list(intake.iterdir()) == []


@pytest.mark.parametrize("operation", range(1, 5))
def test_a_full_disk_leaves_no_half_copy(operation: int, bin_folder: Path, intake: Path) -> None:
    (bin_folder / "a.csv").write_bytes(WHOLE)
    file = settled(bin_folder)
    points = atomic.failpoints
    points.count, points.fail_at, points.mode = 0, operation, "enospc"
    try:
        with pytest.raises(OSError):
            take_private_copy(file, intake)
    finally:
        points.fail_at, points.mode = 0, "kill"
    assert [path for path in intake.iterdir() if path.read_bytes() != WHOLE] == []
    assert taken(file, intake).path.read_bytes() == WHOLE


def test_a_file_that_is_too_big_is_refused_without_a_copy(bin_folder: Path, intake: Path) -> None:
    (bin_folder / "a.csv").write_bytes(WHOLE)
    copy = taken(settled(bin_folder), intake, max_bytes=10)
    assert copy.refusal is not None
    assert copy.refusal.code == "too_big"
    assert list(intake.iterdir()) == []


def test_a_name_that_vanishes_while_the_folder_is_listed_is_no_error(
    bin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.csv", "b.csv"):
        (bin_folder / name).write_bytes(WHOLE)
    lstat = os.lstat

    def gone(path: str) -> os.stat_result:
        if str(path).endswith("a.csv"):
            raise FileNotFoundError(path)
        return lstat(path)

    monkeypatch.setattr("camera_trap_al.labels.inbox.os.lstat", gone)
    assert only(candidates(bin_folder)).name == "b.csv"


def test_a_file_or_copy_that_cannot_be_opened_is_an_error_of_the_step(
    bin_folder: Path, intake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bin_folder / "a.csv").write_bytes(WHOLE)
    file = settled(bin_folder)
    really_open = inbox_module._open
    for refused in (bin_folder, intake):

        def closed(path: Path, refused: Path = refused) -> BinaryIO:
            if path.parent == refused:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return really_open(path)

        monkeypatch.setattr(inbox_module, "_open", closed)
        with pytest.raises(PermissionError):
            take_private_copy(file, intake)


def test_a_file_that_changes_after_its_copy_is_written_is_read_again_later(
    bin_folder: Path, intake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bin_folder / "a.csv"
    path.write_bytes(WHOLE)
    file = settled(bin_folder)
    write_copy = inbox_module._write_copy

    def written_and_changed(source: BinaryIO, target: Path, digest: str) -> bool:
        is_written = write_copy(source, target, digest)
        path.write_bytes(WHOLE + WHOLE)
        return is_written

    monkeypatch.setattr(inbox_module, "_write_copy", written_and_changed)
    assert take_private_copy(file, intake) is None


def test_a_file_that_is_too_big_is_known_again_by_its_hash(
    bin_folder: Path, intake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("camera_trap_al.labels.inbox.MAX_BYTES", 10)
    (bin_folder / "a.csv").write_bytes(WHOLE * 40_000)
    inbox = Inbox(bin_folder, 0.0)
    file = only(inbox.scan(0.0))
    assert taken(file, intake, max_bytes=10).sha256 == inbox.digest(file)


def test_new_content_under_an_old_time_has_another_hash_and_is_read_once(bin_folder: Path) -> None:
    inbox, path = Inbox(bin_folder, 0.0), bin_folder / "a.csv"
    path.write_bytes(WHOLE)
    file = only(inbox.scan(0.0))
    first = inbox.digest(file)
    assert first == hashlib.sha256(WHOLE).hexdigest()
    path.write_bytes(WHOLE + WHOLE)
    os.utime(path, ns=(file.mtime_ns, file.mtime_ns))
    assert inbox.digest(file) == first
    changed = only(inbox.scan(1.0))
    assert inbox.digest(file) == ""
    assert inbox.digest(changed) == hashlib.sha256(WHOLE + WHOLE).hexdigest()


@pytest.mark.skipif(os.name == "nt", reason="Windows does not note when a file's content was last set")
def test_new_content_in_place_under_the_old_time_and_size_is_seen(bin_folder: Path) -> None:
    inbox, path = Inbox(bin_folder, SETTLE_S), bin_folder / "a.csv"
    path.write_bytes(WHOLE)
    inbox.scan(0.0)
    file = only(inbox.scan(3.0))
    assert file.is_settled and inbox.digest(file) == hashlib.sha256(WHOLE).hexdigest()
    changed = WHOLE.replace(b"deer", b"wolf")
    path.write_bytes(changed)
    os.utime(path, ns=(file.mtime_ns, file.mtime_ns))
    assert not only(inbox.scan(4.0)).is_settled
    assert inbox.digest(only(inbox.scan(7.0))) == hashlib.sha256(changed).hexdigest()


def test_a_file_that_cannot_be_read_or_changes_meanwhile_has_no_hash(bin_folder: Path) -> None:
    inbox, path = Inbox(bin_folder, 0.0), bin_folder / "a.csv"
    path.write_bytes(WHOLE)
    file = only(inbox.scan(0.0))
    path.write_bytes(b"another")
    assert inbox.digest(file) == ""
    path.unlink()
    assert inbox.digest(file) == ""


@pytest.mark.parametrize(
    "name",
    ["a (1).csv", "a(2).CSV", "a (PC-3's conflicted copy 2024-05-01).csv", "a.sync-conflict-20240501-100000-ABC.csv"],
)
def test_a_second_copy_is_taken_with_a_warning(name: str, bin_folder: Path, intake: Path) -> None:
    (bin_folder / name).write_bytes(WHOLE)
    assert "second copy" in taken(settled(bin_folder), intake).notices[0].text


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode here")
def test_a_name_that_is_no_utf8_is_read_and_shown_escaped(bin_folder: Path, intake: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(bin_folder) + b"/caf\xe9.csv")).write_bytes(WHOLE)
    except OSError:
        pytest.skip("this file system takes no such names")
    assert taken(settled(bin_folder), intake).name == "caf\\xe9.csv"


def test_any_name_can_be_written_as_utf8() -> None:
    for name in ("a.csv", "é.csv", os.fsdecode(b"\xff\xc3.csv")):
        assert printable_name(name).encode("utf-8")
