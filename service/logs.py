"""What goes to a terminal or a log file: one line a record, and nothing in it that a terminal would obey."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

from camera_trap_al.config_service import LogConfig
from camera_trap_al.store import atomic

LONGEST_RECORD = 20_000
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
log = logging.getLogger(__name__)


def escaped(text: str) -> str:
    r"""Return `text` with every character that cannot be seen written as JSON writes it (`\n`, `\u001b`).

    Those are line breaks, terminal codes, marks that turn the direction of writing, and what is no valid Unicode.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _SHORT.get(c) or _escape(c) for c in text)


def _escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


def say(*lines: str, to: TextIO | None = None) -> None:
    """Print lines, escaped; on standard output unless `to` names another stream."""
    for line in lines:
        print(escaped(line), file=to or sys.stdout)


def say_text(text: str) -> None:
    """Print a text of several lines that this program made of escaped values, such as JSON."""
    say(*text.split("\n"))


class LineFormatter(logging.Formatter):
    """A record is one line, whatever names stand in it; the lines of a traceback are indented below it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        message = record.getMessage()
        if len(message) > LONGEST_RECORD:
            message = f"{message[:LONGEST_RECORD]}…"
        line = f"{self.formatTime(record, self.datefmt)}  {self._level(record)}{escaped(message)}"
        if record.exc_info:
            trace = self.formatException(record.exc_info).split("\n")
            line = "\n".join([line, *(f"    | {escaped(part)}" for part in trace)])
        return line

    def _level(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""


class _LogFile(RotatingFileHandler):
    """A log that grows to a bound, with older ones; where it cannot be written, the work goes on without it."""

    def __init__(self, path: Path, max_bytes: int, keep: int) -> None:
        super().__init__(path, maxBytes=max_bytes, backupCount=keep)
        self._step_bytes = max_bytes

    def _open(self) -> TextIO:  # type: ignore[override]
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"):
            flags |= getattr(os, name, 0)
        return os.fdopen(os.open(self.baseFilename, flags, 0o640), "a", encoding="utf-8", errors="replace")

    def doRollover(self) -> None:
        """Begin a new file; where another program holds the old one, as on Windows, go on in it as long again."""
        try:
            super().doRollover()
            self.maxBytes = self._step_bytes
        except OSError:
            self.maxBytes += self._step_bytes
            self.stream = self._open()

    def handleError(self, record: logging.LogRecord) -> None:
        """Pass over what cannot be written: a full disk under the log must not end the work."""


@contextlib.contextmanager
def log_file(path: Path, settings: LogConfig) -> Iterator[None]:
    """Write the program's log to a file too, as long as the context lasts, unless the settings say otherwise.

    A link at its name is replaced, not followed. Where the file cannot be made, a warning says so and the work goes on.
    """
    if not settings.file:
        yield
        return
    try:
        atomic.make_folder(path.parent)
        if path.is_symlink():
            atomic.discard_file(path)
        handler = _LogFile(path, int(settings.max_mb * 1_000_000), settings.keep)
    except OSError as error:
        log.warning("the log %s cannot be written: %s", path, error.strerror or error)
        yield
        return
    handler.setFormatter(LineFormatter())
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
