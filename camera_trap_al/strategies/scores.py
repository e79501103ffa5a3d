"""Strategies that rank each row by a score of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camera_trap_al.core.acquisition import Scored, margin_score, top_n
from camera_trap_al.strategies import Pool, strategies


@dataclass(frozen=True)
class MarginSampling:
    """Ask for the rows whose two most likely classes are closest."""

    def query(self, pool: Pool, n: int, seed: int) -> npt.NDArray[np.int64]:
        """Return the n rows with the smallest margin."""
        return top_n((Scored(b.rows, b.key_hashes, margin_score(b.proba)) for b in pool.unlabelled_blocks()), n, seed)


@dataclass(frozen=True)
class UniformSampling:
    """Ask for rows at random."""

    def query(self, pool: Pool, n: int, seed: int) -> npt.NDArray[np.int64]:
        """Return n rows drawn without replacement."""
        return top_n((Scored(b.rows, b.key_hashes, np.zeros(len(b.rows))) for b in pool.unlabelled_blocks()), n, seed)


strategies.register("margin")(MarginSampling())
strategies.register("uniform")(UniformSampling())
