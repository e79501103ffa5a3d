"""A work folder with a few pictures, run without torch; and every name in it that the program writes."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from typing import Any

from PIL import Image

from camera_trap_al.loop import Loop, is_idle
from camera_trap_al.work import Work
from camera_trap_al_service.init import init

COLOURS = {"red": (200, 40, 30), "green": (30, 180, 40)}
OPTIONS = {
    "query.batch": 4,
    "embedding.arch": "tiny",
    "embedding.feat_dim": 4,
    "embedding.pretrained": False,
    "labels.settle_s": 0.0,
    "train.min_labels": 4,
    "train.epochs": 1,
    "finetune.epochs": 0,
    "daemon.worker": "inline",
    "daemon.seed": 5,
}


def draw(path: Path, species: str, shade: int = 0) -> None:
    """Save a small picture of a class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 12), tuple(min(255, value + shade) for value in COLOURS[species])).save(path)


def make_world(root: Path, classes: tuple[str, str] = ("red", "green"), **options: Any) -> Path:
    """Make pictures (8 to label, 4 to train on, 2 for validation) and a work folder; return that."""
    for i, (colour, name) in enumerate(zip(COLOURS, classes, strict=True)):
        for n in range(4):
            draw(root / "pool" / ["", "site"][n % 2] / f"{colour}{n}.jpg", colour, 5 * n)
        for n in range(2):
            draw(root / "train" / name / f"{n}.jpg", colour, 7 * n)
        draw(root / "validation" / name / f"{i}.jpg", colour, 3)
    folders = {"data.unlabelled": "pool", "data.train": "train", "data.validation": "validation"}
    given = {key: str(root / folder) for key, folder in folders.items()}
    init(root / "work", given, {**OPTIONS, **{key.replace("__", "."): value for key, value in options.items()}})
    return root / "work"


def run(work: Path) -> None:
    """Run until nothing is left to do."""
    opened = Work.open(work)
    try:
        Loop(opened).run(until=is_idle)
    finally:
        opened.close()


def answer(work: Path, name: str = "labels.csv", species: dict[str, str] | None = None) -> None:
    """Label what is asked for by the colour in the file name."""
    species = species or {"red": "red", "green": "green"}
    with (work / "timelapse_selector.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["Selected"] == "true"]
    with (work / "new_labels_bin" / name).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["File", "RelativePath", "Species"])
        for row in rows:
            colour = next(colour for colour in COLOURS if colour in row["File"])
            writer.writerow([row["File"], row["RelativePath"], species[colour]])


def contents(root: Path) -> dict[str, str]:
    """Return the hash of every file below a folder, by its path there."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
