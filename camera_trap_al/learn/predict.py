"""A folder of images through an export, streamed, with onnxruntime alone."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from camera_trap_al.core.records import Box, ImageKey
from camera_trap_al.core.spreadsheets import is_safe_name
from camera_trap_al.engine import shared, usable_cores
from camera_trap_al.errors import ImageUnreadableError, ModelError, UsageError
from camera_trap_al.images import IMAGE_PX, NO_TIME, read_capture_time
from camera_trap_al.learn.exported import read_export
from camera_trap_al.learn.onnx_files import open_session
from camera_trap_al.learn.pace import MOST_LANES

IMAGE_EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
SKIPPED_FOLDERS = frozenset({"backups", "deletedfiles"})
UNSAFE_NAME = "A spreadsheet could run the name as a formula, or it holds a control character; rename it (unsafe_name)."
BATCH_IMAGES = 4
DECODE_THREADS = 8
CHUNK_IMAGES = 32
# Chunks decoded ahead of the network: 6 MB each, whether they hold images or their crops.
READ_AHEAD = 3

FloatArray = npt.NDArray[np.float32]
OnProgress = Callable[[int, int], object]


@dataclass(frozen=True)
class Looking:
    """What of each image is looked at.

    Parameters
    ----------
    boxes_of : the boxes whose squares are cut out; None for the whole image, () for nothing of it
    padding : of the squares, as `core.crops` has it
    with_times : also learn when the images were taken that nothing is looked at of
    """

    boxes_of: Callable[[ImageKey], tuple[Box, ...] | None]
    padding: float = 1.0
    with_times: bool = False


WHOLE_IMAGES = Looking(lambda key: None)


@dataclass(frozen=True)
class Outcome:
    """One image: its (k,) probabilities, or (n, k) those of its crops; None for none, with the reason in `problem`.

    `taken` is its `images.capture_time`, as far as it was read.
    """

    key: ImageKey
    proba: FloatArray | None
    problem: str = ""
    taken: int = NO_TIME


class ExportedModel:
    """An export that was verified and can classify images.

    Attributes
    ----------
    classes : names of the columns of its probabilities
    name : what it says of itself, such as `camera_trap_al checkpoint 7`
    at_once : so many images keep all cores at work
    is_from_images : whether its input and output are those of an export of ours
    """

    def __init__(self, model: bytes, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        lanes = min(usable_cores(), MOST_LANES)
        self.at_once = lanes * BATCH_IMAGES
        self._session = open_session(model, threads=1)
        given, found = self._session.get_inputs(), self._session.get_outputs()
        self._input = given[0].name
        ends = (len(given), given[0].type, *given[0].shape[1:], *found[0].shape[1:])
        self.is_from_images = ends == (1, "tensor(uint8)", IMAGE_PX, IMAGE_PX, 3, len(classes))
        number = self._session.get_modelmeta().custom_metadata_map.get("checkpoint", "")
        self.name = f"camera_trap_al checkpoint {number}" if number.isdecimal() else "camera_trap_al"
        self._lanes = ThreadPoolExecutor(lanes, thread_name_prefix="network")

    def probabilities(self, images: npt.NDArray[np.uint8]) -> FloatArray:
        """Return the (n, k) float32 probabilities of (n, 256, 256, 3) uint8 images.

        The network always gets batches of one size, filled up with black, so that an image's neighbours, or their
        number, change nothing.
        """
        parts = [images[start : start + BATCH_IMAGES] for start in range(0, len(images), BATCH_IMAGES)]
        empty = np.zeros((0, len(self.classes)), dtype=np.float32)
        return np.concatenate([empty, *self._lanes.map(self._run, parts)])

    def _run(self, part: npt.NDArray[np.uint8]) -> FloatArray:
        batch = np.zeros((BATCH_IMAGES, *part.shape[1:]), dtype=np.uint8)
        batch[: len(part)] = part
        proba: FloatArray = self._session.run(None, {self._input: batch})[0][: len(part)]
        return proba


def open_export(path: Path) -> ExportedModel:
    """Open an export for classifying: its folder, a ZIP file of it, or `model.onnx` alone.

    Raises
    ------
    ModelError
        As `exported.read_export`, or onnxruntime cannot open it.
    """
    model, classes = read_export(path)
    try:
        opened = ExportedModel(model, classes)
    # onnxruntime raises classes of its own that share no base.
    except Exception as error:
        raise ModelError(f"onnxruntime cannot open {path} ({error}).", hint="Update onnxruntime.") from error
    if not opened.is_from_images:
        text = f"{path} does not go from images to {len(classes)} probabilities, as exports of this program do."
        raise ModelError(text, hint="Ask who made it for another one.")
    return opened


def find_images(images: Path) -> tuple[list[ImageKey], list[tuple[ImageKey, str]]]:
    """Return the images of a folder, sorted, and, with the reason, what of it cannot be listed.

    A file counts whatever its extension. Raises `UsageError` if there is no such folder or file.
    """
    if images.is_file():
        return [ImageKey("", images.name)], []
    if not images.is_dir():
        raise UsageError(f"There is no folder or image {images}.", hint="Check the path.")
    keys: list[ImageKey] = []
    problems: list[tuple[ImageKey, str]] = []
    folders = [""]
    while folders:
        relative = folders.pop()
        try:
            with os.scandir(images / relative) as entries:
                for entry in entries:
                    if _is_folder(entry):
                        folders.append(f"{relative}/{entry.name}".lstrip("/"))
                    elif Path(entry.name).suffix.lower() in IMAGE_EXTENSIONS and not entry.name.startswith("."):
                        key = ImageKey(relative, entry.name)
                        if is_safe_name(os.fsencode(key.path).decode("utf-8", "replace")):
                            keys.append(key)
                        else:
                            problems.append((key, UNSAFE_NAME))
        except OSError as error:
            problems.append((ImageKey(relative, ""), f"The folder cannot be listed ({error.strerror or error})."))
    return sorted(keys), problems


def classify(
    model: ExportedModel,
    root: Path,
    keys: Sequence[ImageKey],
    on_progress: OnProgress = lambda done, total: None,
    looking: Looking = WHOLE_IMAGES,
) -> Iterator[Outcome]:
    """Yield an outcome for each image below `root`, in the order given; memory does not grow with their number.

    Each is decoded once, however many crops of it are looked at.
    """
    size = max(CHUNK_IMAGES, model.at_once)
    with ThreadPoolExecutor(DECODE_THREADS, thread_name_prefix="decode") as pool:
        decoded = _read_ahead(pool, root, keys, looking, READ_AHEAD * size)
        try:
            for done, part in _in_chunks(decoded, size):
                yield from _classify_chunk(model, part)
                on_progress(done, len(keys))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class _Opened:
    """An image as decoded: (n, px, px, 3) of it or its n crops, or None; `is_whole` where it is of the image itself."""

    key: ImageKey
    pixels: npt.NDArray[np.uint8] | None
    is_whole: bool
    problem: str = ""
    taken: int = NO_TIME


def _in_chunks(decoded: Iterable[_Opened], size: int) -> Iterator[tuple[int, list[_Opened]]]:
    """Yield images, as many as have about `size` pictures together, and how many there were with them."""
    done = n = 0
    part: list[_Opened] = []
    for image in decoded:
        part.append(image)
        done, n = done + 1, n + _n_pictures(image.pixels)
        if n >= size:
            yield done, part
            part, n = [], 0
    if part:
        yield done, part


def _n_pictures(of_image: Sized | None) -> int:
    return 1 if of_image is None else max(len(of_image), 1)


def _read_ahead(
    pool: ThreadPoolExecutor, root: Path, keys: Iterable[ImageKey], looking: Looking, ahead: int
) -> Iterator[_Opened]:
    """Yield images; so many pictures are decoded before they are asked for, and an image for each thread at least."""
    waiting: deque[tuple[Future[_Opened], int]] = deque()
    n_waiting = 0
    for key in keys:
        boxes = looking.boxes_of(key)
        n = _n_pictures(boxes)
        waiting.append((pool.submit(_decode, root, key, boxes, looking), n))
        n_waiting += n
        while n_waiting >= ahead and len(waiting) > DECODE_THREADS:
            future, n = waiting.popleft()
            n_waiting -= n
            yield future.result()
    while waiting:
        yield waiting.popleft()[0].result()


def _decode(root: Path, key: ImageKey, boxes: tuple[Box, ...] | None, looking: Looking) -> _Opened:
    path = root / key.path
    is_whole = boxes is None
    try:
        if boxes is None:
            whole = shared().read(path, px=IMAGE_PX)
            return _Opened(key, whole.pixels[None], is_whole, taken=whole.taken)
        if boxes:
            crops = shared().read_crops(path, boxes, px=IMAGE_PX, padding=looking.padding)
            return _Opened(key, crops.pixels, is_whole, taken=crops.taken)
        return _Opened(key, None, is_whole, taken=read_capture_time(path) if looking.with_times else NO_TIME)
    except ImageUnreadableError as error:
        return _Opened(key, None, is_whole, str(error))
    except OSError as error:
        return _Opened(key, None, is_whole, f"The file cannot be read ({error.strerror or error}).")


def _classify_chunk(model: ExportedModel, part: Sequence[_Opened]) -> Iterator[Outcome]:
    pixels = [image.pixels for image in part if image.pixels is not None]
    if pixels:
        proba = model.probabilities(np.concatenate(pixels))
    at = 0
    for image in part:
        n = 0 if image.pixels is None else len(image.pixels)
        found = None if image.pixels is None else proba[at] if image.is_whole else proba[at : at + n]
        yield Outcome(image.key, found, image.problem, image.taken)
        at += n


def _is_folder(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith(".") or entry.name.lower() in SKIPPED_FOLDERS:
        return False
    return entry.is_dir(follow_symlinks=False)
