"""Full-size camera frames for the rows that decode: given ones under other names, or made-up ones of 12 megapixels."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.figures import Run
from camera_trap_al.engine import usable_cores
from camera_trap_al.images import read_image

MADE_UP = 8
WIDTH, HEIGHT = 4000, 3000
REFERENCE_S = 45.0


def frames(run: Run, n: int) -> list[Path]:
    """Return `n` frames in three folders of `run.folder / "images"`, hard links where that can be.

    They are those of `run.data`; without it, or where nothing is measured, made-up ones.
    """
    originals = sorted(run.data.glob("*.jpg")) if run.data and not run.tiny else []
    if not originals:
        originals = list(_made_up(run.folder / "originals", 10 if run.tiny else 1))
    links = []
    for i, original in enumerate(islice(cycle(originals), n)):
        link = run.folder / "images" / f"site {i % 3}" / f"IMG_{i:05d}.JPG"
        link.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(original, link)
        except OSError:
            shutil.copyfile(original, link)
        links.append(link)
    return links


def kind(run: Run) -> str:
    """Return in words what the frames of a run are."""
    return "camera frames of up to 20 megapixels" if run.data and not run.tiny else "made-up frames"


def affordable(files: Sequence[Path], seconds_each: float) -> int:
    """Return how many of the frames the plain reference does within its time."""
    return min(len(files), max(8, int(REFERENCE_S / seconds_each)))


def decoded_a_second(files: Sequence[Path]) -> float:
    """Return how many frames a second are decoded, scaled, by a process a core that do nothing else."""
    n = usable_cores()
    with ProcessPoolExecutor(n, mp_context=get_context("spawn")) as pool:
        list(pool.map(_decode_all, [[files[0]]] * n))
        started = time.perf_counter()
        list(pool.map(_decode_all, [list(files[i : i + 8]) for i in range(0, len(files), 8)]))
        return len(files) / (time.perf_counter() - started)


def _decode_all(files: list[Path]) -> None:
    for path in files:
        read_image(path)


def _made_up(folder: Path, smaller: int) -> Iterator[Path]:
    """Draw a few frames: smooth shapes under the noise of a sensor, some 3 MB each."""
    folder.mkdir(parents=True)
    for i in range(MADE_UP):
        rng = np.random.default_rng(i)
        size = WIDTH // smaller, HEIGHT // smaller
        shapes = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).resize(
            size, Image.Resampling.BICUBIC
        )
        noise = rng.integers(-8, 9, (size[1], size[0], 1), dtype=np.int16)
        path = folder / f"{i}.jpg"
        Image.fromarray((np.asarray(shapes) + noise).clip(0, 255).astype(np.uint8)).save(path, quality=85)
        yield path
