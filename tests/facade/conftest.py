"""Sessions of the façade with the numpy learner, and a person at its prompt who is a list of things to do."""

from __future__ import annotations

import builtins
import csv
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from season import HUES, draw

from camera_trap_al import loop
from camera_trap_al.core.steps import Facts
from camera_trap_al.exporters import write_check
from camera_trap_al.learn import evaluate
from camera_trap_al.learn.heads import mlp
from camera_trap_al.main_scripts import run_active_learning
from camera_trap_al.store.atomic import make_folder
from camera_trap_al.work import Work

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "faults"))
import numpy_learner

SITES = ("site a", "site b/card 2")
N_IMAGES = 14


def hue_of(i: int) -> str:
    return list(HUES)[i % 7 % 3]


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14 pictures to label at two sites, and one directly in the folder; 6 to train on, 3 for validation.

    Beside them are folders that Timelapse makes, and an empty one.
    """
    root = tmp_path_factory.mktemp("facade")
    rng = np.random.default_rng(4)
    for name, hue in HUES.items():
        for i in range(2):
            draw(root / "train" / name / f"{i}.jpg", hue, rng)
        draw(root / "validation" / name / "0.jpg", hue, rng)
    for i in range(N_IMAGES):
        draw(root / "pool" / SITES[i % 2] / f"IMG_{i:02d}.jpg", HUES[hue_of(i)], rng)
    draw(root / "pool" / "top.jpg", 0.5, rng)
    for folder in ("pool/backup", "pool/empty", "train/Backups"):
        (root / folder).mkdir()
    (root / "pool" / "backup" / "TimelapseTemplate.tdb").write_bytes(b"an old template")
    return root


class Leave(Exception):
    """The person at the prompt pulls the plug."""


@dataclass
class Session:
    """The folders of one project, and calls of `run_active_learning` on them."""

    root: Path
    monkeypatch: pytest.MonkeyPatch
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def output(self) -> Path:
        return self.root / "out"

    @property
    def bin(self) -> Path:
        return self.output / "new_labels_bin"

    def run(self, *acts: Callable[[], object], **options: Any) -> int:
        """Call it; at each prompt do the next of `acts`, and leave after the last. Return how often Enter was waited for."""
        left, n = list(acts), 0

        def at_prompt(prompt: str = "") -> str:
            nonlocal n
            print(prompt)
            n += 1
            if not left:
                raise Leave
            left.pop(0)()
            return ""

        self.monkeypatch.setattr(builtins, "input", at_prompt)
        given = {
            "train_data": self.root / "train",
            "unlabelled_data": str(self.root / "pool"),
            "validation_data": self.root / "validation",
            "output_dir": self.output,
            "active_batch": 5,
            "use_pretrained": False,
            "embedding_arch": "tiny",
            "feat_dim": 6,
            "embedding_train_num_epochs": 1,
            "embedding_finetuning_num_epochs": 1,
            **self.options,
            **options,
        }
        try:
            run_active_learning(**given)
        except Leave:
            return n
        return n

    def asked(self) -> list[str]:
        """Return the images that the selector selects, with `/`."""
        return [f"{row['RelativePath']}/{row['File']}" for row in self.selector() if row["Selected"] == "true"]

    def selector(self) -> list[dict[str, str]]:
        with (self.output / "timelapse_selector.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def truth(self, image: str) -> str:
        return hue_of(int(image[-6:-4]))

    def put(
        self, name: str, labels: dict[str, str] | None = None, *, header: str = "File,RelativePath,Species"
    ) -> None:
        """Export a label file into the bin, by default the right answer to what is asked."""
        if labels is None:
            labels = {image: self.truth(image) for image in self.asked()}
        self.write(name, list(labels.items()), header=header)

    def write(self, name: str, rows: list[tuple[str, str]], *, header: str = "File,RelativePath,Species") -> None:
        lines = [f"{image.rpartition('/')[2]},{image.rpartition('/')[0]},{species}" for image, species in rows]
        (self.bin / name).write_bytes("".join(f"{line}\r\n" for line in [header, *lines]).encode())

    def labels(self) -> dict[str, str]:
        """Return what `data/labels.csv` says, without the images that have no label."""
        with (self.output / "data" / "labels.csv").open(encoding="utf-8", newline="") as file:
            return {row["path"]: row["label"] for row in csv.DictReader(file) if row["label"] != "unlabelled"}


def _note_export(work: Work, facts: Facts, subject: str) -> None:
    make_folder(work.folder.export)
    write_check(work.folder.export, facts.checkpoint, True, "")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the numpy learner stand in for torch, draw no figures, export nothing and sync nothing."""
    undo = numpy_learner.install()
    from camera_trap_al_service import console

    monkeypatch.setattr(console, "_warn_without_gpu", lambda: None)
    monkeypatch.setattr(mlp, "MIN_STEPS", 6)
    monkeypatch.setattr(mlp, "MAX_STEPS", 6)
    monkeypatch.setattr(evaluate, "confusion_figure", lambda *given: b"figure")
    monkeypatch.setattr(evaluate, "curve_figure", lambda *given: b"figure")
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setitem(loop.STEPS, "EXPORTING", _note_export)  # type: ignore[arg-type]
    yield
    undo()


@pytest.fixture
def session(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None) -> Session:
    root = tmp_path / "project"
    shutil.copytree(drawn, root)
    return Session(root, monkeypatch)
