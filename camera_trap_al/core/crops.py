"""Which part of an image is looked at for a box of a detector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from camera_trap_al.core.observed import ANIMAL, PERSON, VEHICLE
from camera_trap_al.core.records import Box

LEAST_PX = 1.0
# A flock has fewer; a file that lists more boxes would only fill the memory.
MOST_CROPS = 100


class Wanted(NamedTuple):
    """What of an image is decoded: `px` pixels a side of it all, or of one box; or of the square around each of some."""

    px: int
    box: Box | None = None
    squares: tuple[Box, ...] | None = None
    padding: float = 1.0


class Square(NamedTuple):
    """A square in pixels; it reaches beyond an image that is smaller than it."""

    left: float
    top: float
    side: float


def looked_at(found: Sequence[tuple[Any, ...]]) -> list[int] | None:
    """Return, ascending, which boxes of an image are cut out: the 100 surest animals. None where it shows people or vehicles.

    Parameters
    ----------
    found : the boxes that count, each as (category, confidence, …)
    """
    if any(box[0] in (PERSON, VEHICLE) for box in found):
        return None
    animals = [i for i, box in enumerate(found) if box[0] == ANIMAL]
    if len(animals) <= MOST_CROPS:
        return animals
    return sorted(sorted(animals, key=lambda i: -found[i][1])[:MOST_CROPS])


def square_around(box: Box, width: int, height: int, *, padding: float = 1.0) -> Square:
    """Return the square that is cut out for a box, so that nothing is squashed.

    Its side is the longer side of the box, times `padding`. Its centre is that of the box; where it would reach over an
    edge it is moved into the image, and where the image is smaller than it the image is in its middle.

    Parameters
    ----------
    width, height : of the image in pixels
    padding : 1 for none

    Source: `square_crop` of MegaDetector's `crop_detections.py`, which the sister pipeline has, too.
    """
    side = max(box.width * width, box.height * height, LEAST_PX) * padding
    return Square(_start(box.left + box.width / 2, side, width), _start(box.top + box.height / 2, side, height), side)


def _start(centre: float, side: float, size: int) -> float:
    if side >= size:
        return (size - side) / 2
    return min(max(centre * size - side / 2, 0.0), size - side)
