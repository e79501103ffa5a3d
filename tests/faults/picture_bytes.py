"""The bytes of image files, built in code: what Pillow writes, and what it never would."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

W, H = 96, 64
RED, GREEN, BLUE, YELLOW = (220, 30, 30), (30, 180, 40), (30, 40, 210), (230, 220, 40)
COLOURS, GREYS, PIXELS = "colours", "greys", "pixels"
DAMAGED = frozenset({"truncated", "unreadable"})
REFUSED = DAMAGED | {"not_an_image", "format_not_allowed", "too_large", "empty_file", "decoder_timeout"}
EITHER = REFUSED | {PIXELS}
ALLOWED = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")


def quarters(width: int = W, height: int = H) -> Image.Image:
    image = Image.new("RGB", (width, height), RED)
    image.paste(GREEN, (width // 2, 0, width, height))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    image.paste(YELLOW, (width // 2, height // 2, width, height))
    return image


def noise(width: int = 200, height: int = 150, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(image: Image.Image | None = None, **options: object) -> bytes:
    return saved(image or quarters(), "JPEG", quality=options.pop("quality", 95), **options)


def exif(orientation: int) -> bytes:
    made = Image.Exif()
    made[0x0112] = orientation
    return made.tobytes()


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def turned(orientation: int) -> Image.Image:
    """Return the quarters as a camera held that way stores them."""
    return quarters().transpose(TURNS[orientation]) if orientation in TURNS else quarters()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, rows: bytes, *, bits: int = 8, colour: int = 2, adam7: int = 0, **parts: bytes
) -> bytes:
    """Return a PNG of raw rows; `before` and `after` are chunks around its data."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, adam7))
    body = parts.get("before", b"") + chunk(b"IDAT", zlib.compress(rows, 1)) + parts.get("after", b"")
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")


def plain_rows(depth: int = 1) -> bytes:
    """Return the quarters as unfiltered PNG rows of 8 or 16 bits."""
    pixels = np.asarray(quarters())
    if depth == 2:
        pixels = (pixels.astype(">u2") * 257).astype(">u2")
    return b"".join(b"\0" + row.tobytes() for row in pixels)


def interlaced_png() -> bytes:
    pixels, rows = np.asarray(quarters()), b""
    for top, left, down, right in (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ):
        rows += b"".join(b"\0" + row.tobytes() for row in pixels[top::down, left::right])
    return png(W, H, rows, adam7=1)


def bmp(width: int, height: int, data: bytes, *, bits: int = 24, packing: int = 0, palette: bytes = b"") -> bytes:
    start = 54 + len(palette)
    head = struct.pack("<2sIHHI", b"BM", start + len(data), 0, 0, start)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, packing, len(data), 2835, 2835, len(palette) // 4, 0)
    return head + info + palette + data


def bmp_rows(*, top_down: bool = False) -> bytes:
    pixels = np.asarray(quarters())[:, :, ::-1]
    return (pixels if top_down else pixels[::-1]).tobytes()


def rle_bmp() -> bytes:
    palette = b"".join(struct.pack("<BBBB", b, g, r, 0) for r, g, b in (RED, GREEN, BLUE, YELLOW))
    half = W // 2
    rows = [bytes((half, 2, half, 3, 0, 0))] * (H // 2) + [bytes((half, 0, half, 1, 0, 0))] * (H // 2)
    return bmp(W, H, b"".join(rows)[:-2] + b"\0\1", bits=8, packing=1, palette=palette)


def tiff(
    width: int, height: int, *more: tuple[int, int, int, int], data: bytes = b"\0" * 64, next_ifd: int = 0
) -> bytes:
    """Return a grey TIFF of one strip whose tags may lie; `more` are (tag, type, count, value), which replace."""
    tags = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 273: (4, 1, 8)}
    tags |= {277: (3, 1, 1), 278: (4, 1, height), 279: (4, 1, len(data))}
    tags |= {tag: (kind, count, value) for tag, kind, count, value in more}
    ifd = b"".join(struct.pack("<HHII", tag, *tags[tag]) for tag in sorted(tags))
    at = 8 + len(data)
    return struct.pack("<2sHI", b"II", 42, at) + data + struct.pack("<H", len(tags)) + ifd + struct.pack("<I", next_ifd)


def jpeg_of_size(width: int, height: int) -> bytes:
    data = bytearray(jpeg())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def many_scans(times: int) -> bytes:
    """Return a progressive JPEG whose last scan comes again and again: small, and slow to decode."""
    data = jpeg(quarters(4000, 3000), progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * times + data[-2:]
