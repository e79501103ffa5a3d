"""The verbs `status` and `check`: what a work folder says, without changing it and without a running daemon."""

from __future__ import annotations

import calendar
import socket
import time
from pathlib import Path
from typing import Any

from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.core.history import History
from camera_trap_al.core.matching import KnownImages
from camera_trap_al.errors import CameraTrapAlError, LabelFileError, UsageError, WorkFolderError
from camera_trap_al.labels.template import find_templates, missing_fields, read_template
from camera_trap_al.layout import WorkFolder
from camera_trap_al.lease import Holder, read_holder
from camera_trap_al.lock import is_held
from camera_trap_al.store import atomic, embeddings, generations
from camera_trap_al.store.journal import read_journal
from camera_trap_al.store.journal import salvage as copy_good_lines
from camera_trap_al.store.json_files import read_object
from camera_trap_al.taking import decide_file
from camera_trap_al.work import read_work_config
from camera_trap_al_service.progress import how_far

SHOWN_REJECTIONS = 20
FRESH_S = 120.0


def read_status(root: Path, now: float | None = None) -> dict[str, Any]:
    """Return what the daemon last said of itself, and whether it runs now. Raises `WorkFolderError`.

    How long something still takes is left out where that was said more than two minutes before `now` (seconds since
    1970; by default the computer's clock): the computer slept, or the daemon hangs.
    """
    folder, _ = read_work_config(root)
    try:
        status = read_object(folder.status)
        if "state" not in status or not {"hint", "images"} <= status.keys():
            raise ValueError("not of ours")
    except (OSError, ValueError):
        status = {"format": 1, "state": "never started", "hint": f'Start it with `camera-trap-al run "{root}"`.'}
    holder = _holder(folder)
    elsewhere = holder is not None and holder.host != socket.gethostname()
    status["running"] = elsewhere or is_held(folder.daemon_lock)
    if not _is_fresh(status, time.time() if now is None else now):
        for part in (status.get("worker"), status.get("scan")):
            if isinstance(part, dict):
                part.pop("left_s", None)
    status["holder"] = str(holder) if status["running"] and holder else ""
    if status["running"] and holder is not None and (status.get("host"), status.get("pid")) != (holder.host, holder.pid):
        # What lies there is of a run before this one.
        status |= {"state": "starting", "hint": "Nothing is needed now.", "problems": [], "deaths": {}}
        status.pop("worker", None)
        status.pop("scan", None)
    if not status["running"] and "round" in status:
        status["state"] = "stopped"
        status["hint"] = f'Start it with `camera-trap-al run "{root}"`.'
    return status


def _is_fresh(status: dict[str, Any], now: float) -> bool:
    try:
        said = calendar.timegm(time.strptime(str(status.get("at")), "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        return False
    return abs(now - said) <= FRESH_S


def _holder(folder: WorkFolder) -> Holder | None:
    """Return who holds the work folder, as far as its lease says."""
    try:
        holder = read_holder(folder.lease)
    except (OSError, ValueError):
        return None
    return holder if holder is not None and holder.nonce else None


def status_text(status: dict[str, Any]) -> str:
    """Return a status as lines for a person."""
    lines = [f"State: {status['state']}" + (" (running)" if status["running"] else " (not running)")]
    if status["holder"]:
        lines.append(f"At work: {status['holder']}")
    if "round" in status:
        images = status["images"]
        lines += [
            f"Images: {images['unlabelled']} without a label, {images['labelled']} labelled, {images['skipped']} skipped,"
            f" {images['train']} to train on, {images['validation']} for validation",
            f"Cannot be used: {images['quarantined']} unreadable, {images['missing']} missing,"
            f" {images['not_listed']} not shown by Timelapse",
        ]
        if images.get("altered"):
            lines.append(f"Changed after they were labelled: {images['altered']} images, see data/altered.csv")
        if status["open"]:
            lines.append(
                f"Round {status['round']}: {status['awaited']} of {status['requested']} images still want a label"
            )
        accuracy = status["accuracy"]
        lines.append(
            f"Model {status['learner']}, classifier {status['checkpoint']}"
            + (f", accuracy {accuracy:.3f} on the validation images" if accuracy is not None else "")
        )
    worker = status.get("worker")
    if worker and status["running"]:
        lines.append(f"In the background: {worker['job']}" + (f" ({_how_far(worker)})" if "phase" in worker else ""))
    if status.get("scan") and status["running"]:
        lines.append(f"At present: {_how_far(status['scan'])}")
    if status["running"]:
        lines += [f"In the background {job} died {n} times" for job, n in status.get("deaths", {}).items() if n]
    lines += [f"Problem: {problem}" for problem in status.get("problems", ())]
    lines.append(f"Next: {status['hint']}")
    return "\n".join(lines)


def _how_far(phase: dict[str, Any]) -> str:
    return how_far(phase["phase"], phase["done"], phase["total"], phase.get("left_s"))


def check_work(root: Path) -> tuple[list[str], bool]:
    """Verify configuration, journal, generations, shards and template; return lines and whether all is well."""
    folder, config = read_work_config(root)
    lines, problems = [f"{folder.config}: good"], []
    if folder.journal.exists():
        try:
            journal, _, torn = read_journal(folder.journal)
            lines.append(f"{folder.journal}: {len(journal)} lines, good")
            if torn:
                lines.append(f"  its last {len(torn)} bytes are torn; they are put aside at the next start")
        except CameraTrapAlError as error:
            problems.append(str(error))
    else:
        lines.append(f"{folder.journal}: not there yet; `run` makes it")
    problems += _check_generations(folder, lines)
    lines += _describe_template(Path(config.data.unlabelled))
    return [*lines, *(f"PROBLEM: {problem}" for problem in problems)], not problems


def _check_generations(folder: WorkFolder, lines: list[str]) -> list[str]:
    problems = []
    for parent in (folder.models, folder.checkpoints):
        for number in generations.numbers(parent):
            path = generations.folder_of(parent, number)
            if generations.read_manifest(path) is None:
                problems.append(f"{path} is damaged; the next start sets it aside.")
            else:
                lines.append(f"{path}: good")
    for number in generations.numbers(folder.embedding):
        path = generations.folder_of(folder.embedding, number)
        damaged = embeddings.damaged_shards(path)
        problems += [f"{path / name} is damaged; the next start embeds its images again." for name in damaged]
        if not damaged:
            lines.append(f"{path}: {len(embeddings.shard_names(path))} shards, good")
    return problems


def _describe_template(image_root: Path) -> list[str]:
    try:
        templates = find_templates(image_root)
        if not templates:
            return [f"There is no Timelapse template in {image_root}."]
        missing = missing_fields(read_template(templates[0]))
    except CameraTrapAlError as error:
        return [str(error)]
    if missing:
        return [f"{templates[0]} lacks the fields {', '.join(missing)}; add them in Timelapse's template editor."]
    return [f"{templates[0]}: good"]


def salvage(root: Path, target: Path) -> str:
    """Copy the good lines of a damaged journal into a new file; return a sentence that says how many.

    Raises `WorkFolderError` where none is good or the file is there.
    """
    folder, _ = read_work_config(root)
    if not folder.journal.exists():
        raise WorkFolderError(f"{folder.journal} is not there.", hint="Restore it from a backup.")
    target = target.absolute()
    with atomic.permitted(target.parent):
        good, lost = copy_good_lines(folder.journal, target)
    return (
        f"Copied {good} good lines to {target}; {lost} are lost. To go on with it, stop the program, keep"
        f" {folder.journal} under another name, and put the copy in its place. Label files that are still in {folder.bin}"
        " can be put in again."
    )


def check_file(root: Path, path: Path) -> tuple[list[str], bool]:
    """Return what would be taken from a label file now, as lines, and whether anything would. Changes nothing."""
    folder, config = read_work_config(root)
    if not path.is_file():
        raise UsageError(f"{path} does not exist or is no file.", hint="Name the CSV that Timelapse exported.")
    if not folder.journal.exists() or not folder.catalog.exists():
        raise WorkFolderError(f"{root} was never started, so its images are not known yet.", hint="Use `run` first.")
    history = History.of(read_journal(folder.journal)[0])
    catalog = Catalog.open(folder.catalog, read_only=True)
    try:
        images = KnownImages(catalog.pool_keys(with_missing=True), config.labels.path_alias)
        decision = decide_file(path, config, history, catalog, images=images)
    except LabelFileError as error:
        return [f"{path.name}: nothing would be taken. {error}"], False
    finally:
        catalog.close()
    counts = decision.counts
    lines = [
        f"{path.name}: of {counts['rows']} rows {len(decision.taken)} labels would be taken, {counts['unchanged']} are known"
        f" already, {counts['blank']} have no label, {counts['unrequested']} were not asked for, {counts['rejected']} would be"
        " refused."
    ]
    lines += [f"  line {r.line}: {r.path}: {r.text}" for r in decision.rejections[:SHOWN_REJECTIONS]]
    if len(decision.rejections) > SHOWN_REJECTIONS:
        lines.append(f"  … and {len(decision.rejections) - SHOWN_REJECTIONS} more")
    lines += [f"  {warning}" for warning in decision.warnings]
    return lines, decision.is_good or not decision.rejections
