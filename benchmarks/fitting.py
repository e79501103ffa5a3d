"""S10: how long the classifier takes to be fitted, and how good it is, beside the plain reference."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks import plain
from benchmarks.figures import Figure, Run, rows
from camera_trap_al.engine import usable_cores
from camera_trap_al.learn.classifier import fit_classifier

SIZES, COMPARED, LARGEST = (500, 5_000, 50_000), 5_000, 50_000
TESTED, CLASSES, DIMENSIONS, SEEDS = 10_000, 20, 256, 5
FACTOR, LOST_POINTS, LARGEST_S = 10.0, 0.5, 60.0
FORMS, INNER, WITHIN, NOISE = 3, 16, 0.75, 0.3


class Season(NamedTuple):
    """Scaled embeddings of images and the classes on them: to fit on, and to test with."""

    vectors: npt.NDArray[np.float32]
    species: list[str]
    tested: npt.NDArray[np.float32]
    truth: npt.NDArray[np.str_]


@rows.register("S10")
def fitting(run: Run) -> Iterator[Figure]:
    """Fit on 500, 5,000 and 50,000 labels; compare with the plain reference at 5,000, with --long on five seeds."""
    for n in (60, 120) if run.tiny else SIZES:
        seconds, _ = _ours(season(n, 0), 0)
        yield Figure(f"fit on {n} labels", seconds, "s", most=LARGEST_S if n == LARGEST else None)
    yield from _compared(60 if run.tiny else COMPARED, SEEDS if run.long else 1)
    if run.long:
        yield from _compared(LARGEST, 1)


def _compared(n: int, n_seeds: int) -> Iterator[Figure]:
    ours, theirs = [], []
    for seed in range(n_seeds):
        made = season(n, seed)
        ours.append(_ours(made, seed))
        seconds, predict = plain.fit(made.vectors, made.species, seed, usable_cores())
        theirs.append((seconds, _points(predict(made.tested), made)))
    lost = statistics.median(b - a for (_, a), (_, b) in zip(ours, theirs, strict=True))
    mine, other = (statistics.median(seconds for seconds, _ in found) for found in (ours, theirs))
    points = [statistics.median(points for _, points in found) for found in (ours, theirs)]
    note = f"median of {n_seeds} seeds; scikit-learn's perceptron with the original's settings"
    yield Figure(f"fit on {n} labels, beside the plain reference", mine, "s", note=note, reference=other)
    yield Figure(f"times faster than the plain reference, {n} labels", other / mine, "×", least=FACTOR)
    text = f"accuracy {points[0]:.2f} %, of the plain reference {points[1]:.2f} %, on {TESTED} other images"
    yield Figure(f"accuracy lost to the plain reference, {n} labels", lost, "points", most=LOST_POINTS, note=text)


def _ours(made: Season, seed: int) -> tuple[float, float]:
    """Return the seconds of a fit, and the accuracy in percent."""
    started = time.perf_counter()
    classifier = fit_classifier(made.vectors, made.species, seed)
    seconds = time.perf_counter() - started
    best = classifier.predict_proba(made.tested).argmax(axis=1)
    return seconds, _points(np.array(classifier.classes)[best], made)


def _points(predicted: npt.NDArray[np.str_], made: Season) -> float:
    return 100 * float((predicted == made.truth).mean())


def season(n: int, seed: int) -> Season:
    """Return embeddings as a network leaves them: classes of very different sizes, of a few forms each, that overlap.

    Each form is a cloud in a space of few dimensions, which is bent into the many dimensions of an embedding; there noise
    is added, and the length is made 1.
    """
    rng = np.random.default_rng([10, seed])
    centres = rng.normal(size=(CLASSES, FORMS, INNER))
    shares, forms = rng.dirichlet(np.full(CLASSES, 0.7)), rng.dirichlet(np.ones(FORMS), size=CLASSES)
    outward = rng.normal(size=(INNER, DIMENSIONS)) / 4

    def drawn(n: int) -> tuple[npt.NDArray[np.float32], list[str]]:
        number = rng.choice(CLASSES, size=n, p=shares)
        form = (rng.random((n, 1)) > forms[number].cumsum(axis=1)[:, :-1]).sum(axis=1)
        inner = centres[number, form] + WITHIN * rng.normal(size=(n, INNER))
        vectors = np.tanh(inner @ outward) + NOISE * rng.normal(size=(n, DIMENSIONS))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors.astype(np.float32), [f"class {i:02d}" for i in number]

    vectors, species = drawn(n)
    tested, truth = drawn(TESTED)
    low, high = vectors.min(axis=0), vectors.max(axis=0)
    return Season((vectors - low) / (high - low), species, (tested - low) / (high - low), np.array(truth))
