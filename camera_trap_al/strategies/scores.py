"""Strategies that rank each row by a score of its own. They look at every row; memory is one block plus n rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camera_trap_al.core.acquisition import (
    FloatArray,
    Scored,
    confidence_score,
    entropy_score,
    margin_score,
    no_preference,
    top_n,
)
from camera_trap_al.strategies import Pool, strategies


@dataclass(frozen=True)
class ScoreSampling:
    """Ask for the rows that score highest."""

    score: Callable[[FloatArray], FloatArray]

    def query(self, pool: Pool, n: int, seed: int) -> npt.NDArray[np.int64]:
        """Return the n rows with the highest score, the best first."""
        return top_n((Scored(b.rows, b.key_hashes, self.score(b.proba)) for b in pool.unlabelled_blocks()), n, seed)


strategies.register("margin")(ScoreSampling(margin_score))
strategies.register("entropy")(ScoreSampling(entropy_score))
strategies.register("confidence")(ScoreSampling(confidence_score))
strategies.register("uniform")(ScoreSampling(no_preference))
