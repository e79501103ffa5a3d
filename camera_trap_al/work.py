"""An open work folder: its configuration, journal and catalogue, and the recovery that opening it makes."""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.exc import DatabaseError, OperationalError

from camera_trap_al import private
from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.catalog.found import POOL, TRAIN, VALIDATION
from camera_trap_al.catalog.scan import Scan
from camera_trap_al.config import Config, DaemonConfig
from camera_trap_al.config_file import read_work_config
from camera_trap_al.core.history import History
from camera_trap_al.core.records import ImageKey
from camera_trap_al.core.seeds import seed_from
from camera_trap_al.detecting import take_kept
from camera_trap_al.errors import (
    DurableWriteError,
    JournalDamagedError,
    LockedError,
    NewerVersionError,
    StopRequested,
    UsageError,
)
from camera_trap_al.labels.inbox import Inbox
from camera_trap_al.labels.timelapse import Selector
from camera_trap_al.layout import WorkFolder
from camera_trap_al.lock import is_held
from camera_trap_al.places import patience
from camera_trap_al.space import require_space
from camera_trap_al.store import atomic, embeddings, generations, shards
from camera_trap_al.store.journal import LabelJournal, Line, has_first_line, read_journal
from camera_trap_al.version import program_version

ROOT_SAMPLE = 20
OLD_WORKER_S = 60.0
T = TypeVar("T")
log = logging.getLogger(__name__)


def image_folders(config: Config) -> dict[str, Path]:
    """Return the folders of images that are configured, by kind, absolute."""
    named = {TRAIN: config.data.train, VALIDATION: config.data.validation, POOL: config.data.unlabelled}
    return {kind: Path(folder).absolute() for kind, folder in named.items() if folder}


@dataclass
class Work:
    """What the steps share: the durable side of one work folder, and a little memory that a restart may lose."""

    folder: WorkFolder
    config: Config
    journal: LabelJournal
    history: History
    catalog: Catalog
    inbox: Inbox
    selector: Selector
    unprojected: list[ImageKey] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    scan: Scan | None = None
    poll_s: float = DaemonConfig.poll_s
    scan_ended_s: float = float("-inf")
    scan_took_s: float = 0.0
    listed: tuple[int, int] = (-1, -1)
    reported_s: float = float("-inf")
    _cache: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    _vectors: dict[int, embeddings.Vectors] = field(default_factory=dict)
    _unguard: Callable[[], None] = lambda: None

    @classmethod
    def open(cls, root: Path, stop: threading.Event | None = None) -> Work:
        """Open a work folder and put right what a crash left. The caller holds the daemon's lock.

        Raises `WorkFolderError`, `UsageError`, `JournalDamagedError` or `DurableWriteError`.
        """
        folder, config = read_work_config(root)
        stop = stop or threading.Event()
        private.check(folder)
        for path in [*folder.public_folders(), folder.wishes, *folder.private_folders()]:
            atomic.make_folder(path)
        _wait_for_old_worker(folder, stop)
        _remove_leftovers(folder)
        journal = _open_journal(folder)
        history = History()
        touched: list[tuple[int, list[ImageKey]]] = [(line["seq"], history.apply(line)) for line in journal.lines]
        with ThreadPoolExecutor(1) as beside:
            # SQLite looks for damage without holding up Python: half a second of a million images each.
            looking = beside.submit(_glance_at_shards, folder)
            catalog = open_catalog(folder, config, history.identity, journal.end)
            seen = looking.result()
        _check_pool(config, history, catalog)
        for said in _set_damaged_aside(folder, str(catalog.fact("catalog_id")), catalog.newest_row(), seen):
            log.warning("recovery: %s", said)
        catalog.forget_shards(all_shards(folder).keys())
        take_kept(folder, config, catalog, stop)
        mark = catalog.mark
        unprojected = [key for seq, keys in touched if seq > mark for key in keys]
        settle_s, poll_s = patience(folder.bin, config)
        inbox = Inbox(folder.bin, settle_s)
        selector = Selector(folder.selector, folder.selector_new, folder.request)
        work = cls(folder, config, journal, history, catalog, inbox, selector, unprojected, poll_s=poll_s)
        private.close_to_others(folder)
        work._unguard = atomic.guard(folder.may_write)
        return work

    def close(self) -> None:
        """Close journal and catalogue; nothing is pending."""
        self._unguard()
        self.journal.close()
        self.catalog.close()

    def append(self, kind: str, fields: dict[str, Any]) -> Line:
        """Append a journal line and take it into the history; durable on return. Raises `DiskFullError` before it begins."""
        self.require_space()
        line = self.journal.append(kind, fields)
        self.unprojected += self.history.apply(line)
        return line

    def require_space(self) -> None:
        """Raise `DiskFullError` where the disk of the journal and the catalogue is almost full."""
        require_space(self.folder.journal.parent, self.config.daemon.min_free_mb)

    def seed(self, *parts: str | int) -> int:
        """Return the seed for a purpose."""
        fixed = self.config.daemon.seed
        return seed_from(str(fixed) if fixed else self.history.identity, *parts)

    def cached(self, name: str, stamp: Any, compute: Callable[[], T]) -> T:
        """Return what `compute` returned when `stamp` was last other than now; one value is kept for each name."""
        known = self._cache.get(name)
        if known is None or known[0] != stamp:
            known = self._cache[name] = (stamp, compute())
        value: T = known[1]
        return value

    @property
    def catalog_id(self) -> str:
        """Which catalogue the rows are of."""
        return self.cached("catalog id", None, lambda: str(self.catalog.fact("catalog_id")))

    def newest_model(self) -> generations.Generation | None:
        """Return the newest model, current or candidate."""
        return generations.newest(self.folder.models)

    def learner(self) -> generations.Generation | None:
        """Return the current learner."""
        return embeddings.current_learner(self.folder.embedding, self.folder.models, self.catalog_id)

    def checkpoint(self) -> generations.Generation | None:
        """Return the newest checkpoint whose model and embedding are there."""
        for number in generations.numbers(self.folder.checkpoints):
            folder = generations.folder_of(self.folder.checkpoints, number)
            manifest = generations.read_manifest(folder)
            if manifest is None:
                continue
            model = generations.folder_of(self.folder.models, manifest["learner"])
            learner = generations.folder_of(self.folder.embedding, manifest["learner"])
            if generations.read_manifest(model) and generations.identity(learner) == manifest["learner_id"]:
                return generations.Generation(number, folder, manifest)
        return None

    def vectors(self, learner: int) -> embeddings.Vectors:
        """Return the scaled embeddings of a learner that has a scaler, with all shards there are now."""
        folder = generations.folder_of(self.folder.embedding, learner)
        if learner not in self._vectors:
            mark = embeddings.made_by(self.folder.models, learner, self.catalog_id)
            self._vectors[learner] = embeddings.Vectors(folder, mark, embeddings.read_scaler(folder))
        self._vectors[learner].refresh()
        return self._vectors[learner]

    def forget_vectors(self, keep: set[int]) -> None:
        """Let go of the embeddings of other learners."""
        self._vectors = {number: vectors for number, vectors in self._vectors.items() if number in keep}

    def renew_catalog(self) -> None:
        """Put the catalogue aside and make an empty one, into which the journal is projected and the images are scanned."""
        self.catalog.close()
        self.catalog = new_catalog(self.folder, self.config, self.history.identity)
        take_kept(self.folder, self.config, self.catalog, self.stop)
        self.unprojected = list({**self.history.labels, **self.history.skips})
        self.scan, self.scan_ended_s, self.listed = None, float("-inf"), (-1, -1)
        self._cache.clear()
        self._vectors.clear()

    def learn_anew(self) -> None:
        """Set aside all that was learned from the labels. Labels and requests stay; the last export stays until the next."""
        for parent in (self.folder.checkpoints, self.folder.embedding, self.folder.models):
            n = generations.set_all_aside(parent)
            if n:
                log.warning("daemon.resume is off: %d earlier results in %s are set aside", n, parent)

    def pool_root(self) -> Path:
        """Return the image root."""
        return image_folders(self.config)[POOL]


def _open_journal(folder: WorkFolder) -> LabelJournal:
    """Open the journal, or make it where the work folder is new or making it was interrupted.

    Raises `JournalDamagedError` where it is gone or holds nothing although the work folder was in use.
    """
    path = folder.journal
    if path.exists() and (has_first_line(path) or read_journal(path)[0]):
        return LabelJournal.open(path)
    if folder.catalog.exists():
        raise JournalDamagedError(
            f"{path}, the record of all labels, is {'empty or damaged' if path.exists() else 'gone'}. Nothing was changed.",
            hint=f"Restore it from a backup. To begin anew without its labels, move {folder.catalog} away; label files that"
            f" are still in {folder.bin} can be put in again.",
        )
    if path.exists():
        LabelJournal.open(path).close()
    return LabelJournal.create(path, uuid.uuid4().hex, program_version())


def catalog_options(config: Config) -> dict[str, Any]:
    """Return what `Catalog.open` must know of a configuration."""
    part = {"people": config.classes.person, "share_label": config.items.share_label}
    return {"roots": list(image_folders(config)), **part}


def open_catalog(folder: WorkFolder, config: Config, identity: str, journal_end: int) -> Catalog:
    """Open the catalogue, or make it anew if it is damaged, of another work folder or ahead of the journal.

    A new catalogue numbers its rows anew, so nothing that was embedded for the old one counts.

    Raises
    ------
    DurableWriteError
        it cannot be opened, which says nothing of its content: another program holds it, the disk is full or away
    NewerVersionError
        a newer version wrote it
    """
    try:
        catalog = Catalog.open(folder.catalog, **catalog_options(config))
        if catalog.is_sound() and catalog.fact("identity", identity) == identity and catalog.mark <= journal_end:
            catalog.note("identity", identity)
            return catalog
        if catalog.mark > journal_end:
            log.warning(
                "recovery: the journal ends at line %d, but this work folder knew line %d. What the lines between said is read"
                " again from label files that are still in new_labels_bin.",
                journal_end,
                catalog.mark,
            )
        catalog.close()
    except OperationalError as error:
        raise DurableWriteError(
            f"The catalogue {folder.catalog} cannot be opened: {error.__cause__ or error}.",
            hint="Does another program hold it, or is the disk full? Start again then; all labels are safe.",
        ) from error
    except DatabaseError as error:
        log.warning("recovery: the catalogue is damaged (%s)", error.__cause__ or error)
    except ValueError as error:
        raise NewerVersionError(f"{folder.catalog}: {error}.", hint="Install the newer version again.") from error
    log.warning("recovery: the catalogue is made anew from the journal and the images")
    return new_catalog(folder, config, identity)


def new_catalog(folder: WorkFolder, config: Config, identity: str) -> Catalog:
    """Put the catalogue aside and make an empty one. Images that were embedded for the old one are embedded again."""
    atomic.rename_aside(folder.catalog, f".bad-{folder.catalog.name}")
    atomic.discard_file(folder.catalog.with_name(f"{folder.catalog.name}-journal"))
    catalog = Catalog.open(folder.catalog, **catalog_options(config))
    catalog.note("identity", identity)
    return catalog


def _check_pool(config: Config, history: History, catalog: Catalog) -> None:
    """Refuse another folder of images under the same name: labels would pass to other pictures that are called alike."""
    before = history.settings.get("data.unlabelled")
    root = Path(config.data.unlabelled)
    if before in (None, config.data.unlabelled) or not root.is_dir() or holds_images(catalog, POOL, root):
        return
    raise UsageError(
        f"data.unlabelled was {before} and is now {root}, which holds other pictures.",
        hint="Make another work folder for them with `init`, or name the folder where the same pictures are now.",
    )


def holds_images(catalog: Catalog, kind: str, root: Path) -> bool:
    """Return whether `root` holds at least half of a sample of the images that are known of this kind of folder."""
    sample = catalog.sample(kind, ROOT_SAMPLE)
    here = [path for path, size in sample if (root / path).is_file() and (root / path).stat().st_size == size]
    return 2 * len(here) >= len(sample)


def _wait_for_old_worker(folder: WorkFolder, stop: threading.Event) -> None:
    """Let the worker of a daemon that was killed end; it does at its next mini-batch. Raises `StopRequested`."""
    end = time.monotonic() + OLD_WORKER_S
    while is_held(folder.worker_lock):
        if time.monotonic() > end:
            raise LockedError(
                f"A worker of an earlier start still holds {folder.worker_lock}.", hint="End that process."
            )
        if stop.wait(0.1):
            raise StopRequested


def _remove_leftovers(folder: WorkFolder) -> None:
    places = {folder.root, folder.state, folder.data, folder.journal.parent, folder.intake, folder.bin, folder.reports}
    places |= {folder.wishes, folder.export, folder.test_results}
    places |= {*folder.test_results.glob("*/"), *folder.embedding.glob("gen-*/")}
    for partial in sorted(partial for place in places for partial in place.glob(".*.partial")):
        # Other programs have partial files of their own in the bin.
        if partial.is_file() and folder.may_write(partial):
            atomic.discard_file(partial)
    for parent in (folder.models, folder.embedding, folder.checkpoints):
        generations.remove_trash(parent)


def _glance_at_shards(folder: WorkFolder) -> dict[int, list[shards.Glance]]:
    return {n: shards.glance(generations.folder_of(folder.embedding, n)) for n in generations.numbers(folder.embedding)}


def _set_damaged_aside(
    folder: WorkFolder, catalog_id: str, newest_row: int, seen: Mapping[int, list[shards.Glance]]
) -> list[str]:
    for parent in (folder.models, folder.checkpoints, folder.embedding):
        for number in generations.numbers(parent):
            generations.check_format(generations.folder_of(parent, number))
    said = generations.set_damaged_aside(folder.models) + generations.set_damaged_aside(folder.checkpoints)
    for number in generations.numbers(folder.embedding):
        learner = generations.folder_of(folder.embedding, number)
        made_by = embeddings.made_by(folder.models, number, catalog_id)
        if shards.is_foreign(learner, made_by, newest_row, seen=seen[number]):
            atomic.discard_folder(learner)
            said.append(f"{learner} is of another model or catalogue; its images are embedded again.")
            continue
        said += shards.set_damaged_shards_aside(learner, seen=seen[number])
        if (learner / generations.MANIFEST).exists() and generations.read_manifest(learner) is None:
            aside = atomic.rename_aside(learner / generations.MANIFEST, f".bad-{generations.MANIFEST}")
            said.append(f"{learner} is damaged ({aside.name}); it is completed again.")
    return said


def all_shards(folder: WorkFolder) -> dict[str, tuple[int, str]]:
    """Return learner and name of all shards there are, in order, by what the catalogue calls them."""
    found = {}
    for number in sorted(generations.numbers(folder.embedding)):
        learner = generations.folder_of(folder.embedding, number)
        found |= {f"{learner.name}/{name}": (number, name) for name in shards.shard_names(learner)}
    return found


def is_online(root: Path, known_top: list[str]) -> bool:
    """Return whether the image root answers: it can be listed and, once known, shows a known top-level entry."""
    known = set(known_top)
    try:
        with os.scandir(root) as listing:
            return not known or any(entry.name in known for entry in listing)
    except OSError:
        return False
