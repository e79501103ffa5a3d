"""Steps that make a round: what is asked and what is shown."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from camera_trap_al.catalog.found import POOL
from camera_trap_al.core.records import Prediction
from camera_trap_al.core.steps import Facts
from camera_trap_al.engine import shared
from camera_trap_al.errors import ImagesOfflineError, ImageUnreadableError
from camera_trap_al.labels.timelapse import FINISHED
from camera_trap_al.learn.classifier import Classifier, load_classifier, one_thread
from camera_trap_al.reading import decode_limits
from camera_trap_al.store import generations
from camera_trap_al.store.embeddings import Vectors
from camera_trap_al.strategies import LabelledBlock, PoolBlock, strategies
from camera_trap_al.work import Work, image_folders, is_online

LOOK_S = 5.0
log = logging.getLogger(__name__)


def skip_unusable(work: Work) -> None:
    """Skip the images of the open request that cannot be used. Commits: a journal line."""
    unusable = work.catalog.unusable(work.history.awaited())
    work.append("skip", {"skips": [[*key, reason] for key, reason in unusable.items()]})
    log.warning("request: %d images cannot be used and are no longer asked for", len(unusable))


def publish(work: Work) -> None:
    """Show the open request: the selector, then `label_request.json`, which is the commit."""
    request = work.history.requests[-1]
    work.selector.show(lambda: work.catalog.pool_keys(listed_only=True), request.keys, request.round)
    log.info("request: round %d asks for %d images; import %s", request.round, len(request.keys), work.folder.selector)


def finish(work: Work, facts: Facts) -> None:
    """Show that nothing is asked for, and why. Commits: `label_request.json`."""
    budget_spent = facts.budget <= 0
    why = f"The budget of {work.config.query.budget} images is spent." if budget_spent else "No image is left to label."
    counts = work.catalog.counts()
    if not counts.pool and not budget_spent:
        why = f"Waiting for images: there are none in {work.pool_root()} yet."
    hidden = counts.not_listed
    if hidden and not budget_spent:
        why += f" {hidden} images cannot be shown by Timelapse; labels.tool = any asks for them too."
    work.selector.show(lambda: work.catalog.pool_keys(listed_only=True), (), FINISHED, why)
    log.info("finished: %s New images and labels are still taken in.", why)


@dataclass(frozen=True)
class WorkPool:
    """The askable rows as a query strategy sees them."""

    rows: npt.NDArray[np.int64]
    key_hashes: npt.NDArray[np.uint64]
    vectors: Vectors | None
    classifier: Classifier | None
    labelled: Callable[[], tuple[npt.NDArray[np.int64], Sequence[str]]]

    @property
    def classes(self) -> Sequence[str]:
        """The classes, in the order of the columns of `proba`."""
        return self.classifier.classes if self.classifier else ()

    def unlabelled_blocks(self) -> Iterator[PoolBlock]:
        """Yield the askable rows, a block at a time."""
        if self.vectors is None or self.classifier is None:
            nothing = np.zeros((len(self.rows), 0), dtype=np.float32)
            yield PoolBlock(self.rows, self.key_hashes, nothing, nothing)
            return
        start = 0
        for rows, embeddings in self.vectors.blocks(self.rows):
            hashes = self.key_hashes[start : start + len(rows)]
            start += len(rows)
            yield PoolBlock(rows, hashes, self.classifier.predict_proba(embeddings), embeddings)

    def labelled_blocks(self) -> Iterator[LabelledBlock]:
        """Yield the labelled rows that have a vector, in the order of their key hashes, a block at a time."""
        if self.vectors is None or self.classifier is None:
            return
        rows, species = self.labelled()
        place = {name: i for i, name in enumerate(self.classifier.classes)}
        labels = np.array([place.get(name, -1) for name in species], dtype=np.int64)
        usable = self.vectors.covers(rows) & ~np.isin(rows, list(self.vectors.unreadable))
        labels, start = labels[usable], 0
        for block, embeddings in self.vectors.blocks(rows[usable]):
            yield LabelledBlock(embeddings, labels[start : start + len(block)])
            start += len(block)


def query(work: Work, facts: Facts) -> None:
    """Pick the next request. Commits: a journal line.

    Picked uniformly before the first checkpoint; before the first learner each pick is decoded, so that a round never
    asks for a broken file. Where broken files take long, the step ends without a request and is due again, so that labels
    are taken in meanwhile.
    """
    seed = work.seed("request", work.journal.end)
    n = int(min(work.config.query.batch, facts.budget))
    checkpoint = work.checkpoint()
    pool = _pool(work, checkpoint)
    name = work.config.query.strategy if checkpoint else "uniform"
    with one_thread():
        rows = strategies[name].query(pool, n, seed) if facts.learner else _readable(work, pool, n, seed)
    if rows is None:
        return
    if len(rows) == 0:
        raise ImagesOfflineError("None of the images that are left can be read now.")
    keys = work.catalog.keys_of(rows)
    predictions = _predict(pool, rows)
    number = work.history.newest_round() + 1
    work.append(
        "request",
        {
            "round": number,
            "strategy": name,
            "seed": seed,
            "learner": checkpoint.manifest["learner"] if checkpoint else facts.learner,
            "checkpoint": checkpoint.number if checkpoint else 0,
            "keys": [[*key] for key in keys],
            "predictions": [[p.species, round(p.confidence, 4)] for p in predictions],
        },
    )
    log.info("request: round %d, %d images chosen by %s", number, len(keys), name)


def _pool(work: Work, checkpoint: generations.Generation | None) -> WorkPool:
    rows, hashes = work.catalog.askable()
    learner = work.learner()
    number = checkpoint.manifest["learner"] if checkpoint else learner.number if learner else 0
    if not number:
        return WorkPool(rows, hashes, None, None, work.catalog.labelled)
    vectors = work.vectors(number)
    covered = vectors.covers(rows)
    classifier = load_classifier(checkpoint.folder) if checkpoint else None
    return WorkPool(rows[covered], hashes[covered], vectors, classifier, work.catalog.labelled)


def _predict(pool: WorkPool, rows: npt.NDArray[np.int64]) -> list[Prediction]:
    if pool.vectors is None or pool.classifier is None:
        return []
    proba = pool.classifier.predict_proba(pool.vectors.read(rows))
    return [
        Prediction(pool.classifier.classes[i], float(row[i]))
        for row, i in zip(proba, proba.argmax(axis=1), strict=True)
    ]


def _readable(work: Work, pool: WorkPool, n: int, seed: int) -> npt.NDArray[np.int64] | None:
    """Return n rows that can be read, fewer if there are no more, None if other steps should have a turn first."""
    decoders, started = shared(decode_limits(work.config), work.config.images.processes), time.monotonic()
    folders = {kind: str(path) for kind, path in image_folders(work.config).items()}
    drawn = strategies["uniform"].query(pool, len(pool.rows), seed)
    good: list[int] = []
    for row in drawn:
        if len(good) == n:
            break
        (item,) = work.catalog.items([int(row)], folders)
        try:
            decoders.read(item.path, stop=work.stop)
            good.append(int(row))
        except ImageUnreadableError as error:
            work.catalog.quarantine(int(row), error.code, str(error), error.content)
            if time.monotonic() - started > LOOK_S:
                return None
        except OSError as error:
            if not is_online(Path(folders[POOL]), work.catalog.fact("top", [])):
                raise ImagesOfflineError(f"The folder {folders[POOL]} does not answer.") from error
            log.debug("passed over %s: %s", item.path, error)
    return np.array(good, dtype=np.int64)
