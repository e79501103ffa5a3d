"""A few hundred image files of every kind that people, cameras, broken cards and attackers make, built in code.

Good ones show four quarters: red, green, blue, yellow. `build` writes them and says what is to become of each.
"""

from __future__ import annotations

import io
import os
import socket
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

W, H = 96, 64
RED, GREEN, BLUE, YELLOW = (220, 30, 30), (30, 180, 40), (30, 40, 210), (230, 220, 40)
COLOURS, GREYS, PIXELS = "colours", "greys", "pixels"
DAMAGED = frozenset({"truncated", "unreadable"})
REFUSED = DAMAGED | {"not_an_image", "format_not_allowed", "too_large", "empty_file", "decoder_timeout"}
EITHER = REFUSED | {PIXELS}
ALLOWED = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")


@dataclass(frozen=True)
class Case:
    """One file: its name, and the outcomes that are right (a kind of pixels, or quarantine codes)."""

    name: str
    expected: frozenset[str]


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


def png(width: int, height: int, rows: bytes, *, bits: int = 8, colour: int = 2, adam7: int = 0, **parts: bytes) -> bytes:
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
    for top, left, down, right in ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)):
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


def tiff(width: int, height: int, *more: tuple[int, int, int, int], data: bytes = b"\0" * 64, next_ifd: int = 0) -> bytes:
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


def good_files() -> Iterator[tuple[str, bytes, str]]:
    plain = jpeg()
    yield from (("baseline.jpg", plain, COLOURS), ("progressive.jpg", jpeg(progressive=True), COLOURS))
    yield from ((f"quality{q}.jpg", jpeg(quality=q), COLOURS) for q in (30, 75, 100))
    yield from ((f"sampling{s}.jpg", jpeg(subsampling=s), COLOURS) for s in (0, 1, 2))
    yield "optimised.JPG", jpeg(optimize=True), COLOURS
    yield "restarts.jpg", jpeg(restart_marker_blocks=2), COLOURS
    yield "comment.jpg", jpeg(comment=b"<script>" * 50), COLOURS
    yield "grey.jpg", jpeg(quarters().convert("L")), GREYS
    yield "cmyk.jpg", jpeg(quarters().convert("CMYK")), COLOURS
    cmyk = jpeg(quarters().convert("CMYK"))
    yield "ycck.jpg", cmyk.replace(b"Adobe\0d\0\0\0\0\0", b"Adobe\0d\0\0\0\0\2"), PIXELS
    yield from ((f"turned{o}.jpg", jpeg(turned(o), exif=exif(o)), COLOURS) for o in range(1, 9))
    yield from ((f"orientation {o!r}.jpg", jpeg(exif=exif(o)), COLOURS) for o in (0, 9, 255, 65535))
    broken = {"text": b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\2\0\4\0\0\0six\0\0\0\0\0", "cut": exif(1)[:12], "wild": b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 60}
    broken |= {"empty": b"Exif\0\0", "loop": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\x08", "noise": b"Exif\0\0" + bytes(range(200))}
    broken["far"] = b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\xff\xff\xff\x7f\xff\xff\xff\x7f\0\0\0\0"
    yield from ((f"exif {name}.jpg", jpeg(exif=data), COLOURS) for name, data in broken.items())
    yield from ((f"icc {n}.jpg", jpeg(icc_profile=b"\xffno profile" * n), COLOURS) for n in (1, 50_000))
    markers = b"".join(b"\xff\xed" + struct.pack(">H", 65_535) + b"x" * 65_533 for _ in range(40))
    yield "many markers.jpg", plain[:2] + markers + plain[2:], COLOURS
    yield from ((f"trailing {n}.jpg", plain + junk, COLOURS) for n, junk in (("zeros", b"\0" * 9000), ("zip", b"PK\3\4" * 99), ("jpeg", plain)))
    yield from ((f"side {w}x{h}.jpg", jpeg(Image.new("RGB", (w, h), RED)), PIXELS) for w, h in ((1, 1), (1, 900), (900, 1), (1, 20_000)))
    yield "two frames.jpg", saved(quarters(), "MPO", save_all=True, append_images=[noise(W, H)]), COLOURS
    yield "large.jpg", jpeg(quarters(10_000, 8_000), quality=60), COLOURS
    yield from ((f"jpeg called{end}", plain, COLOURS) for end in (".png", ".gif", ".tif", ".webp", ".bmp", "", ".jpg.txt"))
    for kind in ALLOWED[1:]:
        yield f"{kind} called.jpg", saved(quarters(), kind), COLOURS

    for mode in ("1", "L", "LA", "I;16"):
        grey = quarters().convert("L")
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
        yield f"mode {mode.replace(';', '')}.png", saved(image, "PNG"), PIXELS if mode == "1" else GREYS
    for mode in ("P", "RGB", "RGBA"):
        yield f"mode {mode}.png", saved(quarters().convert(mode), "PNG"), COLOURS
    palette = quarters().convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    yield from ((f"palette {bits} bits.png", saved(palette, "PNG", bits=bits), COLOURS) for bits in (2, 4, 8))
    yield "palette clear.png", saved(palette, "PNG", transparency=bytes((0, 128, 255, 255))), COLOURS
    yield "palette one clear.png", saved(palette, "PNG", transparency=0), COLOURS
    yield "16 bits.png", png(W, H, plain_rows(2), bits=16), COLOURS
    yield "interlaced.png", interlaced_png(), COLOURS
    rows = plain_rows()
    extras = {"tRNS": b"\0\1\0\2\0\3", "gAMA": b"\0\1\x86\xa0", "tEXt": b"Comment\0" + b"x" * 5000, "pHYs": b"", "eXIf": b"\xff" * 20}
    extras |= {"iCCP": b"broken\0\0" + zlib.compress(b"no profile"), "zTXt": b"a\0\0" + zlib.compress(b"a" * 9000), "vpAg": b"?"}
    yield from ((f"chunk {k}.png", png(W, H, rows, before=chunk(k.encode(), d)), COLOURS) for k, d in extras.items() if k != "pHYs")
    yield "text damaged.png", png(W, H, rows, before=chunk(b"tEXt", b"a\0b")[:-1] + b"?"), COLOURS
    yield "text far too long.png", png(W, H, rows, before=b"\xff\xff\xff\xfftEXt"), "truncated|unreadable"
    yield "no end.png", png(W, H, rows)[:-12], COLOURS
    yield "text behind.png", png(W, H, rows, after=chunk(b"tEXt", b"Comment\0behind")), COLOURS
    yield "trailing.png", png(W, H, rows) + b"<?php" * 99, COLOURS
    yield "turned.png", saved(turned(6), "PNG", exif=exif(6)), COLOURS
    yield "animated.png", saved(quarters(), "PNG", save_all=True, append_images=[noise(W, H)]), COLOURS
    yield "1x1.png", saved(Image.new("1", (1, 1)), "PNG"), PIXELS
    yield "95 megapixels.png", saved(Image.new("1", (19_000, 5_000)), "PNG"), PIXELS

    yield "still.gif", saved(quarters(), "GIF"), COLOURS
    yield "plain 87.gif", saved(quarters(), "GIF", interlace=0).replace(b"GIF89a", b"GIF87a"), COLOURS
    yield "clear.gif", saved(palette, "GIF", transparency=3), COLOURS
    frames = [noise(W, H, seed) for seed in range(3)]
    yield "animated.gif", saved(quarters(), "GIF", save_all=True, append_images=frames, loop=0), COLOURS
    small = saved(Image.new("P", (1, 1)), "GIF")
    yield "1x1.gif", small, PIXELS
    frame = small[small.index(b"\x2c") : -1]
    yield "5000 frames.gif", small[:-1] + frame * 5000 + b";", PIXELS
    yield "comment.gif", small[:-1] + b"!\xfe\x03abc\0;", PIXELS
    yield "no end.gif", saved(quarters(), "GIF")[:-1], COLOURS
    yield "trailing.gif", saved(quarters(), "GIF") + b"x" * 999, COLOURS
    yield "canvas 100 megapixels.gif", small[:6] + struct.pack("<HH", 20_000, 5_000) + small[10:], PIXELS

    yield from ((f"quality{q}.webp", saved(quarters(), "WEBP", quality=q), COLOURS) for q in (10, 80))
    yield "lossless.webp", saved(quarters(), "WEBP", lossless=True), COLOURS
    yield "alpha.webp", saved(quarters().convert("RGBA"), "WEBP", lossless=True), COLOURS
    yield "animated.webp", saved(quarters(), "WEBP", save_all=True, append_images=frames, duration=50), COLOURS
    yield "turned.webp", saved(turned(3), "WEBP", exif=exif(3)), COLOURS
    yield "icc.webp", saved(quarters(), "WEBP", icc_profile=b"\xff" * 300), COLOURS

    yield from ((f"mode {m}.bmp", saved(quarters().convert(m), "BMP"), COLOURS) for m in ("RGB", "RGBA", "P"))
    yield "mode L.bmp", saved(quarters().convert("L"), "BMP"), GREYS
    yield "mode 1.bmp", saved(quarters().convert("1"), "BMP"), PIXELS
    yield "run lengths.bmp", rle_bmp(), COLOURS
    yield "upside.bmp", bmp(W, H, bmp_rows()), COLOURS
    yield "top down.bmp", bmp(W, -H, bmp_rows(top_down=True)), COLOURS
    short = np.asarray(quarters())[::-1].astype(np.uint16) >> 3
    yield "15 bits.bmp", bmp(W, H, (short[..., 0] << 10 | short[..., 1] << 5 | short[..., 2]).astype("<u2").tobytes(), bits=16), COLOURS
    yield "trailing.bmp", saved(quarters(), "BMP") + b"x" * 999, COLOURS

    for packing in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield f"{packing}.tif", saved(quarters(), "TIFF", compression=packing), COLOURS
    for packing in ("group3", "group4", "tiff_ccitt"):
        yield f"{packing}.tif", saved(quarters().convert("1"), "TIFF", compression=packing), PIXELS
    yield "big.tif", saved(quarters(), "TIFF", big_tiff=True), COLOURS
    yield from ((f"mode {m}.tif", saved(quarters().convert(m), "TIFF"), COLOURS) for m in ("RGBA", "CMYK", "P", "YCbCr"))
    yield "mode LAB.tif", saved(Image.new("LAB", (W, H)), "TIFF"), f"{PIXELS}|unreadable"
    grey = np.asarray(quarters().convert("L"))
    depths = {"16": grey.astype(np.uint16) * 257, "float": grey.astype(np.float32) / 255, "float255": grey.astype(np.float32)}
    depths["32"] = grey.astype(np.int32)
    yield from ((f"grey {n}.tif", saved(Image.fromarray(v), "TIFF"), GREYS) for n, v in depths.items())
    holes = np.where(grey > 100, np.nan, grey).astype(np.float32)
    yield "grey holes.tif", saved(Image.fromarray(holes), "TIFF"), PIXELS
    yield from ((f"turned{o}.tif", saved(turned(o), "TIFF", exif=exif(o)), COLOURS) for o in (1, 3, 6, 8))
    yield "orientation 99.tif", saved(quarters(), "TIFF", tiffinfo={274: 99}), COLOURS
    yield "pages.tif", saved(quarters(), "TIFF", save_all=True, append_images=frames), COLOURS
    yield "400 pages.tif", saved(quarters(), "TIFF", save_all=True, append_images=[Image.new("L", (2, 2))] * 400), COLOURS
    yield "trailing.tif", saved(quarters(), "TIFF") + b"x" * 999, COLOURS


def other_files() -> Iterator[tuple[str, bytes, str]]:
    """Yield files that are no image, or of a format that is not read."""
    yield "empty.jpg", b"", "empty_file"
    texts = {"text": b"dear diary", "html": b"<!DOCTYPE html><html>not found</html>", "json": b'{"error": 404}', "csv": b"a,b\n1,2\n"}
    texts |= {"zip": b"PK\3\4" + b"\0" * 90, "exe": b"MZ" + b"\0" * 90, "elf": b"\x7fELF" + b"\0" * 90, "gz": b"\x1f\x8b" + b"\0" * 90}
    texts |= {"zeros": b"\0" * 9999, "ones": b"\xff" * 9999, "one byte": b"x", "sqlite": b"SQLite format 3\0" + b"\0" * 90}
    texts |= {"pcx": b"\n\5\1\x08" + b"\0" * 130, "ppm": b"P6 2 2 255\n" + b"\0" * 12, "tga": b"\0\0\2" + b"\0" * 60, "wmf": b"\xd7\xcd\xc6\x9a" + b"\0" * 60}
    texts |= {"xbm": b"#define im_width 1\n#define im_height 1\n", "xpm": b"/* XPM */", "jxl": b"\xff\x0a\0\0", "random": np.random.default_rng(7).bytes(9999)}
    texts |= {"late": b"\0" * 16 + jpeg(), "appledouble": b"\0\5\x16\7\0\2\0\0" + b"\0" * 90, "utf16": "text".encode("utf-16")}
    yield from ((f"{name}.jpg", data, "not_an_image") for name, data in texts.items())
    box = struct.pack(">I", 24) + b"ftyp"
    formats = {"eps": b"%!PS-Adobe-3.0 EPSF-3.0\n", "pdf": b"%PDF-1.7\n", "psd": b"8BPS\0\1", "fits": b"SIMPLE  =   T", "svg": b"<svg xmlns=''/>"}
    formats |= {"svg xml": b"<?xml version='1.0'?><svg/>", "svg bom": b"\xef\xbb\xbf<svg/>", "qoi": b"qoif", "jp2": b"\0\0\0\x0cjP  \r\n\x87\n"}
    formats |= {"heic": box + b"heic", "heix": box + b"heix", "avif": box + b"avif", "mp4": box + b"isom", "mov": box + b"qt  "}
    formats |= {"wav": b"RIFF\x24\0\0\0WAVEfmt ", "avi": b"RIFF\x24\0\0\0AVI LIST", "ico": b"\0\0\1\0\1\0"}
    for name, data in formats.items():
        yield f"format {name}.jpg", data + b"\0" * 200, "format_not_allowed"
    for kind, end in (("JPEG2000", "j2k"), ("ICO", "ico"), ("EPS", "eps"), ("PDF", "pdf"), ("ICNS", "icns"), ("TGA", "tga"), ("PPM", "ppm"), ("AVIF", "avif")):
        with suppress(Exception):  # what this Pillow cannot write is left out
            yield f"real {end}.jpg", saved(quarters(), kind), "not_an_image|format_not_allowed"
    heads = {"jpeg": b"\xff\xd8", "jpeg2": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n", "gif": b"GIF89a", "bmp": b"BM", "tiff": b"II*\0", "cr2": b"II*\0\x10\0\0\0CR\2\0"}
    yield from ((f"head {name}.jpg", data, "|".join(DAMAGED | {"not_an_image"})) for name, data in heads.items())
    yield "head webp.jpg", b"RIFF\x24\0\0\0WEBPVP8 ", "|".join(DAMAGED)


def bombs() -> Iterator[tuple[str, bytes, str]]:
    large, cut = "too_large", "|".join(DAMAGED | {"too_large"})
    zeros = zlib.compress(b"\0" * 70_000_000, 9)
    for width, height in ((50_000, 50_000), (100_000_000, 1), (10_001, 10_001), (20_001, 10), (2**31 - 1, 2**31 - 1)):
        yield f"claims {width}x{height}.png", png(width, height, b"\0"), large
    yield "lies within the limits.png", png(9_999, 9_999, b"\0"), cut
    yield "no side.png", png(0, 0, b"\0"), cut
    rows = plain_rows()
    for where in ("before", "after"):
        for kind, head in (("zTXt", b"a\0\0"), ("iTXt", b"a\0\1\0\0\0"), ("iCCP", b"a\0\0")):
            expected = "|".join({large, COLOURS}) if (where, kind) == ("after", "iCCP") else large
            yield f"{kind} bomb {where}.png", png(W, H, rows, **{where: chunk(kind.encode(), head + zeros)}), expected
    megabyte = chunk(b"zTXt", b"a\0\0" + zlib.compress(b"a" * 1_000_000))
    yield "text in parts.png", png(W, H, rows, before=megabyte * 80), large
    yield "data too long.png", png(W, H, rows + b"\0" * 70_000_000), f"{COLOURS}|unreadable"
    small = saved(Image.new("P", (1, 1)), "GIF")
    yield "canvas 65535.gif", small[:6] + struct.pack("<HH", 65_535, 65_535) + small[10:], large
    yield "no canvas.gif", small[:6] + struct.pack("<HH", 0, 0) + small[10:], f"{PIXELS}|unreadable"
    yield "claims 30000.bmp", bmp(30_000, 30_000, b"\0" * 90), large
    yield "claims less than nothing.bmp", bmp(-5, 5, b"\0" * 90), cut
    yield "lowest height.bmp", bmp(1, -(2**31), b"\0" * 90), cut
    yield "short run lengths.bmp", bmp(10_000, 9_000, b"\xff\0" * 9 + b"\0\1", bits=8, packing=1, palette=b"\0" * 1024), f"{PIXELS}|{cut}"
    yield "claims 65500.jpg", jpeg_of_size(65_500, 65_500), large
    yield "claims 9000.jpg", jpeg_of_size(9_000, 9_000), f"{PIXELS}|truncated"
    yield "no end.jpg", jpeg()[:-2], "truncated"
    yield "no height.jpg", jpeg_of_size(96, 0), "|".join(DAMAGED)
    yield "claims 1000000.tif", tiff(1_000_000, 1_000_000), large
    yield "lies within the limits.tif", tiff(9_000, 9_000), cut
    yield "loop.tif", tiff(8, 8, next_ifd=72), PIXELS
    lies = {"samples": (277, 3, 1, 65_535), "bits": (258, 3, 1, 65_535), "packing": (259, 3, 1, 34_925), "strip far": (273, 4, 1, 2**31)}
    lies |= {"count": (256, 4, 2**31 - 1, 8), "no strip": (273, 4, 0, 0), "tiles": (322, 4, 1, 2**31), "kind": (256, 99, 1, 8)}
    yield from ((f"lie {name}.tif", tiff(8, 8, tag), "|".join({PIXELS} | DAMAGED | {"not_an_image", large})) for name, tag in lies.items())
    webp = b"RIFF\x1e\0\0\0WEBPVP8L\x11\0\0\0\x2f" + struct.pack("<I", 16_382 | 16_382 << 14) + b"\0" * 12
    yield "claims 16383.webp", webp, large
    yield "many scans.jpg", many_scans(3000), f"{COLOURS}|decoder_timeout|unreadable"


def damaged() -> Iterator[tuple[str, bytes, str]]:
    """Yield images cut short and images with flipped bytes."""
    for kind, options in (("JPEG", {"quality": 90}), ("JPEG", {"progressive": True}), ("PNG", {}), ("GIF", {}), ("WEBP", {}), ("BMP", {}), ("TIFF", {"compression": "tiff_lzw"})):
        data, label = saved(noise(), kind, **options), f"{'progressive ' if 'progressive' in options else ''}{kind}"
        for percent in (5, 20, 50, 80, 99):
            yield f"{label} cut at {percent}.jpg", data[: len(data) * percent // 100], "|".join(DAMAGED)
        for seed in range(8):
            rotten = bytearray(data)
            rng = np.random.default_rng(seed)
            for at in rng.integers(8, len(rotten), 1 + 8 * seed):
                rotten[at] ^= 1 << int(rng.integers(8))
            yield f"{label} rotten {seed}.jpg", bytes(rotten), "|".join(EITHER)


NAMES = ("é.jpg", "e\u0301.jpg", "狐.jpg", "🦊.jpg", ".hidden.jpg", " lead.jpg", "#%&+;'.jpg", "=cmd|x!A1.jpg", "-rf.jpg", "a" * 246 + ".jpg")
POSIX_NAMES = ("line\nbreak.jpg", 'quote".jpg', "back\\slash.jpg", "trail .jpg ", "co:lon.jpg", "tab\t.jpg", os.fsdecode(b"\xff\xfe.jpg"))


def build(folder: Path) -> list[Case]:
    """Write all files into a folder; return what is to become of each."""
    cases: list[Case] = []

    def add(name: str, expected: str, write: Callable[[Path], object]) -> None:
        write(folder / name)
        cases.append(Case(name, frozenset(expected.split("|"))))

    for part in (good_files, other_files, bombs, damaged):
        for name, data, expected in part():
            add(name, expected, lambda path, data=data: path.write_bytes(data))  # type: ignore[misc]
    plain = jpeg()
    for name in NAMES + (POSIX_NAMES if sys.platform == "linux" else ()):
        add(name, COLOURS, lambda path: path.write_bytes(plain))
    add("folder.jpg", "not_an_image", lambda path: path.mkdir())
    if os.name == "posix":
        add("pipe.jpg", "not_an_image", lambda path: os.mkfifo(path))
        add("device.jpg", "not_an_image", lambda path: path.symlink_to("/dev/zero"))
        add("socket.jpg", "not_an_image", _make_socket)
        add("dangling.jpg", "gone", lambda path: path.symlink_to("nowhere.jpg"))
        add("looping.jpg", "gone", lambda path: path.symlink_to(path.name))
    add("gone.jpg", "gone", lambda path: None)
    return cases


def _make_socket(path: Path) -> None:
    """Bind below the folder's own path, since socket addresses are short."""
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)
