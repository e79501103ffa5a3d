"""The journal: the append-only record of requests, labels and what else was decided. The truth.

One JSON object per line, one line per transaction. `seq` has no gaps; `crc32` comes last and covers the line's bytes
before `, "crc32"`.
"""

from __future__ import annotations

import json
import logging
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from camera_trap_al.errors import DurableWriteError, JournalDamagedError, WorkFolderError
from camera_trap_al.store import atomic

FORMAT = 1
Line = dict[str, Any]
log = logging.getLogger(__name__)


def encode_line(fields: Mapping[str, Any]) -> bytes:
    """Return one journal line, with its checksum and line end."""
    body = json.dumps(fields, ensure_ascii=False, separators=(", ", ": "))[:-1].encode("utf-8")
    return body + b', "crc32": "%08x"}\n' % zlib.crc32(body)


def decode_line(raw: bytes, seq: int) -> Line | None:
    """Return the fields of a line if it is whole and carries this `seq`, else None."""
    body, mark, tail = raw.rpartition(b', "crc32": "')
    if not mark or not raw.endswith(b'"}\n') or tail != b'%08x"}\n' % zlib.crc32(body):
        return None
    try:
        line = json.loads(raw)
    except ValueError:
        return None
    return line if isinstance(line, dict) and line.get("seq") == seq else None


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
        journal = cls(path, [], atomic.AppendFile(path))
        journal.append("open", {"format": FORMAT, "identity": identity, "version": version})
        return journal

    @classmethod
    def open(cls, path: Path) -> LabelJournal:
        """Check every line, cut a torn end (a copy is kept), and open for appending.

        Raises
        ------
        JournalDamagedError
            lines before valid ones are damaged; nothing was changed
        WorkFolderError
            it was written by a newer version
        """
        lines, good_bytes, torn = read_journal(path)
        if lines and lines[0].get("format", 0) > FORMAT:
            raise WorkFolderError(
                f"{path} was written by version {lines[0].get('version')} of this program, which is newer.",
                hint="Install that version or a later one.",
            )
        if torn:
            copy = path.with_name(f".torn-{len(lines) + 1}-{time.time_ns()}")
            atomic.replace_bytes(copy, torn)
            atomic.cut_file(path, good_bytes)
            log.warning("recovery: the last %d bytes of %s were torn; they are kept in %s", len(torn), path, copy.name)
        if lines:
            last = encode_line({k: v for k, v in lines[-1].items() if k != "crc32"})
            atomic.rewrite_tail(path, good_bytes - len(last), last)
        return cls(path, lines, atomic.AppendFile(path))

    @property
    def end(self) -> int:
        """Return the last `seq`."""
        return len(self.lines)

    def append(self, kind: str, fields: Mapping[str, Any]) -> Line:
        """Add one line and return it; durable on return, and only then may anything else learn of it.

        Raises `DurableWriteError`, after which the process must end: the write is never tried again here.
        """
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line: Line = {"seq": self.end + 1, "at": at, "kind": kind, **fields}
        try:
            self._file.append(encode_line(line))
        except OSError as error:
            raise DurableWriteError(
                f"The record of labels could not be written to {self.path}: {error.strerror or error}. Labels already"
                " acknowledged are safe.",
                hint="Is the disk full? Start the program again when there is space.",
            ) from error
        self.lines.append(line)
        return line

    def close(self) -> None:
        """Close the file; nothing is pending."""
        self._file.close()


def read_journal(path: Path) -> tuple[list[Line], int, bytes]:
    """Return the valid lines, how many bytes they take, and the torn end, if any. Changes nothing.

    Raises `JournalDamagedError` if something valid follows damaged bytes.
    """
    lines: list[Line] = []
    good = 0
    with path.open("rb") as file:
        for raw in file:
            line = decode_line(raw, len(lines) + 1)
            if line is None:
                rest = raw + file.read()
                _refuse_damage(path, len(lines) + 1, rest)
                return lines, good, rest
            lines.append(line)
            good += len(raw)
    return lines, good, b""


def _refuse_damage(path: Path, line_number: int, rest: bytes) -> None:
    if any(_is_whole(raw) for raw in _lines_of(rest)):
        raise JournalDamagedError(
            f"{path}, line {line_number}, is damaged, and good lines follow it. Nothing was changed.",
            hint="Restore the file from a backup.",
        )


def _lines_of(data: bytes) -> Iterator[bytes]:
    yield from data.splitlines(keepends=True)


def _is_whole(raw: bytes) -> bool:
    body, mark, tail = raw.rpartition(b', "crc32": "')
    return bool(mark) and tail == b'%08x"}\n' % zlib.crc32(body)
