"""S6 and S7: scoring a large pool and choosing from it: how long it takes, and how much memory.

Vectors are random float16 shards on disk and the classifier is random too: neither matters for time. Each query runs in a
process of its own, `python -m benchmarks.choosing FOLDER ROWS STRATEGY`, so that what one holds is not what another held.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.figures import Figure, Run, rows
from camera_trap_al.learn.classifier import Classifier, one_thread
from camera_trap_al.pool import WorkPool
from camera_trap_al.store import embeddings, shards
from camera_trap_al.strategies import strategies

ROOT = Path(__file__).resolve().parent.parent
DIMENSIONS, N_CLASSES, ASKED, LABELLED = 256, 20, 100, 5_000
SMALL, LARGE, TINY = 1_000_000, 10_000_000, 10_000
MADE_BY = "benchmark"


@rows.register("S6")
def scoring(run: Run) -> Iterator[Figure]:
    """Score all rows and take the 100 of smallest margin."""
    sizes = (TINY, 4 * TINY) if run.tiny else (SMALL, LARGE)
    found = []
    for size in sizes:
        write_vectors(run.folder / str(size), size)
        found.append(in_child(run.folder / str(size), size, "margin"))
    (few, small), (many, large) = zip(sizes, found, strict=True)
    disk = f"{large['read_mb']:,.0f} of {many * DIMENSIONS * 2 / 1e6:,.0f} MB came from the disk"
    yield Figure(f"margin of {many:,} rows", large["seconds"], "s", most=60, note=f"the first pass; {disk}")
    yield Figure("anonymous memory above the imports", large["held_mb"], "MB", most=1500)
    yield Figure(f"margin of {few:,} rows", small["seconds"], "s", note=f"{small['held_mb']:.0f} MB")
    yield Figure(f"{many:,} rows against {few:,}", large["seconds"] / small["seconds"], "times", most=12)
    yield Figure(f"{few:,} rows again, already verified", small["again_s"], "s")
    yield Figure(f"opening {many:,} rows", large["open_s"], "s", note=f"{small['open_s']:.2f} s for {few:,}")


@rows.register("S7")
def every_strategy(run: Run) -> Iterator[Figure]:
    """Ask each strategy for 100 rows, with 5,000 labels."""
    size = TINY if run.tiny else SMALL
    write_vectors(run.folder / str(size), size)
    most = 0.0
    for name in strategies.names():
        found = in_child(run.folder / str(size), size, name)
        most = max(most, found["held_mb"])
        text = f"{name}, {ASKED} of {size:,} rows, {LABELLED:,} labelled"
        yield Figure(text, found["seconds"], "s", most=120, note=f"{found['held_mb']:.0f} MB")
    yield Figure("most anonymous memory above the imports", most, "MB", most=2000)


def write_vectors(folder: Path, n_rows: int) -> None:
    """Write shards for rows 0 to `n_rows` in random order, as a pool is embedded; few different vectors, all on disk."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(shards.SHARD_ROWS, DIMENSIONS)).astype(np.float32)
    order = rng.permutation(n_rows)
    for start in range(0, n_rows, shards.SHARD_ROWS):
        part = order[start : start + shards.SHARD_ROWS]
        if start == 0 or len(part) < shards.SHARD_ROWS:
            hashes = dict.fromkeys(part.tolist(), "0123456789abcdef" * 2)
            name = shards.write_shard(folder, part, vectors[: len(part)], {}, MADE_BY, hashes=hashes)
            content = (folder / f"{name}.npy").read_bytes()
            facts = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
            continue
        # As `write_shard`, which waits for the disk each time.
        name = f"shard-{start // shards.SHARD_ROWS:06d}"
        (folder / f"{name}.npy").write_bytes(content)
        said = json.dumps({**facts, "rows": part.tolist(), "facts_crc32": None})
        (folder / f"{name}.json").write_text(said, encoding="utf-8")


def make_pool(folder: Path, n_rows: int) -> WorkPool:
    """Return the rows of these shards as a strategy sees them; up to 5,000 of them, spread evenly, are labelled."""
    rng = np.random.default_rng(1)
    sizes = (DIMENSIONS, 230, 100, N_CLASSES)
    pairs = list(zip(sizes, sizes[1:], strict=False))
    weights = [rng.normal(size=pair).astype(np.float32) / np.float32(pair[0] ** 0.5) for pair in pairs]
    classes = tuple(f"class {i:02d}" for i in range(N_CLASSES))
    classifier = Classifier(tuple(weights), tuple(np.zeros(size, np.float32) for size in sizes[1:]), classes)
    scaler = np.stack([np.full(DIMENSIONS, -4.0), np.full(DIMENSIONS, 8.0)])
    is_labelled = np.zeros(n_rows, bool)
    is_labelled[:: max(100, n_rows // LABELLED)] = True
    labelled, left = np.flatnonzero(is_labelled), np.flatnonzero(~is_labelled)
    species = [classes[row % N_CLASSES] for row in labelled.tolist()]
    hashes = rng.integers(0, 2**64, len(left), np.uint64)
    vectors = embeddings.Vectors(folder, MADE_BY, scaler)
    return WorkPool(left, hashes, vectors, classifier, lambda: (labelled, species))


def in_child(folder: Path, n_rows: int, strategy: str) -> dict[str, float]:
    """Return what a process of its own measured: seconds of opening and of queries, MB held at most and read from disk."""
    command = [sys.executable, "-m", "benchmarks.choosing", str(folder), str(n_rows), strategy]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def measure(folder: Path, n_rows: int, strategy: str) -> dict[str, float]:
    """Ask one strategy in this process, which has done nothing else yet; up to a million rows twice."""
    strategies[strategy].query(make_small_pool(), 5, seed=1)  # imports what it needs
    with memory() as held, one_thread():
        started, read_before = time.perf_counter(), read_mb()
        pool = make_pool(folder, n_rows)
        opened = time.perf_counter()
        chosen = strategies[strategy].query(pool, ASKED, seed=1)
        queried, read_after = time.perf_counter(), read_mb()
        again = strategies[strategy].query(pool, ASKED, seed=1) if n_rows <= SMALL else chosen
        ended = time.perf_counter()
    assert len(set(chosen.tolist())) == ASKED and chosen.tolist() == again.tolist()
    return {
        "open_s": opened - started,
        "seconds": queried - opened,
        "again_s": ended - queried,
        "held_mb": held[0],
        "read_mb": read_after - read_before,
    }


def make_small_pool() -> WorkPool:
    """Return a pool without vectors."""
    every = np.arange(20)
    return WorkPool(every, every.astype(np.uint64), None, None, lambda: (every[:0], []))


@contextmanager
def memory() -> Iterator[list[float]]:
    """Yield a list whose one number is, in the end, the most MB of anonymous memory held beyond those at the start.

    As the system counts it where it tells (Linux), else as Python does, which sees arrays but no buffers of libraries.
    """
    held, before, is_over = [0.0], anonymous_mb(), threading.Event()
    if before is None:
        tracemalloc.start()
        try:
            yield held
            held[0] = tracemalloc.get_traced_memory()[1] / 1e6
        finally:
            tracemalloc.stop()
        return

    def watch() -> None:
        while not is_over.wait(0.01):
            held[0] = max(held[0], (anonymous_mb() or 0) - before)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield held
    finally:
        is_over.set()
        watcher.join()


def anonymous_mb() -> float | None:
    """Return the MB that this process holds now, without pages of files; None where the system does not tell."""
    return _told("/proc/self/status", "RssAnon:", 1e3)


def read_mb() -> float:
    """Return how many MB this process had read from disk; nan where the system does not tell."""
    told = _told("/proc/self/io", "read_bytes:", 1e6)
    return float("nan") if told is None else told


def _told(path: str, name: str, per_mb: float) -> float | None:
    try:
        lines = Path(path).read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / per_mb for line in lines if line.startswith(name)), None)


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])))
