"""The verbs `export` and `evaluate`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from camera_trap_al.catalog.found import POOL, VALIDATION
from camera_trap_al.config_file import read_work_config
from camera_trap_al.core.matching import nfc
from camera_trap_al.errors import ModelError, UsageError
from camera_trap_al.exporters import ExportSource, exporters
from camera_trap_al.exporters.packed import write_zip
from camera_trap_al.layout import WorkFolder
from camera_trap_al.learn.evaluate import evaluate as measure
from camera_trap_al.learn.exported import holds_export
from camera_trap_al.learn.predict import classify, find_images, open_export
from camera_trap_al.lock import take_lock
from camera_trap_al.results import export_source
from camera_trap_al.store import atomic, generations
from camera_trap_al.work import image_folders

Progress = Callable[[int, int], None]


def export(root: Path, to: Path | None, packed: Path | None = None) -> str:
    """Write the newest classifier into `to`, as a ZIP file to `packed`, or else into `WORK/export`; return a sentence.

    Raises `ModelError` where there is no classifier yet or its check fails, `UsageError` for a place that cannot be used.
    """
    folder, config = read_work_config(root)
    checkpoint = generations.newest(folder.checkpoints)
    if checkpoint is None:
        raise ModelError(f"{root} has no classifier yet.", hint=f"`camera-trap-al status {root}` says what is missing.")
    source = export_source(folder, checkpoint, config.export.licence)
    if packed is not None:
        return _export_packed(source, packed.absolute())
    if to is None:
        return _export_into_work(folder, source)
    to = to.absolute()
    if os.path.lexists(to) and not (to.is_dir() and (holds_export(to) or not any(to.iterdir()))):
        raise UsageError(f"{to} holds something else than an export.", hint="Name a new folder.")
    atomic.make_folder(to)
    exporters["onnx"].write(source, to)
    return f"Wrote the classifier (checkpoint {source.checkpoint}) to {to}; README_export.txt there explains each file."


def _export_packed(source: ExportSource, packed: Path) -> str:
    if packed.suffix.lower() != ".zip":
        raise UsageError(f"{packed} is no name of a ZIP file.", hint=f"Name it {packed.name}.zip, or use --to DIR.")
    if not packed.parent.is_dir():
        raise UsageError(f"There is no folder {packed.parent}.", hint="Make it first, or name another file.")
    if os.path.lexists(packed) and not (packed.is_file() and holds_export(packed)):
        raise UsageError(f"{packed} holds something else than an export.", hint="Name another file.")
    write_zip(packed, exporters["onnx"].contents(source))
    return (
        f"Wrote the classifier (checkpoint {source.checkpoint}) to {packed}. Whoever gets it runs"
        f" `camera-trap-al predict {packed.name} IMAGES --out predictions.csv`; model_card.md in it says how good it is."
    )


def _export_into_work(folder: WorkFolder, source: ExportSource) -> str:
    lock = take_lock(folder.daemon_lock)
    if lock is None:
        raise UsageError(
            f"The running daemon keeps {folder.export} up to date by itself.", hint="For a copy elsewhere use --to DIR."
        )
    try:
        atomic.make_folder(folder.export)
        exporters["onnx"].write(source, folder.export)
    finally:
        lock.release()
    return f"Wrote the classifier (checkpoint {source.checkpoint}) to {folder.export}."


def evaluate(root: Path, images: Path, on_progress: Progress) -> dict[str, Any]:
    """Measure the export of a work folder on labelled images, one folder a class; return the metrics.

    Raises `UsageError` where the images are ones that the loop asks for or train on them, `ModelError` without an export.
    """
    folder, config = read_work_config(root)
    images = images.absolute()
    if not images.is_dir():
        raise UsageError(f"{images} is no folder.", hint="Name a folder with a sub-folder for each class.")
    for kind, known in image_folders(config).items():
        if kind != VALIDATION and _overlap(known.resolve(), images.resolve()):
            what = "asked for" if kind == POOL else "trained on"
            raise UsageError(f"The images in {images} are {what}, so they measure nothing.", hint="Name other images.")
    model = open_export(folder.export)
    keys, unlisted = find_images(images)
    outcomes = list(classify(model, images, [key for key in keys if key.relative_path], on_progress))
    known = [
        (outcome.key.relative_path.split("/")[0], outcome.proba) for outcome in outcomes if outcome.proba is not None
    ]
    pairs = [(nfc(truth).strip(), model.classes[int(proba.argmax())]) for truth, proba in known]
    if not pairs:
        raise UsageError(f"There is no readable image in a class folder of {images}.")
    truth, predicted = [t for t, _ in pairs], [p for _, p in pairs]
    return measure(truth, predicted, sorted({*truth, *predicted})) | {
        "unreadable": len(outcomes) - len(pairs) + len(unlisted)
    }


def _overlap(a: Path, b: Path) -> bool:
    return a == b or a in b.parents or b in a.parents


def metrics_text(metrics: dict[str, Any]) -> str:
    """Return metrics as lines for a person."""
    lines = [
        f"Accuracy {metrics['accuracy']:.3f} on {metrics['n']} images; macro F1 {metrics['macro_f1']:.3f}",
        f"{'class':<30}{'precision':>10}{'recall':>10}{'images':>10}",
    ]
    for name, m in metrics["per_class"].items():
        lines.append(f"{name:<30}{m['precision']:>10.3f}{m['recall']:>10.3f}{m['support']:>10}")
    if metrics["unreadable"]:
        lines.append(f"{metrics['unreadable']} files cannot be read")
    return "\n".join(lines)
