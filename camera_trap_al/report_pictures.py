"""Small pictures for a report: which images may be shown at all, and how they come out: no metadata, no place."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
from PIL import Image

from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.core.matching import folded
from camera_trap_al.core.observed import PERSON, VEHICLE, WORDS
from camera_trap_al.engine import Decoders
from camera_trap_al.errors import ImageUnreadableError
from camera_trap_al.exporters.report_facts import Example
from camera_trap_al.images import EXIF_ORIENTATION, FORMATS

SIDE_PX = 160
COLOURS = 256
# Orientations of EXIF in which a photograph lies on its side.
ON_ITS_SIDE = range(5, 9)
# The words of detectors, of taxonomy, and what else people call such classes, in some languages.
PRIVATE = frozenset(
    """
    sapiens man men woman women child children boy girl hiker hikers hunter hunters poacher poachers cyclist cyclists ranger
    rangers staff researcher researchers tourist tourists pedestrians
    cars trucks motorbike motorbikes motorcycle motorcycles bicycle bicycles bike bikes quad atv
    mensch menschen fahrzeug fahrzeuge auto autos personne personnes humain humains véhicule véhicules voiture
    persona personas humano humanos gente vehículo vehículos coche pessoa pessoas veículo veículos carro
    mens mensen voertuig persone umano umani veicolo veicoli människa människor menneske mennesker fordon
    człowiek ludzie pojazd ember emberek člověk lidé ihminen ihmiset человек люди машина 人 人类 车
    """.split()
).union(WORDS[PERSON], WORDS[VEHICLE])
# A photograph that so probably shows a person or a vehicle is not shown, whatever its label says.
PRIVATE_FROM = 0.1
_WORDS = re.compile(r"[\W\d_]+")


@dataclass(frozen=True)
class Candidate:
    """An image that may become an example: what it is said to show, and what is predicted."""

    row: int
    truth: str
    predicted: str
    probability: float


def may_be_shown(truth: str, probabilities: Mapping[str, float], people: Collection[str] = ()) -> bool:
    """Return whether an image may be named or shown: neither its label nor what is predicted is a person or a vehicle.

    `people` are further classes that show them (`classes.person`).
    """
    private = sum(p for name, p in probabilities.items() if is_one_of(people, name) or is_private_class(name))
    return not (is_one_of(people, truth) or is_private_class(truth)) and private < PRIVATE_FROM


def is_one_of(people: Collection[str], name: str) -> bool:
    """Return whether a class is one of `people`, however it is spelled."""
    return folded(name) in map(folded, people)


def is_private_class(name: str) -> bool:
    """Return whether a class is of people or of their vehicles, by the words of its name."""
    return not PRIVATE.isdisjoint(_WORDS.split(folded(name)))


def examples_of(
    candidates: Iterable[Candidate],
    n: int,
    catalog: Catalog,
    folders: Mapping[str, str],
    decoders: Decoders,
    tick: Callable[[], None],
) -> tuple[Example, ...]:
    """Return the first n candidates whose images can be read, of twice as many."""
    found: list[Example] = []
    for one in islice(candidates, 2 * n):
        tick()
        (item,) = catalog.items([one.row], folders)
        (key,) = catalog.keys_of([one.row])
        try:
            png, (width, height) = small_picture(item.path, decoders)
        except (ImageUnreadableError, FileNotFoundError):
            continue
        except OSError:
            # A disk or share that does not answer takes minutes to say so, for each image.
            break
        found.append(Example(png, width, height, key.path, one.truth, one.predicted, one.probability))
        if len(found) == n:
            break
    return tuple(found)


def small_picture(path: str, decoders: Decoders) -> tuple[bytes, tuple[int, int]]:
    """Return an image as a PNG of at most 160 pixels a side, and its size. Raises `ImageUnreadableError`, `OSError`.

    It is drawn from pixels alone, so that nothing else of the file comes along: no place, no time, no owner.
    """
    pixels = decoders.read(path, px=SIDE_PX).pixels
    size = _fitting(path)
    small = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BILINEAR)
    out = io.BytesIO()
    small.quantize(COLOURS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue(), size


def _fitting(path: str) -> tuple[int, int]:
    """Return width and height in the proportions of the upright image; it was decoded to a square."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if image.getexif().get(EXIF_ORIENTATION, 1) in ON_ITS_SIDE:
                width, height = height, width
    # As in `images.py`: headers are foreign bytes. The image itself could be read, so it is shown.
    except Exception:
        return SIDE_PX, SIDE_PX
    longest = max(width, height, 1)
    return max(1, round(SIDE_PX * width / longest)), max(1, round(SIDE_PX * height / longest))
