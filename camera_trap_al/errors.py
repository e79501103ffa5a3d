"""The exception tree. Every error says what happened and, as `hint`, what to do."""

from __future__ import annotations

import errno
import re
from pathlib import Path

HELD = frozenset({errno.EACCES, errno.EPERM, errno.EBUSY, errno.ETXTBSY})
FULL = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
# What numpy, safetensors and SQLite say of a full disk, without a code.
FULL_WORDS = re.compile(r"\d+ requested and \d+ written|os error 28|code: 28\b|database or disk is full")
EXIT_PROBLEM = 1
EXIT_USAGE = 2
EXIT_DAMAGED = 65
EXIT_WRITE_FAILED = 74
EXIT_LOCKED = 75


class CameraTrapAlError(Exception):
    """Base of all errors a person is meant to read.

    Parameters
    ----------
    text : what happened and where, one or two sentences
    hint : what to do about it, or "" where the text says it
    """

    exit_code = EXIT_PROBLEM

    def __init__(self, text: str, *, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text} {self.hint}" if self.hint else text


class UsageError(CameraTrapAlError, ValueError):
    """A command, option or folder was given that cannot be used."""

    exit_code = EXIT_USAGE


class UnknownNameError(UsageError):
    """A name is in no registry."""


class WorkFolderError(CameraTrapAlError):
    """A work folder is missing, foreign or not safe to work in."""

    exit_code = EXIT_USAGE


class NewerVersionError(WorkFolderError):
    """A newer version of this program wrote it; nothing was changed."""

    exit_code = EXIT_DAMAGED


class JournalDamagedError(CameraTrapAlError):
    """The journal holds damaged lines before valid ones; nothing was changed."""

    exit_code = EXIT_DAMAGED


class DurableWriteError(CameraTrapAlError, OSError):
    """The record of labels could not be written."""

    exit_code = EXIT_WRITE_FAILED


class DiskFullError(CameraTrapAlError):
    """Too little space is free for what comes next; nothing was begun."""


class FileHeldError(CameraTrapAlError):
    """A file that others read cannot be replaced, since another program holds it."""


class LockedError(CameraTrapAlError):
    """Another daemon holds the work folder."""

    exit_code = EXIT_LOCKED


class LabelFileError(CameraTrapAlError, ValueError):
    """A label file cannot be used as it is; `code` is one of the documented codes of receipts.

    `columns` are those that it lacks.
    """

    def __init__(self, text: str, *, code: str = "", hint: str = "", columns: tuple[str, ...] = ()) -> None:
        super().__init__(text, hint=hint)
        self.code = code
        self.columns = columns


class ImageUnreadableError(CameraTrapAlError):
    """An image cannot be decoded; `code` is one of the documented quarantine codes.

    `content` is the `images.content_hash` of the file, "" where it was not read.
    """

    def __init__(self, text: str, *, code: str, hint: str = "", content: str = "") -> None:
        super().__init__(text, hint=hint)
        self.code = code
        self.content = content


class ImagesOfflineError(CameraTrapAlError):
    """The folder of images does not answer (a share is away, a disk is out)."""


class WeightsMissingError(CameraTrapAlError):
    """Pretrained weights were asked for and none can be had."""


class ModelError(CameraTrapAlError):
    """A model, learner or export folder cannot be used."""


class DivergedError(ModelError):
    """What a network computes are no longer numbers: the same again would end the same."""


class NotANumberError(DivergedError):
    """What is kept of an image holds something that is no number; `row` is the image's."""

    def __init__(self, row: int, image: str = "") -> None:
        super().__init__(
            f"The embedding or the probabilities of {image or f'row {row}'} hold something that is no number.",
            hint="Set the newest folder in models aside, so that it is made anew; if it comes again, report it: a defect.",
        )
        self.row = row


class TemplateError(CameraTrapAlError):
    """A Timelapse template cannot be made, read or added to."""


class TimelapseDatabaseError(CameraTrapAlError):
    """A Timelapse image database cannot be read."""


def in_words(error: BaseException) -> str:
    """Return what to tell a person of an error: what happened, where, and what to do."""
    if isinstance(error, CameraTrapAlError):
        return str(error)
    text = str(error) or type(error).__name__
    path = _path_of(error)
    where = f" {path}" if path else ""
    code = error.errno if isinstance(error, OSError) else None
    if code in FULL or isinstance(error, Exception) and FULL_WORDS.search(text):
        what = f"The disk is full:{where} could not be written." if path else "The disk is full."
        return f"{what} Free some space; the program goes on by itself."
    if code in HELD and path:
        return (
            f"{path} cannot be replaced: another program holds it open, or it may not be changed. Close it there (Excel,"
            " Timelapse); the program goes on by itself."
        )
    if isinstance(error, MemoryError):
        return "There is too little memory. Close other programs, or set a smaller embedding.batch_size."
    return text if isinstance(error, OSError) else f"{type(error).__name__}: {text}"


def _path_of(error: BaseException) -> Path | None:
    """Return the file that an error of the system is about, by the name under which people know it."""
    name = getattr(error, "filename2", None) or getattr(error, "filename", None)
    if not isinstance(name, str):
        return None
    path = Path(name)
    is_partial = path.name.startswith(".") and path.name.endswith(".partial")
    return path.with_name(path.name[1 : -len(".partial")]) if is_partial else path


class StopRequested(BaseException):
    """A told stop, raised at the next mini-batch; no failure (so not an Exception)."""
