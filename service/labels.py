"""The verbs `labels` and `import-labels`: which label files were taken, what was said of an image, what others know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.config_file import read_work_config
from camera_trap_al.core.history import History
from camera_trap_al.core.matching import KnownImages, shown
from camera_trap_al.core.records import ImageKey
from camera_trap_al.errors import UsageError, WorkFolderError
from camera_trap_al.labels.path_label_csv import as_label_files, read_path_labels
from camera_trap_al.layout import WorkFolder
from camera_trap_al.store.journal import Line, read_journal

ROWS_OF_ONE_IMPORT = 200_000
SKIPS = {
    "cannot_tell": "cannot be told",
    "several_species": "several species",
    "withdrawn": "marked for deletion",
    "new_name": "waits for its name to be a class",
    "missing": "the file is gone",
    "person": "people or a vehicle are in it, so it is kept back",
    "without_animal": "the detector saw no animal in it",
}


def label_files(root: Path) -> list[str]:
    """Return the label files that were taken, and the undos, one line each. Raises `WorkFolderError`."""
    lines, history = _read(root)
    said = [text for line in lines for text in _line_of_file(line, history)]
    return said or ["No label file was taken yet."]


def image_history(root: Path, image: str) -> list[str]:
    """Return all that was asked, said and predicted of one image, oldest first.

    Raises `UsageError` where no image has that path, `WorkFolderError` where nothing was ever started.
    """
    lines, history = _read(root)
    key = _find(root, image, history)
    said = [text for line in lines for text in _line_of_image(line, key, history)]
    label, skip = history.labels.get(key), history.skips.get(key)
    now = f"label {label.species} (number {label.seq})" if label else "no label"
    if skip and not label:
        now += f": {SKIPS.get(skip[0], skip[0])}"
    return [f"{shown(key.path)}: {now}", *(f"  {text}" for text in said)]


def labels_to_import(root: Path, file: Path, base: str) -> tuple[list[str], list[str]]:
    """Return lines that say what a `path,label` file holds, and its labels of images of the pool as label files.

    Images that have another label here are left out: it is the newer one, as far as anybody can tell.

    `base` is the folder that its paths begin with; "" for the image root. Raises `UsageError` where no path lies below
    it, with the folder that was probably meant.
    """
    folder, config = read_work_config(root)
    try:
        found = read_path_labels(file)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}.") from error
    pairs = found.below(base or config.data.unlabelled)
    if not pairs:
        keys = [key.path for key in _pool(folder)]
        likely, n = found.likely_folder(keys)
        raise UsageError(
            f"None of the {len(found.pairs)} labelled paths in {file} lies below {base or config.data.unlabelled}.",
            hint=f"{n} of them are images of this work folder if they lie below {likely}: add --from '{likely}'."
            if n
            else "Name the folder that they begin with by --from."
            if keys
            else f"Start `camera-trap-al run {root}` first, so that its images are known.",
        )
    elsewhere = len(found.pairs) - len(pairs)
    here = _labels_here(root, folder)
    pairs = [(path, label) for path, label in pairs if here.get(path, label) == label]
    stay = len(found.pairs) - elsewhere - len(pairs)
    lines = [
        f"{file}: {len(pairs)} labels of images below {base or config.data.unlabelled}; {elsewhere} of images elsewhere"
        f" (such as training images) and {found.unlabelled} without a label are left out."
    ]
    if stay:
        lines.append(f"{stay} images have another label here, which stays.")
    return lines, list(as_label_files(pairs, ROWS_OF_ONE_IMPORT))


def _read(root: Path) -> tuple[list[Line], History]:
    folder, _ = read_work_config(root)
    if not folder.journal.exists():
        raise WorkFolderError(f"{root} was never started, so it has no labels yet.", hint="Use `run` first.")
    lines, _, _ = read_journal(folder.journal)
    return lines, History.of(lines)


def _line_of_file(line: Mapping[str, Any], history: History) -> Iterator[str]:
    seq, at = line["seq"], line["at"]
    gone = f" (counts no more, since number {history.withdrawn[seq]})" if seq in history.withdrawn else ""
    if line["kind"] == "labels":
        n = len(line["rows"])
        more = f", {len(line['skips'])} skipped" if line["skips"] else ""
        more += f", {len(line['unlabels'])} taken back" if line["unlabels"] else ""
        yield f"{seq:>6}  {at}  {shown(line['name'])}: {n} label{'' if n == 1 else 's'}{more}{gone}"
    elif line["kind"] == "undo":
        yield f"{seq:>6}  {at}  undo of number {line['withdraws']}{gone}"


def _line_of_image(line: Mapping[str, Any], key: ImageKey, history: History) -> Iterator[str]:
    seq, at = line["seq"], line["at"]
    gone = f" (counts no more, since number {history.withdrawn[seq]})" if seq in history.withdrawn else ""
    if line["kind"] == "request":
        for i, named in enumerate(line["keys"]):
            if ImageKey(*named) == key:
                guess = line["predictions"][i] if line["predictions"] else None
                predicted = f"; the classifier thought {guess[0]} ({guess[1]:.2f})" if guess else ""
                yield f"{at}  asked for in round {line['round']}{predicted}"
    if line["kind"] not in ("labels", "skip"):
        return
    source = f"number {seq}, {shown(line['name'])}" if "name" in line else "found by the program"
    was = dict(line.get("answer", {}).get("was", ()))
    for i, (folder, file, species, provenance) in enumerate(line.get("rows", ())):
        if ImageKey(folder, file) == key:
            before = f"{was[i]} -> " if i in was else ""
            how = ", a confirmed prediction" if provenance == "confirmed" else ""
            yield f"{at}  {before}{species}{how} ({source}){gone}"
    for folder, file, reason in line.get("skips", ()):
        if ImageKey(folder, file) == key:
            yield f"{at}  skipped: {SKIPS.get(reason, reason)} ({source}){gone}"
    for folder, file in line.get("unlabels", ()):
        if ImageKey(folder, file) == key:
            yield f"{at}  label taken back ({source}){gone}"


def _find(root: Path, image: str, history: History) -> ImageKey:
    folder, config = read_work_config(root)
    keys = {*history.requested, *history.labels, *history.skips, *_pool(folder)}
    known = KnownImages(iter(sorted(keys)), config.labels.path_alias)
    relative_path, _, file = image.replace("\\", "/").rpartition("/")
    key, _, _, named = known.match(relative_path, file)
    if key is None:
        nearest = known.nearest(named) if named is not None else ""
        text = f"'{shown(image)}' is no image of the pool."
        raise UsageError(text, hint=f"Did you mean '{nearest}'?" if nearest else "Such as 'site 1/IMG_0001.JPG'.")
    return key


def _labels_here(root: Path, folder: WorkFolder) -> dict[str, str]:
    """Return the labels that images of the pool have now, by path."""
    if not folder.journal.exists():
        return {}
    return {key.path: label.species for key, label in _read(root)[1].labels.items()}


def _pool(folder: WorkFolder) -> list[ImageKey]:
    """Return the images of the pool, none before the first start."""
    if not folder.catalog.exists():
        return []
    catalog = Catalog.open(folder.catalog, read_only=True)
    try:
        return list(catalog.pool_keys(with_missing=True))
    finally:
        catalog.close()
