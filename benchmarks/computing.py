"""S2, S3 and S14: re-embedding from the decoded cache, an epoch of fine-tuning, and both beside a busy program."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import plain
from benchmarks.beside import daemon
from benchmarks.figures import Figure, Run, rows
from benchmarks.frames import frames, kind
from benchmarks.made_up import MadeUp, made_up_work
from benchmarks.rounds import LABELS, POOL, turnarounds
from camera_trap_al.core.records import Item
from camera_trap_al.engine import usable_cores
from camera_trap_al.learn.settings import Progress, Tick, no_tick

if TYPE_CHECKING:
    from camera_trap_al.learn.embedding import Embedder
    from camera_trap_al.store.pixels import PixelCache

IMAGES, TINY_IMAGES = 2_000, 60
CLASSES, SAMPLES = 20, 10
MARK, CONTENT, SEED = "benchmark", "00" * 16, 1
SMALL_BATCH = 2 * CLASSES
FORWARD_S, FEW_ROUNDS = 5.0, 5
OF_FORWARD, EPOCH_FACTOR = 0.9, 3.0
# Two measurements of the same differ by so much.
AS_FAST = 0.95
PLAIN_CLASSES, TINY_PLAIN_CLASSES = 10, 2
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
BUSY = "while True: pass"


@dataclass(frozen=True)
class Cached:
    """Images whose only copy is in a decoded cache, and a model that knows nothing yet."""

    items: list[Item]
    cache: PixelCache
    model: Path

    def read(self, item: Item) -> np.ndarray:
        """Return the pixels of an item from the cache; nothing is ever decoded."""
        kept = self.cache.read(item.row, 0)
        assert kept is not None
        return kept.pixels

    @property
    def labels(self) -> list[int]:
        """Return the class of each item."""
        return [item.row % CLASSES for item in self.items]


@rows.register("S2")
def embedding(run: Run) -> Iterator[Figure]:
    """Measure re-embedding from the cache, and the forward pass alone."""
    from camera_trap_al.learn.embedding import Embedder

    with cached(run, TINY_IMAGES if run.tiny else IMAGES) as made:
        embedder = Embedder(made.model)
        # Before and after, since a machine is not as fast at all times.
        before = forward_rate(embedder, made, _seconds(run))
        rate = embedding_rate(embedder, made)
        forward = statistics.mean([before, forward_rate(embedder, made, _seconds(run))])
    how = f"{embedder.lanes} lanes, {embedder.facts.precision}, {embedder.device}"
    yield Figure("F: forward alone, all cores", forward, "images/s", note=how)
    yield Figure("re-embedding from the cache", rate, "images/s", note=f"{len(made.items)} images, {_arch(run)}")
    yield Figure("re-embedding, of F", 100 * rate / forward, "%", least=100 * OF_FORWARD)


@rows.register("S3")
def epoch(run: Run) -> Iterator[Figure]:
    """Measure an epoch of fine-tuning from the cache, and the plain reference, which decodes."""
    import torch

    n_classes = TINY_PLAIN_CLASSES if run.tiny else CLASSES if run.long else PLAIN_CLASSES
    batch = n_classes * SAMPLES
    files = frames(run, IMAGES if run.long else batch + 1)
    with cached(run, TINY_IMAGES if run.tiny else IMAGES) as made:
        seconds = epoch_s(made, run.folder / "tuned")
        n = trained_images(made)
    threads = torch.get_num_threads()
    theirs = plain.finetune_epoch(files, [i % n_classes for i in range(len(files))], usable_cores())
    n_theirs = (len(files) - 1) // batch * batch
    note = f"{n} images in batches of {CLASSES * SAMPLES}, {_arch(run)}, threads at the end: {threads}"
    yield Figure("fine-tune epoch from the cache", seconds, "s", note=note)
    note = (
        f"the plain reference: {n_theirs} {kind(run)} in batches of {batch} in {theirs:.0f} s, {usable_cores()} threads"
    )
    ours, reference = 1000 * seconds / n, 1000 * theirs / n_theirs
    yield Figure("fine-tuning, an image", ours, "ms", note=note, reference=reference)
    yield Figure("times faster than the plain reference", reference / ours, "×", least=EPOCH_FACTOR)


@rows.register("S14")
def beside_a_busy_program(run: Run) -> Iterator[Figure]:
    """Measure S2, S3 and S4 while another program keeps a core busy, as the program does it and with one thread."""
    from camera_trap_al.learn.embedding import Embedder

    n = 3 * SMALL_BATCH if run.tiny else CLASSES * SAMPLES
    with cached(run, n) as made, busy():
        chosen, one = Embedder(made.model), Embedder(made.model, threads=1)
        some = replace(made, items=made.items[: n // 4])
        ratios = [embedding_rate(chosen, some) / embedding_rate(one, some) for _ in range(_n_rounds(run))]
        yield _as_fast("re-embedding (S2)", statistics.median(ratios), f"{n // 4} images, lanes: {chosen.lanes}")
        ratio = training_rate(made, run.folder / "chosen") / training_rate(made, run.folder / "one", threads=1)
        note = f"{n} images in mini-batches of {SMALL_BATCH}, without the first one and what is measured before it"
        yield _as_fast("fine-tuning (S3)", ratio, note)
    pool, n_labels = (1_000, 40) if run.tiny else (POOL, LABELS)
    made_up = made_up_work(run.folder / "made", pool, n_labels=n_labels, n_classes=CLASSES)
    with busy():
        seconds, alone = (_turnaround_s(made_up, environment, run) for environment in ({}, ONE_THREAD))
    yield Figure("beside a busy program: turnaround (S4), median", seconds, "s", note=f"with one thread {alone:.1f} s")
    yield _as_fast("turnaround (S4)", alone / seconds, f"medians of {_n_rounds(run)} rounds")


def _turnaround_s(made: MadeUp, environment: Mapping[str, str], run: Run) -> float:
    """Return the median of some rounds of the program, started with more in its environment."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        with daemon(made.work) as process:
            return statistics.median(turnarounds(made, process, _n_rounds(run)))
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _n_rounds(run: Run) -> int:
    return 1 if run.tiny else FEW_ROUNDS


def _as_fast(what: str, ratio: float, note: str) -> Figure:
    text = f"beside a busy program: {what}, times as fast as with one thread"
    return Figure(text, ratio, "×", least=AS_FAST, note=f"{note}; the same within what measurements differ by")


@contextlib.contextmanager
def cached(run: Run, n: int) -> Iterator[Cached]:
    """Make up `n` images in a cache, twenty kinds of noise, and a network with random weights."""
    from camera_trap_al.learn.making import finish_model, start_model
    from camera_trap_al.learn.settings import ModelSettings
    from camera_trap_al.store.pixels import PixelCache

    rng = np.random.default_rng(SEED)
    rows_of = np.arange(n)
    colours = rng.integers(40, 200, (CLASSES, 1, 1, 3))
    cache = PixelCache(run.folder / "cache", MARK, px=256, max_bytes=1 << 40, live=rows_of)
    for row in rows_of.tolist():
        noise = rng.integers(-40, 40, (256, 256, 1))
        cache.keep(row, 0, (colours[row % CLASSES] + noise).clip(0, 255).astype(np.uint8), CONTENT, is_labelled=True)
    # As after a restart: what is read comes from the files, not from what still waits to be written.
    cache.close()
    cache = PixelCache(run.folder / "cache", MARK, px=256, max_bytes=1 << 40, live=rows_of)
    model = run.folder / "model"
    model.mkdir()
    made = Cached([Item(row, str(row)) for row in rows_of.tolist()], cache, model)
    names = [f"species {i:02d}" for i in range(CLASSES)]
    first = made.items[:100]
    settings = ModelSettings(_arch(run))
    start_model(model, settings, first, classes=names, pretrained=False, weights=None, seed=SEED, read=made.read)
    finish_model(model, first, read=made.read)
    try:
        yield made
    finally:
        cache.close()


def forward_rate(embedder: Embedder, made: Cached, seconds: float) -> float:
    """Return how many images a second are embedded that lie in memory, in all lanes."""
    images = np.stack([made.read(item) for item in made.items[: 16 * embedder.batch_size]])
    size = embedder.next_batch()
    begun, done = time.perf_counter(), 0

    def batches() -> Iterator[np.ndarray]:
        while time.perf_counter() - begun < seconds:
            for start in range(0, len(images), size):
                yield images[start : start + size]

    for vectors in embedder.embed_each(batches()):
        done += len(vectors)
    return done / (time.perf_counter() - begun)


def embedding_rate(embedder: Embedder, made: Cached) -> float:
    """Return how many images a second are embedded from the cache, as a job does it."""
    from camera_trap_al.learn.embedding import embed_items

    started = time.perf_counter()
    _, problems = embed_items(embedder, made.items, read=made.read)
    assert not problems
    return len(made.items) / (time.perf_counter() - started)


def epoch_s(made: Cached, folder: Path) -> float:
    """Return the seconds of one epoch of fine-tuning, its commit included."""
    started = time.perf_counter()
    _train(made, folder, SAMPLES)
    return time.perf_counter() - started


def training_rate(made: Cached, folder: Path, *, threads: int | None = None) -> float:
    """Return how many images a second are trained on, from the end of the first small mini-batch to that of the last."""
    ends: list[float] = []

    def tick(progress: Progress) -> None:
        if progress.phase == "training":
            ends.append(time.perf_counter())

    _train(made, folder, SMALL_BATCH // CLASSES, threads=threads, tick=tick)
    return (len(ends) - 1) * SMALL_BATCH / (ends[-1] - ends[0])


def _train(made: Cached, folder: Path, samples: int, *, threads: int | None = None, tick: Tick = no_tick) -> None:
    from camera_trap_al.learn.making import continue_model
    from camera_trap_al.learn.settings import TrainSettings
    from camera_trap_al.learn.training import train

    folder.mkdir()
    names = [f"species {i:02d}" for i in range(CLASSES)]
    continue_model(folder, made.model, classes=names, seed=SEED)
    settings = TrainSettings(1, 1e-4, loader="balanced", balanced_classes=CLASSES, balanced_samples=samples)
    assert not train(folder, settings, made.items, made.labels, read=made.read, tick=tick, threads=threads)


def trained_images(made: Cached) -> int:
    """Return how many images an epoch trains on, some of them twice where a class has few."""
    return max(1, len(made.items) // (CLASSES * SAMPLES)) * CLASSES * SAMPLES


def _arch(run: Run) -> str:
    return "tiny" if run.tiny else "resnet18"


def _seconds(run: Run) -> float:
    return 0.2 if run.tiny else FORWARD_S


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """Keep a core busy with a program of another person."""
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield
    finally:
        process.kill()
        process.wait()
