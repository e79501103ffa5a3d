"""What labels say of the classifier before it sees others: the better head, and how far its probabilities are to be trusted.

Both by cross-validation, in which images of one group (a site, a sequence) are never on both sides.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from camera_trap_al.core.grouping import best_in_order, best_of_image, first_of_image, n_images, numbered_from_first
from camera_trap_al.learn.classifier import fit_classifier
from camera_trap_al.learn.evaluate import calibration_error, evaluate
from camera_trap_al.learn.heads.dense import FloatArray, IntArray, softmax

FOLDS = 5
# Of more labels a sample is looked at; it is enough for one number and one choice.
MOST_ROWS = 2000
# With fewer labels to judge by, probabilities stay as they are, and the first of the heads is taken.
FEWEST_ROWS = 20
LOWEST, HIGHEST = 0.05, 20.0
HALVINGS = 40

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Score:
    """How a head did on labels that it had not seen: fractions in [0, 1], and the temperature that suits it."""

    accuracy: float
    macro_f1: float
    temperature: float
    error: float
    """The expected calibration error with that temperature."""

    @property
    def merit(self) -> float:
        """Return by what heads are compared: common and rare classes count alike."""
        return (self.accuracy + self.macro_f1) / 2


@dataclass(frozen=True)
class Calibration:
    """The head to use, its temperature, and how it was found.

    Parameters
    ----------
    head, temperature : to be used from the next fit on
    scores : by head, of those that were compared; empty where there were too few labels to judge by
    n_judged : labels that the heads were judged by
    by : `group`, or `image` where the groups left nothing to learn from
    """

    head: str
    temperature: float
    scores: dict[str, Score]
    n_judged: int
    by: str

    def facts(self) -> dict[str, Any]:
        """Return the JSON values."""
        return asdict(self)


def calibrate(
    scaled: FloatArray,
    species: Sequence[str],
    groups: npt.ArrayLike,
    names: Sequence[str],
    seed: int,
    *,
    unlabelled: FloatArray | None = None,
    images: IntArray | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Calibration:
    """Compare heads on labels that they were not fitted on, and find the temperature of the best one.

    Parameters
    ----------
    scaled, species, unlabelled : as `fit_classifier` takes them, n rows of at least two classes
    groups : (n,) numbers, images of one group are left out together; or (n, a), of which the first column counts by
        which half of the labels can be judged
    names : heads; of equally good ones the first is taken
    seed : of the sample, the folds and the fits
    images : (n,) of which image each row is, where several may be of one; an image is judged by its surest row
    tick : called before each fit; what it raises ends this
    """
    images = np.arange(len(species)) if images is None else images
    rows = looked_at(images, seed)
    vectors, known, images = scaled[rows], [species[i] for i in rows.tolist()], images[rows]
    classes = sorted(set(known))
    column = {name: i for i, name in enumerate(classes)}
    targets = np.array([column[name] for name in known], dtype=np.int64)
    by, folds = _folds(targets, np.asarray(groups, dtype=np.int64)[rows], images, np.random.default_rng(seed))
    judged = np.flatnonzero(_judged(targets, folds))
    n_judged = n_images(images[judged])
    if n_judged < FEWEST_ROWS or len(set(targets[judged].tolist())) < 2:
        return Calibration(names[0], 1.0, {}, 0, by)
    scores = {}
    for name in names:
        found = _left_out_scores(vectors, known, folds, name, seed, unlabelled=unlabelled, tick=tick)
        surest = judged[best_of_image(images[judged], softmax(found[judged]).max(axis=1))]
        scores[name] = _score(found[surest], targets[surest], classes)
        text = f"{scores[name].accuracy:.3f}, macro F1 {scores[name].macro_f1:.3f}"
        log.debug("head %s: accuracy %s on labels it had not seen", name, text)
    best = max(names, key=lambda name: scores[name].merit)
    return Calibration(best, scores[best].temperature, scores, n_judged, by)


def looked_at(images: IntArray, seed: int) -> IntArray:
    """Return, ascending, which of n rows with a label are looked at: all, or those of 2,000 images.

    `images` are (n,) numbers, of which image each row is.
    """
    n = n_images(images)
    if n <= MOST_ROWS:
        return np.arange(len(images), dtype=np.int64)
    drawn = np.sort(np.random.default_rng(seed).choice(n, MOST_ROWS, replace=False))
    if n == len(images):
        return drawn
    return np.flatnonzero(np.isin(images, images[first_of_image(images)][drawn]))


@dataclass(frozen=True)
class LeftOut:
    """What was said of n labelled images by classifiers that did not know their labels.

    Parameters
    ----------
    places : (n,) the row that stands for each image, its surest one; images in the order of their first rows
    proba : (n, k) float32 calibrated probabilities, in the order of `classes`
    targets : (n,) the column of each one's label
    judged : (n,) of which the label could be known at all: other groups hold its class too
    by : as in `Calibration`
    """

    classes: tuple[str, ...]
    places: IntArray
    proba: FloatArray
    targets: IntArray
    judged: npt.NDArray[np.bool_]
    by: str


def predict_left_out(
    scaled: FloatArray,
    species: Sequence[str],
    groups: npt.ArrayLike,
    head: str,
    seed: int,
    *,
    balanced: bool = True,
    images: IntArray | None = None,
    tick: Callable[[], None] = lambda: None,
) -> LeftOut:
    """Predict each labelled row by a classifier fitted on the rows of other groups; as `calibrate` takes and splits them.

    `balanced` is as for `fit_classifier`. Raises what that raises.
    """
    classes = sorted(set(species))
    column = {name: i for i, name in enumerate(classes)}
    targets = np.array([column[name] for name in species], dtype=np.int64)
    images = np.arange(len(targets)) if images is None else images
    by, folds = _folds(targets, np.asarray(groups, dtype=np.int64), images, np.random.default_rng(seed))
    judged = _judged(targets, folds)
    proba = np.full((len(targets), max(len(classes), 1)), 1 / max(len(classes), 1), dtype=np.float32)
    if judged.any():
        found = _left_out_scores(scaled, list(species), folds, head, seed, balanced=balanced, tick=tick)[judged]
        surest = best_of_image(images[judged], softmax(found).max(axis=1))
        proba[judged] = softmax(found / np.float32(fit_temperature(found[surest], targets[judged][surest])))
    places = best_in_order(images, proba.max(axis=1))
    return LeftOut(tuple(classes), places, proba[places], targets[places], judged[places], by)


def fit_temperature(scores: FloatArray, targets: IntArray) -> float:
    """Return by what scores are to be divided so that their softmax says how often it is right.

    Parameters
    ----------
    scores : (n, k) float32; -inf for a class that could not be known
    targets : (n,) int64, never such a class

    Returns
    -------
    The temperature of least log loss in [0.05, 20]. What is wanted of a row is one part in n + 2 off certain, so that
    rows that are all right do not make it certain of everything.

    Source: temperature scaling, Guo et al. 2017 (arXiv:1706.04599); smoothed targets after Platt 1999.
    """
    possible = np.isfinite(scores)
    finite = np.where(possible, scores, 0).astype(np.float64)
    doubt = 1 / (len(scores) + 2)
    wanted = doubt * possible / possible.sum(axis=1, keepdims=True)
    wanted[np.arange(len(targets)), targets] += 1 - doubt
    aimed = float((wanted * finite).sum())
    low, high = np.log(1 / HIGHEST), np.log(1 / LOWEST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        # The log loss is convex in the inverse temperature: its slope changes sign once.
        proba = softmax(np.where(possible, finite * np.exp(middle), -np.inf))
        if float((proba * finite).sum()) > aimed:
            high = middle
        else:
            low = middle
    return float(np.exp(-(low + high) / 2))


def _left_out_scores(
    vectors: FloatArray,
    species: list[str],
    folds: IntArray,
    head: str,
    seed: int,
    *,
    unlabelled: FloatArray | None = None,
    balanced: bool = True,
    tick: Callable[[], None],
) -> FloatArray:
    """Return the (n, k) scores of rows by classifiers fitted on the other folds; -inf where a class was not known."""
    column = {name: i for i, name in enumerate(sorted(set(species)))}
    found = np.full((len(species), len(column)), -np.inf, dtype=np.float32)
    for fold in np.unique(folds):
        tick()
        held = folds == fold
        taught = [name for name, out in zip(species, held, strict=True) if not out]
        if len(set(taught)) < 2:
            continue
        fitted = fit_classifier(vectors[~held], taught, seed, head, unlabelled=unlabelled, balanced=balanced)
        found[np.ix_(held, [column[name] for name in fitted.classes])] = fitted.scores(vectors[held])
    return found


def _score(scores: FloatArray, targets: IntArray, classes: list[str]) -> Score:
    temperature = fit_temperature(scores, targets)
    proba = softmax(scores / np.float32(temperature))
    best = proba.argmax(axis=1)
    metrics = evaluate([classes[i] for i in targets], [classes[i] for i in best], classes)
    error = calibration_error(proba.max(axis=1), best == targets)
    return Score(metrics["accuracy"], metrics["macro_f1"], temperature, error)


def _judged(targets: IntArray, folds: IntArray) -> npt.NDArray[np.bool_]:
    """Return the rows whose class occurs in another fold too, so that it could be learned, beside another class."""
    judged = np.zeros(len(targets), dtype=bool)
    for fold in np.unique(folds):
        held = folds == fold
        there = np.unique(targets[~held])
        if len(there) >= 2:
            judged[held] = np.isin(targets[held], there)
    return judged


def _folds(targets: IntArray, groups: IntArray, images: IntArray, draw: np.random.Generator) -> tuple[str, IntArray]:
    """Return what is left out together, and the (n,) fold of each row: by group where half of the rows can be judged so.

    Rows of one image are in one fold: its group is that of its first row.
    """
    first, numbered = np.flatnonzero(first_of_image(images)), numbered_from_first(images)
    groups = groups[first][numbered]
    for numbers in groups.reshape(len(targets), -1).T:
        folds = _spread_groups(np.unique(numbers, return_inverse=True)[1], draw)
        if 2 * int(_judged(targets, folds).sum()) >= len(targets):
            return "group", folds
    folds = np.empty(len(first), dtype=np.int64)
    # Images of a class are dealt out in turn, so that each fold has its share of each class.
    order = draw.permutation(len(first))
    folds[order[np.argsort(targets[first][order], kind="stable")]] = np.arange(len(first)) % FOLDS
    return "image", folds[numbered]


def _spread_groups(of_group: IntArray, draw: np.random.Generator) -> IntArray:
    """Return the fold of each row: groups, the largest first, go to the fold that has the fewest rows."""
    sizes = np.bincount(of_group)
    order = draw.permutation(len(sizes))
    filled, fold_of = np.zeros(FOLDS, dtype=np.int64), np.empty(len(sizes), dtype=np.int64)
    for group in order[np.argsort(-sizes[order], kind="stable")].tolist():
        fold_of[group] = int(filled.argmin())
        filled[fold_of[group]] += sizes[group]
    folds: IntArray = fold_of[of_group]
    return folds
