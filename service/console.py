"""The console: the loop behind the façade `run_active_learning`, which asks on a terminal and waits for Enter.

Between two requests all that is due is done in this process, so a request is always chosen by what was learned last. Only
a label file that answers a request whole is taken.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from camera_trap_al import prompting
from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.catalog.found import POOL, TRAIN, VALIDATION
from camera_trap_al.choices import check_choices, check_folders
from camera_trap_al.config import Config, aliases, build
from camera_trap_al.config_file import read_work_config, with_values
from camera_trap_al.core.decision import journal_fields
from camera_trap_al.core.records import ImageKey
from camera_trap_al.core.steps import Facts, Step
from camera_trap_al.errors import (
    CameraTrapAlError,
    LabelFileError,
    StopRequested,
    UsageError,
    WorkFolderError,
    in_words,
)
from camera_trap_al.labels.inbox import BinFile, Inbox, printable_name, take_private_copy
from camera_trap_al.layout import WorkFolder
from camera_trap_al.lease import Lease
from camera_trap_al.lock import DaemonLock
from camera_trap_al.loop import Loop, is_waiting
from camera_trap_al.prompting import Refused, say
from camera_trap_al.registry import did_you_mean
from camera_trap_al.store import atomic, generations
from camera_trap_al.taking import decide_file, journal_labels, known_images, published
from camera_trap_al.work import holds_images, image_folders, is_online
from camera_trap_al_service.daemon import GIVE_UP_AFTER, SHOWING, Heart, ending, give_up, opened
from camera_trap_al_service.init import init, survey
from camera_trap_al_service.stopping import Stopping

WHERE = "run_active_learning"
CALLER = "use_checkpoints"
# Rounds are whole and hold what the strategy wants, nothing else; training comes first and between them; all kinds of
# images in sub-folders are asked for.
OF_A_NEW_FOLDER = {"labels.tool": "any", "selector.top_images": False}
OF_EACH_CALL = {
    **{"query.first": "now", "query.min_answered": 1.0, "query.per_sequence": 0, "query.random_share": 0.0},
    **{"train.min_labels": 1, "daemon.worker": "inline"},
}
THEIR_CHECKPOINT = ("data/data_loader.pt", "classifier/classifier.pkl", "classifier/active_learning_pools.json")
log = logging.getLogger(__name__)


def run(root: Path, values: Mapping[str, Any]) -> None:
    """Train, ask, wait for Enter, take labels, and again, until no image is left to label.

    Parameters
    ----------
    root : the work folder; made if it is not there
    values : options by alias

    Raises
    ------
    UsageError
        a choice or folder that cannot be used; it is a `ValueError`, and nothing was made or changed
    CameraTrapAlError
        it cannot start or go on; what was labelled is safe
    KeyboardInterrupt, EOFError
        from the prompt; the next call goes on there
    """
    given = build(values, WHERE)
    given = replace(given, data=replace(given.data, **_absolute(given)))
    check_choices(given)
    if given.daemon.resume and _has_checkpoint(root):
        log.info("Starting from checkpoint")
    else:
        _begin(root, values, given)
        log.info("Will not start from checkpoint either because it should not be used or could not be found")
    _warn_without_gpu()
    stopping = Stopping()
    try:
        with opened(root, stopping, adapted=lambda config: _adapted(config, values, given)) as (loop, lease):
            _Console(loop, lease).run()
    except StopRequested:
        log.info("stopped")
    finally:
        stopping.close()


def _has_checkpoint(root: Path) -> bool:
    if not WorkFolder.at(root).config.is_file():
        return False
    folder, _ = read_work_config(root)
    return bool(generations.numbers(folder.checkpoints))


def _absolute(config: Config) -> dict[str, str]:
    named = {f.name: getattr(config.data, f.name) for f in fields(config.data)}
    return {name: str(Path(path).expanduser().absolute()) if path else "" for name, path in named.items()}


def _warn_without_gpu() -> None:
    from camera_trap_al.learn.device import pick_device

    pick_device()


def _begin(root: Path, values: Mapping[str, Any], given: Config) -> None:
    """Make the work folder, or let one in which nothing is to be gone on with use the folders of this call."""
    _check_validation_classes(root, given)
    if WorkFolder.at(root).config.is_file():
        _use_folders(root, given)
    else:
        _make(root, values)


def _check_validation_classes(root: Path, config: Config) -> None:
    """Raise `UsageError` for a validation class that no training folder has: a slip of the pen would make a new class."""
    folders = image_folders(config)
    if TRAIN not in folders or VALIDATION not in folders:
        return
    train, validation = (survey(kind, folders[kind], config, root, lambda *done: None) for kind in (TRAIN, VALIDATION))
    known = {*train.classes, *train.empty_classes}
    for name in sorted(validation.classes.keys() - known):
        raise UsageError(
            f"The class '{name}' in {validation.folder} is none of those in {train.folder}.{did_you_mean(name, known)}",
            hint="Rename its folder, or make one of that name among the training images.",
        )


def _make(root: Path, values: Mapping[str, Any]) -> None:
    """Make the work folder as `init` does. Raises `UsageError`, `WorkFolderError`."""
    theirs = next((name for name in THEIR_CHECKPOINT if (root / name).exists()), "")
    if theirs:
        raise WorkFolderError(
            f"{root} holds a checkpoint of the original train_image_classifier_al ({theirs}). It is a pickle, which could"
            " run any program, so it is never opened; nothing was changed.",
            hint="Name another output_dir. Its labels are not lost: `camera-trap-al import-labels OUTPUT_DIR"
            f' "{root / "data" / "labels.csv"}"` takes them into the new one, once that was begun.',
        )
    keys = aliases()
    options = {keys.get(name, name): value for name, value in values.items() if name != CALLER} | OF_A_NEW_FOLDER
    folders = {key: str(options.pop(key)) for key in list(options) if key.startswith("data.")}
    for line in init(root, folders, options, among_others=True):
        log.info("%s", line.strip())


def _use_folders(root: Path, given: Config) -> None:
    """Let a start that learns anew use the folders of this call. Commits: `config.toml`.

    Raises `UsageError` for folders that cannot be used, `LockedError` while another program works here; nothing is
    changed then.
    """
    folder, config = read_work_config(root)
    named = {f"data.{f.name}": getattr(given.data, f.name) for f in fields(given.data)}
    changed = {key: value for key, value in named.items() if value != config.flat()[key]}
    if not changed:
        return
    check_folders(image_folders(given), root)
    lock = DaemonLock.take(folder)
    try:
        if not _holds_known_images(folder, Path(given.data.unlabelled)):
            raise UsageError(
                f"{root} was made for the images in {config.data.unlabelled}; {given.data.unlabelled} holds other pictures,"
                " which the labels are not for. Nothing was changed.",
                hint="Name another output_dir for them.",
            )
        text = with_values(folder.config.read_bytes().decode("utf-8-sig"), changed)
        with atomic.permitted(root):
            atomic.replace_bytes(folder.config, text.encode("utf-8"))
    finally:
        lock.release()


def _holds_known_images(folder: WorkFolder, root: Path) -> bool:
    if not folder.catalog.exists():
        return True
    catalog = Catalog.open(folder.catalog, read_only=True)
    try:
        return holds_images(catalog, POOL, root)
    finally:
        catalog.close()


def _adapted(config: Config, values: Mapping[str, Any], given: Config) -> Config:
    """Return the configuration of a work folder with the parameters of this call, but for its folders of images."""
    for f in fields(config.data):
        before, now = getattr(config.data, f.name), getattr(given.data, f.name)
        if before != now:
            log.warning("%s goes on with %s; %s is ignored", f"{f.name}_data", before or "none", now or "none")
    keys = aliases()
    options = {keys.get(name, name): value for name, value in values.items()}
    options = {key: value for key, value in options.items() if not key.startswith("data.")}
    return replace(build({**config.flat(), **options, **OF_EACH_CALL}, WHERE), data=config.data)


class _ClosedInbox(Inbox):
    """A bin into which the loop does not look: only a file that answers a request whole is taken, and only at Enter."""

    def scan(self, now_s: float) -> list[BinFile]:
        """Return nothing."""
        return []


class _Console:
    """One open work folder, and the person at the terminal."""

    def __init__(self, loop: Loop, lease: Lease) -> None:
        self._loop, self._lease, self._work = loop, lease, loop.work
        self._heart = Heart(loop.work)
        self._saves = False
        self._work.inbox = _ClosedInbox(self._work.folder.bin, 0.0)
        loop.on_turn = self._on_turn
        loop.worker.on_progress = lambda: self._heart.show(loop)
        loop.give_up_after = GIVE_UP_AFTER

    def run(self) -> None:
        """Take turns with the person until nothing is left to ask."""
        try:
            while self._prepare() or self._ask():
                self._wait_for_labels()
            log.info("No unlabelled images remain. Terminating program")
        except BaseException as error:
            self._say_last(str(error) if isinstance(error, CameraTrapAlError) else "")
            raise
        else:
            self._say_last("")
        finally:
            self._heart.bars.close()

    def _say_last(self, problem: str) -> None:
        # The status is for others to look at, and must not hide why this ended.
        with contextlib.suppress(Exception):
            if self._lease.lost_to is None:
                self._heart.say_last(self._loop, "stopped", problem)

    def _open_round(self) -> int:
        return self._work.history.open_round(self._work.config.query.min_answered)

    def _prepare(self) -> bool:
        """Do all that is due but a new request: train, embed, fit, test, export. Return whether a request is open."""
        self._loop.allow_rounds(0)
        self._turn(ending(self._loop, "idle"))
        return bool(self._open_round())

    def _ask(self) -> bool:
        """Choose a request and show it; return whether there is one."""

        def ends(facts: Facts, step: Step) -> bool:
            if facts.placed and is_waiting(facts, step):
                return True
            give_up(self._loop, facts)
            return False

        self._loop.allow_rounds(1)
        self._turn(ends)
        return bool(self._open_round())

    def _turn(self, ends: Callable[[Facts, Step], bool]) -> None:
        """Run the loop until `ends` says so; ask the person to close a program that holds the selector."""
        while True:
            self._loop.run(until=lambda facts, step: self._selector_waits() or ends(facts, step))
            self._lease.check()
            if self._loop.stop.is_set():
                raise StopRequested
            if not self._selector_waits():
                return
            self._heart.bars.close()
            say(prompting.HELD.format(self._work.folder.selector))
            input()
            for name in SHOWING:
                self._loop.rests.end(name)
                self._loop.last_problem.pop(name, None)

    def _selector_waits(self) -> bool:
        return self._work.selector.is_held and not SHOWING.isdisjoint(self._loop.last_problem)

    def _on_turn(self, loop: Loop, facts: Facts, step: Step) -> None:
        self._heart.beat(loop, facts, step)
        if self._saves and facts.fitted == facts.fit:
            log.info("Checkpoint saved successfully")
        self._saves = step.name == "FITTING"
        if self._saves:
            log.info("Saving checkpoint...")

    def _wait_for_labels(self) -> None:
        """Ask for the open request until it is answered. Commits: a journal line."""
        self._heart.bars.close()
        say(prompting.UPDATED)
        say(prompting.PLACE.format(self._work.folder.bin))
        while self._open_round():
            input(prompting.PROMPT)
            self._lease.check()
            if not self._give_up_gone_images():
                continue
            try:
                if self._take_now_or_later():
                    say(prompting.LOADED)
            except Refused as refused:
                say(str(refused))

    def _take_now_or_later(self) -> bool:
        """Take the label file; if it is refused, once more when all is done that came meanwhile: wishes, new images.

        Return False where that closed the request. Raises `Refused`.
        """
        try:
            self._take()
        except Refused:
            if not self._prepare():
                return False
            self._take()
        return True

    def _give_up_gone_images(self) -> bool:
        """See to it that images of the request which people deleted are not asked for any more.

        Return False while the folder of images is away as a whole.
        """
        root, asked = self._work.pool_root(), self._work.history.awaited()
        gone = [key for key in asked if not (root / key.path).exists()]
        if not gone:
            return True
        online = is_online(root, self._work.catalog.fact("top", []))
        few = online and 5 * len(gone) <= max(5, len(asked))
        paths = [str(root / key.path) for key in gone]
        say((prompting.GONE if few else prompting.MANY_GONE).format(paths, self._work.folder.root))
        if few:
            # These alone: others that are not seen now may be on a disk that is away.
            self._work.catalog.give_up(gone)
        return online

    def _take(self) -> None:
        """Take the label file that lies in the bin, whole or not at all. Commits: a journal line. Raises `Refused`."""
        work, history = self._work, self._work.history
        asked, images, root = history.awaited(), known_images(work), work.pool_root()

        def path_of(key: ImageKey) -> Path:
            return root / key.path

        taken = {(name, mtime_ns) for name, _, mtime_ns in history.taken}

        def was_taken(file: BinFile) -> bool:
            return (printable_name(file.name), file.mtime_ns) in taken

        file = prompting.first_label_file(work.folder.bin, was_taken)
        which = f"The file that was read is {work.folder.bin / printable_name(file.name)}."
        which += " It was taken before: is the new one in the bin?" if was_taken(file) else ""
        try:
            copy = take_private_copy(file, work.folder.intake)
            if copy is None:
                raise LabelFileError("It changed while it was read.", hint="Press enter again.")
            if copy.refusal is not None:
                raise copy.refusal
            decision = decide_file(
                copy.path,
                work.config,
                history,
                work.catalog,
                published=published(work),
                images=images,
                notices=copy.notices,
                requested=frozenset(asked),
            )
            prompting.check_whole(decision, asked, images, path_of, may_skip=True)
        except LabelFileError as error:
            raise Refused(f"{prompting.refusal(error, asked, path_of)}\n{which}") from error
        except OSError as error:
            raise Refused(f"{prompting.NOT_LOADED}\n{in_words(error)}\n{which}") from error
        except Refused as refused:
            raise Refused(f"{refused}\n{which}") from refused
        journal_labels(work, copy, journal_fields(decision))
