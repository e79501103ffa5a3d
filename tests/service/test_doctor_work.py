"""What `doctor` says of a work folder: each problem is made, and its line and way out are seen."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import asdict, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from doctor_world import World, is_well, only

from camera_trap_al.lease import Holder
from camera_trap_al.lock import take_lock
from camera_trap_al.store import atomic
from camera_trap_al.store.journal import LabelJournal
from camera_trap_al_service import doctor_work
from camera_trap_al_service.doctor_work import (
    check_clock,
    check_configuration,
    check_disk,
    check_journal,
    check_links,
    check_locks,
    check_network,
    check_places,
    check_rights,
    check_watching,
    sync_service,
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def journal_of(world: World) -> Path:
    """Make a journal of two lines and return its path."""
    path = world.work / "data" / "journal.jsonl"
    journal = LabelJournal.create(path, "1" * 32, "0.2.0")
    journal.append("classes", {"names": ["fox"]})
    journal.close()
    return path


@pytest.mark.parametrize(
    ("text", "says", "fix"),
    [
        ("[data]\nunlabeled = 'x'\n", "unlabelled", "editor"),
        ("[data]\nunlabelled = 'C:\\photos'\n[query]\nstrategy = 'margn'\n", "mean 'margin'", "kcenter"),
        ('[data]\nunlabelled = "C:\\photos"\n', "cannot be read", "single quotes"),
        ("[data]\n", "No folder of images to label", "Name it"),
        ("[server]\nport = 1\n", "was not made by", "another folder"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_explained(world: World, text: str, says: str, fix: str) -> None:
    assert is_well(world.look(check_configuration))
    (world.work / "config.toml").write_text(text, encoding="utf-8")
    found = only(world.look(check_configuration), "problem")
    assert says in found.text and fix in found.fix


def test_a_folder_without_a_configuration_is_no_work_folder(world: World) -> None:
    (world.work / "config.toml").unlink()
    assert "init" in only(world.look(check_configuration), "problem").fix


def test_folders_that_lie_in_each_other_are_named(world: World) -> None:
    assert is_well(world.look(check_places))
    world.configure(data__validation=str(world.root / "train" / "fox"))
    assert "count twice" in only(world.look(check_places), "problem").text
    world.configure(data__unlabelled=str(world.work / "photos"))
    assert "relocate" in only(world.look(check_places), "problem").fix
    world.configure(data__validation="", data__train=str(world.root))
    assert any("each folder is a class" in finding.text for finding in world.look(check_places))


def test_a_half_made_work_folder_is_completed_by_run(world: World) -> None:
    (world.work / "new_labels_bin").rmdir()
    assert "new_labels_bin" in only(world.look(check_places), "note").text
    assert world.look(check_watching) == []


def test_a_bin_that_cannot_be_written_is_a_problem(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_well(world.look(check_rights))
    create = atomic.create_file

    def refuse(path: Path, data: bytes) -> None:
        if path.parent.name == "new_labels_bin":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        create(path, data)

    monkeypatch.setattr(atomic, "create_file", refuse)
    found = only(world.look(check_rights), "problem")
    assert "new_labels_bin" in found.text and "right to write" in found.fix


def test_a_folder_that_others_may_write_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_work.private, "others_may_write", lambda path: path == world.work)
    assert "chmod go-w" in only(world.look(check_rights), "note").fix
    state = world.root / "state"
    state.mkdir()
    world.configure(daemon__state_dir=str(state))
    monkeypatch.setattr(doctor_work.private, "others_may_write", lambda path: path == state)
    assert "chmod 700" in only(world.look(check_rights), "problem").fix


def test_a_planted_link_is_a_problem(world: World) -> None:
    assert is_well(world.look(check_links))
    try:
        (world.work / "models").symlink_to(world.pool, target_is_directory=True)
    except OSError:
        pytest.skip("this system lets this user make no links")
    assert "Remove the link" in only(world.look(check_links), "problem").fix
    (world.work / "new_labels_bin").rmdir()
    (world.work / "new_labels_bin").symlink_to(world.pool, target_is_directory=True)
    before = world.pool.stat().st_mtime_ns
    assert is_well(world.look(check_rights)) and world.look(check_watching) == []
    assert world.pool.stat().st_mtime_ns == before, "nothing is written through a link"


def test_a_share_without_a_local_folder_for_private_files_is_a_problem(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_well(world.look(check_network))
    monkeypatch.setattr(doctor_work, "is_network", lambda path: path.is_relative_to(world.work))
    found = only(world.look(check_network), "problem")
    assert "on a network" in found.text and "state_dir" in found.fix and "data/journal.jsonl" in found.fix
    world.configure(daemon__state_dir=str(world.root / "local"))
    assert is_well(world.look(check_network))


def test_a_synchronised_folder_is_told(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("OneDrive", "OneDriveCommercial", "OneDriveConsumer"):
        monkeypatch.delenv(name, raising=False)
    assert sync_service(tmp_path / "OneDrive - Uni" / "w") == "OneDrive - Uni"
    assert sync_service(tmp_path / "Dropbox" / "w") == "Dropbox" and sync_service(tmp_path / "photos") == ""
    monkeypatch.setenv("OneDrive", str(world.root))
    found = only(world.look(check_network), "note")
    assert "OneDrive" in found.text and "state_dir" in found.fix


def test_who_holds_the_folder_is_told(world: World) -> None:
    assert is_well(world.look(check_locks))
    here = Holder.here(world.work, "")
    lease = world.work / "lease.json"
    lease.write_text(json.dumps({"format": 1, **asdict(here)}), encoding="utf-8")
    assert "the next start takes over" in only(world.look(check_locks), "note").fix
    lease.write_text(json.dumps({"format": 1, **asdict(replace(here, host="field-laptop"))}), encoding="utf-8")
    found = only(world.look(check_locks), "note")
    assert "field-laptop" in found.text and str(lease) in found.fix
    lock = take_lock(world.work / "daemon.lock")
    assert lock is not None
    try:
        assert "is running (process" in only(world.look(check_locks), "ok").text
    finally:
        lock.release()
    lease.write_bytes(b"{")
    assert "cannot be understood" in only(world.look(check_locks), "note").text


def test_locks_that_do_not_hold_are_a_problem(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_work, "is_held", lambda path: False)
    found = only(world.look(check_locks), "problem")
    assert "two programs could work in it" in found.text and found.fix.startswith("Set state_dir")
    assert not list(world.work.glob(".probe*"))


def test_events_are_noticed_or_the_polling_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_work, "EVENT_S", 30.0)
    assert is_well(world.look(check_watching))
    assert list((world.work / "new_labels_bin").iterdir()) == []
    monkeypatch.setattr(doctor_work, "EVENT_S", 0.0)
    monkeypatch.setattr(doctor_work.Watch, "check", lambda watch: False)
    found = only(world.look(check_watching), "note")
    assert "looked into every 5 seconds" in found.text and "poll_s" in found.fix
    monkeypatch.setattr(doctor_work, "is_network", lambda path: True)
    assert "on a network" in only(world.look(check_watching), "note").text


def test_a_journal_is_good_torn_damaged_or_gone(world: World) -> None:
    assert is_well(world.look(check_journal))
    path = journal_of(world)
    good = path.read_bytes()
    assert "2 good lines" in only(world.look(check_journal), "ok").text
    path.write_bytes(good + b'{"seq": 3')
    assert "torn by a crash" in only(world.look(check_journal), "note").text
    lock = take_lock(world.work / "daemon.lock")
    assert lock is not None
    try:
        assert is_well(world.look(check_journal)), "a line that is being written is not torn"
    finally:
        lock.release()
    path.write_bytes(good.replace(b"fox", b"fax"))
    assert "--salvage" in only(world.look(check_journal), "problem").fix
    path.unlink()
    (world.work / "data" / "catalog.sqlite").write_bytes(b"")
    assert "backup" in only(world.look(check_journal), "problem").fix


def test_a_journal_that_may_not_be_read_is_no_damaged_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    journal_of(world)
    journal = world.work / "data" / "journal.jsonl"
    real = Path.open

    def refuse(path: Path, *args: Any, **options: Any) -> Any:
        if path == journal:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    found = only(world.look(check_journal), "problem")
    assert "cannot be read: Permission denied" in found.text and "Let this user read it" in found.fix


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes in folders")
def test_pipes_in_the_place_of_journal_and_lock_are_told_and_not_waited_for(world: World) -> None:
    os.mkfifo(world.work / "data" / "journal.jsonl")
    os.mkfifo(world.work / "daemon.lock")
    assert "is no file" in only(world.look(check_journal), "problem").text
    assert is_well(world.look(check_locks)) and world.look(check_clock) == []


def test_a_clock_that_went_back_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert world.look(check_clock) == []
    journal_of(world)
    assert is_well(world.look(check_clock))

    class Earlier(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(timezone.utc) - timedelta(days=400)

    monkeypatch.setattr(doctor_work, "datetime", Earlier)
    assert "Set the clock" in only(world.look(check_clock), "note").fix


def test_a_disk_that_is_full_or_will_be_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.configure(daemon__min_free_mb=64.0)
    monkeypatch.setattr(atomic, "free_bytes", lambda path: 50e9)
    assert is_well(world.look(check_disk))
    monkeypatch.setattr(atomic, "free_bytes", lambda path: 100e6)
    assert "about 0.5 GB" in only(world.look(check_disk), "note").text
    monkeypatch.setattr(atomic, "free_bytes", lambda path: 10e6)
    assert "min_free_mb" in only(world.look(check_disk), "problem").text
