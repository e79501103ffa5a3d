from __future__ import annotations

from pathlib import Path

import pytest

from camera_trap_al import places
from camera_trap_al.config import Config, DaemonConfig, LabelsConfig
from camera_trap_al.places import is_network, is_network_type, patience, type_in_mount_output, type_in_mount_table

TABLE = """\
/dev/sda1 / ext4 rw,relatime 0 0
proc /proc proc rw 0 0
//nas/photos /mnt/trap\\040photos cifs rw,vers=3.1.1 0 0
nas:/export /mnt/nfs nfs4 rw 0 0
/dev/sdb1 /mnt/nfs/disk ext4 rw 0 0
me@host:/x /home/me/sshfs fuse.sshfs rw 0 0
/dev/sdc1 /media/usb fuseblk rw 0 0
C:\\134 /mnt/c 9p rw 0 0
broken line
tmpfs /mnt/over tmpfs rw 0 0
//nas/b /mnt/over smb3 rw 0 0
"""
OUTPUT = """\
/dev/disk1s1 on / (apfs, local, read-only, journaled)
devfs on /dev (devfs, local, nobrowse)
//me@nas/photos on /Volumes/trap (photos) (smbfs, nodev, nosuid, mounted by me)
/dev/disk2s1 on /Volumes/USB (exfat, local, nodev)
"""


@pytest.mark.parametrize(
    ("path", "network"),
    [
        ("/home/me/project", False),
        ("/mnt/trap photos/work", True),
        ("/mnt/trap photos", True),
        ("/mnt/trap", False),
        ("/mnt/nfs/work", True),
        ("/mnt/nfs/disk/work", False),
        ("/home/me/sshfs/a", True),
        ("/media/usb/work", False),
        ("/mnt/c/photos", True),
        ("/mnt/over/x", True),
    ],
)
def test_the_deepest_and_last_mount_decides(path: str, network: bool) -> None:
    assert is_network_type(type_in_mount_table(Path(path), TABLE)) is network


@pytest.mark.parametrize(
    ("path", "network"),
    [
        ("/Users/me", False),
        ("/Volumes/trap (photos)/work", True),
        ("/Volumes/USB/work", False),
        ("/Volumes/trap", False),
    ],
)
def test_what_mount_prints_on_macos_is_read(path: str, network: bool) -> None:
    assert is_network_type(type_in_mount_output(Path(path), OUTPUT)) is network


def test_a_folder_that_is_not_there_yet_lies_where_the_one_above_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places.sys, "platform", "linux")
    table = tmp_path / "mounts"
    monkeypatch.setattr(places, "MOUNT_TABLE", table)
    assert not is_network(tmp_path / "no table")
    table.write_text(f"x / ext4 rw 0 0\n//nas/x {tmp_path.resolve()} cifs rw 0 0\n", encoding="utf-8")
    assert is_network(tmp_path / "not" / "there") and is_network(tmp_path) and not is_network(tmp_path.parent)


def test_windows_network_drives_are_those_of_other_computers(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kernel:
        def GetDriveTypeW(self, root: str) -> int:
            return 4 if root == "Z:\\" else 3

    windll = type("windll", (), {"kernel32": Kernel()})
    monkeypatch.setattr(places.ctypes, "windll", windll, raising=False)
    paths = {"\\\\nas\\photos\\a": True, "Z:\\photos": True, "C:\\photos": False, "\\\\?\\C:\\photos": False}
    assert {path: places._is_remote_drive(path) for path in paths} == paths  # type: ignore[arg-type]


def test_only_default_times_are_longer_on_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path("anywhere")
    monkeypatch.setattr(places, "is_network", lambda path: False)
    assert patience(here, Config()) == (2.0, 5.0)
    monkeypatch.setattr(places, "is_network", lambda path: True)
    assert patience(here, Config()) == (10.0, 15.0)
    own = Config(labels=LabelsConfig(settle_s=0.5), daemon=DaemonConfig(poll_s=1.0))
    assert patience(here, own) == (0.5, 1.0)
