"""The journal: the append-only record of requests, labels and what else was decided. The truth.

One JSON object per line, one line per transaction. `seq` has no gaps; `crc32` comes last and covers the line's bytes
before `, "crc32"`.
"""

from __future__ import annotations

import errno
import json
import logging
import time
import uuid
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from camera_trap_al.errors import DurableWriteError, JournalDamagedError, NewerVersionError, WorkFolderError
from camera_trap_al.store import atomic

FORMAT = 1
LOST = "lost"
Line = dict[str, Any]
log = logging.getLogger(__name__)


def encode_line(fields: Mapping[str, Any]) -> bytes:
    """Return one journal line, with its checksum and line end.

    Raises `ValueError` for what JSON has no word for, such as NaN.
    """
    text = json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(", ", ": "))
    # A file name that is no valid Unicode holds lone surrogates; written so, they are escapes of JSON.
    line = text.encode("utf-8", "backslashreplace")
    del text  # a line of a million labels has 80 MB: no more copies than there must be
    body = memoryview(line)[:-1]
    return b"".join((body, b', "crc32": "%08x"}\n' % zlib.crc32(body)))


def decode_line(raw: bytes, seq: int) -> Line | None:
    """Return the fields of a line if it is whole and carries this `seq`, else None."""
    line = _verified(raw)
    return line if line is not None and line.get("seq") == seq else None


def _verified(raw: bytes) -> Line | None:
    body, mark, tail = raw.rpartition(b', "crc32": "')
    if not mark or tail != b'%08x"}\n' % zlib.crc32(body):
        return None
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) else None


class LabelJournal:
    """The journal of one work folder, held open for appending.

    `lines` holds every valid line in order. Only one process may hold a journal (the daemon's lock sees to that).
    """

    def __init__(self, path: Path, lines: list[Line], file: atomic.AppendFile) -> None:
        self.path = path
        self.lines = lines
        self._file = file

    @classmethod
    def create(cls, path: Path, identity: str, version: str) -> LabelJournal:
        """Make a journal with its `open` line; durable on return."""
        try:
            journal = cls(path, [], atomic.AppendFile(path))
        except OSError as error:
            raise _write_failed(path, error) from error
        journal.append("open", {"format": FORMAT, "identity": identity, "version": version})
        return journal

    @classmethod
    def open(cls, path: Path) -> LabelJournal:
        """Check every line, cut a torn end (a copy is kept), and open for appending.

        The last line is written over itself and synced, so that all that is returned is on the disk.

        Raises
        ------
        JournalDamagedError
            lines are damaged in a way that no crash leaves; nothing was changed
        DurableWriteError
            the end cannot be put right
        NewerVersionError
            it was written by a newer version
        """
        lines, good_bytes, torn = read_journal(path)
        if lines and lines[0].get("format", 0) > FORMAT:
            raise NewerVersionError(
                f"{path} was written by version {lines[0].get('version')} of this program, which is newer.",
                hint="Install that version or a later one.",
            )
        try:
            if torn:
                name = _keep_torn(path, len(lines) + 1, torn)
                atomic.cut_file(path, good_bytes)
                log.warning("recovery: the last %d bytes of %s were torn; they are kept in %s", len(torn), path, name)
            if lines:
                _write_last_line_again(path, good_bytes)
            return cls(path, lines, atomic.AppendFile(path))
        except OSError as error:
            raise _write_failed(path, error) from error

    @property
    def end(self) -> int:
        """Return the last `seq`."""
        return len(self.lines)

    def append(self, kind: str, fields: Mapping[str, Any]) -> Line:
        """Add one line and return it; durable on return, and only then may anything else learn of it.

        Raises `DurableWriteError`, after which the process must end: the write is never tried again here.
        """
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = _kept({"seq": self.end + 1, "at": at, "kind": kind, **fields})
        encoded = encode_line(line)
        try:
            self._file.append(encoded)
        except OSError as error:
            raise _write_failed(self.path, error) from error
        self.lines.append(line)
        return line

    def close(self) -> None:
        """Close the file; nothing is pending."""
        self._file.close()


def _kept(line: Line) -> Line:
    """Return a line as it is kept in memory: its rows, of which there may be a million, as tuples, which are smaller."""
    return {**line, "rows": [*map(tuple, line["rows"])]} if line.get("rows") else line


def _keep_torn(path: Path, number: int, torn: bytes) -> str:
    """Copy a torn end beside the journal, unless a start that was killed did; return the name of the copy."""
    for copy in path.parent.glob(f".torn-{number}-*[0-9]"):
        if copy.read_bytes() == torn:
            return copy.name
    copy = path.with_name(f".torn-{number}-{time.time_ns()}")
    atomic.replace_bytes(copy, torn)
    return copy.name


def _write_failed(path: Path, error: OSError) -> DurableWriteError:
    return DurableWriteError(
        f"The record of labels could not be written to {path}: {error.strerror or error}. Labels already acknowledged"
        " are safe.",
        hint="Is the disk full? Start the program again when there is space.",
    )


def _write_last_line_again(path: Path, end: int) -> None:
    with path.open("rb") as file:
        start = _start_of_last_line(file.read(end))
        file.seek(start)
        atomic.rewrite_tail(path, start, file.read(end - start))


def _start_of_last_line(data: bytes) -> int:
    return data.rfind(b"\n", 0, len(data) - 1) + 1


def read_journal(path: Path) -> tuple[list[Line], int, bytes]:
    """Return the valid lines, how many bytes they take, and the torn end, if any. Changes nothing.

    A crash tears one line, the last: each is synced before the next. What it leaves ends before its line end, or holds
    zeros. Raises `JournalDamagedError` for any other damage, `DurableWriteError` if it cannot be read.
    """
    lines: list[Line] = []
    good = 0
    try:
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "it is no file", str(path))  # a pipe would be waited for
        with path.open("rb") as file:
            for raw in file:
                line = decode_line(raw, len(lines) + 1)
                if line is None:
                    rest = raw + file.read()
                    if not _is_torn(rest):
                        raise _damaged(path, len(lines) + 1, rest)
                    return lines, good, rest
                lines.append(_kept(line))
                good += len(raw)
    except OSError as error:
        raise DurableWriteError(
            f"{path}, the record of all labels, cannot be read: {error.strerror or error}.",
            hint="May this user read it, and is the disk connected?",
        ) from error
    return lines, good, b""


def has_first_line(path: Path) -> bool:
    """Return whether the first line is valid, without reading the others. Changes nothing."""
    try:
        with path.open("rb") as file:
            return decode_line(file.readline(), 1) is not None
    except OSError:
        return False


def _is_torn(rest: bytes) -> bool:
    """Return whether a crash may have left these bytes: the beginning of one line, with zeros where data did not arrive."""
    written = rest.rstrip(b"\0")
    return b"\n" not in written[:-1] and (b"\0" in rest or not written.endswith(b"\n"))


def _damaged(path: Path, number: int, rest: bytes) -> JournalDamagedError:
    if rest.splitlines(keepends=True)[0].endswith(b"\r\n"):
        what = "ends as Windows programs end lines: another program has changed the file"
    elif any(_verified(raw) is not None for raw in rest.splitlines(keepends=True)):
        what = "is damaged, and good lines follow it"
    else:
        what = "is damaged, and not as a crash leaves it"
    return JournalDamagedError(
        f"{path}, line {number}, {what}. Nothing was changed.",
        hint="Restore the file from a backup, or copy what is good of it with `check --salvage FILE`.",
    )


def journal_problems(path: Path) -> list[str]:
    """Return what is wrong with a journal, as sentences; nothing for a good one. Changes nothing."""
    try:
        lines, _, torn = read_journal(path)
    except (JournalDamagedError, DurableWriteError) as error:
        return [str(error)]
    problems = []
    if torn:
        problems.append(f"The last {len(torn)} bytes of {path} were torn by a crash; the next start cuts them off.")
    if not lines:
        problems.append(f"{path} holds no line.")
    return problems


def salvage(path: Path, target: Path) -> tuple[int, int]:
    """Copy the lines of a damaged journal that verify to `target`, a journal that opens; durable on return.

    Lines keep their numbers, since receipts and `undo` name them: a line of kind "lost" stands where one is missing, and a
    lost first line is replaced by one of a new identity. Lines that another program ended in the way of Windows are good.

    Returns how many lines are good and how many are lost. Raises `WorkFolderError` where not one is good, or `target` is
    there.
    """
    if target.exists():
        raise WorkFolderError(f"{target} is there already.", hint="Name a file that is not there.")
    good: dict[int, Line] = {}
    with path.open("rb") as file:
        for raw in file:
            line = _verified(raw) or _verified(raw.rstrip(b"\r\n") + b"\n")
            seq = line.pop("seq", None) if line else None
            if line is not None and isinstance(seq, int) and seq > 0:
                good.setdefault(seq, {"seq": seq, **{k: v for k, v in line.items() if k != "crc32"}})
    if not good:
        raise WorkFolderError(f"Not one line of {path} is good.", hint="Restore the file from a backup.")
    first = {"kind": "open", "format": FORMAT, "identity": uuid.uuid4().hex, "version": "salvaged"}
    if good.get(1, first)["kind"] != "open":
        del good[1]
    numbers = range(1, max(good) + 1)
    lines = [good.get(n, {"seq": n, **(first if n == 1 else {"kind": LOST})}) for n in numbers]
    atomic.replace_file(target, lambda file: [file.write(encode_line(line)) for line in lines])
    return len(good), len(lines) - len(good)
