"""Folders of images and a file of true labels → a season to be replayed: embedded once, by the program's own loop."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from camera_trap_al.catalog.found import POOL
from camera_trap_al.choices import check_choices, check_folders
from camera_trap_al.config import Config, build
from camera_trap_al.config_file import read_work_config
from camera_trap_al.core.matching import KnownClasses, KnownImages, folded, nfc
from camera_trap_al.core.records import ImageKey, LabelRow
from camera_trap_al.core.seeds import key_hash
from camera_trap_al.core.steps import Facts, Step
from camera_trap_al.errors import LabelFileError, ModelError, UsageError
from camera_trap_al.labels.path_label_csv import read_path_labels
from camera_trap_al.labels.species_csv import read_species_csv
from camera_trap_al.layout import WorkFolder
from camera_trap_al.loop import Loop, is_idle
from camera_trap_al.replay_season import IntArray, Season
from camera_trap_al.sequences import sequences_of
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
SEED = 1
log = logging.getLogger(__name__)


@dataclass
class Truth:
    """What a file of true labels says of the images of a folder.

    `species` is by row of the catalogue. The others are counts of what was left out: images without a label, with words
    for "cannot tell" or with several species; rows of the file whose image is not there or that cannot be used.
    """

    species: dict[int, str] = field(default_factory=dict)
    unlabelled: int = 0
    unsure: int = 0
    several: int = 0
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
    weights = options.get("embedding.weights") or options.get("embedding_weights")
    given = {**options, **({"embedding.weights": str(Path(weights).expanduser().absolute())} if weights else {})}
    given.pop("embedding_weights", None)
    config = build({"daemon.seed": SEED, **given, **absolute, **FORCED}, "camera-trap-al simulate")
    check_choices(config)
    check_folders(image_folders(config), out)
    return config


def make_or_check_work(out: Path, config: Config) -> Path:
    """Return the work folder below `out`, made unless it is there. Raises `UsageError` where it is of another season."""
    work = out / WORK
    if WorkFolder.at(work).config.is_file():
        before, now = read_work_config(work)[1].flat(), config.flat()
        other = sorted(key for key in now if now[key] != before[key] and key != "query.batch")
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


def embedded_season(work_folder: Path, truth_file: Path, bars: Bars) -> tuple[Season, dict[str, int]]:
    """Embed what is not embedded yet, and return the season and what was left out of it, by what people read.

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
        with opened(work_folder, stopping) as (loop, _):
            _embed(loop, bars)
            if stopping.stop.is_set():
                raise KeyboardInterrupt
            return _read_season(loop.work, truth_file)
    finally:
        stopping.close()


def _embed(loop: Loop, bars: Bars) -> None:
    def show(loop: Loop) -> None:
        if loop.worker.progress is not None:
            bars.show(*loop.worker.progress)
        elif loop.work.scan is not None:
            bars.show("looking for images", loop.work.scan.n_seen)

    def ends(facts: Facts, step: Step) -> bool:
        give_up(loop, facts)
        rested = facts.scanned and not facts.worker and not facts.job and facts.absorbed >= facts.shards
        return bool(rested and facts.learner) or is_idle(facts, step)

    loop.allow_rounds(0)
    loop.give_up_after = GIVE_UP_AFTER
    loop.on_turn = lambda loop, facts, step: show(loop)
    loop.worker.on_progress = lambda: show(loop)
    try:
        loop.run(until=ends)
    finally:
        bars.close()


def _read_season(work: Work, truth_file: Path) -> tuple[Season, dict[str, int]]:
    learner = work.learner()
    if learner is None:
        raise ModelError(f"Not one image in {work.pool_root()} can be read.", hint="See data/quarantine.csv.")
    vectors = work.vectors(learner.number)
    train, of_train = work.catalog.labelled()
    validation, of_validation = work.catalog.validation()
    pool, _ = work.catalog.askable()
    truth = read_truth(truth_file, work, pool, {*of_train, *of_validation})
    asked = [int(row) for row in pool if int(row) in truth.species]
    rows = np.concatenate([train, np.array(asked, np.int64), validation])
    species = [*of_train, *(truth.species[row] for row in asked), *of_validation]
    usable = vectors.usable(rows)
    counts = [int(part.sum()) for part in np.split(usable, np.cumsum([len(train), len(asked)]))]
    classes = tuple(sorted({name for name, good in zip(species, usable, strict=True) if good}))
    place = {name: i for i, name in enumerate(classes)}
    labels = np.array([place[name] for name, good in zip(species, usable, strict=True) if good], np.int64)
    hashes = _key_hashes(work, rows[usable])
    found = vectors.read(rows[usable])
    season = Season(found, hashes, labels, *_belonging(work, rows[usable], counts), *counts[:2], classes)
    left_out = {**truth.left_out(), "images that cannot be read": int((~usable).sum())}
    return season, {what: n for what, n in left_out.items() if n}


def _belonging(work: Work, rows: IntArray, counts: list[int]) -> tuple[IntArray, IntArray]:
    """Return sequences and folders of rows; images that are not to label are each by themselves."""
    pool = slice(counts[0], counts[0] + counts[1])
    both = []
    for of_pool in sequences_of(work).of(rows[pool]):
        numbers = int(of_pool.max(initial=-1)) + 1 + np.arange(len(rows))
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
    images, row_of = KnownImages(keys), {key: int(row) for key, row in zip(keys, pool.tolist(), strict=True)}
    config, truth = work.config, Truth()
    spelled: dict[str, str] = {}
    words = KnownClasses(sorted(classes), skip_words=config.labels.skip_words, reserved=config.classes.reserved)
    said: dict[int, set[str]] = {}
    for folder, file, text in _rows(path, images, work, truth):
        key = images.match(folder, file).key
        if key is None:
            truth.unknown += 1
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
    truth.unlabelled = len(pool) - len(said)
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
    except OSError as error:
        raise UsageError(f"The truth file {path} cannot be read: {error.strerror or error}.") from error
    except LabelFileError as error:
        if error.code != "missing_column":
            raise
        yield from _path_rows(path, work, error)
        return
    for row in species.rows:
        if isinstance(row, LabelRow):
            yield row.relative_path, row.file, row.species
        elif hasattr(row, "code"):
            truth.unknown += 1


def _path_rows(path: Path, work: Work, why_no_export: LabelFileError) -> Iterator[tuple[str, str, str]]:
    try:
        pairs = read_path_labels(path).below(str(image_folders(work.config)[POOL]))
    except LabelFileError as error:
        raise UsageError(
            f"{path} is no file of true labels: {why_no_export}",
            hint="It needs the columns path and label, or File, RelativePath and Species as Timelapse exports them.",
        ) from error
    for image, label in pairs:
        key = ImageKey.of(image)
        yield key.relative_path, key.file, label
