"""The verb `init`: look at the folders, say what is there, and make a work folder and a Timelapse template."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from camera_trap_al.catalog.found import POOL, TRAIN, VALIDATION
from camera_trap_al.catalog.scan import KINDS, SKIPPED_FOLDERS, Tally, walk
from camera_trap_al.choices import check_choices, check_folders
from camera_trap_al.config import Config, build
from camera_trap_al.config_file import config_text
from camera_trap_al.core.matching import clashing_names, class_name_problem, nfc
from camera_trap_al.engine import shared
from camera_trap_al.errors import CameraTrapAlError, UsageError, WorkFolderError
from camera_trap_al.importers.detections import Detections
from camera_trap_al.labels.template import find_templates
from camera_trap_al.layout import WorkFolder
from camera_trap_al.reading import decode_limits
from camera_trap_al.store import atomic
from camera_trap_al.store.pixels import pool_room
from camera_trap_al.work import image_folders
from camera_trap_al_service.detections import describe, images_there, read, write
from camera_trap_al_service.template import examine, menu, place_template, template_lines

SAMPLE = 40
CORE_S_PER_IMAGE = {"tiny": 0.003, "mobilenet": 0.03, "efficientnet_lite0": 0.035, "resnet18": 0.06, "resnet34": 0.1}
OTHER_CORE_S_PER_IMAGE = 0.2
CATALOG_BYTES_PER_IMAGE = 600
SMALLEST_PX = 96


@dataclass
class Survey:
    """What one folder of images holds."""

    kind: str
    folder: Path
    classes: Counter[str] = field(default_factory=Counter)
    n_images: int = 0
    n_empty: int = 0
    sample: list[str] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    empty_classes: list[str] = field(default_factory=list)


def init(
    work: Path,
    folders: Mapping[str, str],
    options: Mapping[str, Any],
    *,
    on_progress: Callable[[str, int], None] = lambda phase, done: None,
    among_others: bool = False,
    detections: Path | None = None,
) -> list[str]:
    """Make a work folder and, in the image root, a template unless one is there.

    Parameters
    ----------
    work : the folder to make; may exist if it is empty
    folders : `data.train`, `data.unlabelled`, `data.validation` → folder; "" for none
    options : further options by key or alias
    on_progress : called with what is done and how many images it was done for
    among_others : `work` may hold other things, as long as nothing of it is where the program would write
    detections : a detector's file of the images to label

    Returns
    -------
    Lines that say what was found and made

    Raises
    ------
    UsageError, WorkFolderError, DetectionFileError
        one sentence each, with a way out; nothing is left behind
    """
    config = _with_absolute_paths(build({**options, **{k: v for k, v in folders.items() if v}}, "camera-trap-al init"))
    check_choices(config)
    _check_work_folder(work, among_others=among_others)
    check_folders(image_folders(config), work)
    surveys = [survey(kind, folder, config, work, on_progress) for kind, folder in image_folders(config).items()]
    classes = _check_classes(surveys, config)
    _check_enough(surveys, config)
    lines = [line for found in surveys for line in _describe(found)]
    lines += _describe_cost(surveys, config, work)
    seen = read(detections, image_folders(config)[POOL], on_progress) if detections is not None else None
    if detections is not None and seen is not None:
        lines += describe(detections, seen, images_there(config, work), config)
    with_empty = {*classes, *config.classes.named()}
    config = _with_empty_classes(config, surveys)
    if not with_empty and "classes.auto_add" not in options:
        config = replace(config, classes=replace(config.classes, auto_add=True, auto_add_min=1))
        lines.append(
            "No class is known yet: the names that you write into Species become the classes (classes.auto_add)."
        )
    make_work_folder(work, config, seen)
    lines.append(f"Made the work folder {work.absolute()}; every option is explained in its config.toml.")
    lines += _place_template(config, work, with_empty)
    return lines


def _with_empty_classes(config: Config, surveys: list[Survey]) -> Config:
    """Return the configuration with the class folders that hold no image yet among `classes.names`."""
    empty = {name for found in surveys for name in found.empty_classes} - set(config.classes.names)
    return replace(config, classes=replace(config.classes, names=(*config.classes.names, *sorted(empty))))


def _with_absolute_paths(config: Config) -> Config:
    def absolute(path: str) -> str:
        return str(Path(path).expanduser().absolute()) if path else ""

    data = {f.name: absolute(getattr(config.data, f.name)) for f in fields(config.data)}
    return replace(
        config,
        data=replace(config.data, **data),
        embedding=replace(config.embedding, weights=absolute(config.embedding.weights)),
        daemon=replace(config.daemon, state_dir=absolute(config.daemon.state_dir)),
    )


def _check_work_folder(work: Path, *, among_others: bool) -> None:
    if not os.path.lexists(work):
        return
    if WorkFolder.at(work).config.is_file():
        raise WorkFolderError(
            f"{work} is a work folder already; nothing was changed.",
            hint=f"`camera-trap-al run {work}` goes on with it; options are in its config.toml.",
        )
    if work.is_dir() and among_others and WorkFolder.at(work).is_free():
        return
    if not work.is_dir() or any(work.iterdir()):
        raise WorkFolderError(f"{work} is there and not empty; nothing was changed.", hint="Name a new folder.")


def survey(kind: str, folder: Path, config: Config, work: Path, on_progress: Callable[[str, int], None]) -> Survey:
    """Look through a folder of images without opening them."""
    found = Survey(kind, folder)
    rng = random.Random(0)
    try:
        options: dict[str, Any] = {"tool": config.labels.tool, "allow_formula": config.selector.allow_formula_names}
        options["top_images"] = config.selector.top_images
        for image in walk(folder, kind, leave_out=work.absolute(), tally=found.tally, **options):
            found.n_images += 1
            if found.n_images % 1000 == 0:
                on_progress(f"looking through {folder.name}", found.n_images)
            found.classes[image.class_name] += 1
            found.n_empty += image.size == 0
            if len(found.sample) < SAMPLE:
                found.sample.append(image.path)
            elif rng.random() < SAMPLE / found.n_images:
                found.sample[rng.randrange(SAMPLE)] = image.path
        tops = [e.name for e in folder.iterdir() if e.is_dir()] if kind != POOL else []
    except OSError as error:
        raise UsageError(f"{error.filename or folder} cannot be read: {error.strerror or error}.") from error
    shown = [name for name in tops if not name.startswith(".") and name.casefold() not in SKIPPED_FOLDERS]
    found.empty_classes = sorted({nfc(name).strip() for name in shown} - set(found.classes))
    return found


def _check_classes(surveys: list[Survey], config: Config) -> list[str]:
    classes: set[str] = set(config.classes.names)
    for found in surveys:
        if found.kind == POOL:
            continue
        named = sorted({e.name for e in found.folder.iterdir() if e.is_dir()} | set(config.classes.named()))
        clashes = [(a, b) for a, b in clashing_names(named) if a != b]
        if clashes:
            first, second = clashes[0]
            raise UsageError(
                f"The classes '{first}' and '{second}' in {found.folder} differ only in upper and lower case, spaces or"
                " the way accents are stored.",
                hint="Put their images into one folder.",
            )
        for name in [*found.classes, *found.empty_classes]:
            problem = class_name_problem(name, config.classes.reserved)
            if problem:
                raise UsageError(
                    f"The folder '{name}' in {found.folder} cannot be a class: {problem}.", hint="Rename it."
                )
        classes |= {*found.classes, *found.empty_classes}
    clashes = clashing_names(sorted(classes | ({config.classes.empty} if config.classes.empty else set())))
    if clashes:
        raise UsageError(
            f"The classes '{clashes[0][0]}' and '{clashes[0][1]}' differ only in upper and lower case or accents.",
            hint="Use one spelling in all folders and options.",
        )
    return sorted(classes)


def _check_enough(surveys: list[Survey], config: Config) -> None:
    for found in surveys:
        if found.n_images:
            continue
        if found.kind == POOL:
            beside = f" (but {found.tally.counts['video']} videos)" if found.tally.counts["video"] else ""
            raise UsageError(
                f"There is no photograph in {found.folder}{beside}.", hint="Name the folder that holds them."
            )
        flag = "--train" if found.kind == TRAIN else "--validation"
        if found.tally.counts["top"]:
            raise UsageError(
                f"The {found.tally.counts['top']} photographs in {found.folder} lie directly in it, so their class is"
                " not known.",
                hint="Make a folder for each class and put them there.",
            )
        raise UsageError(
            f"There is no photograph in {found.folder}.",
            hint=f"It needs a folder for each class, with images; or leave {flag} away.",
        )
    train = next((found for found in surveys if found.kind == TRAIN), None)
    if config.query.first == "wait" and train is not None and len(train.classes) < 2:
        raise UsageError(
            f'With query.first = "wait" {train.folder} needs images of two classes at least.',
            hint='Use query.first = "now".',
        )


def _describe(found: Survey) -> list[str]:
    names = {TRAIN: "Training images", VALIDATION: "Validation images", POOL: "Images to label"}
    lines = [f"{names[found.kind]}: {found.n_images} in {found.folder}"]
    if found.kind != POOL:
        lines.append(
            f"  {len(found.classes)} classes: " + ", ".join(f"{c} {n}" for c, n in sorted(found.classes.items()))
        )
    if found.empty_classes:
        names_ = ", ".join(f"'{name}'" for name in found.empty_classes)
        lines.append(
            f"  no image yet for {names_}: kept as classes to choose from; remove the folders if they are none"
        )
    if found.n_empty:
        lines.append(f"  Empty files (0 bytes): {found.n_empty}; they will be put on the list data/quarantine.csv")
    for kind, n in sorted(found.tally.counts.items()):
        lines.append(f"  {n} {KINDS[kind]}, such as {found.tally.examples[kind][0]}")
    return lines


def _describe_cost(surveys: list[Survey], config: Config, work: Path) -> list[str]:
    n = sum(found.n_images for found in surveys)
    tried, failed, started = 0, [], time.monotonic()
    for found in surveys:
        for path in found.sample[: SAMPLE // len(surveys)]:
            tried += 1
            try:
                shared(decode_limits(config), config.images.processes).read(found.folder / path)
            except (CameraTrapAlError, OSError) as error:
                failed.append(f"{path} ({error})")
    decode_s = (time.monotonic() - started) / max(1, tried)
    arch = config.embedding.arch
    forward_s = next((s for name, s in CORE_S_PER_IMAGE.items() if arch.startswith(name)), OTHER_CORE_S_PER_IMAGE)
    cores = os.cpu_count() or 1
    first_s, again_s = n * (decode_s + forward_s) / cores, n * forward_s / cores
    place = Path(config.daemon.state_dir or work).absolute()
    free = shutil.disk_usage(next(p for p in [place, *place.parents] if p.exists())).free
    need = n * (config.embedding.feat_dim * 4 + CATALOG_BYTES_PER_IMAGE) + 500e6
    room = min(config.cache.max_gb * 1e9, free / 2)
    n_cached = min(n, pool_room(room, config.cache.px))
    cached = n_cached * config.cache.px**2 * 3
    lines = []
    if failed:
        lines.append(f"{len(failed)} of {tried} images tried cannot be read, such as {failed[0]}")
    lines.append(
        f"The first pass over {n} images will take {_about(first_s)} without a GPU (decoding measured on {tried} of them,"
        f" the network by rule of thumb) and {(need + cached) / 1e9:.1f} GB of disk, {cached / 1e9:.1f} GB of them for decoded"
        f" images; {free / 1e9:.1f} GB are free."
    )
    if need > free:
        lines.append("  That is more than there is: free some space, or make the work folder on another disk.")
    if n_cached < n:
        with_rest_s = again_s + (n - n_cached) * decode_s / cores
        px = next(
            (px for px in range(config.cache.px, SMALLEST_PX - 1, -16) if pool_room(room, px) >= n), config.cache.px
        )
        smaller = f"With cache.px = {px} it holds all of them, in less detail. " if px < config.cache.px else ""
        kept = "No decoded image is kept (cache.max_gb = 0)"
        if config.cache.max_gb:
            kept = f"There is room for {n_cached} of them decoded (cache.max_gb, and half of the free disk at most)"
        now, then = _about(with_rest_s), _about(again_s)
        lines.append(
            f"  {kept}, so to embed all anew after each fine-tuning will take {now};"
            f" with room for all, {then if then != now else 'little less'}."
            f' {smaller}finetune.layers = "last" shortens the training before it, finetune.epochs = 0 leaves out both.'
        )
    return lines


def _about(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1:
        return "under a minute"
    return f"about {minutes:.0f} minutes" if minutes < 120 else f"about {minutes / 60:.0f} hours"


def make_work_folder(work: Path, config: Config, seen: Detections | None = None) -> None:
    """Make a work folder with its configuration, whole or not at all; among other things, the configuration comes last.

    `seen` is what a detector saw.

    Raises `WorkFolderError`.
    """
    work = work.absolute()
    is_among_others = work.is_dir() and any(work.iterdir())
    hidden = work if is_among_others else work.with_name(f".{work.name}.partial")
    try:
        if not is_among_others:
            atomic.discard_folder(hidden)
        paths = WorkFolder.at(hidden)
        for folder in paths.public_folders():
            atomic.make_folder(folder)
        if seen is not None:
            write(paths, seen, lambda phase, done: None)
        atomic.replace_bytes(paths.config, config_text(config).encode("utf-8"))
        if is_among_others:
            return
        if work.is_dir():
            work.rmdir()
        atomic.commit_folder(hidden, work)
    except OSError as error:
        if not is_among_others:
            shutil.rmtree(hidden, ignore_errors=True)
        raise WorkFolderError(
            f"The work folder {work} cannot be made: {error.strerror or error}.",
            hint="Name a folder that you may write to.",
        ) from error


def _place_template(config: Config, work: Path, classes: set[str]) -> list[str]:
    images = Path(config.data.unlabelled)
    known = find_templates(images)
    if not known:
        return place_template(images, work, menu(classes, config))
    lines = template_lines(*examine(known, config, classes))
    return [f"The Timelapse template {known[0]} was there and was not changed.", *lines]
