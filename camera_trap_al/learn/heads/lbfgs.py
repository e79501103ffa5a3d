"""Minimising a smooth convex function of many numbers. numpy only: importing scipy takes the daemon's start too long."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

DoubleArray = npt.NDArray[np.float64]

MEMORY = 10
MOST_STEPS = 200
ENOUGH_DECREASE = 1e-4
SHORTEST = 1e-6


def minimise(
    function: Callable[[DoubleArray], tuple[float, DoubleArray]],
    start: DoubleArray,
    *,
    tolerance: float,
    most_steps: int = MOST_STEPS,
) -> DoubleArray:
    """Return where a convex function is (nearly) least.

    Parameters
    ----------
    function : x → its value and its (m,) gradient
    start : (m,)
    tolerance : fraction of the first gradient's largest entry below which all entries of the last one lie, unless
        `most_steps` come first or no step leads further down

    Source: L-BFGS, Liu & Nocedal 1989, with a backtracking line search.
    """
    x, (value, gradient) = start, function(start)
    enough = tolerance * float(np.abs(gradient).max(initial=0.0))
    past: deque[tuple[DoubleArray, DoubleArray, float]] = deque(maxlen=MEMORY)
    for _ in range(most_steps):
        if float(np.abs(gradient).max(initial=0.0)) <= enough:
            break
        direction = _direction(gradient, past)
        slope = float(direction @ gradient)
        length = 1.0
        while length >= SHORTEST:
            new_value, new_gradient = function(x + length * direction)
            if new_value <= value + ENOUGH_DECREASE * length * slope:
                break
            length /= 2
        else:
            break
        step, change = length * direction, new_gradient - gradient
        if float(step @ change) > 0:
            past.append((step, change, 1 / float(step @ change)))
        x, value, gradient = x + step, new_value, new_gradient
    return x


def _direction(gradient: DoubleArray, past: deque[tuple[DoubleArray, DoubleArray, float]]) -> DoubleArray:
    """Return the direction down, by the curvature that the last steps showed."""
    direction = -gradient
    if not past:
        return direction / float(np.linalg.norm(gradient))
    shares = []
    for step, change, inverse in reversed(past):
        shares.append(inverse * float(step @ direction))
        direction = direction - shares[-1] * change
    step, change, inverse = past[-1]
    direction = direction / (inverse * float(change @ change))
    for (step, change, inverse), share in zip(past, reversed(shares), strict=True):
        direction = direction + (share - inverse * float(change @ direction)) * step
    return direction
