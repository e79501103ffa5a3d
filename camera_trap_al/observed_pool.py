"""What detector and classifier see in the images to label, where a detector's boxes are known: an image at a time."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from camera_trap_al.catalog.detections import CUT
from camera_trap_al.catalog.found import POOL
from camera_trap_al.core.grouping import NO_TIME, best_in_order, local_time
from camera_trap_al.core.history import LASTING_SKIPS
from camera_trap_al.core.matching import folded
from camera_trap_al.core.observed import ANIMAL, Detection, Named, ObservedImage
from camera_trap_al.core.records import ImageKey
from camera_trap_al.core.seeds import key_hash
from camera_trap_al.detecting import DETECTOR
from camera_trap_al.exporters.counts import write_counts
from camera_trap_al.exporters.recognitions import LEAST_PROBABILITY, MOST_NAMED
from camera_trap_al.giving_way import give_way
from camera_trap_al.labels.timelapse import NOT_COUNTED, Predictions
from camera_trap_al.learn.classifier import load_classifier
from camera_trap_al.pool import WorkPool
from camera_trap_al.sequences import sequences_of
from camera_trap_al.store import generations
from camera_trap_al.work import Work

BLOCK_IMAGES = 4096
log = logging.getLogger(__name__)
IntArray = npt.NDArray[np.int64]


def detections_stamp(work: Work) -> Any:
    """Return what changes whenever crops are cut anew, None where no detections are known."""
    return None if work.catalog.fact(DETECTOR) is None else work.catalog.fact(CUT)


@dataclass(frozen=True)
class Classified:
    """What a classifier says of n items of the pool, in the order of their key hashes, those of an image by their rows.

    Parameters
    ----------
    key_hashes, rows : (n,) int64
    is_askable : (n,) whether the image has no label and can be shown
    numbers, probabilities : (n, k) the likeliest classes and how likely each is, the first one first
    classes : their names
    images, taken : (m,) key hashes of all images, ascending, and when they were taken, as `Sequences.times`
    """

    key_hashes: IntArray
    rows: IntArray
    is_askable: npt.NDArray[np.bool_]
    numbers: npt.NDArray[np.int32]
    probabilities: npt.NDArray[np.float32]
    classes: Sequence[str]
    images: IntArray
    taken: IntArray

    def named(self, places: Sequence[int], most: int) -> list[tuple[Named, ...]]:
        """Return the likeliest species of items, so many at most, and beside the first none below 0.05."""
        numbers, probabilities = self.numbers[places, :most].tolist(), self.probabilities[places, :most].tolist()
        return [
            tuple(
                Named(self.classes[number], probability)
                for i, (number, probability) in enumerate(zip(*of_item, strict=True))
                if i == 0 or probability >= LEAST_PROBABILITY
            )
            for of_item in zip(numbers, probabilities, strict=True)
        ]


def classify(work: Work, checkpoint: generations.Generation) -> Classified:
    """Return what a checkpoint says of all embedded items of the pool, with and without a label. Raises `StopRequested`."""
    found, vectors = sequences_of(work), work.vectors(checkpoint.manifest["learner"])
    rows = work.catalog.live_rows(POOL, in_order=False)
    places, are_there = found.places(rows)
    good = are_there & vectors.usable(rows)
    rows, hashes = rows[good], found.names.key_hashes[places[good]]
    classifier = load_classifier(checkpoint.folder)
    pool = WorkPool(rows, hashes, vectors, classifier, work.catalog.labelled, work.stop.is_set)
    shape = len(rows), min(MOST_NAMED, len(pool.classes))
    numbers, probabilities = np.empty(shape, np.int32), np.empty(shape, np.float32)
    for block in pool.unlabelled_blocks():
        here = np.searchsorted(rows, block.rows)
        likeliest = np.argsort(-block.proba, axis=1, kind="stable")[:, : shape[1]]
        numbers[here], probabilities[here] = likeliest, np.take_along_axis(block.proba, likeliest, axis=1)
    is_askable = np.isin(rows, work.catalog.askable()[0])
    order = np.argsort(hashes.view(np.int64), kind="stable")
    images, firsts = np.unique(found.names.key_hashes.view(np.int64), return_index=True)
    return Classified(
        hashes.view(np.int64)[order],
        rows[order],
        is_askable[order],
        numbers[order],
        probabilities[order],
        pool.classes,
        images,
        found.times[firsts],
    )


def observed(work: Work, said: Classified, most: int = MOST_NAMED) -> Iterator[ObservedImage]:
    """Yield all images to label that are there, by path, with all boxes of the detector, those of no account, too.

    A box that is an item has the species that the classifier sees in it. Those of the image are of its surest item; an
    image that no detector has looked at has them only while it has no label, and one that a person gave a class of people
    (`classes.person`) has none. `most` is how many species, five at most.

    Raises `GaveWay` and `StopRequested`, as `give_way` says.
    """
    return (image for _, image in _observed(work, said, most))


def _observed(work: Work, said: Classified, most: int) -> Iterator[tuple[int, ObservedImage]]:
    """Yield key hash and image, as `observed` does."""
    tick = give_way(work)
    with closing(work.catalog.pool_keys()) as keys:
        while block := list(islice(keys, BLOCK_IMAGES)):
            tick()
            yield from _observed_of(work, said, block, most)


def count_and_predict(work: Work, said: Classified) -> Predictions:
    """Write `counts.csv`; return the predictions of all images without a label. Raises as `observed` does."""
    tally = _Tally(work, said)
    images = tally.counting(_observed(work, said, most=1))
    n_sequences = write_counts(work.folder.counts, images, work.config.sequences.gap_s)
    log.info("counts: of %d sequences, in %s", n_sequences, work.folder.counts)
    return tally.predictions()


class _Tally:
    """What is predicted of images without a label, and how many animals they show, noted while they are counted."""

    def __init__(self, work: Work, said: Classified) -> None:
        items, classes = work.config.items, work.config.classes
        self._history, self._said = work.history, said
        self._threshold, self._no_animal = items.detection_threshold, classes.empty
        # Images in which no box counts are left out, and predicted to be this; "" for no prediction.
        self._empty = classes.empty if items.without_detection == "empty" else ""
        self._hashes, self._counts = array("q"), array("i")
        self._empty_hashes, self._empty_confidence = array("q"), array("f")

    def counting(self, images: Iterable[tuple[int, ObservedImage]]) -> Iterator[ObservedImage]:
        """Yield images with the boxes that count alone, each animal as what a person said of it, else the classifier."""
        for hash_, whole in images:
            image = counted(whole, self._threshold)
            if image.detections is not None and not image.is_private:
                self._note(hash_, image, whole.detections or ())
            yield said_by_person(image, self._history.label_of(image.key), self._no_animal)

    def predictions(self) -> Predictions:
        """Return the predictions of all images without a label; call it when all are counted."""
        said = self._said
        places = np.flatnonzero(said.is_askable)
        places = places[best_in_order(_numbered(said.key_hashes[places]), said.probabilities[places, 0])]
        classes = [*said.classes, *({self._empty} - {"", *said.classes})]
        empties = np.frombuffer(self._empty_hashes, np.int64)
        empty = np.full(len(empties), classes.index(self._empty) if self._empty else 0, dtype=np.int32)
        hashes = np.concatenate([said.key_hashes[places], empties])
        confidence = [said.probabilities[places, 0], np.frombuffer(self._empty_confidence, np.float32)]
        species = np.concatenate([said.numbers[places, 0], empty])
        return Predictions(hashes, species, np.concatenate(confidence), classes, self._counts_of(hashes))

    def _note(self, hash_: int, image: ObservedImage, all_boxes: Sequence[Detection]) -> None:
        n_animals = sum(d.category == ANIMAL for d in image.detections or ())
        self._hashes.append(hash_)
        self._counts.append(n_animals)
        if self._empty and not n_animals and not self._is_settled(image.key):
            self._empty_hashes.append(hash_)
            surest = max((d.confidence for d in all_boxes if d.category == ANIMAL), default=0.0)
            self._empty_confidence.append(1.0 - surest)

    def _is_settled(self, key: ImageKey) -> bool:
        """Return whether a person answered for an image; it may have been asked for before the detector looked at it."""
        reason, _ = self._history.skips.get(key, ("", 0))
        return key in self._history.labels or reason in LASTING_SKIPS

    def _counts_of(self, hashes: IntArray) -> IntArray:
        known, counts = np.frombuffer(self._hashes, np.int64), np.frombuffer(self._counts, np.int32)
        order = np.argsort(known, kind="stable")
        at = np.minimum(np.searchsorted(known[order], hashes), max(len(known) - 1, 0))
        if not len(known):
            return np.full(len(hashes), NOT_COUNTED, dtype=np.int64)
        return np.where(known[order][at] == hashes, counts[order][at], NOT_COUNTED).astype(np.int64)


def counted(image: ObservedImage, threshold: float) -> ObservedImage:
    """Return an image with those of its boxes that count."""
    if image.detections is None or all(d.confidence >= threshold for d in image.detections):
        return image
    return replace(image, detections=tuple(d for d in image.detections if d.confidence >= threshold))


def said_by_person(image: ObservedImage, species: str | None, empty: str) -> ObservedImage:
    """Return an image with the species that a person gave it, if any, as that of each animal.

    Where it is that for no animal there is none; where the detector saw none in spite of it, none are counted.
    """
    if species is None or image.is_private:
        return image
    named = (Named(species, 1.0),)
    if species == empty:
        others = tuple(d for d in image.detections or () if d.category != ANIMAL)
        return replace(image, detections=None if image.detections is None else others, named=named)
    if not any(d.category == ANIMAL for d in image.detections or ()):
        return replace(image, detections=None, named=named)
    boxes = tuple(replace(d, named=named) if d.category == ANIMAL else d for d in image.detections or ())
    return replace(image, detections=boxes, named=named)


def _numbered(hashes: IntArray) -> IntArray:
    """Return of which image each item is, by ascending key hashes."""
    return np.cumsum(np.append(False, hashes[1:] != hashes[:-1])[: len(hashes)])


def _observed_of(work: Work, said: Classified, keys: list[ImageKey], most: int) -> Iterator[tuple[int, ObservedImage]]:
    hashes = np.array([key_hash(key.path) for key in keys], dtype=np.int64)
    firsts, ends = (np.searchsorted(said.key_hashes, hashes, side).tolist() for side in ("left", "right"))
    items = [place for first, end in zip(firsts, ends, strict=True) for place in range(first, end)]
    boxes = dict(zip(items, work.catalog.boxes_of(said.rows[items].tolist()), strict=True))
    species = dict(zip(items, said.named(items, most), strict=True))
    at = np.searchsorted(said.images, hashes)
    known = at < len(said.images)
    known[known] = said.images[at[known]] == hashes[known]
    taken = (
        np.where(known, said.taken[np.where(known, at, 0)], NO_TIME) if len(said.images) else np.full(len(at), NO_TIME)
    )
    people = frozenset(map(folded, work.config.classes.person))
    every = zip(keys, hashes.tolist(), work.catalog.detections_of(keys), firsts, ends, taken.tolist(), strict=True)
    for key, hash_, seen, first, end, time in every:
        is_left_out = seen is None and end > first and not said.is_askable[first]
        is_left_out |= bool(people) and folded(work.history.label_of(key) or "") in people
        here = range(first, first if is_left_out else end)
        best = max((species[place] for place in here), key=lambda one: one[0].probability, default=())
        if seen is not None and here:
            by_box = {boxes[place]: species[place] for place in here}
            seen = tuple(_with_species(d, by_box.get(d.box)) for d in seen)
        yield hash_, ObservedImage(key, seen, best, local_time(time))


def _with_species(detection: Detection, named: tuple[Named, ...] | None) -> Detection:
    if named is None or detection.category != ANIMAL:
        return detection
    return Detection(detection.category, detection.confidence, detection.box, named)
