"""Image files as people and cameras make them, some of them oddly: each is read.

They show four quarters: red, green, blue, yellow.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from picture_bytes import (
    ALLOWED,
    COLOURS,
    GREYS,
    PIXELS,
    RED,
    H,
    W,
    bmp,
    bmp_rows,
    chunk,
    exif,
    interlaced_png,
    jpeg,
    noise,
    plain_rows,
    png,
    quarters,
    rle_bmp,
    saved,
    turned,
)
from PIL import Image


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
    broken = {
        "text": b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\2\0\4\0\0\0six\0\0\0\0\0",
        "cut": exif(1)[:12],
        "wild": b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 60,
    }
    broken |= {
        "empty": b"Exif\0\0",
        "loop": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\x08",
        "noise": b"Exif\0\0" + bytes(range(200)),
    }
    broken["far"] = b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\xff\xff\xff\x7f\xff\xff\xff\x7f\0\0\0\0"
    yield from ((f"exif {name}.jpg", jpeg(exif=data), COLOURS) for name, data in broken.items())
    yield from ((f"icc {n}.jpg", jpeg(icc_profile=b"\xffno profile" * n), COLOURS) for n in (1, 50_000))
    markers = b"".join(b"\xff\xed" + struct.pack(">H", 65_535) + b"x" * 65_533 for _ in range(40))
    yield "many markers.jpg", plain[:2] + markers + plain[2:], COLOURS
    yield from (
        (f"trailing {n}.jpg", plain + junk, COLOURS)
        for n, junk in (("zeros", b"\0" * 9000), ("zip", b"PK\3\4" * 99), ("jpeg", plain))
    )
    yield from (
        (f"side {w}x{h}.jpg", jpeg(Image.new("RGB", (w, h), RED)), PIXELS)
        for w, h in ((1, 1), (1, 900), (900, 1), (1, 20_000))
    )
    yield "two frames.jpg", saved(quarters(), "MPO", save_all=True, append_images=[noise(W, H)]), COLOURS
    yield "large.jpg", jpeg(quarters(10_000, 8_000), quality=60), COLOURS
    yield from (
        (f"jpeg called{end}", plain, COLOURS) for end in (".png", ".gif", ".tif", ".webp", ".bmp", "", ".jpg.txt")
    )
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
    extras = {
        "tRNS": b"\0\1\0\2\0\3",
        "gAMA": b"\0\1\x86\xa0",
        "tEXt": b"Comment\0" + b"x" * 5000,
        "pHYs": b"",
        "eXIf": b"\xff" * 20,
    }
    extras |= {
        "iCCP": b"broken\0\0" + zlib.compress(b"no profile"),
        "zTXt": b"a\0\0" + zlib.compress(b"a" * 9000),
        "vpAg": b"?",
    }
    yield from (
        (f"chunk {k}.png", png(W, H, rows, before=chunk(k.encode(), d)), COLOURS)
        for k, d in extras.items()
        if k != "pHYs"
    )
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
    yield (
        "15 bits.bmp",
        bmp(W, H, (short[..., 0] << 10 | short[..., 1] << 5 | short[..., 2]).astype("<u2").tobytes(), bits=16),
        COLOURS,
    )
    yield "trailing.bmp", saved(quarters(), "BMP") + b"x" * 999, COLOURS

    for packing in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield f"{packing}.tif", saved(quarters(), "TIFF", compression=packing), COLOURS
    for packing in ("group3", "group4", "tiff_ccitt"):
        yield f"{packing}.tif", saved(quarters().convert("1"), "TIFF", compression=packing), PIXELS
    yield "big.tif", saved(quarters(), "TIFF", big_tiff=True), COLOURS
    yield from (
        (f"mode {m}.tif", saved(quarters().convert(m), "TIFF"), COLOURS) for m in ("RGBA", "CMYK", "P", "YCbCr")
    )
    yield "mode LAB.tif", saved(Image.new("LAB", (W, H)), "TIFF"), f"{PIXELS}|unreadable"
    grey = np.asarray(quarters().convert("L"))
    depths = {
        "16": grey.astype(np.uint16) * 257,
        "float": grey.astype(np.float32) / 255,
        "float255": grey.astype(np.float32),
    }
    depths["32"] = grey.astype(np.int32)
    yield from ((f"grey {n}.tif", saved(Image.fromarray(v), "TIFF"), GREYS) for n, v in depths.items())
    holes = np.where(grey > 100, np.nan, grey).astype(np.float32)
    yield "grey holes.tif", saved(Image.fromarray(holes), "TIFF"), PIXELS
    yield from ((f"turned{o}.tif", saved(turned(o), "TIFF", exif=exif(o)), COLOURS) for o in (1, 3, 6, 8))
    yield "orientation 99.tif", saved(quarters(), "TIFF", tiffinfo={274: 99}), COLOURS
    yield "pages.tif", saved(quarters(), "TIFF", save_all=True, append_images=frames), COLOURS
    yield (
        "400 pages.tif",
        saved(quarters(), "TIFF", save_all=True, append_images=[Image.new("L", (2, 2))] * 400),
        COLOURS,
    )
    yield "trailing.tif", saved(quarters(), "TIFF") + b"x" * 999, COLOURS
