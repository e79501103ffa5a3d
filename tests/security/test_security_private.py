"""Who may read and write: the mode of what is made, and folders that others could write into."""

from __future__ import annotations

import logging
import os
import stat
import sys
from pathlib import Path

import pytest
from small_world import make_world, run

from camera_trap_al import private
from camera_trap_al.errors import EXIT_USAGE, WorkFolderError
from camera_trap_al.layout import WorkFolder
from camera_trap_al.lock import DaemonLock
from camera_trap_al.store import atomic
from camera_trap_al_service.cli import main

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has lists of rights in the place of modes")


@pytest.fixture(autouse=True)
def usual_umask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "_private", [])


def modes(root: Path) -> dict[str, int]:
    return {path.relative_to(root).as_posix(): stat.S_IMODE(path.lstat().st_mode) for path in root.rglob("*")}


@pytest.mark.slow
def test_a_state_dir_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path, no_torch: None) -> None:
    state = tmp_path / "new" / "private"
    work = make_world(tmp_path, daemon__state_dir=str(state))
    before = os.umask(0o002)
    try:
        lock = DaemonLock.take(WorkFolder.at(work, str(state)))
        run(work)
        lock.release()
    finally:
        os.umask(before)
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    found = modes(state)
    assert {"data/journal.jsonl", "data/catalog.sqlite", "daemon.lock"} <= found.keys()
    assert {name: oct(mode) for name, mode in found.items() if mode & 0o077} == {}
    assert stat.S_IMODE((work / "timelapse_selector.csv").stat().st_mode) == 0o664, "Timelapse must read it"


def test_a_state_dir_that_others_can_write_into_is_refused_with_the_way_out(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o777)
    with pytest.raises(WorkFolderError, match=r"written by other users.*chmod 700") as raised:
        private.check(WorkFolder.at(tmp_path / "work", str(state)))
    assert raised.value.exit_code == EXIT_USAGE
    state.chmod(0o700)
    private.check(WorkFolder.at(tmp_path / "work", str(state)))


def test_a_state_dir_that_others_can_read_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    private.check(WorkFolder.at(tmp_path / "work", str(state)))
    assert "can be read by other users" in caplog.text


def test_a_work_folder_that_others_can_write_into_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    work.chmod(0o755)
    with caplog.at_level(logging.WARNING):
        private.check(WorkFolder.at(work))
    assert not caplog.records
    work.chmod(0o777)
    private.check(WorkFolder.at(work))
    assert "can be written by other users" in caplog.text


def test_the_group_of_the_owner_alone_is_no_other(tmp_path: Path) -> None:
    import grp
    import pwd

    (tmp_path / "shared").mkdir()
    facts = (tmp_path / "shared").stat()
    is_own = grp.getgrgid(facts.st_gid).gr_name == pwd.getpwuid(facts.st_uid).pw_name
    (tmp_path / "shared").chmod(0o770)
    assert private.others_may_write(tmp_path / "shared") is not is_own


def test_the_command_ends_with_the_status_for_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o777)
    work = make_world(tmp_path, daemon__state_dir=str(state))
    assert main(["next", str(work)]) == EXIT_USAGE and "chmod 700" in capsys.readouterr().err
