"""Where a folder lies: on a disk of this computer, or on a network, where the system reports nothing that others do."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from pathlib import Path, PureWindowsPath

from camera_trap_al.config import Config, DaemonConfig, LabelsConfig

NETWORK_TYPES = frozenset(
    "9p acfs afpfs afs beegfs ceph cifs coda davfs davfs2 gfs2 glusterfs gpfs lustre ncpfs nfs nfs3 nfs4 ocfs2 prl_fs smb2 smb3"
    " smbfs vboxsf virtiofs vmhgfs webdav".split()
)
"""File systems whose changes by other computers are not reported. `fuse` and its kinds count too, but for `fuseblk`."""
NETWORK_SETTLE_S = 10.0
NETWORK_POLL_S = 15.0
DRIVE_REMOTE = 4
MOUNT_TABLE = Path("/proc/self/mounts")


def is_network(path: Path) -> bool:
    """Return whether a path lies on a network or FUSE file system; False where that cannot be found out."""
    path = _existing(path)
    if sys.platform == "win32":
        return _is_remote_drive(path)
    try:
        if sys.platform == "darwin":
            command = ["/sbin/mount"]
            told = subprocess.run(command, capture_output=True, encoding="utf-8", errors="surrogateescape", timeout=10)
            return is_network_type(type_in_mount_output(path, told.stdout))
        table = MOUNT_TABLE.read_text(encoding="utf-8", errors="surrogateescape")
    except (OSError, subprocess.SubprocessError):
        return False
    return is_network_type(type_in_mount_table(path, table))


def patience(folder: Path, config: Config) -> tuple[float, float]:
    """Return the seconds for which a label file must be unchanged, and those between two looks for one.

    Longer than their defaults on a network, where copies are slower and not reported; as configured where they are.
    """
    settle_s, poll_s = config.labels.settle_s, config.daemon.poll_s
    if is_network(folder):
        settle_s = NETWORK_SETTLE_S if settle_s == LabelsConfig().settle_s else settle_s
        poll_s = NETWORK_POLL_S if poll_s == DaemonConfig().poll_s else poll_s
    return settle_s, poll_s


def is_network_type(name: str) -> bool:
    """Return whether a type of file system is one of a network, or of FUSE."""
    return name in NETWORK_TYPES or name == "fuse" or name.startswith("fuse.")


def type_in_mount_table(path: Path, table: str) -> str:
    """Return the type of the file system that holds an absolute path, as `/proc/mounts` has it, "" if it is not there."""
    mounts = []
    for line in table.splitlines():
        parts = line.split(" ")
        if len(parts) >= 3:
            point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), parts[1])
            mounts.append((point, parts[2]))
    return _type_at(path, mounts)


def type_in_mount_output(path: Path, output: str) -> str:
    """Return the type of the file system that holds an absolute path, as `mount` on macOS prints it, "" if it is not there."""
    found = re.findall(r"(?m)^.* on (/.*) \((\w+)[,)]", output)
    return _type_at(path, [(point, name.lower()) for point, name in found])


def _type_at(path: Path, mounts: list[tuple[str, str]]) -> str:
    """Return the type at the longest mount point above; of two at one place the later one hides the other."""
    best, found = -1, ""
    for point, name in mounts:
        is_above = point == "/" or path.as_posix() == point or path.as_posix().startswith(f"{point}/")
        if is_above and len(point) >= best:
            best, found = len(point), name
    return found


def _existing(path: Path) -> Path:
    """Return a path without links, or that of the nearest folder above it that is there."""
    path = path.absolute()
    for folder in (path, *path.parents):
        try:
            return folder.resolve(strict=True)
        except OSError:
            continue
    return path


def _is_remote_drive(path: Path) -> bool:
    root = PureWindowsPath(path).anchor
    if root.startswith("\\\\") and not root.startswith(("\\\\?\\", "\\\\.\\")):
        return True
    try:
        return int(ctypes.windll.kernel32.GetDriveTypeW(root)) == DRIVE_REMOTE  # type: ignore[attr-defined,unused-ignore]
    except (AttributeError, OSError):
        return False
