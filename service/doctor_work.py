"""Checks of a work folder: configuration, places, rights, locks, watching, the record of labels, clock and disk.

Nothing there is changed. To see whether writing, locks and notices of changes work in a folder, an empty hidden file is
made in it and removed at once.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

from camera_trap_al import private
from camera_trap_al.choices import check_choices
from camera_trap_al.config import Config
from camera_trap_al.config_file import read_work_config
from camera_trap_al.errors import CameraTrapAlError
from camera_trap_al.layout import WorkFolder
from camera_trap_al.lease import Holder, read_holder
from camera_trap_al.lock import is_held, take_lock
from camera_trap_al.places import is_network, patience
from camera_trap_al.space import MB
from camera_trap_al.store import atomic
from camera_trap_al.store.journal import journal_problems
from camera_trap_al.store.links import is_link
from camera_trap_al.work import image_folders
from camera_trap_al_service.findings import Case, Finding, note, ok, problem
from camera_trap_al_service.init import CATALOG_BYTES_PER_IMAGE
from camera_trap_al_service.watching import Watch

EVENT_S = 2.0
CLOCK_SLACK = timedelta(minutes=10)
MODELS_BYTES = 500e6
SYNC_WORDS = (
    *("onedrive", "dropbox", "google drive", "googledrive", "my drive", "icloud", "nextcloud", "owncloud", "syncthing"),
    *("seafile", "pcloud", "box sync"),
)
STATE_EXAMPLE = (
    "set state_dir under [daemon] in config.toml to a new folder on a disk of this computer, then start again"
)


def check_configuration(case: Case) -> list[Finding]:
    """The configuration can be read, and its options go together."""
    assert case.root is not None
    try:
        folder, config = read_work_config(case.root)
        check_choices(config)
    except CameraTrapAlError as error:
        fix = (
            error.hint
            or "Correct that line of config.toml with an editor; the lines above each option say what it takes."
        )
        return [problem(_text(error), fix)]
    except OSError as error:
        return [problem(f"it cannot be read: {error.strerror or error}.", f"Let this user read {case.root}.")]
    return [ok(f"{folder.config} can be read, and its options go together")]


def check_places(case: Case) -> list[Finding]:
    """Folders of images and the work folder do not lie in each other."""
    found = []
    work = case.folder.root.resolve()
    places = {kind: path.resolve() for kind, path in image_folders(case.config).items()}
    for kind, path in places.items():
        if work == path or work in path.parents:
            text = f"the work folder holds the images in {path}, which are left out where they are looked for."
            found.append(problem(text, "Move the images out of it and name their new place with `relocate`."))
        if kind != "pool" and path in work.parents:
            text = f"the work folder lies in {path}, where each folder is a class."
            found.append(problem(text, "Stop the program and move the work folder elsewhere."))
        for other, outer in places.items():
            if kind < other and (path == outer or outer in path.parents or path in outer.parents):
                text = f"{path} and {outer} are the same folder, or one lies in the other, so images count twice."
                found.append(problem(text, "Move one out of the other, then name it with `relocate`."))
    missing = [path.name for path in case.folder.public_folders() if not path.is_dir()]
    if missing:
        found.append(note(f"{', '.join(missing)} is not there.", "Nothing to do: `run` makes it."))
    return found or [ok("work folder and folders of images lie apart")]


def check_rights(case: Case) -> list[Finding]:
    """The program may write where it must."""
    found = []
    fix = "Give this user the right to write there; if the disk is write-protected, move the work folder to another."
    for path in dict.fromkeys((case.folder.bin, case.folder.root, case.folder.state)):
        if not path.is_dir() or _is_planted(case.folder, path):
            continue
        try:
            with _probe(path):
                pass
        except OSError as error:
            found.append(problem(f"nothing can be written in {path}: {error.strerror or error}.", fix))
    if case.folder.state != case.folder.root and private.others_may_write(case.folder.state):
        text = f"daemon.state_dir, {case.folder.state}, can be written by other users, so `run` refuses it."
        found.append(problem(text, f"chmod 700 '{case.folder.state}'"))
    elif private.others_may_write(case.folder.root):
        text = f"other users of this computer can write in {case.folder.root}, and so change labels."
        found.append(note(text, f"chmod go-w '{case.folder.root}', or {STATE_EXAMPLE}."))
    return found or [ok("answers can be written")]


def check_links(case: Case) -> list[Finding]:
    """No file of the program is a link to another place."""
    try:
        private.check(case.folder)
    except CameraTrapAlError as error:
        if "is a link" in str(error):
            return [problem(_text(error), error.hint)]
    return [ok("no file or folder of the program is a link to another place")]


def check_network(case: Case) -> list[Finding]:
    """Private files are on a disk of this computer that no other program synchronises."""
    state, found = case.folder.state, []
    what = "locks and the database of images are not safe there"
    if is_network(state):
        where = "daemon.state_dir" if state != case.folder.root else "the work folder"
        text = f"{where} ({state}) is on a network, and {what}."
        found.append(
            problem(text, f"Stop the program; {STATE_EXAMPLE}. Move these along: {_private_names(case.folder)}.")
        )
    synced = sync_service(state)
    if synced:
        text = (
            f"{state} is kept in step by {synced}, which holds files while they are written and may make second copies."
        )
        found.append(note(text, f"Let {synced} leave this folder out, or {STATE_EXAMPLE}."))
    return found or [ok(f"private files are on a disk of this computer ({state})")]


def sync_service(path: Path) -> str:
    """Return the name of the service in whose folder a path lies, as far as names tell, "" for none."""
    for variable in ("OneDrive", "OneDriveCommercial", "OneDriveConsumer"):
        folder = os.environ.get(variable)
        if folder and path.is_relative_to(folder):
            return "OneDrive"
    parts = [part for part in path.parts if any(word in part.lower() for word in SYNC_WORDS)]
    return parts[0] if parts else ""


def check_locks(case: Case) -> list[Finding]:
    """Who works in the folder, and whether locks hold there."""
    found = [_holder(case.folder)]
    parent = case.folder.state if case.folder.state.is_dir() else case.folder.root
    if not os.access(parent, os.W_OK):
        return found
    probe = parent / f".probe-{os.getpid()}.lock"
    try:
        lock = take_lock(probe)
        holds = lock is not None and is_held(probe)
        if lock is not None:
            lock.release()
    finally:
        atomic.discard_file(probe)
    if not holds:
        text = f"locks do not hold in {parent}, so two programs could work in it at once."
        found.append(problem(text, STATE_EXAMPLE[0].upper() + STATE_EXAMPLE[1:] + "."))
    return found


def _holder(folder: WorkFolder) -> Finding:
    try:
        holder = read_holder(folder.lease)
    except (OSError, ValueError):
        return note(f"{folder.lease} cannot be understood.", "Nothing to do: `run` makes it again.")
    if is_held(folder.daemon_lock):
        who = f" ({holder})" if holder and holder.nonce else ""
        return ok(f"the program is running{who}")
    if holder is None or not holder.nonce:
        return ok("the program is not running, and the next start finds the folder free")
    return _left_lease(folder, holder)


def _left_lease(folder: WorkFolder, holder: Holder) -> Finding:
    if holder.host != socket.gethostname():
        return note(
            f"another computer works in this folder ({holder}), or ended without saying so.",
            f"Only if it is gone for good, delete {folder.lease}; as long as it works there, leave all to it.",
        )
    return note(f"the last run ended without saying so ({holder}).", "Nothing to do: the next start takes over.")


def check_watching(case: Case) -> list[Finding]:
    """A new file in new_labels_bin is noticed."""
    bin_ = case.folder.bin
    if not bin_.is_dir() or _is_planted(case.folder, bin_):
        return []
    _, poll_s = patience(bin_, case.config)
    polled = f"it is looked into every {poll_s:g} seconds"
    if is_network(bin_):
        text = f"{bin_} is on a network, which reports no changes: {polled}."
        return [note(text, "Nothing to do; files there are taken a little later.")]
    noticed = threading.Event()
    watch = Watch(bin_, noticed.set)
    try:
        works = watch.check()
        with _probe(bin_):
            works = works and noticed.wait(EVENT_S)
    finally:
        watch.stop()
    if works:
        return [ok("new files in new_labels_bin are noticed at once")]
    text = f"the system does not report new files in {bin_}: {polled}."
    return [note(text, "Nothing to do; if you want it faster, set a smaller poll_s under [daemon] in config.toml.")]


def check_journal(case: Case) -> list[Finding]:
    """The record of labels is there and whole."""
    journal = case.folder.journal
    if not journal.exists():
        if case.folder.catalog.exists():
            text = f"{journal}, the record of all labels, is gone, although this folder was in use."
            return [problem(text, "Restore it from a backup before anything is started.")]
        return [ok("there is no record of labels yet; `run` makes it")]
    if not journal.is_file():
        text = f"{journal}, the record of all labels, is no file."
        return [problem(text, "Move away what is there, and restore the record from a backup.")]
    try:
        with journal.open("rb"):
            pass
    except OSError as error:
        text = f"{journal}, the record of all labels, cannot be read: {error.strerror or error}."
        return [problem(text, "Let this user read it, and see that its disk is connected.")]
    # While the program runs, the last line may just be under way.
    if is_held(case.folder.daemon_lock) and case.lines:
        return [ok(f"the record of labels has {len(case.lines)} good lines")]
    problems = journal_problems(journal)
    torn = [text for text in problems if "torn by a crash" in text]
    if torn:
        return [note(torn[0], "Nothing to do: a line that was torn was never acknowledged.")]
    if problems:
        fix = "Restore it from a backup, or copy what is good: camera-trap-al check WORK --salvage GOOD.jsonl"
        return [problem(problems[0], fix)]
    return [ok(f"the record of labels has {len(case.lines)} good lines; `check` verifies all else")]


def check_clock(case: Case) -> list[Finding]:
    """The clock does not stand before the last thing that was written."""
    if not case.lines:
        return []
    try:
        last = datetime.fromisoformat(str(case.lines[-1].get("at", "")).replace("Z", "+00:00"))
    except ValueError:
        return []
    now = datetime.now(timezone.utc)
    if last - now <= CLOCK_SLACK:
        return [ok(f"the clock stands at {now:%Y-%m-%d %H:%M} UTC, after the last entry")]
    text = f"the clock stands at {now:%Y-%m-%d %H:%M} UTC, before the last entry of the record, {last:%Y-%m-%d %H:%M}."
    return [note(text, "Set the clock of this computer; labels are safe, but the times noted beside them are wrong.")]


def check_disk(case: Case) -> list[Finding]:
    """There is space for what comes next."""
    free, least = atomic.free_bytes(case.folder.state), case.config.daemon.min_free_mb * MB
    need = bytes_needed(case.config, sum(seen.n_images for seen in case.seen.values()))
    text = f"{free / 1e9:.1f} GB are free on the disk of {case.folder.state}"
    if free < least:
        least_text = f"{text}; below {least / MB:.0f} MB (min_free_mb) nothing is begun."
        return [problem(least_text, "Free some space; the program goes on by itself.")]
    if free < need:
        text = f"{text}; a network and its numbers for all images take about {need / 1e9:.1f} GB."
        return [note(text, f"Free some space, or {STATE_EXAMPLE}.")]
    return [ok(f"{text}; about {need / 1e9:.1f} GB are needed")]


def bytes_needed(config: Config, n_images: int) -> float:
    """Return about how many bytes the networks, embeddings and catalogue of so many images take."""
    return float(n_images * (config.embedding.feat_dim * 4 + CATALOG_BYTES_PER_IMAGE) + MODELS_BYTES)


@contextmanager
def _probe(folder: Path) -> Iterator[Path]:
    """Make an empty hidden file in a folder, and remove it at the end. Raises `OSError`."""
    path = folder / f".probe-{os.getpid()}"
    atomic.discard_file(path)
    atomic.create_file(path, b"")
    try:
        yield path
    finally:
        atomic.discard_file(path)


def _is_planted(folder: WorkFolder, path: Path) -> bool:
    """Return whether a folder of the program is a link, through which nothing is written."""
    return is_link(path) and path not in (folder.root, folder.state)


def _private_names(folder: WorkFolder) -> str:
    named = {path.relative_to(folder.state).parts[0] for path in folder.private_folders() if path != folder.state}
    return ", ".join(sorted(named - {"data"} | {folder.journal.relative_to(folder.state).as_posix()}))


def _text(error: CameraTrapAlError) -> str:
    """Return what an error says without its hint."""
    return Exception.__str__(error)
