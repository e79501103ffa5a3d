"""Item → upright 8-bit RGB array: guarded open, limits from the header, scaled decode, crop, resize.

Which files are images, and what becomes of one that cannot be read, is decided elsewhere.
"""

from __future__ import annotations

import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from camera_trap_al.core.records import Box
from camera_trap_al.errors import ImageUnreadableError

IMAGE_PX = 256
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
IMAGE_STARTS = (b"\xff\xd8", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")
ISO_MEDIA_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"avif": "AVIF"}
# A scaled decode keeps at least this many pixels for each one that is wanted, so that the resize still averages.
OVERSAMPLING = 2
EXIF_ORIENTATION, EXIF_IFD, EXIF_TIME_ORIGINAL, EXIF_TIME = 0x0112, 0x8769, 0x9003, 0x0132
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
    """What is refused before anything is decoded.

    `max_pixels` (width × height) and `max_side` (pixels) are compared with the header; Pillow's own limit of 179
    million pixels holds besides. `max_bytes` is the size of the file.
    """

    max_pixels: int = 100_000_000
    max_side: int = 20_000
    max_bytes: int = 500_000_000


DEFAULT_LIMITS = DecodeLimits()


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
    path = Path(path)
    data = _read_bytes(path, limits)
    image = _open(path, data)
    _check_size(path, image, limits)
    try:
        _use_scaled_decode(image, px, box)
        image.load()
        image = _upright(image)
        return np.array(_to_rgb(image).resize((px, px), Image.Resampling.BILINEAR, box=_crop_of(image, box)))
    # Decoders of foreign bytes raise whatever they meet (struct.error, IndexError, SyntaxError, MemoryError, …).
    except Exception as error:
        raise _unreadable(path, error) from error


def capture_time(path: Path | str) -> str | None:
    """Return when a photograph was taken, as its EXIF says ("2026:11:22 10:00:00"), or None.

    The camera's own clock, without a time zone. None also for files that cannot be read.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            exif = image.getexif()
            time = exif.get_ifd(EXIF_IFD).get(EXIF_TIME_ORIGINAL) or exif.get(EXIF_TIME)
    # As above; a time is a help, never a condition.
    except Exception:
        return None
    text = str(time or "").strip("\0 ")
    return text or None


def _read_bytes(path: Path, limits: DecodeLimits) -> bytes:
    # A named pipe would block the open for ever without O_NONBLOCK.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    if path.is_dir():
        raise _not_a_file(path)
    with os.fdopen(os.open(path, flags), "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise _not_a_file(path)
        if facts.st_size > limits.max_bytes:
            text = f"{path.name} is {facts.st_size / 1e6:.0f} MB large; the limit is {limits.max_bytes / 1e6:.0f} MB."
            raise ImageUnreadableError(text, code="too_large")
        data = file.read(limits.max_bytes)
    if not data:
        raise ImageUnreadableError(f"{path.name} is empty (0 bytes).", code="empty_file")
    return data


def _not_a_file(path: Path) -> ImageUnreadableError:
    return ImageUnreadableError(f"{path.name} is a folder or a device, not an image file.", code="not_an_image")


def _open(path: Path, data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise _unidentified(path, data) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageUnreadableError(f"{path.name} has too many pixels ({error}).", code="too_large") from error
    # As in `read_image`: headers are foreign bytes, too.
    except Exception as error:
        raise _unreadable(path, error) from error


def _unidentified(path: Path, data: bytes) -> ImageUnreadableError:
    head = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    other = next((name for magic, name in OTHER_FORMATS.items() if head.startswith(magic)), None)
    if head[4:8] == b"ftyp":
        other = ISO_MEDIA_BRANDS.get(head[8:12], "video")
    if head[:4] == b"RIFF" and head[8:12] != b"WEBP":
        other = "sound" if head[8:12] == b"WAVE" else "video"
    if other:
        text = f"{path.name} is in the format {other}, which is not read; save it as JPEG."
        return ImageUnreadableError(text, code="format_not_allowed")
    if head.startswith(IMAGE_STARTS):
        return ImageUnreadableError(f"{path.name} starts like an image, but its header is damaged.", code="unreadable")
    return ImageUnreadableError(f"{path.name} is not an image that can be read.", code="not_an_image")


def _check_size(path: Path, image: Image.Image, limits: DecodeLimits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels or max(width, height) > limits.max_side:
        text = (
            f"{path.name} has {width} × {height} pixels; the limits are {limits.max_pixels / 1e6:.0f} megapixels"
            f" and {limits.max_side} pixels a side."
        )
        raise ImageUnreadableError(text, code="too_large")


def _use_scaled_decode(image: Image.Image, px: int, box: Box | None) -> None:
    """Let libjpeg skip detail that the resize would average away; other formats decode whole."""
    smallest = min(box.width, box.height) if box else 1.0
    wanted = int(np.ceil(OVERSAMPLING * px / max(smallest, 1e-3)))
    image.draft(image.mode, (wanted, wanted))


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    # Broken metadata is no reason to lose pixels.
    except Exception:
        return image
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_eight_bits(np.asarray(image), image.mode)).convert("RGB")
    if image.mode in ("RGBa", "La"):
        image = image.convert({"RGBa": "RGBA", "La": "LA"}[image.mode])
    return image.convert("RGB")


def _eight_bits(values: np.ndarray, mode: str) -> np.ndarray:
    """Map grey values of 16 bits, of 32 bits or of floats (in [0, 1] or [0, 255]) to uint8."""
    values = np.nan_to_num(values.astype(np.float64))
    top = values.max(initial=0.0)
    if mode.startswith("I;16") or (mode == "I" and top > 255):
        values = values / 257.0
    elif mode == "F" and top <= 1:
        values = values * 255.0
    return values.clip(0, 255).round().astype(np.uint8)


def _crop_of(image: Image.Image, box: Box | None) -> tuple[float, float, float, float]:
    """Return the crop in pixels (left, top, right, bottom), inside the image and at least one pixel wide and high."""
    width, height = image.size
    if box is None:
        return (0.0, 0.0, float(width), float(height))
    left, right = _span(box.left, box.width, width)
    top, bottom = _span(box.top, box.height, height)
    return (left, top, right, bottom)


def _span(start: float, length: float, size: int) -> tuple[float, float]:
    low = min(max(start * size, 0.0), size - 1.0)
    high = min(max((start + length) * size, low + 1.0), float(size))
    return low, high


def _unreadable(path: Path, error: Exception) -> ImageUnreadableError:
    is_cut = "truncated" in str(error).lower() or "unexpected end" in str(error).lower()
    if is_cut:
        text = f"{path.name} is cut short ({error}); copy it again from the camera's card."
        return ImageUnreadableError(text, code="truncated")
    return ImageUnreadableError(f"{path.name} cannot be decoded ({type(error).__name__}: {error}).", code="unreadable")
