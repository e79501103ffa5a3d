"""Steps that make a round: what is asked and what is shown."""

from __future__ import annotations

import logging
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from camera_trap_al import embed_jobs
from camera_trap_al.catalog.found import POOL
from camera_trap_al.core.grouping import NO_TIME, best_of_image, first_of_image, is_single, n_images
from camera_trap_al.core.order import ORDER_SEED
from camera_trap_al.core.records import Item, Prediction
from camera_trap_al.core.steps import Facts
from camera_trap_al.engine import Decoded, shared, usable_cores
from camera_trap_al.errors import ImagesOfflineError, ImageUnreadableError, NotANumberError
from camera_trap_al.labels.lines import SelectorLines
from camera_trap_al.labels.timelapse import FINISHED
from camera_trap_al.learn.classifier import load_classifier, one_thread
from camera_trap_al.learn.data import map_ahead
from camera_trap_al.pool import WorkPool
from camera_trap_al.reading import decode_limits
from camera_trap_al.sequences import Crowd, compose_request, in_turns
from camera_trap_al.store import generations
from camera_trap_al.strategies import check_numbers, usable_strategy
from camera_trap_al.work import Work, image_folders, is_online

LOOK_S = 5.0
IntArray = npt.NDArray[np.int64]
log = logging.getLogger(__name__)


def skip_unusable(work: Work) -> None:
    """Skip the images of the open request that cannot be used. Commits: a journal line."""
    unusable = work.catalog.unusable(work.history.awaited())
    work.append("skip", {"skips": [[*key, reason] for key, reason in unusable.items()]})
    log.warning("request: %d images cannot be used and are no longer asked for", len(unusable))


def publish(work: Work) -> None:
    """Show the open request: the selector, then `label_request.json`, which is the commit."""
    request, kept_back = work.history.requests[-1], work.history.kept_back()
    keys = [key for key in request.keys if key not in kept_back]
    work.selector.show(lambda: selector_lines(work), keys, request.round)
    log.info("request: round %d asks for %d images; import %s", request.round, len(keys), work.folder.selector)


def finish(work: Work, facts: Facts) -> None:
    """Show that nothing is asked for, and why. Commits: `label_request.json`."""
    budget_spent = facts.budget <= 0
    why = f"The budget of {work.config.query.budget} images is spent." if budget_spent else "No image is left to label."
    counts = work.catalog.counts()
    if not (counts.pool or counts.private or counts.without_animal or budget_spent):
        why = f"Waiting for images: there are none in {work.pool_root()} yet."
    hidden = counts.not_listed
    if hidden and not budget_spent:
        why += f" {hidden} images cannot be shown by Timelapse; labels.tool = any asks for them too."
    if counts.private and not budget_spent:
        why += f" {counts.private} images are kept back, since the detector saw people or vehicles in them."
    if counts.without_animal and not budget_spent:
        why += (
            f" In {counts.without_animal} images it saw no animal; items.without_detection = whole asks for them too."
        )
    work.selector.show(lambda: selector_lines(work), (), FINISHED, why)
    log.info("finished: %s New images and labels are still taken in.", why)


def query(work: Work, facts: Facts) -> None:
    """Pick the next request. Commits: a journal line.

    Before the first checkpoint picked uniformly, or by the strategy if it needs no more than embeddings. Before the first
    learner each pick is decoded, so that a round never asks for a broken file. Where broken files take long, the step ends
    without a request and is due again, so that labels are taken in meanwhile.
    """
    seed = work.seed("request", work.journal.end)
    checkpoint = work.checkpoint()
    pool = askable_pool(work, checkpoint)
    n = int(min(work.config.query.batch, facts.budget, n_images(work.catalog.images_of(pool.rows))))
    wanted = work.config.query.strategy
    name = usable_strategy(wanted, has_classifier=checkpoint is not None, has_embeddings=pool.vectors is not None)
    try:
        with one_thread():
            rows, n_drawn = compose_request(work, pool, name, n, seed) if facts.learner else _readable(work, pool, n)
        predictions = [] if rows is None else _predict(work, pool, rows)
    except NotANumberError as error:
        (key,) = work.catalog.keys_of([error.row])
        raise NotANumberError(error.row, "/".join(filter(None, key))) from error
    if rows is None:
        return
    if len(rows) == 0:
        raise ImagesOfflineError("None of the images that are left can be read now.")
    keys = work.catalog.keys_of(rows)
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
            "random": list(range(n_drawn)),
        },
    )
    log.info("request: round %d, %d images chosen by %s", number, len(keys), name)
    only = only_class(work)
    if only:
        log.info("request: all labels say %s; a classifier is fitted once there are labels of two classes", only)


def only_class(work: Work) -> str:
    """Return the class that all labels name, or "" where they name none or several."""
    _, species = work.cached("labelled", work.catalog.pool_stamp, work.catalog.labelled)
    names = set(species)
    return names.pop() if len(names) == 1 else ""


def selector_lines(work: Work) -> SelectorLines:
    """Return the lines of the selector, kept while the pool is the same."""
    catalog = work.catalog
    version = catalog.fact("pool_version", 0)
    return work.cached("selector lines", version, lambda: SelectorLines(catalog.pool_keys(listed_only=True)))


def askable_pool(work: Work, checkpoint: generations.Generation | None) -> WorkPool:
    """Return the askable rows, with the vectors of the checkpoint's learner, or of the current one without a checkpoint."""
    rows, hashes = work.catalog.askable()
    learner = work.learner()
    number = checkpoint.manifest["learner"] if checkpoint else learner.number if learner else 0
    if not number:
        return WorkPool(rows, hashes, None, None, work.catalog.labelled, work.stop.is_set)
    vectors = work.vectors(number)
    covered = vectors.usable(rows)
    classifier = load_classifier(checkpoint.folder) if checkpoint else None
    return WorkPool(rows[covered], hashes[covered], vectors, classifier, work.catalog.labelled, work.stop.is_set)


def _predict(work: Work, pool: WorkPool, rows: IntArray) -> list[Prediction]:
    """Return what is predicted of the images of some rows, each of another image."""
    if pool.vectors is None or pool.classifier is None:
        return []
    items, of_row = _all_items(work, pool, rows)
    proba = pool.classifier.predict_proba(pool.vectors.read(items))
    check_numbers(items, proba)
    best = best_of_image(of_row, proba.max(axis=1))
    proba = proba[best[np.argsort(of_row[best])]]
    return [
        Prediction(pool.classifier.classes[i], float(row[i]))
        for row, i in zip(proba, proba.argmax(axis=1), strict=True)
    ]


def _all_items(work: Work, pool: WorkPool, rows: IntArray) -> tuple[IntArray, IntArray]:
    """Return the pool's items of the images of some rows, and to which of these rows each belongs."""
    every, wanted = work.catalog.images_of(pool.rows), work.catalog.images_of(rows)
    if is_single(every):
        return rows, np.arange(len(rows))
    order = np.argsort(wanted)
    items = np.isin(every, wanted)
    return pool.rows[items], order[np.searchsorted(wanted[order], every[items])]


def _readable(work: Work, pool: WorkPool, n: int) -> tuple[IntArray | None, int]:
    """Return n rows that can be read, all drawn at random, and how many; None if other steps should have a turn first.

    Of one sequence there are no more than may be, as long as others were found among twice as many images.
    """
    decoders, started = shared(decode_limits(work.config), work.config.images.processes), time.monotonic()
    folders = {kind: str(path) for kind, path in image_folders(work.config).items()}
    # The first images of those that the first learner embeds, so that it has a vector for each label.
    stamp = work.catalog.pool_stamp[1]
    order = work.cached("first rows", stamp, lambda: work.catalog.in_order(work.seed(ORDER_SEED), POOL))
    drawn = order[np.isin(order, pool.rows)]
    is_first = first_of_image(work.catalog.images_of(drawn))
    n_soon = int(np.count_nonzero(is_first[: embed_jobs.FIRST_ROWS]))
    drawn = drawn[is_first]
    drawn = np.concatenate([in_turns(work, drawn[:n_soon]), drawn[n_soon:]])
    crowd = Crowd(work.config.query.per_sequence, work.config.sequences.gap_s)
    good: list[int] = []
    kept_back: list[int] = []
    times: dict[int, int] = {}

    def look(item: Item) -> tuple[Item, Decoded | ImageUnreadableError | OSError]:
        try:
            return item, decoders.read(item.path, stop=work.stop)
        except (ImageUnreadableError, OSError) as error:
            return item, error

    items = (item for row in drawn for item in work.catalog.items([int(row)], folders))
    with closing(map_ahead(look, items, ahead=usable_cores())) as looked:
        for item, error in looked:
            if isinstance(error, Decoded):
                if error.taken != NO_TIME:
                    times[item.row] = error.taken
                (good if crowd.has_room(item.path, error.taken) else kept_back).append(item.row)
                if len(good) == n or len(kept_back) > n:
                    break
            elif isinstance(error, ImageUnreadableError):
                work.catalog.quarantine(item.row, error.code, str(error), error.content)
                if time.monotonic() - started > LOOK_S:
                    return None, 0
            elif not is_online(Path(folders[POOL]), work.catalog.fact("top", [])):
                raise ImagesOfflineError(f"The folder {folders[POOL]} does not answer.") from error
            else:
                log.debug("passed over %s: %s", item.path, error)
    if times:
        work.catalog.note_times(times)
    rows = np.array([*good, *kept_back][:n], dtype=np.int64)
    return rows, len(rows)
