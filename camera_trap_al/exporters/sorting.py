"""Images in folders by species, as copies or further names of the same files; the originals stay as and where they are."""

from __future__ import annotations

import errno
import filecmp
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from camera_trap_al.core.observed import PERSON, VEHICLE, ObservedImage
from camera_trap_al.errors import DiskFullError, UsageError
from camera_trap_al.exporters.certainty import is_sure
from camera_trap_al.exporters.safe_names import SafeNames
from camera_trap_al.store import atomic

UNKNOWN, EMPTY = "unknown", "empty"
MB = 1_000_000
SPARE_BYTES = 100 * MB
OnProgress = Callable[[int, int], object]


@dataclass(frozen=True)
class Sorted:
    """What became of the images.

    Attributes
    ----------
    by_folder : for each folder of the new one how many images are in it now, by its name
    n_copied, n_linked, n_there : new copies, new names of the same file, and those that were there already
    left_out : paths of images that could not be read, or are no longer there
    why_copied : where links were asked for, why the first image was copied instead; else ""
    """

    by_folder: dict[str, int]
    n_copied: int = 0
    n_linked: int = 0
    n_there: int = 0
    left_out: tuple[str, ...] = ()
    why_copied: str = ""


@dataclass(frozen=True)
class _Planned:
    """An image that is to be put at `target`, which is there already where `is_there`."""

    source: Path
    target: Path
    group: str
    size: int
    is_there: bool


def sort_into(
    folder: Path,
    root: Path,
    images: Iterable[ObservedImage],
    *,
    min_confidence: float = 0.0,
    link: bool = False,
    empty: str = EMPTY,
    on_progress: OnProgress = lambda done, total: None,
) -> Sorted:
    """Put images into `FOLDER/SPECIES/` and there below the folders they come from; originals are neither moved nor changed.

    An image without an animal goes into `empty`; with a person into `person`, with a vehicle into `vehicle`, whatever else
    is in it; with a species less certain than `min_confidence` into `unknown`. A name that Windows does not allow, or that
    differs from another by case alone, is changed a little. What was begun is gone on with by the next call: an image that
    is there already stays.

    Parameters
    ----------
    folder : is made; its parent is there
    root : the folder of the images
    images : each once, with the boxes that count, always in the same order
    link : make further names of the same files (hard links) rather than copies, where the disk can
    empty : folder of images in which nothing is seen
    on_progress : called with (done, total) images

    Raises
    ------
    UsageError
        One of the folders is in the other, or a different file has the name of an image; nothing was copied.
    DiskFullError
        There is too little space for the copies; nothing was copied.
    """
    check_apart(folder, root)
    planned, left_out = _plan(folder, root, images, min_confidence, empty)
    _check_targets(planned)
    _check_places(folder, root, {one.target.parent for one in planned})
    if not link:
        _check_space(folder, planned)
    by_folder = Counter(one.group for one in planned)
    numbers = Counter[str]()
    why_copied = ""
    for done, one in enumerate(planned, start=1):
        if one.is_there:
            numbers["there"] += 1
        else:
            atomic.make_folder(one.target.parent)
            why_not = _link(one) if link else "not asked for"
            numbers["copied" if why_not else "linked"] += 1
            if why_not:
                _copy(one)
                why_copied = why_copied or (why_not if link else "")
        on_progress(done, len(planned))
    return Sorted(
        dict(sorted(by_folder.items())),
        numbers["copied"],
        numbers["linked"],
        numbers["there"],
        tuple(left_out),
        why_copied,
    )


def check_apart(folder: Path, root: Path) -> None:
    """Raise `UsageError` where images of `root` cannot be sorted into a folder, since one is in the other."""
    if not folder.absolute().parent.is_dir():
        raise UsageError(
            f"There is no folder {folder.absolute().parent}.", hint="Make it first, or name another folder."
        )
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file.", hint="Name a folder for the sorted images.")
    if _is_within(folder, root):
        raise UsageError(
            f"{folder} is in the folder of the images, {root}: Timelapse would load the copies as further images.",
            hint="Name a folder outside of it.",
        )
    if folder.exists() and _is_within(root, folder):
        raise UsageError(
            f"The folder of the images, {root}, is in {folder}: copies could come to lie among the originals.",
            hint="Name another folder.",
        )


def _is_within(path: Path, folder: Path) -> bool:
    """Return whether a path, which need not be there, is a folder or below it, whatever links and spellings lead there."""
    real = path.resolve()
    return any(there.exists() and there.samefile(folder) for there in (real, *real.parents))


def _plan(
    folder: Path, root: Path, images: Iterable[ObservedImage], min_confidence: float, empty: str
) -> tuple[list[_Planned], list[str]]:
    """Return what goes where, and the images that go nowhere."""
    names = SafeNames()
    planned: list[_Planned] = []
    left_out: list[str] = []
    for image in images:
        group = _group(image, min_confidence, empty)
        source = root / image.key.path
        size = _size(source)
        if not group or size is None:
            left_out.append(image.key.path)
            continue
        parts = names.of((group, *PurePosixPath(image.key.path).parts))
        target = folder.joinpath(*parts)
        planned.append(_Planned(source, target, parts[0], size, os.path.lexists(target)))
    return planned, left_out


def _group(image: ObservedImage, min_confidence: float, empty: str) -> str:
    """Return the species or what else stands for an image, "" where nothing is known of it."""
    if image.is_private:
        return PERSON if any(box.category == PERSON for box in image.detections or ()) else VEHICLE
    if image.named:
        best = image.named[0]
        return best.species if is_sure(best, min_confidence) else UNKNOWN
    if image.problem:
        return ""
    return UNKNOWN if image.detections else empty


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None


def _check_targets(planned: Iterable[_Planned]) -> None:
    others = [one for one in planned if one.is_there and not _is_same(one)]
    if others:
        more = f" {len(others) - 1} more are like that." if len(others) > 1 else ""
        raise UsageError(
            f"{others[0].target} is there already and is not the image {others[0].source}.{more} Nothing was copied.",
            hint="Name another folder, or move away what is in it.",
        )


def _is_same(one: _Planned) -> bool:
    """Return whether the target is the image: the same file, or one of the same size and time, or of the same content."""
    if one.target.is_symlink() or not one.target.is_file():
        return False
    there, source = one.target.stat(), one.source.stat()
    if there.st_size != source.st_size:
        return False
    return (
        os.path.samestat(there, source)
        or there.st_mtime_ns == source.st_mtime_ns
        or filecmp.cmp(one.source, one.target, shallow=False)
    )


def _check_places(folder: Path, root: Path, parents: Iterable[Path]) -> None:
    """Raise `UsageError` where a link in the folder leads what is put there to the originals."""
    links = {place for parent in parents for place in _below(folder, parent) if place.is_symlink()}
    for place in sorted(links):
        if _is_within(place, root):
            raise UsageError(f"{place} is a link into the folder of the images, {root}.", hint="Remove that link.")


def _below(folder: Path, parent: Path) -> Iterator[Path]:
    while parent != folder:
        yield parent
        parent = parent.parent


def _check_space(folder: Path, planned: Iterable[_Planned]) -> None:
    needed = sum(one.size for one in planned if not one.is_there) + SPARE_BYTES
    free = atomic.free_bytes(folder)
    if needed > free:
        raise DiskFullError(
            f"The disk of {folder} has {free / MB:.0f} MB free; the copies need {needed / MB:.0f} MB. Nothing was copied.",
            hint="Name a folder on another disk, or ask for links in place of copies.",
        )


def _link(one: _Planned) -> str:
    """Make the target a further name of the image; return "", or why that cannot be."""
    try:
        atomic.link_file(one.source.resolve(), one.target)
    except FileExistsError:
        raise
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _copy(one: _Planned) -> None:
    with one.source.open("rb") as original:
        facts = os.fstat(original.fileno())
        if os.path.lexists(one.target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(one.target))
        atomic.replace_file(one.target, lambda file: shutil.copyfileobj(original, file, atomic.BUFFER_BYTES))
    atomic.keep_times(one.target, facts)
