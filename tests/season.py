"""A season of small coloured pictures, and a person who labels them by the rules of Timelapse."""

from __future__ import annotations

import colorsys
import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from camera_trap_al.core.records import ImageKey
from camera_trap_al.core.steps import Facts, Step
from camera_trap_al.lock import take_lock
from camera_trap_al.loop import Loop, is_idle
from camera_trap_al.work import Work
from camera_trap_al_service.init import init
from camera_trap_al_service.timelapse_user import ImageSet

HUES = {"red": 0.0, "green": 0.33, "blue": 0.66}
QUICK = {
    "query.batch": 9,
    "query.first": "now",
    "embedding.arch": "tiny",
    "embedding.feat_dim": 8,
    "labels.settle_s": 0.0,
    "train.min_labels": 12,
    "train.epochs": 1,
    "finetune.period": 18,
    "finetune.epochs": 1,
    "daemon.worker": "inline",
    "daemon.seed": 5,
}


def draw(path: Path, hue: float, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = np.array(colorsys.hsv_to_rgb((hue + rng.normal() * 0.04) % 1, 0.7, 0.7)) * 255
    pixels = np.clip(colour + rng.normal(size=(24, 32, 3)) * 30, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path, quality=90)


def draw_pictures(root: Path) -> Path:
    """Draw 60 pictures to label at three sites with the same file names, 6 to train on, 12 for validation."""
    rng = np.random.default_rng(1)
    for name, hue in HUES.items():
        for i in range(2):
            draw(root / "train" / name / f"{i}.jpg", hue, rng)
        for i in range(4):
            draw(root / "validation" / name / f"{i}.jpg", hue, rng)
    for i in range(60):
        draw(
            root / "pool" / ["", "site a", "site b"][i % 3] / f"IMG_{i // 3:04d}.JPG", HUES[list(HUES)[i % 7 % 3]], rng
        )
    return root


def is_quiet(facts: Facts, step: Step) -> bool:
    """Return whether all is done that is due now."""
    return step.name == "WAITING" and not facts.unsettled


@dataclass
class Season:
    """One copy of the pictures, its work folder, and what a person would answer."""

    root: Path
    truth: dict[tuple[str, str], str]

    @property
    def work(self) -> Path:
        return self.root / "work"

    def run(self) -> list[list[ImageKey]]:
        """Run the loop until nothing is left to do; return the requests so far."""
        work = Work.open(self.work)
        try:
            Loop(work).run(until=is_idle)
            return [sorted(request.keys) for request in work.history.requests]
        finally:
            work.close()

    @contextlib.contextmanager
    def opened(self) -> Iterator[Loop]:
        """Open the work folder for a loop that trains nothing: its worker's place is taken."""
        work = Work.open(self.work)
        worker = take_lock(work.folder.worker_lock)
        assert worker is not None
        try:
            yield Loop(work)
        finally:
            worker.release()
            work.close()

    def turn(self) -> None:
        """Let a loop that trains nothing do all that is due."""
        with self.opened() as loop:
            loop.run(until=is_quiet)

    def shown(self) -> dict[str, Any]:
        """Return `label_request.json`."""
        return dict(json.loads((self.work / "data" / "label_request.json").read_text(encoding="utf-8")))

    def placed(self) -> int | str:
        """Return the round that is shown."""
        round_: int | str = self.shown()["round"]
        return round_

    def asked(self) -> list[str]:
        """Return the paths of the images that are asked for."""
        return list(self.shown()["images"])

    def labels_csv(self) -> dict[str, str]:
        """Return what `data/labels.csv` says."""
        lines = (self.work / "data" / "labels.csv").read_text(encoding="utf-8").splitlines()[1:]
        return dict(line.rsplit(",", 1) for line in lines)

    def drop(self, name: str, labels: dict[str, str]) -> None:
        """Put a label file into the bin."""
        rows = [
            f"{path.rpartition('/')[2]},{path.rpartition('/')[0]},{species}\r\n" for path, species in labels.items()
        ]
        text = "File,RelativePath,Species\r\n" + "".join(rows)
        (self.work / "new_labels_bin" / name).write_text(text, encoding="utf-8", newline="")

    def person(self) -> Callable[[], int]:
        """Return a function that labels what is asked for now and exports it into the bin."""
        user = ImageSet.open(self.root / "pool", self.root / "pool" / "TimelapseTemplate.tdb")
        done: list[int] = []

        def label() -> int:
            done.append(1)
            target = self.work / "new_labels_bin" / f"round{len(done)}.csv"
            return user.label_round(self.work / "timelapse_selector.csv", self.truth, target)

        return label


def make_season(pictures: Path, root: Path, folders: tuple[str, ...], options: dict[str, object]) -> Season:
    """Copy the pictures to `root` and make a work folder that uses these kinds of folder and options."""
    shutil.copytree(pictures, root)
    truth = {}
    for i in range(60):
        truth[("", "site a", "site b")[i % 3], f"IMG_{i // 3:04d}.JPG"] = list(HUES)[i % 7 % 3]
    given = {"data.unlabelled": str(root / "pool")} | {f"data.{kind}": str(root / kind) for kind in folders}
    dotted = {key.replace("__", "."): value for key, value in options.items()}
    init(root / "work", given, {**QUICK, **dotted})
    return Season(root, truth)
