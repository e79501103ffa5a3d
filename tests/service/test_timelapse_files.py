"""What Timelapse loads, and how it reads dates and CSV texts."""

from __future__ import annotations

import os
import struct
from datetime import datetime
from pathlib import Path

import pytest

from camera_trap_al_service.timelapse_files import date_taken, find_images, split_csv

TAKEN = datetime(2024, 9, 17, 18, 44, 56)


def add_image(root: Path, path: str, content: bytes = b"", taken: datetime = TAKEN) -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    os.utime(target, (taken.timestamp(), taken.timestamp()))


def exif(date: str, order: str = "<") -> bytes:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    first = struct.pack(f"{order}IHHHII", 8, 1, 0x8769, 4, 1, 26) + b"\0" * 4
    second = struct.pack(f"{order}HHHII", 1, 0x9003, 2, 20, 44) + b"\0" * 4
    tiff = mark + first + second + date.encode("ascii") + b"\0"
    body = b"Exif\0\0" + tiff
    return b"\xff\xd8\xff\xe1" + struct.pack(">H", len(body) + 2) + body + b"\xff\xda"


def test_only_what_timelapse_loads_is_an_image(tmp_path: Path) -> None:
    seen = ["a.jpg", "B.JPG", "clip.MP4", "x/c.avi", "x/d.asf", "x/e.mov", "x/.jpg"]
    unseen = ["a.jpeg", "b.png", "c.tif", "._a.jpg", "x/Backups/a.jpg", "DeletedFiles/a.jpg", ".vthumb/a.jpg"]
    unseen += ["@Recycle/a.jpg"]
    if os.name != "nt":  # Windows marks hidden folders in another way, and makes no such long names
        unseen += [".hidden/a.jpg", "x/y/" + "n" * 250 + ".jpg"]
    for path in seen + unseen:
        add_image(tmp_path, path)
    found = ["/".join([*folder.split("\\"), file]).lstrip("/") for folder, file in find_images(tmp_path)]
    assert sorted(found) == sorted(seen)


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_date_is_that_of_the_camera_if_the_image_tells_it(tmp_path: Path, order: str) -> None:
    add_image(tmp_path, "a.jpg", exif("2019:05:06 07:08:09", order))
    assert date_taken(tmp_path / "a.jpg") == "2019-05-06 07:08:09"


@pytest.mark.parametrize("content", [b"", b"\xff\xd8", exif("0000:00:00 00:00:00"), exif("2019:05:06 07:08:09")[:40]])
def test_the_date_is_that_of_the_file_if_the_image_does_not_tell(tmp_path: Path, content: bytes) -> None:
    add_image(tmp_path, "a.jpg", content)
    assert date_taken(tmp_path / "a.jpg") == "2024-09-17 18:44:56"


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('a, b ," c "\r\n\r\n"d""e",\n', [["a", "b", " c "], ['d"e', ""]]),
        ('"two\r\nlines",x\ry', [["two\r\nlines", "x"], ["y"]]),
        ('5" pipe,"a"b,"open', [['5" pipe', "ab", "open"]]),
        (" \n\ta,", [[""], ["\ta", ""]]),
    ],
)
def test_csv_text_is_split_as_timelapse_splits_it(text: str, rows: list[list[str]]) -> None:
    assert split_csv(text) == rows
