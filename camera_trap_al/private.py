"""Who else may write in a work folder: links that were planted there, folders that are open to others, private files."""

from __future__ import annotations

import logging
import os
import stat
import sys
from pathlib import Path

from camera_trap_al.errors import WorkFolderError
from camera_trap_al.layout import WorkFolder
from camera_trap_al.store import atomic
from camera_trap_al.store.links import is_link

OTHERS_AT_ALL = 0o077
log = logging.getLogger(__name__)


def check(folder: WorkFolder) -> None:
    """Look before anything is written whether a work folder is safe to work in.

    From now on what is made in a `state_dir` of its own is for its owner alone. Links in the place of files that are
    replaced whole are no matter, since they are replaced and not followed. Modes say nothing on Windows, where
    who may write is a matter of the folder's own list of rights; there only links are looked for.

    Raises
    ------
    WorkFolderError
        a folder of the program, its journal, catalogue or a lock is a link, or others can write into the `state_dir`
    """
    for path in _must_be_real(folder):
        if is_link(path):
            raise WorkFolderError(
                f"{path} is a link to another place, and this program writes through no link.",
                hint="Remove the link; to keep private files elsewhere, name that folder in daemon.state_dir.",
            )
    if folder.state == folder.root:
        if others_may_write(folder.root):
            log.warning(
                "%s can be written by other users of this computer, who could change labels there: take that right away"
                " (`chmod o-w,g-w`), or set daemon.state_dir to a folder of your own",
                folder.root,
            )
        return
    atomic.keep_private(folder.state)
    if others_may_write(folder.state):
        raise WorkFolderError(
            f"daemon.state_dir, {folder.state}, can be written by other users of this computer.",
            hint=f"Make it yours alone with `chmod 700 '{folder.state}'`, or name another folder.",
        )
    if _mode(folder.state) & OTHERS_AT_ALL:
        log.warning("%s can be read by other users of this computer; `chmod 700` ends that", folder.state)


def close_to_others(folder: WorkFolder) -> None:
    """Take the rights of others from the files in a `state_dir` that libraries made with the usual ones."""
    if folder.state == folder.root or sys.platform == "win32":
        return
    for path in (folder.catalog, folder.daemon_lock, folder.worker_lock):
        if _mode(path) & OTHERS_AT_ALL:
            path.chmod(stat.S_IRUSR | stat.S_IWUSR)


def _must_be_real(folder: WorkFolder) -> list[Path]:
    own = [*folder.public_folders(), *folder.private_folders(), folder.cache]
    own += [folder.reports, folder.export, folder.wishes]
    files = [folder.journal, folder.catalog, folder.daemon_lock, folder.worker_lock]
    return [path for path in [*own, folder.log.parent, *files] if path not in (folder.root, folder.state)]


def others_may_write(path: Path) -> bool:
    """Return whether another user than this one and root may write into a folder, as far as its mode and owner tell."""
    if sys.platform == "win32" or not path.exists():
        return False
    facts = path.stat()
    if facts.st_uid not in (os.geteuid(), 0) and os.geteuid() != 0:
        return True
    return bool(facts.st_mode & stat.S_IWOTH or facts.st_mode & stat.S_IWGRP and not _is_own_group(facts))


def _is_own_group(facts: os.stat_result) -> bool:
    """Return whether the group of a file is its owner's alone, as many systems give each user one of the same name."""
    import grp
    import pwd

    try:
        return grp.getgrgid(facts.st_gid).gr_name == pwd.getpwuid(facts.st_uid).pw_name
    except KeyError:
        return facts.st_gid == facts.st_uid


def _mode(path: Path) -> int:
    if sys.platform == "win32":
        return 0
    try:
        return path.stat().st_mode
    except OSError:
        return 0
