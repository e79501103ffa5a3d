"""What the verbs that change a work folder do in it, whether a daemon runs them or the verb itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from camera_trap_al.catalog.found import ACCEPT_GONE, POOL, TRAIN, VALIDATION
from camera_trap_al.choices import check_folders
from camera_trap_al.config_file import read_work_config, with_values
from camera_trap_al.detecting import DETECTOR, check_kept, take_kept
from camera_trap_al.errors import UsageError
from camera_trap_al.importers.detections import DetectionFileError
from camera_trap_al.registry import Registry
from camera_trap_al.store import atomic
from camera_trap_al.taking import import_labels
from camera_trap_al.work import Work, holds_images, image_folders

ROOTS = {"data.train": TRAIN, "data.validation": VALIDATION, "data.unlabelled": POOL}


@dataclass(frozen=True)
class Wish:
    """What is wanted; `id` names it in the journal line that grants it."""

    id: str
    what: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


grants: Registry[Callable[[Work, Wish], str]] = Registry("wish")
"""What the daemon can be asked for: changes the work folder, durable on return, and returns what it did in a sentence.

Must come to the same if it is carried out twice, since a crash may come before the answer. `UsageError` is a refusal.
"""


@grants.register("next")
def close_round(work: Work, wish: Wish) -> str:
    """Close the open round with what is there. Commits: a journal line."""
    number = work.history.open_round(work.config.query.min_answered)
    if not number:
        raise UsageError("No request is open, so there is nothing to close.", hint="The next one comes by itself.")
    left = len(work.history.awaited())
    work.append("close", {"round": number, "wish": wish.id})
    return f"Round {number} is closed; {left} of its images have no answer and may be asked for again."


@grants.register("undo")
def undo(work: Work, wish: Wish) -> str:
    """Withdraw what a label file brought, or an earlier undo. Commits: a journal line."""
    seq = wish.arguments.get("seq")
    if not isinstance(seq, int) or isinstance(seq, bool):
        raise UsageError(f"{seq!r} is no number of a label file.", hint="It stands as `seq` in the file's receipt.")
    problem = work.history.undo_problem(seq)
    if problem:
        raise UsageError(problem, hint="`camera-trap-al labels WORK` lists the numbers.")
    before = work.history.labels
    line = work.append("undo", {"withdraws": seq, "wish": wish.id})
    after = work.history.labels
    gone = sum(key not in after for key in before)
    changed = sum(key in after and after[key].species != label.species for key, label in before.items())
    back = sum(key not in before for key in after)
    withdrawn = work.journal.lines[seq - 1]
    name = f" ({withdrawn['name']})" if "name" in withdrawn else ", an undo,"
    return (
        f"Number {seq}{name} counts no more: {gone} labels are gone, {changed} are as before it, {back} are back. This is"
        f" number {line['seq']}; undo that to have number {seq} count again."
    )


@grants.register("import-labels")
def import_(work: Work, wish: Wish) -> str:
    """Take labels that another program or work folder has. Commits: a journal line."""
    text = wish.arguments.get("text")
    if not isinstance(text, str):
        raise UsageError("There are no labels to import.", hint="`camera-trap-al import-labels` names a file.")
    return import_labels(work, wish.id, text)


@grants.register("rescan")
def rescan(work: Work, wish: Wish) -> str:
    """Make a search for images due now; with `gone`, what it does not see is given up at once. Commits: a fact."""
    gone = wish.arguments.get("gone") is True
    work.catalog.note(ACCEPT_GONE, gone)
    work.scan, work.scan_ended_s = None, float("-inf")
    then = " Images that are not there are then given up; their labels are kept." if gone else ""
    return f"The folders of images are searched at once, or as soon as the program runs.{then}"


@grants.register("relocate")
def relocate(work: Work, wish: Wish) -> str:
    """Name the new places of folders that moved. Commits: `config.toml`."""
    values = {key: str(Path(str(value)).expanduser().absolute()) for key, value in wish.arguments.items()}
    for key, value in values.items():
        if key not in ROOTS:
            raise UsageError(f"'{key}' is no folder that can be moved.", hint="It is one of " + ", ".join(ROOTS) + ".")
        if not Path(value).is_dir():
            raise UsageError(f"{value} is no folder.", hint="Name the folder where the images are now.")
        if not holds_images(work.catalog, ROOTS[key], Path(value)):
            raise UsageError(
                f"{value} does not hold the images that {key} named so far; nothing was changed.",
                hint="Name the folder that has the same files and folders in it as before.",
            )
    moved = {ROOTS[key]: Path(value) for key, value in values.items()}
    there = {kind: folder for kind, folder in image_folders(work.config).items() if folder.is_dir()}
    check_folders({**there, **moved}, work.folder.root)
    path = work.folder.config
    text = with_values(path.read_bytes().decode("utf-8-sig"), values)
    with atomic.permitted(work.folder.root):
        atomic.replace_bytes(path, text.encode("utf-8"))
    _, config = read_work_config(work.folder.root)
    # Other options count from the next start on, which brings the catalogue level with them.
    work.config = replace(work.config, data=config.data)
    rescan(work, Wish(wish.id, "rescan"))
    return "The images are now in " + ", ".join(values.values()) + "; nothing has to be read again."


@grants.register("detections")
def detections(work: Work, wish: Wish) -> str:
    """Let the items be those of `data/detections.jsonl`. Commits: SQL transactions."""
    work.require_space()
    try:
        take_kept(work.folder, work.config, work.catalog, work.stop)
    except DetectionFileError as error:
        raise UsageError(str(error), hint=error.hint) from error
    counts = work.catalog.counts()
    if work.catalog.fact(DETECTOR, None) is None:
        return "No detections count any more. All labels stay."
    if not counts.looked_at:
        return "No image that is known has detections; what is kept counts as soon as its images are found."
    return (
        f"The detections count: of {counts.with_animals} images each animal is looked at by itself, {counts.private} with"
        f" people or vehicles are kept back, {counts.without_animal} without an animal are left out. All labels stay."
    )


@grants.register("rebuild-catalog")
def rebuild_catalog(work: Work, wish: Wish) -> str:
    """Make the catalogue anew from journal and images. Commits: the old one renamed, the new one made."""
    try:
        check_kept(work.folder, work.catalog)
    except DetectionFileError as error:
        raise UsageError(str(error), hint=error.hint) from error
    work.renew_catalog()
    return (
        "The old catalogue is put aside. The running program, or the next start, makes it anew from journal and images,"
        " which are embedded again; no label is lost."
    )
