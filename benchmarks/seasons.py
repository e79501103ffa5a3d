"""What is learned from the labels that each strategy asks for, in made-up seasons: python -m benchmarks.seasons [NAME ...]."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from camera_trap_al.strategies import LabelledBlock, PoolBlock, strategies

N_SEASONS, BLOCK_ROWS = 5, 4_096


@dataclass(frozen=True)
class ArrayPool:
    """A pool of arrays in memory."""

    key_hashes: np.ndarray
    proba: np.ndarray
    embeddings: np.ndarray
    labelled: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def unlabelled_blocks(self) -> Iterator[PoolBlock]:
        """Yield the rows, a block at a time."""
        for start in range(0, len(self.proba), BLOCK_ROWS):
            here = slice(start, start + BLOCK_ROWS)
            rows = np.arange(start, min(start + BLOCK_ROWS, len(self.proba)))
            yield PoolBlock(rows, self.key_hashes[here], self.proba[here], self.embeddings[here])

    def labelled_blocks(self) -> Iterator[LabelledBlock]:
        """Yield the labelled rows as one block."""
        yield LabelledBlock(self.labelled, self.labels)

    def tick(self) -> None:
        """Never end."""


def learned(name: str, seed: int) -> tuple[float, float]:
    """Return accuracy and balanced accuracy after 40 labels drawn at random and 8 requests of 40, of 3,000 rows.

    12 species, the commonest 25 times as frequent as the rarest, each in three clouds; logistic regression; 1,000 rows
    held out.
    """
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, 13) ** 1.3
    truth = rng.choice(12, 4_000, p=share / share.sum())
    clouds = 1.1 * rng.normal(size=(12, 3, 16))
    rows = (clouds[truth, rng.integers(0, 3, 4_000)] + 0.9 * rng.normal(size=(4_000, 16))).astype(np.float32)
    hashes, mine = rng.integers(0, 2**64, 3_000, np.uint64), rng.permutation(3_000)[:40]
    for round_ in range(9):
        fitted = LogisticRegression(max_iter=200).fit(rows[mine], truth[mine])
        if round_ < 8:
            left = np.setdiff1d(np.arange(3_000), mine)
            proba, labels = fitted.predict_proba(rows[left]).astype(np.float32), truth[mine]
            known = np.searchsorted(fitted.classes_, labels)
            names = tuple(str(c) for c in fitted.classes_)
            pool = ArrayPool(hashes[left], proba, rows[left], rows[mine], known, names)
            mine = np.concatenate([mine, left[strategies[name].query(pool, 40, seed=round_)]])
    right = fitted.predict(rows[3_000:]) == truth[3_000:]
    return right.mean(), float(np.mean([right[truth[3_000:] == c].mean() for c in np.unique(truth[3_000:])]))


def main() -> None:
    """Print the table."""
    print(f"mean of {N_SEASONS} made-up seasons, 360 labels\n")
    print(f"{'':20} {'accuracy':>9} {'balanced':>9}")
    for name in sys.argv[1:] or strategies.names():
        accuracy, balanced = np.mean([learned(name, seed) for seed in range(N_SEASONS)], axis=0)
        print(f"{name:20} {accuracy:9.3f} {balanced:9.3f}", flush=True)


if __name__ == "__main__":
    main()
