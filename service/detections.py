"""The verb `detections`, and `init --detections`: what a detector saw, said and kept; what `doctor` says of it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from camera_trap_al import private
from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.catalog.detections import CUT, DETECTIONS, HAS_ANIMAL, LEFT_OUT, PRIVATE, cut_out
from camera_trap_al.catalog.found import POOL
from camera_trap_al.catalog.scan import Tally, walk
from camera_trap_al.config import Config
from camera_trap_al.config_file import read_work_config
from camera_trap_al.core.matching import nfc, shown
from camera_trap_al.core.observed import ANIMAL, PERSON, VEHICLE, Detection, DetectorInfo
from camera_trap_al.core.records import ImageKey
from camera_trap_al.detecting import Kept, cutting_of, keep, read_kept
from camera_trap_al.errors import UsageError
from camera_trap_al.importers.detections import TOLD_EVERY, DetectionFileError, Detections
from camera_trap_al.importers.reading import read_detections
from camera_trap_al.layout import WorkFolder
from camera_trap_al.store import atomic
from camera_trap_al.work import catalog_options, image_folders
from camera_trap_al_service.findings import Case, Finding, note, ok, problem

SHOWN_OTHERS = 5
OnProgress = Callable[[str, int], None]
"""Called with what is done and for how many images."""


def keep_detections(
    root: Path, file: Path, base: Path | None = None, on_progress: OnProgress = lambda phase, done: None
) -> list[str]:
    """Keep what a file of detections says in a work folder, in the place of any before; return lines that say what it is.

    `base` is the folder that its paths begin in, None for that of the images. Raises `DetectionFileError` for a file that
    cannot be used, `UsageError` where it names no image of the pool.
    """
    folder, config = read_work_config(root)
    private.check(folder)
    found = _read(file, Path(config.data.unlabelled), base, on_progress)
    lines = describe(file, found, _known_images(folder, config), config)
    atomic.make_folder(folder.data)
    before = _content(folder)
    if write(folder, found, on_progress).content == before:
        lines.append("These are the detections that were given before.")
    return lines


def _read(file: Path, images: Path, base: Path | None, on_progress: OnProgress) -> Detections:
    """Read a file of detections whose paths begin in `base`. Raises `UsageError` where that is another place altogether."""
    if base is None:
        return read(file, images, on_progress)
    one, other = Path(os.path.realpath(base)), Path(os.path.realpath(images))
    if not (one.is_relative_to(other) or other.is_relative_to(one)):
        raise UsageError(
            f"{base} is neither in the folder of images, {images}, nor the other way round.",
            hint="Name by --from the folder in which the detector was started.",
        )
    found = read(file, base, on_progress)
    found.seen_from(base, images)
    found.check_any(file, "Name by --from the folder in which the detector was started.")
    return found


def drop_detections(root: Path) -> list[str]:
    """Keep that no detections are known in a work folder; return lines that say so."""
    folder, _ = read_work_config(root)
    private.check(folder)
    atomic.make_folder(folder.data)
    keep(folder.detections, (), DetectorInfo())
    return ["What a detector saw is forgotten: every image is used as a whole again, also those with people."]


def read(file: Path, root: Path, on_progress: OnProgress) -> Detections:
    """Read a file of detections, from whose absolute paths `root` is taken off. Raises `DetectionFileError`."""
    return read_detections(file, root, lambda done: on_progress(f"reading {file.name}", done))


def write(folder: WorkFolder, found: Detections, on_progress: OnProgress) -> Kept:
    """Write a file of detections as a work folder keeps it."""
    return keep(folder.detections, _seen(found, on_progress), found.info)


def describe(file: Path, found: Detections, keys: Iterable[ImageKey], config: Config) -> list[str]:
    """Return lines that say what a file of detections holds of images. Raises `UsageError` where that is none of them."""
    cutting, n, others = cutting_of(config), Counter[str](), Counter[str]()
    for key in keys:
        n["images"] += 1
        if key not in found:
            continue
        n["named"] += 1
        seen = found.of(key)
        boxes, detected = cut_out(seen, cutting)
        n["failed"] += seen is None
        n["crops"] += len(boxes)
        n["animals"] += bool(detected & HAS_ANIMAL)
        n["private"] += bool(detected & PRIVATE)
        n["left out"] += bool(detected & LEFT_OUT)
        others.update({d.category for d in seen or () if d.confidence >= cutting.threshold} - {ANIMAL, PERSON, VEHICLE})
    if not n["named"]:
        raise _of_other_images(file, found, config)
    nothing = n["named"] - n["failed"] - n["animals"] - n["private"]
    then = "left out (items.without_detection)" if cutting.without_detection != "whole" else "used as whole images"
    lines = [
        f"{file}{_detector(found)}: boxes count from confidence {cutting.threshold:g} on (items.detection_threshold).",
        f"  {n['animals']} images have animals, {n['crops']} in all; each is looked at by itself",
        f"  {n['private']} images have people or vehicles: they are kept back, never asked for, trained on or shown",
        f"  in {nothing} images the detector saw nothing: they are {then}",
    ]
    if unknown := n["images"] - n["named"] + n["failed"]:
        lines.append(f"  of {unknown} images here it says nothing: they are used as whole images")
    lines += [f"  CAREFUL: {_of_unknown(word, times)}" for word, times in others.most_common(SHOWN_OTHERS)]
    if elsewhere := len(found) - n["named"]:
        lines.append(f"  {elsewhere} images that it names are not known here; they count once they are found")
    return lines + _left_out(found)


def _of_unknown(word: str, n: int) -> str:
    return (
        f"in {n} images are boxes of '{shown(word)}', a category that means neither animal, person nor vehicle here: they"
        f" count for nothing. If these are people, write 'person' for it in detection_categories of the file"
    )


def check_detections(case: Case) -> list[Finding]:
    """What a detector saw is kept, and counts."""
    try:
        kept = read_kept(case.folder.detections)
    except DetectionFileError as error:
        return [problem(str(error), error.hint)]
    if not case.folder.catalog.exists():
        return [ok(f"what a detector saw in {kept.images} images counts from the first start on")] if kept else []
    catalog = Catalog.open(case.folder.catalog, **catalog_options(case.config), read_only=True)
    try:
        if kept is None:
            fix = f"Give the detector's file again: camera-trap-al detections {case.folder.root} MD.json"
            text = f"{case.folder.detections} is gone; what it said counts, but is lost if the catalogue is made anew."
            return [note(text, fix)] if catalog.fact(DETECTIONS, None) is not None else []
        if catalog.fact(CUT, None) != [kept.content, *cutting_of(case.config)]:
            return [
                note("what a detector saw, or [items] in config.toml, changed.", "Nothing to do: `run` takes it in.")
            ]
        return [ok(words_of(vars(catalog.counts())))] if kept.images else []
    finally:
        catalog.close()


def words_of(counts: dict[str, int]) -> str:
    """Return in a sentence what a detector saw in the images of a work folder, counted as `PoolCounts` does."""
    states = ("labelled", "skipped", "unlabelled", "not_listed", "private", "without_animal")
    pool = sum(counts[state] for state in states)
    return (
        f"{counts['with_animals']} images with animals, {counts['private']} kept back for people or vehicles,"
        f" {counts['without_animal']} left out since nothing was seen in them, {pool - counts['looked_at']} without"
        " detections"
    )


def _content(folder: WorkFolder) -> str:
    try:
        kept = read_kept(folder.detections)
    except DetectionFileError:
        return ""
    return kept.content if kept is not None else ""


def _seen(found: Detections, on_progress: OnProgress) -> Iterator[tuple[ImageKey, tuple[Detection, ...]]]:
    for n, key in enumerate(found, 1):
        if n % TOLD_EVERY == 0:
            on_progress("keeping detections", n)
        boxes = found.of(key)
        if boxes is not None:
            yield key, boxes


def _known_images(folder: WorkFolder, config: Config) -> Iterable[ImageKey]:
    """Return the images of the pool: from the catalogue, or looked for where nothing did yet."""
    if folder.catalog.exists():
        catalog = Catalog.open(folder.catalog, **catalog_options(config), read_only=True)
        try:
            if catalog.fact("scanned", False):
                # At once: a running daemon cannot write while a million are compared one by one.
                return list(catalog.pool_keys(with_missing=True))
        finally:
            catalog.close()
    if not Path(config.data.unlabelled).is_dir():
        raise UsageError(
            f"The folder of images, {config.data.unlabelled}, is not there. Nothing was changed.",
            hint="Connect its disk, or name its new place by `camera-trap-al relocate`.",
        )
    return images_there(config, folder.root)


def images_there(config: Config, work: Path) -> Iterator[ImageKey]:
    """Yield the images to label as they are in their folder."""
    options: dict[str, Any] = {"tool": config.labels.tool, "top_images": config.selector.top_images}
    for image in walk(image_folders(config)[POOL], POOL, leave_out=work.absolute(), tally=Tally(), **options):
        yield ImageKey.of(image.path)


def _left_out(found: Detections) -> list[str]:
    return [f"  left out: {n} times {why}, such as '{shown(first)}'" for why, n, first in found.left_out()]


def _detector(found: Detections) -> str:
    facts = ", ".join(shown(text) for text in (found.info.name, found.info.completed) if text)
    return f" ({facts})" if facts else ""


def _of_other_images(file: Path, found: Detections, config: Config) -> UsageError:
    first, root = next(iter(found)).path, Path(config.data.unlabelled)
    text = f"{file} names no image in {root}; its first is '{shown(first)}'. Nothing was changed."
    above = nfc(f"{root.name}/")
    if first.startswith(above):
        hint = (
            f"Its paths begin in the folder above: `camera-trap-al detections WORK {file.name} --from '{root.parent}'`."
        )
    else:
        hint = "Name the file that the detector wrote for these images."
    return UsageError(text, hint=hint)
