"""A schedule: typical rows while labels are few, margins from then on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camera_trap_al.core.acquisition import margin_score
from camera_trap_al.strategies import WITHOUT_CLASSES, Pool, QueryStrategy, strategies
from camera_trap_al.strategies.scores import ScoreSampling
from camera_trap_al.strategies.typiclust import TypiclustSampling

LABELS_PER_CLASS = 4


@dataclass(frozen=True)
class CoverageThenMarginSampling:
    """Ask for typical rows while labels are few, and for the smallest margins from then on.

    Few are fewer than 4 for each class that is known.

    Source: TCM, Doucet, Estermann, Aczel and Wattenhofer 2024, "Bridging diversity and uncertainty in active learning
    with self-supervised pre-training" (arXiv:2403.03728).
    """

    coverage: QueryStrategy = TypiclustSampling()
    then: QueryStrategy = ScoreSampling(margin_score)
    labels_per_class: float = LABELS_PER_CLASS

    def query(self, pool: Pool, n: int, seed: int) -> npt.NDArray[np.int64]:
        """Return n rows by the one or the other."""
        n_labelled = sum(len(block.labels) for block in pool.labelled_blocks())
        few = n_labelled < self.labels_per_class * len(pool.classes) or len(pool.classes) < 2
        return (self.coverage if few else self.then).query(pool, n, seed)


strategies.register("coverage_then_margin", WITHOUT_CLASSES)(CoverageThenMarginSampling())
