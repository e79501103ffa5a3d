"""The folder `new_labels_bin`: which CSV files are new and stable, and a private copy of each. Writes nothing there."""

from __future__ import annotations

import codecs
import errno
import functools
import hashlib
import os
import re
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from camera_trap_al.core.records import Notice
from camera_trap_al.errors import LabelFileError
from camera_trap_al.labels.encoding import BLOCK_BYTES, UTF16_MARKS
from camera_trap_al.labels.species_csv import Limits, too_big
from camera_trap_al.store import atomic

EMPTY_FOR_S = 60.0
DOUBT_FACTOR = 5
TURNS_BETWEEN_SCANS = 10
KEPT_NAMES = 32_768
_CLOSED = "it cannot be opened"
MAX_BYTES = Limits.file_bytes
_OPEN_FLAGS = os.O_RDONLY
for _flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
    _OPEN_FLAGS |= getattr(os, _flag, 0)
_GONE = (errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.ENODEV)
_TABLES = (".xlsx", ".xlsm", ".xls", ".ods", ".numbers", ".tsv", ".txt")
_CONFLICT_COPY = re.compile(r"conflicted copy|\.sync-conflict-| ?\(\d+\)\.csv$", re.IGNORECASE)


@dataclass(frozen=True)
class BinFile:
    """A CSV in the bin. `doubt` says why it may be a copy under way, or why it cannot be opened; "" if nothing does.

    `changed_ns` (ctime) tells of new content under the old time and size; on Windows it is when the file was made.
    """

    name: str
    folder: Path
    size: int
    mtime_ns: int
    inode: int
    changed_ns: int = 0
    is_settled: bool = False
    doubt: str = ""

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self.folder / self.name

    def is_same(self, other: BinFile) -> bool:
        """Return whether nothing has changed between two looks."""
        return self._identity() == other._identity()

    def _identity(self) -> tuple[int, int, int, int]:
        return (self.size, self.mtime_ns, self.inode, self.changed_ns)


@dataclass(frozen=True)
class PrivateCopy:
    """What was read of a label file, once.

    `name` is the file's name as it can be shown and written. `notices` belong before the rows when they are decided.
    With a `refusal` (the file is too big) there is no copy, and `sha256` is that of its first MB.
    """

    path: Path
    name: str
    sha256: str
    mtime_ns: int
    notices: tuple[Notice, ...] = ()
    refusal: LabelFileError | None = None


@dataclass
class _Look:
    file: BinFile
    since_s: float
    doubt: str | None = field(default=None)
    digest: str = ""
    settled: BinFile | None = None


class Inbox:
    """What the last looks into the folder showed; only to tell when a file has stopped changing.

    Parameters
    ----------
    folder : the bin
    settle_s : seconds for which a file must stay unchanged; 5 times that if it looks like a copy under way, and 60 s if
        it is empty
    """

    def __init__(self, folder: Path, settle_s: float) -> None:
        self.folder = folder
        self.settle_s = settle_s
        self._looks: dict[str, _Look] = {}
        self._files: list[BinFile] = []
        self._problem = ""
        self._waiting: list[BinFile] = []
        self._turns = 0

    def scan(self, now_s: float) -> list[BinFile]:
        """Return the CSV files of the folder in the order (mtime, name) in which they are taken in.

        `now_s` is a reading of the monotonic clock. Raises `OSError` if the folder cannot be listed.
        """
        looks = {}
        self._waiting, self._turns = [], 0
        try:
            found, self._problem = candidates(self.folder), ""
        except OSError as error:
            why = error.strerror or error
            self._problem = (
                f"No label file can be seen: the folder {self.folder} cannot be read ({why}). Make it again, or give this"
                " user the right to read it."
            )
            raise
        for file in found:
            look = self._looks.get(file.name)
            looks[file.name] = look if look is not None and look.file.is_same(file) else _Look(file, now_s)
        self._looks = looks
        files = [self._judge(look, now_s - look.since_s) for look in looks.values()]
        self._files = sorted(files, key=lambda file: (file.mtime_ns, os.fsencode(file.name)))
        return self._files

    def files(self, now_s: float) -> list[BinFile]:
        """Return the files of a new scan; for some turns after `keep_waiting`, those that wait."""
        if self._waiting and self._turns < TURNS_BETWEEN_SCANS:
            self._turns += 1
            return self._waiting
        return self.scan(now_s)

    def keep_waiting(self, files: list[BinFile]) -> None:
        """Note which files of a folder full of them wait for their turn; looking at all of them takes longer than one."""
        self._waiting = files

    def last_seen(self, name: str) -> BinFile | None:
        """Return a file as the last scan saw it, None if it was not there."""
        return next((file for file in self._files if file.name == name), None)

    def problems(self) -> list[str]:
        """Return, in sentences, why the last scan could not list the folder, or which files there cannot be read."""
        if self._problem:
            return [self._problem]
        closed = [
            f"The label file {printable_name(file.name)} waits: {file.doubt}. Is it open in another program, or may this user"
            " not read it?"
            for file in self._files
            if file.doubt.startswith(_CLOSED)
        ]
        others = [
            f"{printable_name(name)} in {self.folder} is not read, since only CSV files are: save it there as CSV."
            for name in _other_tables(self.folder)
        ]
        return closed + others

    def digest(self, file: BinFile) -> str:
        """Return the SHA-256 of a file of the last scan, read once while its size, time and inode are the same.

        Some programs and shares put new content under an old time. "" if it cannot be read now.
        """
        look = self._looks.get(file.name)
        if look is None or not look.file.is_same(file):
            return ""
        if not look.digest:
            try:
                with _open(file.path) as source:
                    look.digest = _digest_to_keep(source, file.size, MAX_BYTES) if _is_unchanged(source, file) else ""
            except OSError:
                return ""
        return look.digest

    def _judge(self, look: _Look, quiet_s: float) -> BinFile:
        # Hundreds of settled files may lie there, and each turn of the loop looks at all.
        if look.settled is not None:
            return look.settled
        if look.file.size == 0:
            return replace(look.file, is_settled=quiet_s >= max(EMPTY_FOR_S, self.settle_s), doubt="it is empty")
        if quiet_s < self.settle_s:
            return look.file
        try:
            if look.doubt is None:
                look.doubt = doubt_about(look.file)
        except OSError as error:
            return replace(look.file, doubt=f"{_CLOSED}: {error.strerror or error}")
        wait_s = self.settle_s * (DOUBT_FACTOR if look.doubt else 1)
        judged = replace(look.file, is_settled=quiet_s >= wait_s, doubt=look.doubt)
        look.settled = judged if judged.is_settled else None
        return judged


def candidates(folder: Path) -> list[BinFile]:
    """Return the regular files directly in `folder` whose names say that they are label files."""
    files = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not is_label_file_name(entry.name):
                continue
            try:
                facts = os.lstat(entry.path)
            except OSError:
                continue
            if stat.S_ISREG(facts.st_mode):
                files.append(_file_of(folder, entry.name, facts))
    return files


def _file_of(folder: Path, name: str, facts: os.stat_result) -> BinFile:
    return BinFile(
        name, folder, facts.st_size, facts.st_mtime_ns, facts.st_ino, 0 if os.name == "nt" else facts.st_ctime_ns
    )


def _other_tables(folder: Path) -> list[str]:
    """Return the names of files in the bin that were probably meant as label files."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208
    except OSError:
        return []
    ours = (".report.txt", ".receipt.json")
    return [n for n in names if n.lower().endswith(_TABLES) and not n.startswith((".", "~")) and not n.endswith(ours)]


def is_label_file_name(name: str) -> bool:
    """Return whether a name ends in `.csv` and is not one that other programs give their own temporary files."""
    return name.lower().endswith(".csv") and not name.startswith((".", "~"))


@functools.lru_cache(maxsize=KEPT_NAMES)
def printable_name(name: str) -> str:
    """Return a file name as text that can be written anywhere: bytes that are not UTF-8 are escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def doubt_about(file: BinFile) -> str:
    """Return why the file looks like a copy under way, or "". Raises `OSError` if it cannot be opened.

    A guess only: it counts quotes rather than reading cells. Reading refuses what really is cut.
    """
    with _open(file.path) as source:
        head = source.read(2)
        source.seek(max(0, file.size - 4))
        tail = source.read(4)
        is_utf16 = head in UTF16_MARKS
        if is_utf16 and file.size % 2:
            return "it ends in the middle of a character"
        width = 2 if is_utf16 else 1
        ends = _last_units(tail, width, is_big_endian=head == codecs.BOM_UTF16_BE)
        if ends[-1:] == "\0":
            return "it ends in empty bytes"
        if ends[-1:] not in ("\r", "\n", "\x1a"):
            return "its last line has no line end"
        source.seek(0)
        if file.size <= MAX_BYTES and _count(source, b'"') % 2:
            return "it ends inside a quoted cell"
    return ""


def _last_units(tail: bytes, width: int, *, is_big_endian: bool) -> str:
    if width == 1:
        return tail.decode("latin-1")
    return tail[-(len(tail) // 2) * 2 :].decode("utf-16-be" if is_big_endian else "utf-16-le", "replace")


def _count(source: BinaryIO, byte: bytes) -> int:
    n = 0
    while block := source.read(BLOCK_BYTES):
        n += block.count(byte)
    return n


def take_private_copy(file: BinFile, intake_folder: Path, *, max_bytes: int = MAX_BYTES) -> PrivateCopy | None:
    """Copy a settled file to `<sha256>.csv` in `intake_folder`; durable on return.

    Returns None if the file is gone, has become something else, or changed since it was looked at or while it was
    read: the next scan will see to it. Raises `OSError` if it cannot be read or the copy cannot be written.
    """
    try:
        source = _open(file.path)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise
    with source:
        if not _is_unchanged(source, file):
            return None
        name = printable_name(file.name)
        if file.size > max_bytes:
            digest = _digest_to_keep(source, file.size, max_bytes)
            return PrivateCopy(file.path, name, digest, file.mtime_ns, refusal=too_big(file.size, max_bytes))
        digest = _digest(source)
        path = intake_folder / f"{digest}.csv"
        if not _holds(path, digest):
            source.seek(0)
            if not _write_copy(source, path, digest):
                return None
        if not _is_unchanged(source, file):
            return None
    return PrivateCopy(path, name, digest, file.mtime_ns, _notices(file.name))


def _notices(name: str) -> tuple[Notice, ...]:
    if not _CONFLICT_COPY.search(name):
        return ()
    return (
        Notice("The name looks like a second copy that a browser or a sync program made; it was read all the same."),
    )


def _open(path: Path) -> BinaryIO:
    # A pipe or link that took the file's place since the scan is neither waited for nor followed.
    return os.fdopen(os.open(path, _OPEN_FLAGS), "rb")


def _is_unchanged(source: BinaryIO, file: BinFile) -> bool:
    facts = os.fstat(source.fileno())
    return stat.S_ISREG(facts.st_mode) and file.is_same(_file_of(file.folder, file.name, facts))


def _digest_to_keep(source: BinaryIO, size: int, max_bytes: int) -> str:
    """Return the hash by which a file is known: of all of it, or of its first MB if it is too big to be read."""
    return _digest(source) if size <= max_bytes else hashlib.sha256(source.read(BLOCK_BYTES)).hexdigest()


def _digest(source: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := source.read(BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()


def _holds(path: Path, digest: str) -> bool:
    try:
        with _open(path) as file:
            return stat.S_ISREG(os.fstat(file.fileno()).st_mode) and _digest(file) == digest
    except OSError as error:
        if error.errno not in _GONE:
            raise
        return False


class _ChangedWhileRead(Exception):
    """The second reading of a file gave other bytes than the first."""


def _write_copy(source: BinaryIO, path: Path, digest: str) -> bool:
    """Copy `source` to `path` if it still has that digest."""

    def write(target: BinaryIO) -> None:
        copied = hashlib.sha256()
        while block := source.read(BLOCK_BYTES):
            copied.update(block)
            target.write(block)
        if copied.hexdigest() != digest:
            raise _ChangedWhileRead

    try:
        atomic.replace_file(path, write)
    except _ChangedWhileRead:
        return False
    return True
