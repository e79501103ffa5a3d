"""Item → upright 8-bit RGB array: guarded open, limits from the header, scaled decode, crop, resize.

Which files are images, and what becomes of one that cannot be read, is decided elsewhere; `engine.py` does this work in
processes of its own. numpy is imported where it is used: such a process starts in a third of the time without it.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import stat
import zlib
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from PIL import Image, ImageFile, UnidentifiedImageError

from camera_trap_al.core.crops import Wanted, square_around
from camera_trap_al.core.records import Box
from camera_trap_al.errors import ImageUnreadableError

if TYPE_CHECKING:
    import numpy as np

IMAGE_PX = 256
HASH_BYTES, HASH_PART_BYTES = 16, 1 << 20
# EPS starts Ghostscript; FITS, PDF and others had decompression bombs (docs/reliability.md 4).
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
OTHER_FORMATS = {
    b"%!PS": "EPS",
    b"%PDF": "PDF",
    b"8BPS": "PSD",
    b"SIMPLE": "FITS",
    b"<svg": "SVG",
    b"<?xml": "SVG",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"\x00\x00\x01\x00": "ICO",
    b"qoif": "QOI",
}
PNG_START = b"\x89PNG\r\n\x1a\n"
IMAGE_STARTS = (b"\xff\xd8", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")
ISO_MEDIA_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"avif": "AVIF"}
# How Pillow names its limits on text and colour profiles in PNG files: 1 MB each, 64 MB in all.
TEXT_LIMIT = "MAX_TEXT_"
COPY_AGAIN = "copy it again from the camera's card"
ROWS_AT_ONCE = 256
# A scaled decode keeps at least this many pixels a side for each one that is wanted, so that the resize still averages.
OVERSAMPLING = 1.25
EXIF_ORIENTATION, EXIF_IFD, EXIF_TIME_ORIGINAL, EXIF_TIME, EXIF_SUBSECONDS = 0x0112, 0x8769, 0x9003, 0x0132, 0x9291
EXIF_TIME_FORM = re.compile(r"(\d{4})\D(\d\d)\D(\d\d)\D(\d\d)\D(\d\d)\D(\d\d)", re.ASCII)
NO_TIME = -1  # as in core/grouping.py, which needs numpy
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class DecodeLimits:
    """What is refused.

    `max_pixels` (width × height) and `max_side` (pixels) are compared with the header, before anything is decoded;
    `max_bytes` is the size of the file. `decode_s` holds where images are decoded by `engine.py`. With
    `allow_truncated` an image that is cut short or damaged gives what could be decoded of it.
    """

    max_pixels: int = 100_000_000
    max_side: int = 20_000
    max_bytes: int = 500_000_000
    allow_truncated: bool = False
    decode_s: float = 20.0


DEFAULT_LIMITS = DecodeLimits()


class Picture(NamedTuple):
    """A decoded image: RGB, px × px; the format of its file; `capture_time`."""

    image: Image.Image
    format: str
    taken: int


def read_image(
    path: Path | str, *, px: int = IMAGE_PX, box: Box | None = None, limits: DecodeLimits = DEFAULT_LIMITS
) -> np.ndarray:
    """Decode an image, or one crop of it, to an upright square; the sides are squashed, not cut.

    The first frame is taken. Grey, 16-bit, palette and CMYK images become RGB, transparency is dropped, and the EXIF
    orientation is applied before the crop. Broken metadata is no reason to lose pixels.

    Parameters
    ----------
    path : the file; links are followed, since the scan decides about those
    px : side of the result in pixels
    box : the crop as fractions of the upright image; parts outside the image are left out
    limits : what is refused

    Returns
    -------
    (px, px, 3) uint8 array, RGB

    Raises
    ------
    ImageUnreadableError
        With a code: `empty_file`, `not_an_image`, `format_not_allowed`, `truncated`, `too_large` or `unreadable`.
    OSError
        The file itself could not be read (FileNotFoundError, PermissionError, EIO, …); the caller knows whether a
        file or a whole disk is away.
    """
    import numpy as np

    path = Path(path)
    return np.array(decode(read_file(path, limits), path.name, px=px, box=box, limits=limits).image)


def decode(
    data: bytes, name: str, *, px: int = IMAGE_PX, box: Box | None = None, limits: DecodeLimits = DEFAULT_LIMITS
) -> Picture:
    """Decode the content of an image file as `read_image` does.

    `name` stands in the texts of `ImageUnreadableError`.
    """
    return decode_wanted(data, name, Wanted(px, box), limits)[0]


def decode_wanted(data: bytes, name: str, wanted: Wanted, limits: DecodeLimits = DEFAULT_LIMITS) -> list[Picture]:
    """Decode the content of an image file once, and return what is wanted of it: a picture, or one for each square."""
    # Settings of the whole library. One process has one configuration.
    ImageFile.LOAD_TRUNCATED_IMAGES = limits.allow_truncated
    Image.MAX_IMAGE_PIXELS = max(limits.max_pixels, 1)
    image = _open(name, data)
    _check_size(name, image, limits)
    try:
        _use_scaled_decode(image, wanted)
        image.load()
        upright, kind, taken = _upright(image), image.format or "", capture_time(image)
        if wanted.squares is None:
            size, crop = (wanted.px, wanted.px), _crop_of(upright, wanted.box)
            return [Picture(_to_rgb(upright).resize(size, Image.Resampling.BILINEAR, box=crop), kind, taken)]
        upright = _to_rgb(upright)
        return [Picture(_square(upright, box, wanted.px, wanted.padding), kind, taken) for box in wanted.squares]
    # Decoders of foreign bytes raise whatever they meet (struct.error, IndexError, SyntaxError, MemoryError, …).
    except Exception as error:
        raise _unreadable(name, error) from error


def content_hash(data: bytes) -> str:
    """Return what tells one file content from another: BLAKE2b of 16 bytes, as 32 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=HASH_BYTES).hexdigest()


def hash_file(path: Path | str) -> str:
    """Return the `content_hash` of a file, read in parts.

    Raises `OSError`, and `ImageUnreadableError` (`not_an_image`) for a folder or device.
    """
    digest = hashlib.blake2b(digest_size=HASH_BYTES)
    with _open_file(Path(path)) as file:
        while part := file.read(HASH_PART_BYTES):
            digest.update(part)
    return digest.hexdigest()


def capture_time(image: Image.Image) -> int:
    """Return when a photograph was taken, in milliseconds since 1970 by the camera's own clock, or -1 if it does not say.

    DateTimeOriginal of its EXIF, with SubSecTimeOriginal; else DateTime. A time zone is not known.
    """
    try:
        exif = image.getexif()
        details = exif.get_ifd(EXIF_IFD)
        fraction = re.sub("[^0-9].*", "", str(details.get(EXIF_SUBSECONDS) or ""))
        for said in (details.get(EXIF_TIME_ORIGINAL), exif.get(EXIF_TIME)):
            if (seconds := _seconds_of(str(said).strip())) >= 0:
                return seconds * 1000 + int(fraction[:3].ljust(3, "0"))
        return NO_TIME
    # Broken metadata again: a time is a help, never a condition.
    except Exception:
        return NO_TIME


def _seconds_of(said: str) -> int:
    """Return a time of EXIF in seconds since 1970, -1 where it is none, such as the zeros of a clock that was never set."""
    found = EXIF_TIME_FORM.match(said)
    if found is None:
        return -1
    year, month, day, hour, minute, second = map(int, found.groups())
    try:
        return round(datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc).timestamp())
    except ValueError:
        return -1


def read_capture_time(path: Path | str) -> int:
    """Return the `capture_time` of an image file, of which only the header is read; -1 also where that cannot be."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return capture_time(image)
    except Exception:
        return NO_TIME


def read_file(path: Path, limits: DecodeLimits = DEFAULT_LIMITS) -> bytes:
    """Return the content of a regular file.

    Raises `OSError`, and `ImageUnreadableError` for one that is empty, too large, or no file.
    """
    with _open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limits.max_bytes:
            text = f"{path.name} is {size / 1e6:.0f} MB large; the limit is {limits.max_bytes / 1e6:.0f} MB."
            raise ImageUnreadableError(text, code="too_large")
        data = file.read(limits.max_bytes)
    if not data:
        raise ImageUnreadableError(f"{path.name} is empty (0 bytes).", code="empty_file")
    return data


def _open_file(path: Path) -> BinaryIO:
    # Asked before opening, since a socket or a device may answer an open in its own way.
    if not stat.S_ISREG(path.stat().st_mode):
        raise _not_a_file(path)
    # A named pipe would block the open for ever without O_NONBLOCK.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise _not_a_file(path)
    return file


def _not_a_file(path: Path) -> ImageUnreadableError:
    return ImageUnreadableError(f"{path.name} is a folder or a device, not an image file.", code="not_an_image")


def _open(name: str, data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        repaired = _without_damaged_remarks(data)
        if len(repaired) < len(data):
            return _open(name, repaired)
        raise _unidentified(name, data) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        text = f"{name} has far more pixels than the limit of {limit:.0f} megapixels, or says so because it is damaged."
        raise ImageUnreadableError(text, code="too_large") from error
    # As in `read_image`: headers are foreign bytes, too.
    except Exception as error:
        raise _unreadable(name, error) from error


def _without_damaged_remarks(data: bytes) -> bytes:
    """Return a PNG without those chunks that no pixel needs and whose checksum is wrong; other data as they are."""
    kept, at = [data[: len(PNG_START)]], len(PNG_START)
    while data.startswith(PNG_START) and at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        is_remark = bool(data[at + 4] & 0x20)
        is_whole = zlib.crc32(data[at + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")
        if is_whole or not is_remark:
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]])


def _unidentified(name: str, data: bytes) -> ImageUnreadableError:
    head = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    other = next((kind for magic, kind in OTHER_FORMATS.items() if head.startswith(magic)), None)
    if head[4:8] == b"ftyp":
        other = ISO_MEDIA_BRANDS.get(head[8:12], "video")
    if head[:4] == b"RIFF" and head[8:12] != b"WEBP":
        other = "sound" if head[8:12] == b"WAVE" else "video"
    if other in ("video", "sound"):
        text = f"{name} is a {other} file, not a photograph; give it its right name, or remove it."
        return ImageUnreadableError(text, code="format_not_allowed")
    if other:
        text = f"{name} is in the format {other}, which is not read; save it as JPEG."
        return ImageUnreadableError(text, code="format_not_allowed")
    if head.startswith(IMAGE_STARTS):
        text = f"{name} starts like an image, but its header is damaged or of a kind that is not read; {COPY_AGAIN}."
        return ImageUnreadableError(text, code="unreadable")
    if not data.strip(b"\0"):
        text = f"{name} holds nothing but empty bytes, as a broken copy or card leaves them; {COPY_AGAIN}."
        return ImageUnreadableError(text, code="not_an_image")
    text = f"{name} is not an image that can be read; {COPY_AGAIN}, or remove it."
    return ImageUnreadableError(text, code="not_an_image")


def _check_size(name: str, image: Image.Image, limits: DecodeLimits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels or max(width, height) > limits.max_side:
        text = (
            f"{name} has {width} × {height} pixels; the limits are {limits.max_pixels / 1e6:.0f} megapixels"
            f" and {limits.max_side} pixels a side."
        )
        raise ImageUnreadableError(text, code="too_large")


def _use_scaled_decode(image: Image.Image, wanted: Wanted) -> None:
    """Let libjpeg skip detail that the resize would average away; other formats decode whole."""
    smallest = min(wanted.box.width, wanted.box.height) if wanted.box else 1.0
    if wanted.squares:
        smallest = min(max(box.width, box.height) for box in wanted.squares) * wanted.padding
    side = math.ceil(OVERSAMPLING * wanted.px / max(smallest, 1e-3))
    image.draft(image.mode, (side, side))


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    # Broken metadata is no reason to lose pixels.
    except Exception:
        return image
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bits(image).convert("RGB")
    if image.mode in ("RGBa", "La"):
        image = image.convert({"RGBa": "RGBA", "La": "LA"}[image.mode])
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Map grey values of 16 bits, of 32 bits or of floats (in [0, 1] or [0, 255]) to 8 bits, a few rows at a time."""
    import numpy as np

    values = np.asarray(image)
    blocks = [slice(start, start + ROWS_AT_ONCE) for start in range(0, len(values), ROWS_AT_ONCE)]
    top = max(float(np.nan_to_num(values[rows]).max()) for rows in blocks)
    is_deep = image.mode.startswith("I;16") or (image.mode == "I" and top > 255)
    factor = 1 / 257 if is_deep else 255.0 if image.mode == "F" and top <= 1 else 1.0
    grey = np.empty(values.shape, np.uint8)
    for rows in blocks:
        grey[rows] = (np.nan_to_num(values[rows].astype(np.float64)) * factor).clip(0, 255).round()
    return Image.fromarray(grey)


def _crop_of(image: Image.Image, box: Box | None) -> tuple[float, float, float, float]:
    """Return the crop in pixels (left, top, right, bottom), inside the image and at least one pixel wide and high."""
    width, height = image.size
    if box is None:
        return (0.0, 0.0, float(width), float(height))
    left, right = _span(box.left, box.width, width)
    top, bottom = _span(box.top, box.height, height)
    return (left, top, right, bottom)


def _square(image: Image.Image, box: Box, px: int, padding: float) -> Image.Image:
    """Return the square around a box; what of it lies outside the image is black."""
    width, height = image.size
    left, top, side = square_around(box, width, height, padding=padding)
    inside = (max(left, 0.0), max(top, 0.0), min(left + side, float(width)), min(top + side, float(height)))
    size = [
        min(max(round((end - start) * px / side), 1), px) for start, end in zip(inside[:2], inside[2:], strict=True)
    ]
    part = image.resize((size[0], size[1]), Image.Resampling.BILINEAR, box=inside)
    if size == [px, px]:
        return part
    whole = Image.new("RGB", (px, px))
    whole.paste(part, (round((inside[0] - left) * px / side), round((inside[1] - top) * px / side)))
    return whole


def _span(start: float, length: float, size: int) -> tuple[float, float]:
    low = min(max(start * size, 0.0), size - 1.0)
    high = min(max((start + length) * size, low + 1.0), float(size))
    return low, high


def _unreadable(name: str, error: Exception) -> ImageUnreadableError:
    said = str(error)
    if isinstance(error, MemoryError | Image.DecompressionBombError) or TEXT_LIMIT in said:
        text = f"{name} needs more memory than one image may have ({said or 'out of memory'}); save it anew as JPEG."
        return ImageUnreadableError(text, code="too_large")
    if "truncated" in said.lower() or "unexpected end" in said.lower():
        text = f"{name} is cut short ({error}); {COPY_AGAIN}."
        return ImageUnreadableError(text, code="truncated")
    text = f"{name} cannot be decoded ({type(error).__name__}: {error}); {COPY_AGAIN}."
    return ImageUnreadableError(text, code="unreadable")
