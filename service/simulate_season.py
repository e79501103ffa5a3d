"""Folders of images and a file of true labels → a season to be replayed: embedded once, by the program's own loop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from camera_trap_al.catalog.found import POOL
from camera_trap_al.choices import check_choices, check_folders
from camera_trap_al.config import Config, aliases, build
from camera_trap_al.config_file import read_work_config
from camera_trap_al.core.matching import KnownClasses, KnownImages, folded, nfc
from camera_trap_al.core.records import ImageKey, LabelRow
from camera_trap_al.core.seeds import key_hash
from camera_trap_al.core.steps import Facts, Step
from camera_trap_al.errors import LabelFileError, ModelError, StopRequested, UsageError
from camera_trap_al.labels.path_label_csv import read_path_labels
from camera_trap_al.labels.species_csv import read_species_csv
from camera_trap_al.layout import WorkFolder
from camera_trap_al.loop import Loop, is_idle
from camera_trap_al.replay_season import IntArray, Season
from camera_trap_al.sequences import sequences_of
from camera_trap_al.taking import known_images
from camera_trap_al.work import Work, image_folders
from camera_trap_al_service.daemon import GIVE_UP_AFTER, give_up, opened
from camera_trap_al_service.init import make_work_folder
from camera_trap_al_service.progress import Bars
from camera_trap_al_service.stopping import Stopping

WORK = "work"
# A replay has its own person, its own rounds and a network that stays as it came.
FORCED: Mapping[str, Any] = {
    "train.epochs": 0,
    "finetune.epochs": 0,
    "validation.enabled": False,
    "labels.tool": "any",
    "classes.auto_add": True,
}
# What this verb has an argument of its own for.
ARGUMENTS: Mapping[str, str] = {
    "data.train": "--train",
    "data.unlabelled": "--unlabelled",
    "data.validation": "--validation",
    "query.strategy": "--strategies",
    "query.budget": "--budget",
    "classifier.head": "--heads",
}
# Groups of options that no embedding depends on: they may be others in a second call.
LATER_GROUPS = frozenset({"labels", "query", "sequences"})
SEED = 1
log = logging.getLogger(__name__)


@dataclass
class Truth:
    """What a file of true labels says of the images of a folder.

    `species` is by row of the catalogue. The others are counts of what was left out: images without a label, with words
    for "cannot tell" or with several species; labelled images that cannot be read; rows of the file whose image is not
    there or that cannot be used.
    """

    species: dict[int, str] = field(default_factory=dict)
    unlabelled: int = 0
    unsure: int = 0
    several: int = 0
    unreadable: int = 0
    unknown: int = 0

    def left_out(self) -> dict[str, int]:
        """Return the counts by what people read."""
        return {
            "images without a true label": self.unlabelled,
            "images marked as unsure": self.unsure,
            "images with several species": self.several,
            "rows of the truth file that name no image of this folder": self.unknown,
        }


def settings(folders: Mapping[str, str], options: Mapping[str, Any], out: Path) -> Config:
    """Return the configuration under which a season is embedded. Raises `UsageError`."""
    absolute = {key: str(Path(folder).expanduser().absolute()) for key, folder in folders.items() if folder}
    given: dict[str, Any] = {"daemon.seed": SEED}
    by_alias = aliases()
    for name, value in options.items():
        key = by_alias.get(name, name)
        if key in ARGUMENTS:
            raise UsageError(f"simulate has an argument for {name}.", hint=f"Use {ARGUMENTS[key]}.")
        if key in FORCED:
            raise UsageError(f"simulate takes no -o {name}: in replays it is {str(FORCED[key]).lower()}.")
        given[key] = value
    if given.get("embedding.weights"):
        given["embedding.weights"] = str(Path(given["embedding.weights"]).expanduser().absolute())
    config = build({**given, **absolute, **FORCED}, "camera-trap-al simulate")
    check_choices(config)
    check_folders(image_folders(config), out)
    if (root := Path(config.data.unlabelled)).resolve() in out.resolve().parents:
        raise UsageError(
            f"{out} lies in {root}, where its pictures would be taken for images.", hint="Name another --out."
        )
    return config


def make_or_check_work(out: Path, config: Config) -> Path:
    """Return the work folder below `out`, made unless it is there. Raises `UsageError` where it is of another season."""
    work = out / WORK
    if WorkFolder.at(work).config.is_file():
        before, now = read_work_config(work)[1].flat(), config.flat()
        other = sorted(key for key in now if now[key] != before[key] and key.partition(".")[0] not in LATER_GROUPS)
        if other:
            raise UsageError(
                f"{out} holds a simulation with another {' and '.join(other[:5])} ({before[other[0]]}).",
                hint="Name a new folder with --out.",
            )
        return work
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there and holds something else; nothing was changed.", hint="Name a new folder.")
    make_work_folder(work, config)
    return work


def embedded_season(
    work_folder: Path, truth_file: Path, bars: Bars, config: Config | None = None
) -> tuple[Season, dict[str, int]]:
    """Embed what is not embedded yet, and return the season and what was left out of it, by what people read.

    The truth file is looked through before anything is embedded, which may take hours.

    Parameters
    ----------
    config : to be used instead of that in the work folder; None for that

    Raises
    ------
    KeyboardInterrupt
        it was told to stop; a second call goes on
    CameraTrapAlError
        the images, the weights or the truth file cannot be used
    """
    stopping = Stopping()
    stopping.listen()
    try:
        with opened(work_folder, stopping, adapted=lambda made: config or made) as (loop, _):
            _run(loop, bars, lambda facts, step: facts.scanned)
            _heed(stopping)
            _named(loop.work, truth_file).check()
            _run(loop, bars, _is_embedded)
            _heed(stopping)
            found = _read_season(loop.work, truth_file)
    except StopRequested as stopped:
        raise KeyboardInterrupt from stopped
    finally:
        stopping.close()
    _heed(stopping)
    return found


def _heed(stopping: Stopping) -> None:
    if stopping.stop.is_set():
        raise KeyboardInterrupt


def _is_embedded(facts: Facts, step: Step) -> bool:
    rested = facts.scanned and not facts.worker and not facts.job and facts.absorbed >= facts.shards
    return bool(rested and facts.learner) or is_idle(facts, step)


def _run(loop: Loop, bars: Bars, until: Callable[[Facts, Step], bool]) -> None:
    def show(loop: Loop) -> None:
        if loop.worker.progress is not None:
            bars.show(*loop.worker.progress)
        elif loop.work.scan is not None:
            bars.show("looking for images", loop.work.scan.n_seen)

    def ends(facts: Facts, step: Step) -> bool:
        give_up(loop, facts)
        return until(facts, step)

    loop.allow_rounds(0)
    loop.give_up_after = GIVE_UP_AFTER
    loop.on_turn = lambda loop, facts, step: show(loop)
    loop.worker.on_progress = lambda: show(loop)
    try:
        loop.run(until=ends)
    finally:
        bars.close()


@dataclass(frozen=True)
class _Named:
    """The rows of a catalogue that are of the season, and what is on them: `n_train`, then `n_pool`, then the others."""

    rows: IntArray
    species: list[str]
    n_train: int
    n_pool: int
    truth: Truth

    def season(self, *arrays: Any) -> Season:
        """Return the season of these images and their vectors, key hashes, sequences and folders."""
        classes = tuple(sorted(set(self.species)))
        place = {name: i for i, name in enumerate(classes)}
        vectors, hashes, sequences, folders = arrays
        labels = np.array([place[name] for name in self.species], np.int64)
        return Season(vectors, hashes, labels, sequences, folders, self.n_train, self.n_pool, classes)

    def check(self) -> None:
        """Raise `UsageError` where nothing could be learned or measured, whatever the images are like."""
        n = len(self.rows)
        numbers = np.arange(n)
        self.season(np.zeros((n, 0), np.float32), numbers.astype(np.uint64), numbers, numbers).check()

    def only(self, which: npt.NDArray[np.bool_]) -> _Named:
        """Return those of some of its rows."""
        n_train, n_pool, _ = (int(part.sum()) for part in np.split(which, [self.n_train, self.n_train + self.n_pool]))
        species = [name for name, good in zip(self.species, which, strict=True) if good]
        return _Named(self.rows[which], species, n_train, n_pool, self.truth)


def _named(work: Work, truth_file: Path) -> _Named:
    train, of_train = work.catalog.labelled()
    validation, of_validation = work.catalog.validation()
    pool, _ = work.catalog.askable()
    try:
        truth = read_truth(truth_file, work, pool, {*of_train, *of_validation})
    except LabelFileError as error:
        hint = f"It needs the columns path and label, or File, RelativePath and {work.config.labels.column}."
        raise UsageError(f"{truth_file} is no file of true labels: {error.args[0]}", hint=hint) from error
    except OSError as error:
        raise UsageError(f"The truth file {truth_file} cannot be read: {error.strerror or error}.") from error
    asked = [int(row) for row in pool if int(row) in truth.species]
    rows = np.concatenate([train, np.array(asked, np.int64), validation])
    species = [*of_train, *(truth.species[row] for row in asked), *of_validation]
    return _Named(rows, species, len(train), len(asked), truth)


def _read_season(work: Work, truth_file: Path) -> tuple[Season, dict[str, int]]:
    learner = work.learner()
    if learner is None:
        raise ModelError(f"Not one image in {work.pool_root()} can be read.", hint="See data/quarantine.csv.")
    vectors, named = work.vectors(learner.number), _named(work, truth_file)
    usable = vectors.usable(named.rows)
    found = named.only(usable)
    season = found.season(vectors.read(found.rows), _key_hashes(work, found.rows), *_belonging(work, found))
    left_out = named.truth.left_out() | {"images that cannot be read": named.truth.unreadable + int((~usable).sum())}
    return season, {what: n for what, n in left_out.items() if n}


def _belonging(work: Work, named: _Named) -> tuple[IntArray, IntArray]:
    """Return sequences and folders of rows; images that are not to label are each by themselves."""
    pool = slice(named.n_train, named.n_train + named.n_pool)
    both = []
    for of_pool in sequences_of(work).of(named.rows[pool]):
        numbers = int(of_pool.max(initial=-1)) + 1 + np.arange(len(named.rows))
        numbers[pool] = of_pool
        both.append(numbers)
    return both[0], both[1]


def _key_hashes(work: Work, rows: IntArray) -> np.ndarray:
    return np.array([key_hash(key.path) for key in work.catalog.keys_of(rows)], np.int64).view(np.uint64)


def read_truth(path: Path, work: Work, pool: IntArray, classes: Iterable[str]) -> Truth:
    """Read true labels of the images to label: `path,label`, or an export of Timelapse (`File,RelativePath,Species`).

    Names of classes are taken as the folders spell them, and otherwise as the file spells them first; they differ by more
    than upper and lower case. Raises `UsageError` for a file that is neither, or that names none of the images.
    """
    keys = work.catalog.keys_of(pool)
    images, row_of = known_images(work), {key: int(row) for key, row in zip(keys, pool.tolist(), strict=True)}
    config, truth = work.config, Truth()
    unreadable: set[ImageKey] = set()
    spelled: dict[str, str] = {}
    words = KnownClasses(sorted(classes), skip_words=config.labels.skip_words, reserved=config.classes.reserved)
    said: dict[int, set[str]] = {}
    for folder, file, text in _rows(path, images, work, truth):
        key = images.match(folder, file).key
        if key is None:
            truth.unknown += 1
        elif key not in row_of:
            unreadable.add(key)
        elif text.strip():
            found = words.match(text)
            usual = found.name if found.kind == "class" else spelled.setdefault(folded(text), nfc(text).strip())
            said.setdefault(row_of[key], set()).add("" if found.kind in ("skip", "reserved") else usual)
    for row, names in said.items():
        if len(names) > 1:
            truth.several += 1
        elif "" in names:
            truth.unsure += 1
        else:
            truth.species[row] = next(iter(names))
    truth.unlabelled, truth.unreadable = len(pool) - len(said), len(unreadable)
    if not said:
        raise UsageError(
            f"{path} has a label for none of the {len(pool)} images in {work.pool_root()}.",
            hint="Its paths are meant from that folder on, such as site1/IMG_0001.JPG.",
        )
    return truth


def _rows(path: Path, images: KnownImages, work: Work, truth: Truth) -> Iterator[tuple[str, str, str]]:
    """Yield folder, file and label of each row that can be used."""
    try:
        species = read_species_csv(path, column=work.config.labels.column, knows=images.knows)
    except LabelFileError as error:
        if error.code != "missing_column":
            raise
        yield from _path_rows(path, work)
        return
    for row in species.rows:
        if isinstance(row, LabelRow):
            yield row.relative_path, row.file, row.species
        elif hasattr(row, "code"):
            truth.unknown += 1


def _path_rows(path: Path, work: Work) -> Iterator[tuple[str, str, str]]:
    pairs = read_path_labels(path).below(str(image_folders(work.config)[POOL]))
    for image, label in pairs:
        key = ImageKey.of(image)
        yield key.relative_path, key.file, label
