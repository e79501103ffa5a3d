"""Uncertain, and of all kinds: the smallest margins of each predicted class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camera_trap_al.strategies import Pool, strategies
from camera_trap_al.strategies.groups import best_of_each, predicted
from camera_trap_al.strategies.shortlist import by_margin


@dataclass(frozen=True)
class ClassBalancedSampling:
    """Ask for the smallest margins of each predicted class, as many of one class as of another.

    Every row is looked at; memory is one block and n rows a class.

    Source: margin sampling with a quota by predicted class; the idea of balancing by prediction is that of Aggarwal,
    Popescu and Hudelot 2020, "Active learning for imbalanced datasets".
    """

    def query(self, pool: Pool, n: int, seed: int) -> npt.NDArray[np.int64]:
        """Return n rows, of the predicted classes in turn, each time the smallest margin."""
        return best_of_each(pool, predicted, max(1, len(pool.classes)), n, seed, by_margin).in_turns(n)


strategies.register("class_balanced")(ClassBalancedSampling())
