"""The verb `check`: verifies a work folder, or says what would be taken from a label file. Changes nothing."""

from __future__ import annotations

from pathlib import Path

from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.config_file import read_work_config
from camera_trap_al.core.history import History
from camera_trap_al.core.matching import KnownImages
from camera_trap_al.detecting import check_whole, read_kept
from camera_trap_al.errors import CameraTrapAlError, LabelFileError, UsageError, WorkFolderError
from camera_trap_al.importers.detections import DetectionFileError
from camera_trap_al.labels.published import Published
from camera_trap_al.labels.template import find_templates, missing_fields, read_template
from camera_trap_al.layout import WorkFolder
from camera_trap_al.store import atomic, generations, shards
from camera_trap_al.store.journal import read_journal
from camera_trap_al.store.journal import salvage as copy_good_lines
from camera_trap_al.taking import decide_file

SHOWN_REJECTIONS = 20


def check_work(root: Path) -> tuple[list[str], bool]:
    """Verify configuration, journal, detections, generations, shards and template; return lines and whether all is well."""
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
    problems += _check_detections(folder, lines)
    problems += _check_generations(folder, lines)
    lines += _describe_template(Path(config.data.unlabelled))
    return [*lines, *(f"PROBLEM: {problem}" for problem in problems)], not problems


def _check_detections(folder: WorkFolder, lines: list[str]) -> list[str]:
    try:
        kept = read_kept(folder.detections)
        if kept is not None:
            check_whole(folder.detections, kept)
            lines.append(f"{folder.detections}: {kept.images} images, good")
    except DetectionFileError as error:
        return [str(error)]
    return []


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
        damaged = shards.damaged_shards(path)
        problems += [f"{path / name} is damaged; the next start embeds its images again." for name in damaged]
        if not damaged:
            lines.append(f"{path}: {len(shards.shard_names(path))} shards, good")
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
        published = Published(history.published, folder.published)
        decision = decide_file(path, config, history, catalog, published=published, images=images)
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
