"""Shares of several strategies in one request, the last of which is drawn at random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camera_trap_al.strategies import WITHOUT_CLASSES, Pool, QueryStrategy, strategies
from camera_trap_al.strategies.class_balanced import ClassBalancedSampling
from camera_trap_al.strategies.groups import best_of_each, predicted
from camera_trap_al.strategies.herding import UncertaintyHerdingSampling
from camera_trap_al.strategies.novelty import NoveltySampling
from camera_trap_al.strategies.shortlist import of_all


@dataclass(frozen=True)
class StratifiedSampling:
    """Ask at random, from each predicted class in proportion to its rows."""

    def query(self, pool: Pool, n: int, seed: int) -> npt.NDArray[np.int64]:
        """Return n rows in random order within shares, then the others."""
        found = best_of_each(pool, predicted, max(1, len(pool.classes)), n, seed, of_all)
        return found.within_shares(found.sizes.astype(np.float64), n)


@dataclass(frozen=True)
class MixedSampling:
    """Ask by several strategies, each for its share of a request; a row that two of them want counts for the first.

    Source: mixtures of arms with fixed shares, as in Baram, El-Yaniv and Luz 2004, "Online choice of active learning
    algorithms", without their bandit.
    """

    shares: tuple[tuple[float, QueryStrategy], ...] = (
        (0.6, UncertaintyHerdingSampling()),
        (0.15, ClassBalancedSampling()),
        (0.1, NoveltySampling()),
        (0.15, StratifiedSampling()),
    )

    def query(self, pool: Pool, n: int, seed: int) -> npt.NDArray[np.int64]:
        """Return n rows, those of all shares among each other, so that each beginning holds them in proportion."""
        chosen, places, up_to = np.zeros(0, np.int64), np.zeros(0), 0.0
        for share, strategy in self.shares:
            up_to += share
            until = round(up_to * n)
            theirs = strategy.query(pool, until, seed)
            chosen = np.concatenate([chosen, theirs[~np.isin(theirs, chosen)]])[:until]
            places = np.concatenate([places, (np.arange(len(chosen) - len(places)) + 0.5) / share])
        return chosen[np.argsort(places, kind="stable")]


strategies.register("mixed", WITHOUT_CLASSES)(MixedSampling())
