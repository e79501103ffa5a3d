"""Query strategies: which unlabelled rows to ask for next. The registry, and what a strategy sees of the program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from camera_trap_al.errors import NotANumberError
from camera_trap_al.registry import Registry


def check_numbers(rows: npt.NDArray[np.int64], values: npt.NDArray[np.floating]) -> None:
    """Raise `NotANumberError` with the first of (b,) rows whose (b, d) values are not all finite."""
    are_numbers = np.isfinite(values).all(axis=1)
    if not are_numbers.all():
        raise NotANumberError(int(rows[are_numbers.argmin()]))


@dataclass(frozen=True)
class PoolBlock:
    """Some unlabelled rows: `rows` (b,) int64, `key_hashes` (b,) uint64, `proba` (b, k), `embeddings` (b, d) float32.

    Before there is a classifier, k is 0, and d may be.
    """

    rows: npt.NDArray[np.int64]
    key_hashes: npt.NDArray[np.uint64]
    proba: npt.NDArray[np.float32]
    embeddings: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        """Raise `NotANumberError` where probabilities or embeddings hold what is no number."""
        check_numbers(self.rows, self.proba)
        check_numbers(self.rows, self.embeddings)


@dataclass(frozen=True)
class LabelledBlock:
    """Some labelled rows: `embeddings` (b, d) float32, and `labels` (b,) int64, each the place of a class in `classes`.

    The place is -1 where the classifier does not know the class yet.
    """

    embeddings: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


class Pool(Protocol):
    """What a strategy may see. It cannot reach a file or a database."""

    @property
    def classes(self) -> Sequence[str]:
        """The classes, in the order of the columns of `proba`."""
        ...

    def unlabelled_blocks(self) -> Iterator[PoolBlock]:
        """Yield the askable rows, a block at a time, in any order; may be called more than once."""
        ...

    def labelled_blocks(self) -> Iterator[LabelledBlock]:
        """Yield the rows that have a label and an embedding, in an order that the images alone decide; as above."""
        ...

    def tick(self) -> None:
        """Is to be called every second or so of a long computation between blocks; raises what ends it."""
        ...


class QueryStrategy(Protocol):
    """Chooses the next request."""

    def query(self, pool: Pool, n: int, seed: int) -> npt.NDArray[np.int64]:
        """Return n unique unlabelled rows, or all that are left; the same for the same seed, however blocks are cut."""
        ...


strategies: Registry[QueryStrategy] = Registry("query strategy")
UNIFORM = "uniform"
WITHOUT_CLASSES = "without classes"
"""Mark of a strategy that chooses better than at random by embeddings alone, before there is a classifier."""


def usable_strategy(name: str, *, has_classifier: bool, has_embeddings: bool) -> str:
    """Return the strategy by which a request is chosen now: the one of that name, or `uniform` where it lacks something."""
    able = has_classifier or (has_embeddings and strategies.has(name, WITHOUT_CLASSES))
    return name if able else UNIFORM


from camera_trap_al.strategies import (  # noqa: E402, F401 - enters the built-in strategies
    badge,
    class_balanced,
    cluster_margin,
    clusters,
    coverage_then_margin,
    graph_density,
    herding,
    hierarchical,
    kcenter,
    mixed,
    novelty,
    scores,
    typiclust,
)
