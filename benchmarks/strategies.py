"""Time and memory of every query strategy, and whether it chooses what its slow, obvious version chooses.

    python benchmarks/strategies.py [--rows 10000] [--large 100000] [--only NAME ...] [--learn]

The pool: rows of 256 dimensions in 20 unequal clouds, as embeddings of a season are, 1,000 of them labelled; requests of 100.
Probabilities are given: what a classifier takes for them is the same for all strategies. Each query runs twice, once for
its time and once, as Python sees it, for the most memory held beyond the pool, which is in memory here.

`--learn` shows instead what is learned from the labels that each strategy asks for, in made-up seasons.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "strategies")]

import numpy as np  # noqa: E402
from slow_strategies import SLOW, random_pool  # noqa: E402

from camera_trap_al.strategies import LabelledBlock, PoolBlock, strategies  # noqa: E402

DIMENSIONS, N_CLASSES, ASKED, LABELLED, BLOCK_ROWS = 256, 20, 100, 1_000, 4_096
AT_LARGE = ("uniform", "margin", "entropy", "confidence", "kcenter")
# Most core seconds for one query: other work on the machine is not ours.
LIMIT_S = 5.0
SMALL_POOLS = 10


@dataclass(frozen=True)
class ArrayPool:
    """A pool of arrays in memory, shown in blocks of 4,096 rows."""

    key_hashes: np.ndarray
    proba: np.ndarray
    embeddings: np.ndarray
    labelled: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...] = tuple(f"class {i}" for i in range(N_CLASSES))

    def unlabelled_blocks(self) -> Iterator[PoolBlock]:
        """Yield the rows, a block at a time."""
        for start in range(0, len(self.proba), BLOCK_ROWS):
            here = slice(start, start + BLOCK_ROWS)
            rows = np.arange(start, min(start + BLOCK_ROWS, len(self.proba)))
            yield PoolBlock(rows, self.key_hashes[here], self.proba[here], self.embeddings[here])

    def labelled_blocks(self) -> Iterator[LabelledBlock]:
        """Yield the labelled rows as one block."""
        yield LabelledBlock(self.labelled, self.labels)


def make_pool(n_rows: int) -> ArrayPool:
    """Return a made-up season of `n_rows` unlabelled rows."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, N_CLASSES + 1)
    classes = rng.choice(N_CLASSES, n_rows + LABELLED, p=share / share.sum())
    centres = rng.random((N_CLASSES, DIMENSIONS), np.float32)
    every = 0.5 * centres[classes] + 0.5 * rng.random((len(classes), DIMENSIONS), np.float32)
    near = rng.gamma(0.3, size=(n_rows, N_CLASSES)) + 2 * np.eye(N_CLASSES)[classes[:n_rows]]
    proba = (near / near.sum(axis=1, keepdims=True)).astype(np.float32)
    hashes = rng.integers(0, 2**64, n_rows, np.uint64)
    return ArrayPool(hashes, proba, every[:n_rows], every[n_rows:], classes[n_rows:])


def measured(name: str, pool: ArrayPool) -> tuple[float, float, float]:
    """Return the seconds of a query by the clock and of its core, and the most MB it held."""
    started, worked = time.perf_counter(), time.process_time()
    rows = strategies[name].query(pool, ASKED, seed=1)
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    assert len(np.unique(rows)) == ASKED
    tracemalloc.start()
    strategies[name].query(pool, ASKED, seed=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return seconds, cpu, peak / 1e6


def agreement(name: str) -> str:
    """Return for how many small random pools the choice, order included, is that of the slow version."""
    same = 0
    for seed in range(SMALL_POOLS):
        pool = random_pool(30, n_labelled=3 * seed, seed=seed)
        same += (strategies[name].query(pool, 9, seed) - 100).tolist() == SLOW[name](pool, 9, seed)
    return f"{same} of {SMALL_POOLS}"


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


def show_learning(names: list[str], n_seasons: int = 5) -> None:
    """Print what is learned with each strategy."""
    print(f"mean of {n_seasons} made-up seasons, 360 labels\n")
    print(f"{'':20} {'accuracy':>9} {'balanced':>9}")
    for name in names:
        accuracy, balanced = np.mean([learned(name, seed) for seed in range(n_seasons)], axis=0)
        print(f"{name:20} {accuracy:9.3f} {balanced:9.3f}", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000, help="rows for all strategies")
    parser.add_argument("--large", type=int, default=100_000, help="rows for those that are quick or cover the pool")
    parser.add_argument("--only", nargs="*", default=list(strategies.names()), help="names of strategies")
    parser.add_argument("--learn", action="store_true", help="what is learned, instead of time and memory")
    given = parser.parse_args()
    if given.learn:
        show_learning(given.only)
        return
    print(f"{ASKED} of N rows, {DIMENSIONS} dimensions, {N_CLASSES} classes, {LABELLED:,} labelled; one thread of")
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, numpy {np.__version__}; in brackets: core time\n"
    )
    sizes = f"{given.rows:,}", f"{given.large:,}"
    print(f"{'':20} {sizes[0] + ' rows':>33} {sizes[1] + ' rows':>33}  as the slow version")
    pools = make_pool(given.rows), make_pool(given.large)
    for name in given.only:
        strategies[name].query(make_pool(200), 5, seed=1)  # imports what it needs
        cells = []
        for pool in pools if name in AT_LARGE else pools[:1]:
            seconds, cpu, peak = measured(name, pool)
            miss = " MISS" if cpu > LIMIT_S else ""
            cells.append(f"{seconds:6.2f} s ({cpu:4.2f}) {peak:6.1f} MB{miss}")
        cells += [""] * (2 - len(cells))
        print(f"{name:20} {cells[0]:>33} {cells[1]:>33}  {agreement(name)}", flush=True)


if __name__ == "__main__":
    main()
