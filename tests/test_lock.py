"""One daemon per work folder: the lock of the operating system, and the lease that other computers see."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from camera_trap_al import lease as leases
from camera_trap_al.errors import EXIT_LOCKED, LockedError, StopRequested, WorkFolderError
from camera_trap_al.layout import WorkFolder
from camera_trap_al.lease import Holder, Lease, process_begun, process_exists, read_holder
from camera_trap_al.lock import DaemonLock, is_held, take_lock
from camera_trap_al.store import atomic
from camera_trap_al.store.journal import LabelJournal


class Clock:
    """Monotonic seconds that pass only while somebody waits; `at` maps a time to what happens then."""

    def __init__(self, at: dict[float, Callable[[], object]] | None = None) -> None:
        self.now, self.at = 0.0, at or {}

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        for when in [when for when in self.at if when <= self.now]:
            self.at.pop(when)()
        return False


def put(path: Path, holder: Holder) -> None:
    atomic.replace_json(path, {"format": 1, **asdict(holder)})


def take(path: Path, clock: Clock | None = None, journal: str = "j1", state: Path | None = None) -> Lease:
    clock = clock or Clock()
    return Lease.take(path, state or path.parent, journal, wait=clock.wait, clock=clock)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lease.json"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Holder:
    return replace(Holder.here(tmp_path, "j1"), host="other-pc", nonce="theirs", counter=4)


def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def test_a_lock_is_free_again_when_its_process_is_killed(tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from camera_trap_al.lock import take_lock
lock = take_lock(Path({str(tmp_path / "a.lock")!r}))
print("held", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        assert is_held(tmp_path / "a.lock") and take_lock(tmp_path / "a.lock") is None
        process.kill()
    assert not is_held(tmp_path / "a.lock")
    lock = take_lock(tmp_path / "a.lock")
    assert lock is not None
    lock.release()


def test_looking_at_a_lock_makes_no_file_and_keeps_nobody_from_taking_it(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    assert not is_held(path) and list(tmp_path.iterdir()) == []
    ended = threading.Event()

    def look() -> None:
        # Without a pause, three threads that share one interpreter hold it most of the time, as no program does.
        while not ended.wait(0.002):
            is_held(path)

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(50):
            lock = take_lock(path)
            assert lock is not None
            lock.release()
    finally:
        ended.set()
        for looker in lookers:
            looker.join()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the rights of files do not bind this user")
def test_who_may_only_read_can_look_at_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    path.touch(mode=0o444)
    assert not is_held(path)


def test_a_new_lease_names_this_process(path: Path) -> None:
    lease = take(path)
    there = read_holder(path)
    assert there == lease.holder and there is not None
    assert there.pid == os.getpid() and there.journal == "j1" and there.state == str(path.parent) and there.nonce


def test_a_clean_end_leaves_the_journal_s_name_and_nobody_who_holds_it(path: Path, elsewhere: Holder) -> None:
    take(path).release()
    there = read_holder(path)
    assert there is not None and there.nonce == "" and there.journal == "j1"
    put(path, replace(elsewhere, nonce=""))
    assert take(path).holder.pid == os.getpid(), "one that ended cleanly on another computer is taken at once"


@pytest.mark.parametrize("what", ["a dead process", "an earlier start of the computer", "a number used again"])
def test_a_lease_of_this_computer_whose_process_is_gone_is_taken_at_once(path: Path, tmp_path: Path, what: str) -> None:
    me = replace(Holder.here(tmp_path / "elsewhere", "j1"), nonce="theirs")
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        alive = replace(me, pid=sleeper.pid, begun=process_begun(sleeper.pid))
        holder = {
            "a dead process": replace(me, pid=dead_pid()),
            "an earlier start of the computer": replace(alive, boot="an earlier one"),
            "a number used again": replace(alive, begun="12"),
        }[what]
        put(path, holder)
        clock = Clock()
        if what != "a dead process" and not (me.boot and me.begun):
            pytest.skip("this system does not say when it or a process was started")
        assert take(path, clock).holder.pid == os.getpid() and clock.now == 0
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_process_at_work_with_other_private_files_is_not_displaced(path: Path, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as sleeper:
        put(
            path,
            replace(Holder.here(tmp_path / "x", "j1"), pid=sleeper.pid, begun=process_begun(sleeper.pid), nonce="t"),
        )
        with pytest.raises(LockedError, match=f"process {sleeper.pid}"):
            take(path)
        assert sleeper.stdin is not None
        sleeper.stdin.close()


def test_the_lock_beside_the_journal_being_free_proves_its_holder_gone(path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as sleeper:
        put(path, replace(Holder.here(path.parent, "j1"), pid=sleeper.pid, begun=process_begun(sleeper.pid), nonce="t"))
        assert take(path).holder.pid == os.getpid()
        assert sleeper.stdin is not None
        sleeper.stdin.close()


def test_another_computer_s_lease_is_never_taken_and_the_file_is_named(path: Path, elsewhere: Holder) -> None:
    put(path, elsewhere)
    before, clock = path.read_bytes(), Clock()
    with pytest.raises(LockedError, match=r"other-pc.*did not say.*delete .*lease\.json") as raised:
        take(path, clock)
    assert raised.value.exit_code == EXIT_LOCKED and path.read_bytes() == before
    assert clock.now >= leases.WATCH_S


def test_another_computer_at_work_is_told_from_one_that_is_gone(path: Path, elsewhere: Holder) -> None:
    put(path, elsewhere)
    clock = Clock({9.0: lambda: put(path, replace(elsewhere, counter=5))})
    with pytest.raises(LockedError, match="is at work there now"):
        take(path, clock)
    assert clock.now < leases.WATCH_S


def test_another_computer_that_ends_meanwhile_leaves_the_folder_to_us(path: Path, elsewhere: Holder) -> None:
    put(path, elsewhere)
    assert take(path, Clock({5.0: lambda: put(path, replace(elsewhere, nonce=""))})).holder.pid == os.getpid()
    put(path, elsewhere)
    assert take(path, Clock({5.0: path.unlink})).holder.pid == os.getpid()


def test_looking_at_another_computer_ends_when_told_to_stop(path: Path, elsewhere: Holder) -> None:
    put(path, elsewhere)
    with pytest.raises(StopRequested):
        Lease.take(path, path.parent, "j1", wait=lambda seconds: True)


def test_a_torn_lease_is_taken_after_a_moment(path: Path) -> None:
    for torn in (b"", b'{"format": 1, "ho', b"[]", b"\xff"):
        path.write_bytes(torn)
        clock = Clock()
        assert take(path, clock).holder.pid == os.getpid()
        assert clock.now >= leases.TORN_S
    path.write_bytes(b"")
    put_later = Clock({1.0: lambda: put(path, replace(Holder.here(path.parent, "j1"), host="other-pc"))})
    with pytest.raises(LockedError):
        take(path, put_later)


def test_a_lease_of_an_older_version_is_taken(path: Path) -> None:
    path.write_text(
        json.dumps({"format": 1, "host": "pc", "pid": 4, "started": "2026-01-01T00:00:00Z"}), encoding="utf-8"
    )
    assert take(path).holder.pid == os.getpid()


def test_a_work_folder_refuses_another_journal_and_names_both(path: Path, tmp_path: Path) -> None:
    take(path).release()
    with pytest.raises(WorkFolderError, match=r"belongs to the journal j1.*j2.*state_dir"):
        take(path, journal="j2", state=tmp_path / "b")
    with pytest.raises(WorkFolderError, match=r"belongs to the journal j1.*holds none"):
        take(path, journal="", state=tmp_path / "empty")
    take(path, journal="").release()


def test_the_journal_is_named_once_it_is_made(path: Path) -> None:
    lease = take(path, journal="")
    lease.note_journal("j9")
    there = read_holder(path)
    assert there is not None and there.journal == "j9"


def test_renewing_counts_and_survives_sleep_and_deletion(path: Path) -> None:
    lease = take(path)
    assert lease.renew() and lease.renew()
    there = read_holder(path)
    assert there is not None and there.counter == 2
    path.unlink()
    assert lease.renew() and read_holder(path) is not None, (
        "a lease that was deleted and that nobody took is ours still"
    )


def test_a_lease_that_another_daemon_took_is_lost_and_stays_theirs(path: Path, elsewhere: Holder) -> None:
    lease = take(path)
    lease.check()
    path.unlink()
    put(path, elsewhere)
    before = path.read_bytes()
    assert not lease.renew()
    with pytest.raises(LockedError, match=r"Another daemon took over .*other-pc"):
        lease.check()
    lease.release()
    assert path.read_bytes() == before


def test_losing_the_lease_is_noticed_by_itself(path: Path, elsewhere: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_S", 0.02)
    told = threading.Event()
    lease = Lease.take(path, path.parent, "j1", on_lost=told.set)
    lease.start()
    put(path, elsewhere)
    while not told.wait(0.05):
        put(path, elsewhere)
    with pytest.raises(LockedError):
        lease.check()
    lease.release()


def test_a_share_that_stumbles_does_not_lose_the_lease(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_S", 0.02)
    lease = Lease.take(path, path.parent, "j1")
    failed = threading.Event()

    def fails(path: Path) -> Holder | None:
        failed.set()
        raise OSError(5, "the share is away")

    monkeypatch.setattr(leases, "read_holder", fails)
    lease.start()
    assert failed.wait(10)
    monkeypatch.setattr(leases, "read_holder", read_holder)
    lease.check()
    assert lease.renew()
    lease.release()


def test_renewing_passes_no_failpoints(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_S", 0.02)
    lease = Lease.take(path, path.parent, "j1")
    before = atomic.failpoints.count
    lease.start()
    while lease.holder.counter < 3:
        threading.Event().wait(0.01)
    assert atomic.failpoints.count == before
    lease.release()


def test_two_work_folders_cannot_share_private_files(tmp_path: Path) -> None:
    state = tmp_path / "state"
    one, two = (WorkFolder.at(tmp_path / name, str(state)) for name in ("one", "two"))
    for folder in (one, two):
        folder.root.mkdir()
    first = DaemonLock.take(one)
    with pytest.raises(LockedError):
        DaemonLock.take(two)
    first.release()
    own = WorkFolder.at(tmp_path / "two")
    atomic.make_folder(own.journal.parent)
    LabelJournal.create(own.journal, "its own", "1").close()
    DaemonLock.take(own).release()
    atomic.make_folder(one.journal.parent)
    LabelJournal.create(one.journal, "of one", "1").close()
    with pytest.raises(WorkFolderError, match="its own.*of one"):
        DaemonLock.take(two)
    assert not is_held(two.daemon_lock)


def test_processes_are_told_apart() -> None:
    assert process_exists(os.getpid()) and not process_exists(dead_pid())
    assert process_begun(os.getpid()) == process_begun(os.getpid())
