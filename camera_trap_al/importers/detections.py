"""What a detector found in images, as one of its files says: read by content, held in little memory."""

from __future__ import annotations

import functools
import math
import os
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from camera_trap_al.core.matching import nfc
from camera_trap_al.core.observed import ANIMAL, PERSON, VEHICLE, Detection, DetectorInfo, category_of
from camera_trap_al.core.records import Box, ImageKey
from camera_trap_al.errors import CameraTrapAlError

USUAL = {"1": ANIMAL, "2": PERSON, "3": VEHICLE}
# Detectors write four decimals, so that a box may reach over an edge by this much.
ROUNDING = 0.002
CUT = "a part of a box outside the image"
TOLD_EVERY = 1000
OnProgress = Callable[[int], None]
_ONE = struct.Struct("<Hddddd")
_DRIVE = re.compile(r"[A-Za-z]:")


class DetectionFileError(CameraTrapAlError, ValueError):
    """A file of detections cannot be used as it is."""

    exit_code = 2


class LeftOut(NamedTuple):
    """Something that was not taken from a file of detections: why, how often, and the first place."""

    why: str
    n: int
    first: str


class Detections:
    """What a file says of each image; 41 bytes a box.

    Parameters
    ----------
    on_progress : called now and then with how many images there are so far

    Attributes
    ----------
    info : of the detector
    """

    def __init__(self, on_progress: OnProgress = lambda done: None) -> None:
        self.info = DetectorInfo()
        self._on_progress = on_progress
        self._categories: list[str] = []
        self._number_of: dict[str, int] = {}
        self._names: dict[str, str] = {}
        self._boxes: dict[str, bytes | None] = {}
        self._left_out: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def __len__(self) -> int:
        """Return how many images the file names, those included on which the detector failed."""
        return len(self._boxes)

    def __iter__(self) -> Iterator[ImageKey]:
        """Yield the images that the file names, in its order, in NFC."""
        return map(ImageKey.of, self._boxes)

    def __contains__(self, key: ImageKey) -> bool:
        """Return whether the file names an image."""
        return nfc(key.path) in self._boxes

    def of(self, key: ImageKey) -> tuple[Detection, ...] | None:
        """Return the boxes of an image, in the order of the file; None where it says nothing, or that the detector failed."""
        packed = self._boxes.get(nfc(key.path))
        if packed is None:
            return None
        found = _ONE.iter_unpack(packed)
        return tuple(Detection(self._word(number), conf, Box(*box)) for number, conf, *box in found)

    def seen_from(self, base: Path, root: Path) -> None:
        """Let the paths, which begin in `base`, begin in `root`, which lies in it, or in which it lies.

        Images outside `root` are left out.
        """
        here, there = (Path(os.path.realpath(folder)) for folder in (base, root))
        off = nfc(f"{there.relative_to(here).as_posix()}/") if there != here and there.is_relative_to(here) else ""
        on = nfc(f"{here.relative_to(there).as_posix()}/") if there != here and here.is_relative_to(there) else ""
        for path in self._boxes:
            if not path.startswith(off):
                self.leave_out("an image outside the folder of images", path)
        inside = {path: boxes for path, boxes in self._boxes.items() if path.startswith(off)}
        self._boxes = {on + path.removeprefix(off): boxes for path, boxes in inside.items()}

    def left_out(self) -> list[LeftOut]:
        """Return what was not taken, the most frequent reason first."""
        return [LeftOut(why, n, self._first[why]) for why, n in self._left_out.most_common()]

    def check_any(self, path: Path, hint: str) -> None:
        """Raise `DetectionFileError` if there is no image at all."""
        if self._boxes:
            return
        if not self._left_out:
            raise DetectionFileError(f"{path} lists no images.", hint=hint)
        why, n, first = self.left_out()[0]
        raise DetectionFileError(
            f"{path} lists no image that can be used: {n} times {why}, such as '{first}'.", hint=hint
        )

    def name_categories(self, names: Mapping[str, str]) -> None:
        """Say what the detector's numbers mean; without this they are 1 animal, 2 person, 3 vehicle."""
        self._names = {storable(str(number)): storable(str(name)) for number, name in names.items()}

    def check_categories(self, path: Path) -> None:
        """Raise `DetectionFileError` if nothing says what the numbers mean, and they are not the usual ones."""
        if not self._names and "0" in self._number_of:
            raise DetectionFileError(
                f"{path} numbers its categories from 0 and does not say what they mean: which are people cannot be known.",
                hint="Have it written with names of categories (in MegaDetector's JSON: detection_categories).",
            )

    def leave_out(self, why: str, where: str) -> None:
        """Note something that is not taken."""
        self._left_out[why] += 1
        self._first.setdefault(why, where)

    def put(self, key: ImageKey, boxes: list[tuple[str, float, Box]] | None) -> None:
        """Take the boxes of an image, each with the detector's number; None where it failed.

        Of an image that comes twice the later one counts.
        """
        path = nfc(key.path)
        if path in self._boxes:
            self.leave_out("listed twice, the later one counts", path)
        packed = None if boxes is None else b"".join(_ONE.pack(self._number(c), conf, *box) for c, conf, box in boxes)
        self._boxes[path] = packed
        if len(self._boxes) % TOLD_EVERY == 0:
            self._on_progress(len(self._boxes))

    def _number(self, category: str) -> int:
        if category not in self._number_of:
            if len(self._categories) >= 1 << 16:
                raise DetectionFileError("There are more than 65,536 categories.", hint="Is this a file of detections?")
            self._number_of[category] = len(self._categories)
            self._categories.append(category)
        return self._number_of[category]

    def _word(self, number: int) -> str:
        category = self._categories[number]
        if category in self._names:
            return category_of(self._names[category])
        usual = USUAL.get(category, category)
        # What names leave out is no animal, but may be a person.
        return category if self._names and usual == ANIMAL else category_of(usual)


def storable(text: str) -> str:
    """Return text in which what no file can hold, half a character that JSON can escape, is `?`."""
    return text.encode("utf-8", "replace").decode("utf-8")


def key_of(text: str, root: Path | None) -> ImageKey | str:
    r"""Return the image that a path in a file of detections means, or why it means none.

    `\` is `/`, a leading `./` is nothing, and an absolute path is taken from `root` on, where upper case does not count for
    paths of Windows: those with a drive or a server.
    """
    path = text.strip().replace("\\", "/")
    is_absolute = path.startswith("/") or _DRIVE.match(path) is not None
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if is_absolute:
        beside = _below(parts, root, is_of_windows=not path.startswith("/") or path.startswith("//"))
        if beside is None:
            return "an absolute path outside the folder of images"
        parts = beside
    if not parts or ".." in parts or "\0" in path:
        return "no path of an image"
    return ImageKey("/".join(parts[:-1]), parts[-1])


def _below(parts: list[str], root: Path | None, *, is_of_windows: bool) -> list[str] | None:
    if root is None:
        return None
    named = os.path.normpath(root.absolute())
    for place in (named, _real(named)):
        above = [part for part in place.replace("\\", "/").split("/") if part]
        head = parts[: len(above)]
        is_same = [p.lower() for p in head] == [a.lower() for a in above] if is_of_windows else head == above
        if is_same and len(parts) > len(above):
            return parts[len(above) :]
    return None


@functools.lru_cache(maxsize=4)
def _real(place: str) -> str:
    return os.path.realpath(place)


def number_in(value: Any) -> float | None:
    """Return a number that is given as such or as text; None for anything else, and for what is not finite."""
    if type(value) is not float:
        if isinstance(value, bool) or not isinstance(value, int | str):
            return None
        try:
            value = float(value)
        except (ValueError, OverflowError):
            return None
    return value if math.isfinite(value) else None


def checked_box(score: Any, numbers: Sequence[Any], *, are_edges: bool = False) -> tuple[float, Box, bool] | str:
    """Return confidence, box and whether a part of it is cut off; or why there is none.

    Parameters
    ----------
    score : in [0, 1]
    numbers : left, top, width, height; or, if they `are_edges`, left, top, right, bottom
    """
    confidence = number_in(score)
    if confidence is None or not 0 <= confidence <= 1:
        return "a box whose confidence is no number between 0 and 1"
    known = [number for value in numbers if (number := number_in(value)) is not None]
    if len(known) != 4 or len(numbers) != 4:
        return "a box that is not four numbers"
    left, top, width, height = known
    box, is_cut = clipped(Box(left, top, width - left, height - top) if are_edges else Box(left, top, width, height))
    return "a box without a size, or outside the image" if box is None else (confidence, box, is_cut)


def clipped(box: Box) -> tuple[Box | None, bool]:
    """Return the part of a box inside the image, None where there is none, and whether more than rounding was cut off."""
    left, top, width, height = box
    if left >= 0 and top >= 0 and width > 0 and height > 0 and left + width <= 1 and top + height <= 1:
        return box, False
    edges = (left, top, left + width, top + height)
    inside = [min(max(edge, 0.0), 1.0) for edge in edges]
    cut = Box(inside[0], inside[1], inside[2] - inside[0], inside[3] - inside[1])
    if cut.width <= 0 or cut.height <= 0:
        return None, False
    return cut, any(abs(a - b) > ROUNDING for a, b in zip(inside, edges, strict=True))
