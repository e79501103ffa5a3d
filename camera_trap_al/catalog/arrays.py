"""What the catalogue holds of all images, as arrays.

They are read once for each change of the pool, and the answers once for each change of these: of a million images a
round answers a hundred.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection

from camera_trap_al.catalog import detections
from camera_trap_al.catalog.found import POOL, TRAIN, VALIDATION, PoolCounts, RowArray
from camera_trap_al.catalog.schema import marks, parts, rows_of
from camera_trap_al.catalog.sightings import QUARANTINED
from camera_trap_al.core.matching import folded

HashArray = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
ROOTS = (POOL, TRAIN, VALIDATION)
LISTED, MISSING, PROBLEM, IS_QUARANTINED, ALTERED, DETECTED = 4, 8, 16, 32, 64, 128
LOOKED_AT, HAS_ANIMAL = DETECTED * detections.LOOKED_AT, DETECTED * detections.HAS_ANIMAL
PRIVATE, LEFT_OUT = DETECTED * detections.PRIVATE, DETECTED * detections.LEFT_OUT
IMAGES = f"""
SELECT items.row, images.key_hash,
    CASE root WHEN '{POOL}' THEN 0 WHEN '{TRAIN}' THEN 1 ELSE 2 END + {LISTED} * listed + {MISSING} * missing
    + {PROBLEM} * (problem != '') + {IS_QUARANTINED} * ({QUARANTINED}) + {ALTERED} * (altered_since != '')
    + {DETECTED} * detected, items.image
FROM items JOIN images ON images.id = items.image WHERE items.live ORDER BY items.row
"""
ANSWERS = f"""
SELECT items.row, labels.species FROM labels CROSS JOIN images ON images.root = '{POOL}' AND images.path = labels.path
CROSS JOIN items ON items.image = images.id
"""
CLASSES = """
SELECT items.row, images.class_name FROM images JOIN items ON items.image = images.id WHERE images.root = ?
"""
# Of all rows of an image, `Images.places` finds the one that was live when these were read: a scan may be under way since.


@dataclass(frozen=True)
class Images:
    """All items of the images that are known, in ascending order of their rows.

    Parameters
    ----------
    rows, key_hashes : (n,)
    flags : (n,) uint16, the index of the folder in `ROOTS` and what else is said of each one's image
    images : (n,) the numbers of their images, of which one may have several items
    """

    rows: RowArray
    key_hashes: HashArray
    flags: npt.NDArray[np.uint16]
    images: RowArray

    @classmethod
    def read(cls, connection: Connection) -> Images:
        """Read them from the catalogue."""
        numbers = np.fromiter(chain.from_iterable(rows_of(connection, IMAGES)), dtype=np.int64).reshape(-1, 4)
        rows, hashes, flags, images = numbers.T
        return cls(rows.copy(), hashes.copy().view(np.uint64), flags.astype(np.uint16), images.copy())

    @cached_property
    def firsts(self) -> Mask:
        """Return which items are the first of their images."""
        if (np.diff(self.images) > 0).all():
            return np.ones(len(self.images), dtype=bool)
        first = np.zeros(len(self.images), dtype=bool)
        first[np.unique(self.images, return_index=True)[1]] = True
        return first

    @cached_property
    def have_siblings(self) -> Mask:
        """Return which items are of images that have others, too."""
        if self.firsts.all():
            return np.zeros(len(self.images), dtype=bool)
        _, places, counts = np.unique(self.images, return_inverse=True, return_counts=True)
        several: Mask = counts[places] > 1
        return several

    def are(self, *roots: str) -> Mask:
        """Return which images are of these folders."""
        wanted: Mask = np.array([root in roots for root in ROOTS])[self.flags & 3]
        return wanted

    def have(self, flags: int) -> Mask:
        """Return which images have any of these flags."""
        given: Mask = (self.flags & flags) != 0
        return given

    def usable(self, *roots: str) -> Mask:
        """Return which images of these folders are there and can be read, as far as is known, and are not kept back."""
        good: Mask = self.are(*roots) & ~self.have(MISSING | PROBLEM | PRIVATE | LEFT_OUT)
        return good

    def by_hash(self, mask: Mask) -> RowArray:
        """Return the rows of some images in the order of their key hashes, as signed numbers; of equal ones by folder."""
        order = np.lexsort((self.flags[mask] & 3, self.key_hashes[mask].view(np.int64)))
        return self.rows[mask][order]

    def places(self, rows: RowArray) -> tuple[RowArray, Mask]:
        """Return where rows stand in these arrays, and which are there at all; places of others mean nothing."""
        places = np.minimum(np.searchsorted(self.rows, rows), max(len(self.rows) - 1, 0))
        there = self.rows[places] == rows if len(self.rows) else np.zeros(len(rows), dtype=bool)
        return places, there


@dataclass(frozen=True)
class Answers:
    """What is said of images: in the pool by people, else by the names of their folders.

    Parameters
    ----------
    places : (n,) where the images stand in `Images`
    species : (n,) int32, the index of each one's species in `names`, -1 where it needs none
    names : of the species
    """

    places: RowArray
    species: npt.NDArray[np.int32]
    names: tuple[str, ...]

    @classmethod
    def read(cls, connection: Connection, images: Images) -> Answers:
        """Read those of people from the catalogue."""
        return cls.of(images, rows_of(connection, ANSWERS))

    @classmethod
    def of(cls, images: Images, found: Iterable[tuple[int, str | None]]) -> Answers:
        """Return what pairs of rows and species say."""
        rows, species, numbers = array("q"), array("i"), dict[str, int]()
        for row, name in found:
            rows.append(row)
            species.append(-1 if name is None else numbers.setdefault(name, len(numbers)))
        places, there = images.places(np.array(rows, dtype=np.int64))
        return cls(places[there], np.array(species, dtype=np.int32)[there], tuple(numbers))


def labelled(
    connection: Connection,
    images: Images,
    answers: Answers,
    *,
    train: bool,
    people: Collection[str] = (),
    share_label: bool = True,
) -> tuple[RowArray, list[str]]:
    """Return the rows that may train and their species: labelled images of the pool and, with `train`, of its folder.

    `people` are classes that never train, `folded`; without `share_label` neither do images with several crops.
    """
    folders = {TRAIN: Answers.of(images, rows_of(connection, CLASSES, TRAIN))} if train else {}
    rows, species = _in_order(images, {POOL: answers, **folders}, people)
    if share_label or not images.have_siblings.any():
        return rows, species
    alone = ~images.have_siblings[images.places(rows)[0]]
    return rows[alone], [name for name, good in zip(species, alone.tolist(), strict=True) if good]


def classified(
    connection: Connection, images: Images, *roots: str, people: Collection[str] = ()
) -> tuple[RowArray, list[str]]:
    """Return the usable rows of folders whose first level names the class, and their species, but those of people."""
    return _in_order(images, {root: Answers.of(images, rows_of(connection, CLASSES, root)) for root in roots}, people)


def _in_order(images: Images, said: Mapping[str, Answers], people: Collection[str]) -> tuple[RowArray, list[str]]:
    """Return rows and species in the order of the key hashes, as signed numbers; of equal ones by species."""
    names = sorted({name for answers in said.values() for name in answers.names})
    ranks_by_name = {name: i for i, name in enumerate(names)}
    places, ranks = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int32)
    for root, answers in said.items():
        good = images.usable(root)[answers.places] & (answers.species >= 0)
        shown = [i for i, name in enumerate(answers.names) if folded(name) in people]
        if shown:
            good &= ~np.isin(answers.species, shown)
        places = np.concatenate([places, answers.places[good]])
        rank_of = np.array([ranks_by_name[name] for name in answers.names], dtype=np.int32)
        ranks = np.concatenate([ranks, rank_of[answers.species[good]]])
    order = np.lexsort((places, ranks, images.key_hashes.view(np.int64)[places]))
    return images.rows[places[order]], [names[i] for i in ranks[order].tolist()]


def askable(images: Images, answers: Answers, *roots: str) -> tuple[RowArray, HashArray]:
    """Return rows and key hashes of pool images that need an answer and can be shown, in ascending order."""
    is_open = images.usable(POOL) & images.have(LISTED) & images.are(*roots)
    is_open[answers.places] = False
    return images.rows[is_open], images.key_hashes[is_open]


def count(connection: Connection, images: Images, answers: Answers) -> PoolCounts:
    """Return how many images are where."""
    good = images.firsts & ~images.have(MISSING | IS_QUARANTINED)
    known, listed = good & images.are(POOL), images.have(LISTED)
    pool = known & ~images.have(PRIVATE | LEFT_OUT)
    answered = np.zeros(len(images.rows), dtype=bool)
    answered[answers.places] = True
    has_species = answers.species >= 0
    return PoolCounts(
        train=_n(good & images.are(TRAIN)),
        validation=_n(good & images.are(VALIDATION)),
        labelled=_n(pool[answers.places] & has_species),
        skipped=_n(pool[answers.places] & ~has_species),
        unlabelled=_n(pool & listed & ~answered),
        not_listed=_n(pool & ~listed & ~answered),
        quarantined=_n(images.firsts & images.have(IS_QUARANTINED)),
        missing=_n(images.firsts & images.have(MISSING)),
        altered=_count_altered(connection, images),
        private=_n(known & images.have(PRIVATE)),
        without_animal=_n(known & images.have(LEFT_OUT)),
        with_animals=_n(pool & images.have(HAS_ANIMAL)),
        looked_at=_n(known & images.have(LOOKED_AT)),
    )


def _count_altered(connection: Connection, images: Images) -> int:
    """Count the few that changed after they were labelled; a new label of one ends that, which changes no array here."""
    n = 0
    for part in parts(images.rows[images.firsts & images.have(ALTERED)].tolist()):
        query = "SELECT COUNT(*) FROM items JOIN images ON images.id = items.image WHERE altered_since != ''"
        n += sum(found for (found,) in rows_of(connection, f"{query} AND items.row IN {marks(part)}", *part))
    return n


def _n(mask: Mask) -> int:
    return int(np.count_nonzero(mask))
