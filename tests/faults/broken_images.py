"""Files that are no images, and images that broken cards and attackers make: each is refused, or read at no great cost."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
from picture_bytes import (
    COLOURS,
    DAMAGED,
    EITHER,
    PIXELS,
    H,
    W,
    bmp,
    chunk,
    jpeg,
    jpeg_of_size,
    many_scans,
    noise,
    plain_rows,
    png,
    quarters,
    saved,
    tiff,
)
from PIL import Image


def other_files() -> Iterator[tuple[str, bytes, str]]:
    """Yield files that are no image, or of a format that is not read."""
    yield "empty.jpg", b"", "empty_file"
    texts = {
        "text": b"dear diary",
        "html": b"<!DOCTYPE html><html>not found</html>",
        "json": b'{"error": 404}',
        "csv": b"a,b\n1,2\n",
    }
    texts |= {
        "zip": b"PK\3\4" + b"\0" * 90,
        "exe": b"MZ" + b"\0" * 90,
        "elf": b"\x7fELF" + b"\0" * 90,
        "gz": b"\x1f\x8b" + b"\0" * 90,
    }
    texts |= {
        "zeros": b"\0" * 9999,
        "ones": b"\xff" * 9999,
        "one byte": b"x",
        "sqlite": b"SQLite format 3\0" + b"\0" * 90,
    }
    texts |= {
        "pcx": b"\n\5\1\x08" + b"\0" * 130,
        "ppm": b"P6 2 2 255\n" + b"\0" * 12,
        "tga": b"\0\0\2" + b"\0" * 60,
        "wmf": b"\xd7\xcd\xc6\x9a" + b"\0" * 60,
    }
    texts |= {
        "xbm": b"#define im_width 1\n#define im_height 1\n",
        "xpm": b"/* XPM */",
        "jxl": b"\xff\x0a\0\0",
        "random": np.random.default_rng(7).bytes(9999),
    }
    texts |= {
        "late": b"\0" * 16 + jpeg(),
        "appledouble": b"\0\5\x16\7\0\2\0\0" + b"\0" * 90,
        "utf16": "text".encode("utf-16"),
    }
    yield from ((f"{name}.jpg", data, "not_an_image") for name, data in texts.items())
    box = struct.pack(">I", 24) + b"ftyp"
    formats = {
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n",
        "pdf": b"%PDF-1.7\n",
        "psd": b"8BPS\0\1",
        "fits": b"SIMPLE  =   T",
        "svg": b"<svg xmlns=''/>",
    }
    formats |= {
        "svg xml": b"<?xml version='1.0'?><svg/>",
        "svg bom": b"\xef\xbb\xbf<svg/>",
        "qoi": b"qoif",
        "jp2": b"\0\0\0\x0cjP  \r\n\x87\n",
    }
    formats |= {
        "heic": box + b"heic",
        "heix": box + b"heix",
        "avif": box + b"avif",
        "mp4": box + b"isom",
        "mov": box + b"qt  ",
    }
    formats |= {"wav": b"RIFF\x24\0\0\0WAVEfmt ", "avi": b"RIFF\x24\0\0\0AVI LIST", "ico": b"\0\0\1\0\1\0"}
    for name, data in formats.items():
        yield f"format {name}.jpg", data + b"\0" * 200, "format_not_allowed"
    for kind, end in (
        ("JPEG2000", "j2k"),
        ("ICO", "ico"),
        ("EPS", "eps"),
        ("PDF", "pdf"),
        ("ICNS", "icns"),
        ("TGA", "tga"),
        ("PPM", "ppm"),
        ("AVIF", "avif"),
    ):
        with suppress(Exception):  # what this Pillow cannot write is left out
            yield f"real {end}.jpg", saved(quarters(), kind), "not_an_image|format_not_allowed"
    heads = {
        "jpeg": b"\xff\xd8",
        "jpeg2": b"\xff\xd8\xff",
        "png": b"\x89PNG\r\n\x1a\n",
        "gif": b"GIF89a",
        "bmp": b"BM",
        "tiff": b"II*\0",
        "cr2": b"II*\0\x10\0\0\0CR\2\0",
    }
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
    yield (
        "short run lengths.bmp",
        bmp(10_000, 9_000, b"\xff\0" * 9 + b"\0\1", bits=8, packing=1, palette=b"\0" * 1024),
        f"{PIXELS}|{cut}",
    )
    yield "claims 65500.jpg", jpeg_of_size(65_500, 65_500), large
    yield "claims 9000.jpg", jpeg_of_size(9_000, 9_000), f"{PIXELS}|truncated"
    yield "no end.jpg", jpeg()[:-2], "truncated"
    yield "no height.jpg", jpeg_of_size(96, 0), "|".join(DAMAGED)
    yield "claims 1000000.tif", tiff(1_000_000, 1_000_000), large
    yield "lies within the limits.tif", tiff(9_000, 9_000), cut
    yield "loop.tif", tiff(8, 8, next_ifd=72), PIXELS
    lies = {
        "samples": (277, 3, 1, 65_535),
        "bits": (258, 3, 1, 65_535),
        "packing": (259, 3, 1, 34_925),
        "strip far": (273, 4, 1, 2**31),
    }
    lies |= {
        "count": (256, 4, 2**31 - 1, 8),
        "no strip": (273, 4, 0, 0),
        "tiles": (322, 4, 1, 2**31),
        "kind": (256, 99, 1, 8),
    }
    yield from (
        (f"lie {name}.tif", tiff(8, 8, tag), "|".join({PIXELS} | DAMAGED | {"not_an_image", large}))
        for name, tag in lies.items()
    )
    webp = b"RIFF\x1e\0\0\0WEBPVP8L\x11\0\0\0\x2f" + struct.pack("<I", 16_382 | 16_382 << 14) + b"\0" * 12
    yield "claims 16383.webp", webp, large
    yield "many scans.jpg", many_scans(3000), f"{COLOURS}|decoder_timeout|unreadable"


def damaged() -> Iterator[tuple[str, bytes, str]]:
    """Yield images cut short and images with flipped bytes."""
    for kind, options in (
        ("JPEG", {"quality": 90}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("GIF", {}),
        ("WEBP", {}),
        ("BMP", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ):
        data, label = saved(noise(), kind, **options), f"{'progressive ' if 'progressive' in options else ''}{kind}"
        for percent in (5, 20, 50, 80, 99):
            yield f"{label} cut at {percent}.jpg", data[: len(data) * percent // 100], "|".join(DAMAGED)
        for seed in range(8):
            rotten = bytearray(data)
            rng = np.random.default_rng(seed)
            for at in rng.integers(8, len(rotten), 1 + 8 * seed):
                rotten[at] ^= 1 << int(rng.integers(8))
            yield f"{label} rotten {seed}.jpg", bytes(rotten), "|".join(EITHER)
