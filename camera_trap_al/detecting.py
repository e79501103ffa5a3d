"""What a detector saw, kept in the work folder as `data/detections.jsonl`, and the catalogue brought level with it.

The verbs write the file, whole; opening a work folder, or the wish `detections`, takes it in. An interruption anywhere
leaves the catalogue saying that it does not hold what the file says, so that the next start takes it in again.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy.exc import OperationalError

from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.catalog.detections import CUT, DETECTIONS, Cutting, ListedImage
from camera_trap_al.config import Config
from camera_trap_al.core.matching import nfc
from camera_trap_al.core.observed import Detection, DetectorInfo
from camera_trap_al.core.records import ImageKey
from camera_trap_al.errors import DurableWriteError, StopRequested
from camera_trap_al.importers.detections import DetectionFileError
from camera_trap_al.layout import WorkFolder
from camera_trap_al.store import atomic

FORMAT = 1
DETECTOR = "detector"
"""The fact that holds name, completed and metadata of the detector."""
USUAL_END = 1 << 16
MOST_METADATA = 100
SAY_EVERY_S = 5.0
AGAIN = "Give them again: `camera-trap-al detections WORK MD.json`."
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """The end of `detections.jsonl`: of which detector it is, its words, and the hash of all before it."""

    content: str
    images: int
    categories: tuple[str, ...] = ()
    detector: DetectorInfo = field(default_factory=DetectorInfo)


def cutting_of(config: Config) -> Cutting:
    """Return which boxes become items by `[items]` of a configuration."""
    part = config.items
    return Cutting(part.detection_threshold, part.padding, part.without_detection)


def keep(path: Path, found: Iterable[tuple[ImageKey, tuple[Detection, ...]]], detector: DetectorInfo) -> Kept:
    """Write what a detector saw, an image a line, in the place of what was there; durable on return."""
    digest, numbers = hashlib.blake2b(digest_size=16), dict[str, int]()
    kept: list[Kept] = []

    def write(file: BinaryIO) -> None:
        n = 0
        for key, boxes in found:
            rows = [[numbers.setdefault(d.category, len(numbers)), d.confidence, *d.box] for d in boxes]
            try:
                line = _line([nfc(key.path), rows])
            except UnicodeEncodeError:
                continue  # no file has a name that is no text
            digest.update(line)
            file.write(line)
            n += 1
        facts = asdict(detector)
        facts["metadata"] = dict(islice(facts["metadata"].items(), MOST_METADATA))
        digest.update(_line([list(numbers), facts]))
        end = {"format": FORMAT, "images": n, "content": digest.hexdigest()}
        file.write(_line({**end, "categories": list(numbers), DETECTOR: facts}))
        kept.append(Kept(digest.hexdigest(), n, tuple(numbers), DetectorInfo(**facts)))

    atomic.replace_file(path, write)
    return kept[0]


def read_kept(path: Path) -> Kept | None:
    """Return what the end of `detections.jsonl` says, None where there is no file.

    Raises `DetectionFileError` where it is damaged.
    """
    try:
        with path.open("rb") as file:
            end = _last_line(file)
        value = json.loads(end) if end.endswith(b"\n") else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DetectionFileError(f"{path} cannot be read ({error.strerror or error}).", hint=AGAIN) from error
    except ValueError:
        value = None
    try:
        is_ours = value["format"] == FORMAT
        kept = Kept(
            str(value["content"]), int(value["images"]), tuple(value["categories"]), DetectorInfo(**value[DETECTOR])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path) from error
    if not is_ours:
        raise DetectionFileError(f"{path} was written by another version of this program.", hint=AGAIN)
    return kept


def take_kept(folder: WorkFolder, config: Config, catalog: Catalog, stop: threading.Event) -> None:
    """Bring the catalogue level with `detections.jsonl` and `[items]`.

    Raises `DetectionFileError` where the file is damaged and the catalogue does not know what it said, `DurableWriteError`
    where the catalogue cannot be written, `StopRequested` once `stop` is set.
    """
    known = catalog.fact(DETECTIONS, None)
    try:
        kept = read_kept(folder.detections)
    except DetectionFileError as error:
        if not known:
            raise
        log.warning("detections: %s What it said counts on.", error)
        kept = None
    if kept is None and known == "":
        raise DetectionFileError(f"{folder.detections} is gone while it was taken in.", hint=AGAIN)
    try:
        if kept is not None and kept.content != known:
            # Opened once: a verb may put another file in its place meanwhile.
            with folder.detections.open("rb") as file:
                _check_lines(file, folder.detections, kept)
                catalog.note(DETECTOR, asdict(kept.detector) if kept.images else None)
                say, n_images = _Saying("read", stop), kept.images
                found = _read_lines(file)
                catalog.take_detections(kept.content, kept.categories, found, lambda done: say(done, n_images))
        content, cutting = catalog.fact(DETECTIONS, None), cutting_of(config)
        if content is None or catalog.fact(CUT, None) == [content, *cutting]:
            return
        catalog.cut(cutting, _Saying("looked up", stop))
    except OperationalError as error:
        raise DurableWriteError(
            f"The catalogue {folder.catalog} cannot be written: {error.__cause__ or error}.",
            hint="Does another program hold it, or is the disk full? Start again then; all labels are safe.",
        ) from error
    counts = catalog.counts()
    if counts.looked_at:
        said = "detections: %d images have animals; %d with people or vehicles are kept back"
        log.info(said, counts.with_animals, counts.private)


def check_kept(folder: WorkFolder, catalog: Catalog) -> None:
    """Raise `DetectionFileError` where the catalogue knows detections that the work folder could not give it again."""
    if catalog.fact(DETECTIONS, None) is None:
        return
    kept = read_kept(folder.detections)
    if kept is None:
        raise DetectionFileError(
            f"{folder.detections} is gone, so that a new catalogue would not know which images show people.", hint=AGAIN
        )
    check_whole(folder.detections, kept)


class _Saying:
    """Says how far it is, from time to time; raises `StopRequested` once it is told to stop."""

    def __init__(self, what: str, stop: threading.Event) -> None:
        self._what, self._stop, self._next_s = what, stop, time.monotonic() + SAY_EVERY_S

    def __call__(self, done: int, total: int) -> None:
        if self._stop.is_set():
            raise StopRequested
        if time.monotonic() > self._next_s:
            log.info("detections: %d of %d images %s", done, total, self._what)
            self._next_s = time.monotonic() + SAY_EVERY_S


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n"


def _last_line(file: BinaryIO) -> bytes:
    """Return the last line, which is short but for a detector of very many categories."""
    size, length = file.seek(0, io.SEEK_END), USUAL_END
    while True:
        file.seek(max(0, size - length))
        end = file.read()
        start = end.rfind(b"\n", 0, -1) + 1
        if start or length >= size:
            return end[start:]
        length *= 8


def _read_lines(file: BinaryIO) -> Iterator[ListedImage]:
    file.seek(0)
    for line in file:
        if line.startswith(b"["):
            yield ListedImage(*json.loads(line))


def check_whole(path: Path, kept: Kept) -> None:
    """Raise `DetectionFileError` unless all lines are those that were written."""
    with path.open("rb") as file:
        _check_lines(file, path, kept)


def _check_lines(file: BinaryIO, path: Path, kept: Kept) -> None:
    digest = hashlib.blake2b(digest_size=16)
    for line in file:
        if line.startswith(b"["):
            digest.update(line)
    digest.update(_line([list(kept.categories), asdict(kept.detector)]))
    if digest.hexdigest() != kept.content:
        raise _damaged(path)


def _damaged(path: Path) -> DetectionFileError:
    return DetectionFileError(f"{path}, what the detector saw, is damaged.", hint=AGAIN)
