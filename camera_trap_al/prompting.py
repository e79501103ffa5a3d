"""What the façades say and ask on a terminal: the messages of the reference program, and which label file answers whole.

The messages are those of train_image_classifier_al, word for word, since scripts may look for them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from camera_trap_al.core.decision import Decision
from camera_trap_al.core.matching import KnownImages, Match, shown
from camera_trap_al.core.records import ImageKey, Rejection
from camera_trap_al.errors import LabelFileError
from camera_trap_al.labels.inbox import BinFile, candidates

UPDATED = "\nTimelapse data selector file has been updated.\nPlease import it into the Timelapse database.\n"
PLACE = "\nPlease place exported Timelapse CSV in the labels bin at\n{}\n"
PROMPT = "Press enter when you have placed the labels in the labels bin"
LOADED = "Labels were loaded successfully"
HELD = """
CSV for selecting timelapse data could not be edited.
Please close the application that is using the file
and then press Enter.

The file is located at
{}
"""
NO_BIN = "Labels bin does not exist"
NO_FILE = "There are no CSV files in the labels bin"
NOT_LOADED = """
An error occurred while trying to load the
first CSV in the labels bin. Please ensure
that only the file for the new labels lies
in the bin, only data and column names
are recorded in the file and that it is encoded
using UTF-8 which uses only English characters.
"""
NO_COLUMN = "{} column does not exist in new labels CSV"
NOT_ALL = "\nNot all label requests were fulfilled. Please label the\nfollowing images:\n\n{}\n"
SEVERAL = "The following images have multiple labels. Please ensure that each image has only 1 label\n{}"
NO_CLASS = "A label of {} for image {} is not a valid label. Please assign a label from the list of available classes."
GONE = "The following images are gone, so they are no longer asked for\n{}"
MANY_GONE = """The following images are gone; is a disk or share away?
{}
If they were removed on purpose, run this in another window and press enter here: camera-trap-al rescan --gone "{}"
"""
CLASS_CODES = frozenset({"unknown_species", "reserved_word"})
MOST_REASONS = 20


def say(text: str) -> None:
    """Print a text, with `?` for what the terminal cannot show."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))


class Refused(Exception):
    """A label file does not answer the request whole, so nothing of it is taken; the text says what to print."""


def first_label_file(bin_folder: Path, was_taken: Callable[[BinFile], bool] = lambda file: False) -> BinFile:
    """Return the label file to read: the first by name of those not taken before, else the first.

    One that was taken and still lies there may hold the labels of this request too. Raises `Refused` if there is none.
    """
    try:
        files = sorted(candidates(bin_folder), key=lambda file: file.name)
    except OSError as error:
        raise Refused(NO_BIN) from error
    if not files:
        raise Refused(NO_FILE)
    return next((file for file in files if not was_taken(file)), files[0])


def refusal(error: LabelFileError, asked: Sequence[ImageKey], path_of: Callable[[ImageKey], Path]) -> Refused:
    """Return the refusal of a file that cannot be used as it is; `asked` and `path_of` as for `check_whole`."""
    if error.columns:
        return Refused("\n".join([NO_COLUMN.format(error.columns[0]), str(error)]))
    if error.code == "shifted_root":
        return Refused(f"{NOT_ALL.format(_paths(asked, path_of))}{error}")
    return Refused(f"{NOT_LOADED}\n{error}")


def check_whole(
    decision: Decision,
    asked: Sequence[ImageKey],
    images: KnownImages,
    path_of: Callable[[ImageKey], Path],
    *,
    may_skip: bool,
) -> None:
    """Raise `Refused` unless a label file answers every image asked for, each with one known class.

    Parameters
    ----------
    decision : what would be taken of the file
    asked : the images that wait for an answer, the only ones that the decision is about
    images : the images that a label file may name
    path_of : image → its file
    may_skip : whether "cannot tell" is an answer too
    """
    refused = decision.rejections
    of_class = {match.key: row for row in refused if row.code in CLASS_CODES and (match := _image_of(row, images)).key}
    several = [skip.key for skip in decision.skips if skip.reason == "several_species"]
    skipped = {skip.key for skip in decision.skips} if may_skip else set()
    answered = {taken.key for taken in decision.taken} | skipped | {*several, *of_class}
    missing = [key for key in asked if key not in answered]
    if missing:
        raise Refused(NOT_ALL.format(_paths(missing, path_of)) + "\n".join(_reasons(refused, of_class.values())))
    if several:
        raise Refused(SEVERAL.format(_paths(several, path_of)))
    if of_class:
        more = len(of_class) - MOST_REASONS
        lines = [_class_problem(row) for row in list(of_class.values())[:MOST_REASONS]]
        raise Refused("\n".join([*lines, f"… and {more} more."] if more > 0 else lines))


def _image_of(row: Rejection, images: KnownImages) -> Match:
    folder, _, file = row.path.replace("\\", "/").rpartition("/")
    return images.match(folder, file)


def _paths(keys: Iterable[ImageKey], path_of: Callable[[ImageKey], Path]) -> list[str]:
    return [str(path_of(key)) for key in keys]


def _reasons(refused: Iterable[Rejection], other: Collection[Rejection]) -> list[str]:
    rows = [row for row in refused if row not in other][:MOST_REASONS]
    return [f"Line {row.line} ({row.path}) was not taken: {row.text}.{_suggestion(row)}" for row in rows]


def _class_problem(row: Rejection) -> str:
    return NO_CLASS.format(repr(shown(row.label)), row.path) + _suggestion(row)


def _suggestion(row: Rejection) -> str:
    return f" Did you mean {' or '.join(row.suggest)}?" if row.suggest else ""
