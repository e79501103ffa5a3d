"""The exception tree. Every error says what happened and, as `hint`, what to do."""

from __future__ import annotations

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
    """A work folder is missing, foreign, or made by a newer version."""

    exit_code = EXIT_USAGE


class JournalDamagedError(CameraTrapAlError):
    """The journal holds damaged lines before valid ones; nothing was changed."""

    exit_code = EXIT_DAMAGED


class DurableWriteError(CameraTrapAlError, OSError):
    """The record of labels could not be written."""

    exit_code = EXIT_WRITE_FAILED


class LockedError(CameraTrapAlError):
    """Another daemon holds the work folder."""

    exit_code = EXIT_LOCKED


class LabelFileError(CameraTrapAlError, ValueError):
    """A label file cannot be used as it is; `code` is one of the documented codes of receipts."""

    def __init__(self, text: str, *, code: str = "", hint: str = "") -> None:
        super().__init__(text, hint=hint)
        self.code = code


class ImageUnreadableError(CameraTrapAlError):
    """An image cannot be decoded; `code` is one of the documented quarantine codes."""

    def __init__(self, text: str, *, code: str, hint: str = "") -> None:
        super().__init__(text, hint=hint)
        self.code = code


class ImagesOfflineError(CameraTrapAlError):
    """The folder of images does not answer (a share is away, a disk is out)."""


class WeightsMissingError(CameraTrapAlError):
    """Pretrained weights were asked for and none can be had."""


class ModelError(CameraTrapAlError):
    """A model, learner or export folder cannot be used."""


class TemplateError(CameraTrapAlError):
    """A Timelapse template cannot be made or read."""


class StopRequested(BaseException):
    """A told stop, raised at the next mini-batch; no failure (so not an Exception)."""
