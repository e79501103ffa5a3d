"""Labels compared with what is predicted without them: which are contradicted, and how well labels can be predicted at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from camera_trap_al.calibrating import read_numbers
from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.config import Config
from camera_trap_al.core.grouping import Mask, n_images
from camera_trap_al.core.history import History
from camera_trap_al.core.matching import folded
from camera_trap_al.core.records import ImageKey
from camera_trap_al.core.seeds import seed_from
from camera_trap_al.core.suspects import Suspects, find_suspects
from camera_trap_al.errors import UsageError
from camera_trap_al.learn.calibration import FEWEST_ROWS, LeftOut, looked_at, predict_left_out
from camera_trap_al.learn.heads.dense import one_thread
from camera_trap_al.sequences import Sequences
from camera_trap_al.store.embeddings import Vectors
from camera_trap_al.store.shards import RowArray

# Its one regularised layer, in which images weigh alike, learns no single mistake by heart. Were it classes, mistakes would
# weigh most where they are most of a rare class.
HEAD = "logistic"
# What a class for no animal is called where `classes.empty` does not say.
EMPTY_NAMES = frozenset({"empty", "blank", "nothing", "none", "no animal"})


@dataclass(frozen=True)
class Suspect:
    """A label that is contradicted.

    Parameters
    ----------
    path : of the image, from its folder of images on
    key : None for an image of the training folder, which Timelapse does not show
    given, looks_like : the label, and what is predicted
    probability : of what is predicted, in [0, 1]
    looks_empty : whether that is the class for no animal
    was_asked : whether a request ever named it, so that another label is a correction
    """

    path: str
    key: ImageKey | None
    given: str
    looks_like: str
    probability: float
    looks_empty: bool
    was_asked: bool


@dataclass(frozen=True)
class Audit:
    """The worst labels, and how many there are of what.

    `n_judged` labels of `n_labels` could be compared, `n_contradicted` of these are contradicted, `n_likely` so much that
    they are probably wrong. `by` is what was left out together: group or image.
    """

    worst: tuple[Suspect, ...]
    n_labels: int
    n_judged: int
    n_contradicted: int
    n_likely: int
    by: str


@dataclass(frozen=True)
class Judged:
    """The labelled images that could be compared, and what is predicted of them.

    Parameters
    ----------
    rows : (n,) rows of labelled images that are embedded, one for each, or a sample of them
    species : their n labels
    is_pool : (n,) which of them are images to label, not of the training folder
    left : what was predicted of them by classifiers that did not know their labels
    n_labels : how many there are, of which `rows` may be a sample
    """

    rows: RowArray
    species: tuple[str, ...]
    is_pool: Mask
    left: LeftOut
    n_labels: int


def judge_labels(
    catalog: Catalog,
    vectors: Vectors,
    sequences: Callable[[], Sequences],
    seed: int,
    *,
    samples: bool = False,
    tick: Callable[[], None] = lambda: None,
) -> Judged:
    """Predict each label by a classifier that was fitted on others; with `samples`, of many labels those of 2,000 images.

    `sequences` is only asked where there is enough to compare; `tick` is called before each fit. Raises `UsageError` where
    there is too little to compare, `ModelError` where an embedding cannot be used.
    """
    rows, species = catalog.labelled()
    usable = vectors.usable(rows)
    rows, species = rows[usable], [name for name, good in zip(species, usable, strict=True) if good]
    images = catalog.images_of(rows)
    n_labels = n_images(images)
    if samples:
        places = looked_at(images, seed)
        rows, species, images = rows[places], [species[i] for i in places.tolist()], images[places]
    if n_labels < FEWEST_ROWS or len(set(species)) < 2:
        raise UsageError(
            f"There are {n_labels} labels of {len(set(species))} classes, too few to compare.",
            hint=f"It takes {FEWEST_ROWS} labels of two classes.",
        )
    found = sequences()
    known = read_numbers(vectors, rows, catalog)
    with one_thread():
        # Not by folder: other images of a site are the best witnesses of a slip, and those of one burst no witnesses.
        groups = found.of(rows)[0]
        left = predict_left_out(known, species, groups, HEAD, seed, balanced=False, images=images, tick=tick)
    rows = rows[left.places]
    return Judged(rows, tuple(species[i] for i in left.places.tolist()), found.places(rows)[1], left, n_labels)


def audit_seed(config: Config, history: History) -> int:
    """Return the seed of a comparison of labels, so that each shows the same."""
    return seed_from(str(config.daemon.seed) if config.daemon.seed else history.identity, "audit")


def suspects_among(judged: Judged) -> tuple[RowArray, Suspects]:
    """Return the places in `judged.rows` of the labels that are contradicted, the worst first, and what is said of them."""
    places = np.flatnonzero(judged.left.judged)
    suspects = find_suspects(judged.left.proba[places], judged.left.targets[places])
    return places[suspects.rows], suspects


def worst_of(judged: Judged, catalog: Catalog, history: History, *, empty: str, top: int) -> Audit:
    """Return the `top` labels that are contradicted most; `empty` is the option `classes.empty`."""
    places, suspects = suspects_among(judged)
    worst = places[:top]
    listed = []
    for n, (place, key) in enumerate(zip(worst.tolist(), catalog.keys_of(judged.rows[worst].tolist()), strict=True)):
        looks_like = judged.left.classes[int(suspects.looks_like[n])]
        own = key if judged.is_pool[place] else None
        listed.append(
            Suspect(
                key.path,
                own,
                judged.species[place],
                looks_like,
                float(suspects.probability[n]),
                is_empty_class(looks_like, empty),
                key in history.requested,
            )
        )
    n_judged = int(judged.left.judged.sum())
    n_likely = int(suspects.is_likely.sum())
    return Audit(tuple(listed), judged.n_labels, n_judged, len(places), n_likely, judged.left.by)


def is_empty_class(name: str, empty: str) -> bool:
    """Return whether a class is that for no animal, which the option `classes.empty` names, or else its own name does."""
    return name == empty if empty else folded(name).replace("_", " ") in EMPTY_NAMES
