"""The step that says when to stop: accuracy without validation images, what more labels would bring, species unseen.

`core` estimates; here the facts are fetched, the estimates kept, and said in plain words (docs/stopping.md).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from camera_trap_al.calibrating import USE_UNLABELLED, fit_rows, pool_sample, read_finite
from camera_trap_al.core.estimates import (
    FEWEST_JUDGED,
    Accuracy,
    drawn_species,
    estimate_accuracy,
    random_shares,
)
from camera_trap_al.core.gains import EARLIER, NEXT_LABELS, Gain, expected_gain, less_right
from camera_trap_al.core.grouping import n_images, numbered_from_first
from camera_trap_al.core.steps import Facts
from camera_trap_al.core.unseen import Unseen, estimate_unseen
from camera_trap_al.giving_way import give_way
from camera_trap_al.layout import WorkFolder
from camera_trap_al.learn.classifier import Classifier, fit_classifier, load_classifier
from camera_trap_al.learn.evaluate import write_learning_curve
from camera_trap_al.store import atomic, generations
from camera_trap_al.store.json_files import read_object
from camera_trap_al.store.shards import FloatArray
from camera_trap_al.work import Work

FORMAT = 1
# Estimates that are kept, those of the most labels; a season has some dozens, and each turn of the loop reads the file.
MOST_KEPT = 200
# Of more labels, what more would bring is not estimated: fitting again takes too long, and it is little.
MOST_LABELS = 5_000
log = logging.getLogger(__name__)


def estimate(work: Work, facts: Facts) -> None:
    """Estimate what the newest checkpoint is worth on images without a label. Commits: `estimates.json`.

    Draws the learning curve where there is an estimate, unless the next step measures the checkpoint and draws it too.
    Between two fits it raises `GaveWay` and `StopRequested`, as `give_way` says.
    """
    checkpoint = work.checkpoint()
    assert checkpoint is not None
    n_labels, history = int(checkpoint.manifest["n_labels"]), work.history
    classifier = load_classifier(checkpoint.folder)
    vectors, sure, n_pool = pool_sample(work, checkpoint.manifest["learner"], classifier)
    before = [noted for noted in read_estimates(work.folder) if noted["labels"] != n_labels][-MOST_KEPT:]
    shares = random_shares(history, max(0, n_labels - len(history.labels)))
    n_judged = sum(len(share.is_right) for share in shares)
    accuracy = estimate_accuracy(shares, sure, n_pool)
    gain = expected_gain(n_labels, accuracy, _lost(work, checkpoint, classifier, vectors)) if accuracy else None
    drawn, elsewhere = drawn_species(history)
    folders = {*work.catalog.folder_classes(), *work.config.classes.names, work.config.classes.empty}
    unseen = estimate_unseen(drawn, elsewhere | folders)
    noted = {
        "labels": n_labels,
        "checkpoint": checkpoint.number,
        "unlabelled": n_pool,
        "n_judged": n_judged,
        "accuracy": _json(accuracy),
        "gain": _json(gain),
        "unseen": _json(unseen),
    }
    words = [
        accuracy_words(accuracy, n_pool, n_judged, is_drawn=work.config.query.random_share > 0),
        *([gain_words(gain, n_pool)] if accuracy else []),
        *([unseen_words(unseen)] if unseen else []),
    ]
    kept = sorted([*before, noted], key=lambda noted: noted["labels"])
    said = {"format": FORMAT, "checkpoint": checkpoint.number, "words": words, "newest": noted, "estimates": kept}
    atomic.replace_json(work.folder.estimates, said)
    for text in words if accuracy else ():
        log.info("advice: %s", text)
    if accuracy and not facts.validated:
        write_learning_curve(work.folder.test_results, kept)


def _lost(
    work: Work, checkpoint: generations.Generation, classifier: Classifier, sample: FloatArray
) -> dict[int, float]:
    """Return, by number of labels, how much less a classifier of only the first of them gets right.

    Both guess on a sample of the images without a label. Of very many labels nothing is looked at: that would take long.
    """
    learner, tick = checkpoint.manifest["learner"], give_way(work)
    rows, species = fit_rows(work, learner)
    n_labels = n_images(work.catalog.images_of(rows))
    if n_labels > MOST_LABELS or not len(sample):
        return {}
    given = [work.history.labels.get(key) for key in work.catalog.keys_of(rows)]
    # Labels of the training folder were there first.
    order = np.argsort([label.seq if label else 0 for label in given], kind="stable")
    known, names = read_finite(work, learner, rows[order]), [species[i] for i in order.tolist()]
    n_before = numbered_from_first(work.catalog.images_of(rows[order]))
    unlabelled = sample if classifier.head in USE_UNLABELLED else None
    proba = classifier.predict_proba(sample)
    lost = {}
    for n in sorted({int(share * n_labels) for share in EARLIER}):
        tick()
        given_then = np.flatnonzero(n_before < n)
        taught = [names[i] for i in given_then.tolist()]
        if len(set(taught)) < 2 or not set(taught) <= set(classifier.classes):
            continue
        seed = work.seed("earlier", n)
        earlier = fit_classifier(known[given_then], taught, seed, classifier.head, unlabelled=unlabelled)
        columns = np.array([classifier.classes.index(name) for name in earlier.classes])
        lost[n] = less_right(proba, columns[earlier.predict_proba(sample).argmax(axis=1)])
    return lost


def read_advice(folder: WorkFolder) -> dict[str, Any]:
    """Return the newest estimates with their `words`, or {} where there are none that can be read."""
    try:
        noted = read_object(folder.estimates)
        words = [str(text) for text in noted["words"]]
        return {**noted["newest"], "words": words}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def read_estimates(folder: WorkFolder) -> list[dict[str, Any]]:
    """Return all estimates that were kept, by number of labels; none where they cannot be read."""
    try:
        kept = [dict(noted) for noted in read_object(folder.estimates)["estimates"]]
        good = [noted for noted in kept if isinstance(noted["labels"], int) and _is_whole(noted)]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return sorted(good, key=lambda noted: int(noted["labels"]))


def accuracy_words(accuracy: Accuracy | None, n_pool: int, n_judged: int, *, is_drawn: bool = True) -> str:
    """Return what is known of the accuracy, as a sentence."""
    if accuracy is not None:
        return (
            f"On the {n_pool:,} images without a label about {100 * accuracy.value:.0f} % are recognised"
            f" (95 % sure: {_between(accuracy.low, accuracy.high)}), by {accuracy.n_judged} images drawn at random."
        )
    why = (
        f"{n_judged} of the {FEWEST_JUDGED} images drawn at random that it takes have a label and a prediction"
        if is_drawn
        else "no images are drawn at random, since query.random_share is 0"
    )
    return f"How many images without a label are recognised cannot be said yet: {why}."


def gain_words(gain: Gain | None, n_pool: int) -> str:
    """Return what more labels would bring, as a sentence."""
    if gain is None:
        return "What more labels would bring cannot be said yet."
    hundred = f"The next {NEXT_LABELS} labels would bring about {_points(gain.points)}"
    if math.isinf(gain.labels):
        return f"{hundred}; less than one point is left to gain."
    if gain.labels > n_pool:
        return f"{hundred}; all images that are left would bring less than one point."
    high = f"to {rounded(gain.labels_high):,}" if gain.labels_high <= n_pool else "or more than there are images"
    low = min(rounded(gain.labels_low), rounded(gain.labels))
    return f"{hundred}; about {rounded(gain.labels):,} more labels for one more point ({low:,} {high})."


def unseen_words(unseen: Unseen) -> str:
    """Return how many species were never seen, as a sentence."""
    n = round(unseen.species)
    rare = f"{100 * unseen.share_high:.1f} % of the images at most show one"
    if n:
        return f"At least {n} more species {'is' if n == 1 else 'are'} probably there that nobody has labelled; {rare}."
    if unseen.share:
        return f"A species that nobody has labelled may be there; {rare}."
    return (
        f"Probably every species has been seen; {100 * unseen.share_high:.1f} % of the images at most show another one."
    )


def rounded(labels: float) -> int:
    """Return a number of labels as a person would say it: two digits, above 100 in fifties."""
    step = 10 if labels < 100 else 50 if labels < 1000 else 10 ** (len(str(int(labels))) - 2)
    return int(max(step, round(labels / step) * step))


def _points(fraction: float) -> str:
    points = 100 * fraction
    return "0.1 points or less" if points < 0.15 else f"{points:.1f} points" if points < 10 else f"{points:.0f} points"


def _between(low: float, high: float) -> str:
    return f"{100 * low:.0f} to {100 * high:.0f} %"


def _json(record: Accuracy | Gain | Unseen | None) -> dict[str, Any] | None:
    """Return a record as JSON values: what is infinite is null."""
    if record is None:
        return None
    return {name: value if math.isfinite(value) else None for name, value in asdict(record).items()}


def _is_whole(noted: Mapping[str, Any]) -> bool:
    accuracy = noted["accuracy"] or {"value": 0.0, "low": 0.0, "high": 0.0}
    fractions = [accuracy["value"], accuracy["low"], accuracy["high"]]
    return all(isinstance(value, float | int) and 0 <= value <= 1 for value in fractions)
