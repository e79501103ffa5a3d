"""The CSV of older detectors: one line a box with its corners, or one line an image with a list of boxes."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from camera_trap_al.core.matching import nfc
from camera_trap_al.core.records import Box, ImageKey
from camera_trap_al.importers.detections import (
    CUT,
    DetectionFileError,
    Detections,
    OnProgress,
    checked_box,
    key_of,
    number_in,
)

ANIMAL_NUMBER = "1"
NAMES = ("image", "imagename", "imagepath", "file", "filename", "path")
SCORES = ("confidencescore", "confidence", "conf", "score")
LISTS = ("detections",)
CATEGORIES = ("category", "class", "label")
# Each corner by its edge, as headers spell it; `x!` is a slip of the Microsoft page that people copied.
EDGES = {
    "left": ("x1", "x", "xmin", "left", "bboxx1", "bboxx", "bboxxmin"),
    "top": ("y1", "ymin", "top", "bboxy1", "bboxymin"),
    "right": ("x2", "xmax", "right", "bboxx2", "bboxxmax"),
    "bottom": ("y2", "ymax", "bottom", "bboxy2", "bboxymax"),
}
HEADER = "Image Name,Confidence Score,BBox_X1,BBox_Y1,BBox_X2,BBox_Y2"
FOREIGN = f"Give MegaDetector's JSON, or a CSV with the columns {HEADER}."
MOST_CELL = 1 << 24

Boxed = tuple[str, float, Box]
Found = tuple[str, "Boxed | None"]


def read_detector_csv(path: Path, root: Path | None = None, on_progress: OnProgress = lambda done: None) -> Detections:
    """Read a CSV with a line for each box (image, confidence, four edges as fractions), or for each image.

    The header says which edge is which. Without one the order cannot be known, since either is a box: such a file is refused.
    A column `detections` holds lists `[top, left, bottom, right, confidence, category]`, as MegaDetector's first program wrote
    them; without a category all boxes are animals.

    Parameters
    ----------
    root : the folder of images, from which absolute paths are taken on
    on_progress : called now and then with how many images were read

    Raises
    ------
    DetectionFileError
        It is no such file, or the order of the edges cannot be known.
    """
    found = Detections(on_progress)
    try:
        with path.open("rb") as file:
            rows = _rows(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))
            header = next(rows, [])
            columns = _columns(header, path)
            boxes = _per_image(rows, columns, found) if "list" in columns else _per_box(rows, columns, found)
            _put(found, boxes, root)
    except UnicodeDecodeError as error:
        hint = f"{FOREIGN} If it is such a CSV, save it as CSV UTF-8."
        raise DetectionFileError(f"{path} is no text in UTF-8.", hint=hint) from error
    except csv.Error as error:
        raise DetectionFileError(f"{path} is no CSV ({error}).", hint=FOREIGN) from error
    except OSError as error:
        raise DetectionFileError(
            f"{path} cannot be read ({error.strerror or error}).", hint="Check the path."
        ) from error
    found.check_any(path, FOREIGN)
    found.check_categories(path)
    return found


def _rows(text: io.TextIOWrapper) -> Iterator[list[str]]:
    csv.field_size_limit(MOST_CELL)
    return (row for row in csv.reader(text) if any(cell.strip() for cell in row))


def _columns(header: Sequence[str], path: Path) -> dict[str, int]:
    """Return which column holds what. Raises `DetectionFileError`."""
    numbers = [number_in(cell) for cell in header]
    if sum(number is not None for number in numbers) >= 4:
        raise DetectionFileError(
            f"{path} has no header, and its boxes are boxes in either order, x first or y first: which one cannot be known.",
            hint=f"Put a line before the first that names the columns in their order, such as {HEADER}"
            " (Microsoft's scripts wrote BBox_Y1,BBox_X1,BBox_Y2,BBox_X2).",
        )
    names = [re.sub("[^a-z0-9]", "", cell.lower().replace("!", "1")) for cell in header]
    wanted = {"name": NAMES, "score": SCORES, "list": LISTS, "category": CATEGORIES, **EDGES}
    columns = {what: names.index(word) for what, words in wanted.items() for word in words[::-1] if word in names}
    is_whole = "name" in columns and ("list" in columns or {"score", *EDGES} <= columns.keys())
    if not is_whole:
        text = f"{path} is no list of boxes: its first line is '{','.join(header)[:80]}'."
        raise DetectionFileError(text, hint=FOREIGN)
    return columns


def _per_box(rows: Iterator[list[str]], columns: dict[str, int], found: Detections) -> Iterator[Found]:
    for row in rows:
        cells = {what: row[at].strip() if at < len(row) else "" for what, at in columns.items()}
        category = (cells.get("category") or ANIMAL_NUMBER).removesuffix(".0")
        yield cells["name"], _box(found, cells["name"], category, cells["score"], [cells[edge] for edge in EDGES])


def _per_image(rows: Iterator[list[str]], columns: dict[str, int], found: Detections) -> Iterator[Found]:
    for row in rows:
        if max(columns["name"], columns["list"]) >= len(row):
            found.leave_out("a line with too few cells", ",".join(row)[:80])
            continue
        name = row[columns["name"]].strip()
        try:
            lists = json.loads(row[columns["list"]])
        except (ValueError, RecursionError):
            lists = None
        if not isinstance(lists, list):
            found.leave_out("a line without a list of boxes", name)
            continue
        yield name, None
        for one in lists:
            if not isinstance(one, list) or len(one) < 5:
                found.leave_out("a box that is not four numbers and a confidence", name)
                continue
            top, left, bottom, right, score = one[:5]
            category = str(one[5]) if len(one) > 5 else ANIMAL_NUMBER
            yield name, _box(found, name, category.removesuffix(".0"), score, [left, top, right, bottom])


def _box(found: Detections, name: str, category: str, score: Any, edges: Sequence[Any]) -> Boxed | None:
    one = checked_box(score, edges, are_edges=True)
    if isinstance(one, str):
        found.leave_out(one, name)
        return None
    confidence, box, is_cut = one
    if is_cut:
        found.leave_out(CUT, name)
    return category, confidence, box


def _put(found: Detections, boxes: Iterator[Found], root: Path | None) -> None:
    """Join the lines of an image, wherever in the file they are."""
    of_image: dict[str, list[Boxed]] = {}
    for name, box in boxes:
        key = key_of(name, root)
        if isinstance(key, str):
            found.leave_out(key, name)
            continue
        of_image.setdefault(nfc(key.path), []).extend([] if box is None else [box])
    for path, those in of_image.items():
        found.put(ImageKey.of(path), those)
