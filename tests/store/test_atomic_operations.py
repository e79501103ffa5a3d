"""Each operation of the store, failing in each way; and which paths it refuses."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from camera_trap_al.layout import WorkFolder
from camera_trap_al.store import atomic
from camera_trap_al.store.atomic import KILLED_STATUS, Operation, failpoints


@pytest.fixture(autouse=True)
def _disarm() -> Iterator[None]:
    yield
    failpoints.fail_at, failpoints.mode, failpoints.exception, failpoints.watch = 0, "kill", None, None


def arm(n: int, mode: str) -> None:
    failpoints.count, failpoints.fail_at, failpoints.mode = 0, n, mode


def operations_of(act: object) -> list[Operation]:
    seen: list[Operation] = []
    failpoints.watch = seen.append
    act()  # type: ignore[operator]
    failpoints.watch = None
    return seen


@pytest.mark.parametrize("mode", ["kill", "torn", "short", "eio", "enospc"])
@pytest.mark.parametrize("n", [*(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3, 5)), 2, 4])
def test_a_replaced_file_is_the_old_or_the_new_one(tmp_path: Path, n: int, mode: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    script = (
        "import os, sys; from pathlib import Path; from camera_trap_al.store import atomic;"
        "atomic.failpoints.arm_from(os.environ, 'daemon'); atomic.replace_bytes(Path(sys.argv[1]), b'new' * 100)"
    )
    environment = {**os.environ, "CTAL_FAULT": f"n={n},mode={mode}", "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", script, str(path)], env=environment, capture_output=True, check=False)
    assert ended.returncode == (KILLED_STATUS if mode in ("kill", "torn") else 1)
    is_new = n == 5 or (n == 4 and mode in ("torn", "short"))
    assert path.read_bytes() == (b"new" * 100 if is_new else b"old")
    partial = atomic.partial_of(path)
    if mode in ("short", "eio", "enospc"):
        assert not partial.exists()
    elif (n, mode) == (2, "torn"):
        assert partial.read_bytes() == (b"new" * 100)[:150]
    atomic.replace_bytes(path, b"next")
    assert path.read_bytes() == b"next" and not partial.exists()


def test_a_fault_for_another_process_arms_nothing() -> None:
    arm(0, "kill")
    failpoints.arm_from({"CTAL_FAULT": "n=3,mode=eio,who=worker"}, "daemon")
    assert failpoints.fail_at == 0
    failpoints.arm_from({"CTAL_FAULT": "n=3,mode=eio,who=worker"}, "worker")
    assert (failpoints.fail_at, failpoints.mode) == (3, "eio")


class Ended(BaseException):
    pass


@pytest.mark.parametrize(("mode", "there"), [("kill", b""), ("torn", b"01234")])
def test_a_process_ends_before_or_within_a_write(
    tmp_path: Path, mode: str, there: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(status: int) -> None:
        assert status == KILLED_STATUS
        raise Ended

    file = atomic.AppendFile(tmp_path / "a")
    monkeypatch.setattr(os, "_exit", end)
    arm(1, mode)
    with pytest.raises(Ended):
        file.append(b"0123456789")
    file.close()
    assert (tmp_path / "a").read_bytes() == there


def test_a_test_may_raise_what_it_likes(tmp_path: Path) -> None:
    arm(1, "raise")
    failpoints.exception = Ended()
    with pytest.raises(Ended):
        atomic.make_folder(tmp_path / "a")


def test_what_a_clock_decides_is_not_counted(tmp_path: Path) -> None:
    def act() -> None:
        failpoints.leave_out_this_thread()
        atomic.replace_bytes(tmp_path / "a", b"x")

    before = failpoints.count
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()
    assert failpoints.count == before and (tmp_path / "a").read_bytes() == b"x"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such rights")
def test_what_lies_in_a_private_folder_is_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "_private", [])
    for _ in range(2):
        atomic.keep_private(tmp_path / "state")
    atomic.make_folder(tmp_path / "state")
    atomic.replace_bytes(tmp_path / "state" / "a", b"x")
    assert (tmp_path / "state" / "a").stat().st_mode & 0o077 == 0 and len(atomic._private) == 1


def test_a_large_file_is_written_in_parts_and_read_back_whole(tmp_path: Path) -> None:
    data = os.urandom(3 * atomic.BUFFER_BYTES + 17)
    seen = operations_of(
        lambda: atomic.replace_file(tmp_path / "a", lambda f: [f.write(data[:100]), f.write(data[100:])])
    )
    writes = [op for op in seen if op.name == "write"]
    assert b"".join(op.data for op in writes) == data == (tmp_path / "a").read_bytes()
    assert [op.at for op in writes] == [sum(len(w.data) for w in writes[:i]) for i in range(len(writes))]


def test_a_link_in_the_place_of_a_partial_file_is_not_followed(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_bytes(b"theirs")
    atomic.partial_of(tmp_path / "ours").symlink_to(theirs)
    atomic.replace_bytes(tmp_path / "ours", b"new")
    assert theirs.read_bytes() == b"theirs" and (tmp_path / "ours").read_bytes() == b"new"


def test_a_link_that_appears_just_before_the_file_is_made_is_not_followed(tmp_path: Path) -> None:
    theirs, partial = tmp_path / "theirs", atomic.partial_of(tmp_path / "ours")
    theirs.write_bytes(b"theirs")
    failpoints.watch = lambda op: partial.symlink_to(theirs) if op.name == "create" else None
    with pytest.raises(OSError):
        atomic.replace_bytes(tmp_path / "ours", b"new")
    assert theirs.read_bytes() == b"theirs" and not (tmp_path / "ours").exists()


def test_a_file_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    atomic.create_file(tmp_path / "a", b"one")
    with pytest.raises(FileExistsError):
        atomic.create_file(tmp_path / "a", b"two")
    assert (tmp_path / "a").read_bytes() == b"one"


def test_what_is_put_aside_writes_over_nothing(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "a").write_bytes(b"%d" % number)
        atomic.rename_aside(tmp_path / "a", ".bad-a")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".bad-a", ".bad-a-2", ".bad-a-3"]


@pytest.mark.parametrize("n", range(1, 12))
def test_a_removal_that_was_interrupted_is_finished_and_never_half_a_folder(tmp_path: Path, n: int) -> None:
    folder = tmp_path / "gen-000001"
    (folder / "inner").mkdir(parents=True)
    for name in ("a", "b", "inner/c"):
        (folder / name).write_bytes(b"x")
    arm(n, "eio")
    try:
        atomic.discard_folder(folder)
    except OSError:
        assert len(list(folder.rglob("*"))) == 4 or not folder.exists()
    failpoints.fail_at = 0
    for left in list(tmp_path.iterdir()):
        atomic.discard_folder(left)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_there_is_discarded_without_an_operation(tmp_path: Path) -> None:
    seen = operations_of(lambda: (atomic.discard_file(tmp_path / "a"), atomic.discard_folder(tmp_path / "b")))
    assert seen == []


def test_a_link_in_a_folder_is_removed_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").write_bytes(b"theirs")
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "link").symlink_to(tmp_path / "theirs", target_is_directory=True)
    atomic.discard_folder(tmp_path / "ours")
    assert (tmp_path / "theirs" / "file").read_bytes() == b"theirs" and not (tmp_path / "ours").exists()


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EACCES])
def test_a_share_that_cannot_sync_a_folder_is_no_error(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    atomic.sync_folder(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="Windows syncs no folders")
def test_a_disk_that_fails_to_sync_a_folder_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="broken"):
        atomic.sync_folder(tmp_path)


def test_windows_syncs_no_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic.os, "open", None)
    monkeypatch.setattr(atomic.os, "name", "nt")
    try:
        atomic._sync_names(tmp_path)
    finally:
        monkeypatch.undo()


def test_macos_syncs_with_its_own_call(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[int, int]] = []
    fcntl = type(sys)("fcntl")
    fcntl.F_FULLFSYNC, fcntl.fcntl = 51, lambda descriptor, what: called.append((descriptor, what))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fcntl", fcntl)
    monkeypatch.setattr(sys, "platform", "darwin")
    atomic.sync(7)
    assert called == [(7, 51)]


def test_free_space_is_that_of_the_disk_even_before_the_folder_is_made(tmp_path: Path) -> None:
    assert atomic.free_bytes(tmp_path / "not" / "yet") > 0


def test_a_rewritten_tail_that_is_cut_short_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    arm(1, "short")
    with pytest.raises(OSError):
        atomic.rewrite_tail(path, 4, b"456789")
    assert path.read_bytes() == b"0123456789"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[WorkFolder]:
    folder = WorkFolder.at(tmp_path / "work", "private")
    for path in [*folder.public_folders(), *folder.private_folders()]:
        path.mkdir(parents=True, exist_ok=True)
    lift = atomic.guard(folder.may_write)
    yield folder
    lift()
    lift()


def test_an_open_work_folder_writes_its_own_files_only(folder: WorkFolder, tmp_path: Path) -> None:
    for path in (folder.selector, folder.labels, folder.status, folder.bin / "a.csv.receipt.json", folder.intake / "x"):
        atomic.replace_bytes(path, b"ours")
    atomic.make_folder(folder.models / ".gen-000001")
    theirs = [folder.bin / "a.csv", folder.config, folder.root / "notes.txt", tmp_path / "images" / "a.jpg"]
    theirs += [
        folder.root / "TimelapseTemplate.tdb",
        folder.models / ".." / "notes.txt",
        folder.bin / "x" / "a.report.txt",
    ]
    for path in theirs:
        path.parent.mkdir(exist_ok=True)
        path.resolve().write_bytes(b"theirs")
        for attempt in (
            lambda path=path: atomic.replace_bytes(path, b"ours"),
            lambda path=path: atomic.discard_file(path),
            lambda path=path: atomic.rename_aside(path, "other"),
            lambda path=path: atomic.cut_file(path, 0),
        ):
            with pytest.raises(PermissionError, match="does not write there"):
                attempt()
        assert path.read_bytes() == b"theirs"


def test_what_a_person_named_is_written_beside_an_open_work_folder(folder: WorkFolder, tmp_path: Path) -> None:
    with atomic.permitted(tmp_path / "elsewhere"):
        atomic.make_folder(tmp_path / "elsewhere")
        atomic.replace_bytes(tmp_path / "elsewhere" / "a", b"ours")
    with pytest.raises(PermissionError):
        atomic.replace_bytes(tmp_path / "elsewhere" / "a", b"again")
