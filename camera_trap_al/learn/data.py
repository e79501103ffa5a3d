"""Items → pixels for training and embedding: reading ahead, transforms, mean and standard deviation.

Which images form a batch is said in `batches.py`. No torch here: pixels are uint8 arrays until they reach the device.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from camera_trap_al.core.durations import in_time
from camera_trap_al.core.records import Item
from camera_trap_al.errors import ImagesOfflineError, ImageUnreadableError, ModelError
from camera_trap_al.images import IMAGE_PX, read_image
from camera_trap_al.learn.settings import Progress, Tick, no_tick

INPUT_PX = 224
SAMPLE_LIMIT = 10_000
MEMORY_BYTES = 1_500_000_000
READ_AHEAD = 64
TICK_EVERY = 32
MOST_READERS = 8

GREY_SHARE = 0.1
FLIP_SHARE = 0.5
JITTER = 0.2
ROTATION_DEGREES = 20.0
ERASE_SHARE = 0.5
ERASE_AREA = (0.02, 0.33)
ERASE_RATIO = (0.3, 3.3)

Reader = Callable[[Item], np.ndarray]
"""Maps an item to its (256, 256, 3) uint8 pixels, or raises as `read_image` does."""

Problem = tuple[str, str]
"""Why an item has no pixels: a documented code, and a text for people."""

log = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")


def read_item(item: Item) -> np.ndarray:
    """Decode an item from its image file to (256, 256, 3) uint8."""
    return read_image(item.path, box=item.box)


class PixelMemory:
    """A reader that remembers decoded items while there is room, so that later epochs decode nothing.

    Once full it keeps what it has: epochs visit every item, and oldest-out would lose each just before its next use.
    What `keeps` says is kept elsewhere takes no room here.
    """

    def __init__(
        self,
        read: Reader = read_item,
        keeps: Callable[[Item], bool] = lambda item: False,
        *,
        max_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._read, self._keeps = read, keeps
        self._room = max_bytes
        self._pixels: dict[Item, np.ndarray] = {}
        self._lock = threading.Lock()

    def __call__(self, item: Item) -> np.ndarray:
        """Return the pixels of an item; the array is read-only."""
        known = self._pixels.get(item)
        if known is not None:
            return known
        pixels = self._read(item)
        if self._keeps(item):
            return pixels
        pixels.setflags(write=False)
        with self._lock:
            if pixels.nbytes <= self._room and item not in self._pixels:
                self._pixels[item] = pixels
                self._room -= pixels.nbytes
        return pixels


def read_or_say_why(item: Item, read: Reader) -> np.ndarray | Problem:
    """Return the pixels of an item, or the code and text of what is wrong with its file.

    Codes are those of `read_image`, `no_permission`, and `missing` for a file that is gone or fails to be read.

    Raises
    ------
    ImagesOfflineError
        The file is away and so is its folder: nothing can be said about the file.
    """
    try:
        return read(item)
    except ImageUnreadableError as error:
        return error.code, str(error)
    except PermissionError as error:
        return "no_permission", f"{Path(item.path).name} may not be read by this user ({error.strerror})."
    except OSError as error:
        folder = Path(item.path).parent
        if not answers(folder):
            raise ImagesOfflineError(
                f"The folder {folder} does not answer ({error}).", hint="Connect the disk or share again."
            ) from error
        return "missing", f"{Path(item.path).name} is not there or cannot be read ({error.strerror})."


def answers(folder: Path) -> bool:
    """Say whether a folder can be listed and holds anything; an empty one may be where a disk was mounted."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError:
        return False


def map_ahead(work: Callable[[T], R], tasks: Iterable[T], *, ahead: int = READ_AHEAD) -> Generator[R, None, None]:
    """Yield `work(task)` in order while threads work on the next `ahead` tasks. Close it to stop early."""
    with ThreadPoolExecutor(min(MOST_READERS, os.cpu_count() or 1), thread_name_prefix="read") as threads:
        waiting: deque[Future[R]] = deque()
        try:
            for task in tasks:
                waiting.append(threads.submit(work, task))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)


def mean_std(
    items: Sequence[Item],
    *,
    limit: int = SAMPLE_LIMIT,
    seed: int,
    read: Reader = read_item,
    tick: Tick = no_tick,
) -> tuple[np.ndarray, np.ndarray]:
    """Measure mean and standard deviation of each colour over all pixels of a seeded sample of items.

    Pixels are those that every item has before training changes it: decoded and squashed to 256 × 256. The sums are
    of whole numbers, so the result does not depend on order. Items that cannot be read are left out.

    Parameters
    ----------
    items : of all data sets
    limit : the largest sample, drawn without replacement

    Returns
    -------
    mean, std : (3,) float64 arrays, red, green, blue, in [0, 1]; std is at least half a grey level

    Raises
    ------
    ModelError
        Not one of the sample can be read.
    """
    rows = np.arange(len(items))
    if len(rows) > limit:
        rows = np.sort(np.random.default_rng([0x3EA2, seed]).choice(rows, limit, replace=False))
    counts, started = np.zeros((3, 256), np.int64), time.monotonic()
    log.info("Calculating mean and standard deviation of %d images...", len(rows))
    with closing(map_ahead(lambda row: _histogram(items[row], read), rows.tolist())) as results:
        for done, histogram in enumerate(results, 1):
            counts += histogram
            if done % TICK_EVERY == 0 or done == len(rows):
                tick(Progress("measuring", done, len(rows)))
    if counts.sum() == 0:
        raise ModelError(
            f"Not one of {len(rows)} images could be read, so there is nothing to measure.",
            hint="Check that the folders of images hold photographs and may be read.",
        )
    took = in_time(time.monotonic() - started)
    log.info("Finished calculating mean and standard deviation (%d images in %s)", len(rows), took)
    levels = np.arange(256) / 255.0
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ levels
    variance = (shares * (levels - mean[:, None]) ** 2).sum(axis=1)
    return mean, np.sqrt(variance).clip(min=0.5 / 255.0)


def _histogram(item: Item, read: Reader) -> np.ndarray:
    pixels = read_or_say_why(item, read)
    if isinstance(pixels, tuple):
        return np.zeros((3, 256), np.int64)
    return np.stack([np.bincount(pixels[:, :, colour].ravel(), minlength=256) for colour in range(3)])


@dataclass(frozen=True)
class Erasure:
    """A rectangle that training blanks with noise. `noise` is (h, w, 3) float32, in standard deviations."""

    top: int
    left: int
    noise: np.ndarray


def centre_crop(images: np.ndarray) -> np.ndarray:
    """Return the middle 224 × 224 pixels of images (…, 256, 256, 3)."""
    low = (IMAGE_PX - INPUT_PX) // 2
    return images[..., low : low + INPUT_PX, low : low + INPUT_PX, :]


def augment(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Erasure | None]:
    """Change an image at random as training sees it.

    A crop of 224 pixels; grey with a chance of 0.1; then in random order a mirror image (0.5), brightness, contrast
    and saturation by up to 20 %, and a rotation by up to 20° (corners black); a rectangle to erase (0.5). These are
    the reference program's transforms; its colour jitter was meant to, but did not, change anything.

    Parameters
    ----------
    image : (256, 256, 3) uint8

    Returns
    -------
    (224, 224, 3) uint8, and what to erase after standardising
    """
    top, left = rng.integers(0, IMAGE_PX - INPUT_PX, 2, endpoint=True)
    picture = Image.fromarray(image[top : top + INPUT_PX, left : left + INPUT_PX])
    if rng.random() < GREY_SHARE:
        picture = picture.convert("L").convert("RGB")
    changes = (_mirror, _jitter, _rotate)
    for i in rng.permutation(len(changes)):
        picture = changes[i](picture, rng)
    return np.array(picture), _erasure(rng)


def _mirror(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageOps.mirror(picture) if rng.random() < FLIP_SHARE else picture


def _jitter(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    factors = rng.uniform(1 - JITTER, 1 + JITTER, len(kinds))
    for i in rng.permutation(len(kinds)):
        picture = kinds[i](picture).enhance(float(factors[i]))
    return picture


def _rotate(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return picture.rotate(rng.uniform(-ROTATION_DEGREES, ROTATION_DEGREES), Image.Resampling.BILINEAR)


def _erasure(rng: np.random.Generator) -> Erasure | None:
    """Draw a rectangle as Zhong et al. 2017 ("Random erasing data augmentation") do."""
    if rng.random() >= ERASE_SHARE:
        return None
    area = rng.uniform(*ERASE_AREA) * INPUT_PX**2
    ratio = np.exp(rng.uniform(*np.log(ERASE_RATIO)))
    height = min(INPUT_PX - 1, round(np.sqrt(area * ratio)))
    width = min(INPUT_PX - 1, round(np.sqrt(area / ratio)))
    top, left = rng.integers(0, INPUT_PX - height), rng.integers(0, INPUT_PX - width)
    return Erasure(int(top), int(left), rng.standard_normal((height, width, 3), dtype=np.float32))
