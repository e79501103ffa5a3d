"""The verbs `export`, `evaluate` and `predict`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from camera_trap_al.catalog.found import POOL, VALIDATION
from camera_trap_al.config_file import read_work_config
from camera_trap_al.core.matching import nfc
from camera_trap_al.errors import ModelError, UsageError
from camera_trap_al.exporters import exporters
from camera_trap_al.layout import WorkFolder
from camera_trap_al.learn.evaluate import evaluate as measure
from camera_trap_al.learn.predict import classify, find_images, open_export, predict_folder
from camera_trap_al.lock import take_lock
from camera_trap_al.results import export_source
from camera_trap_al.store import atomic, generations
from camera_trap_al.work import image_folders

Progress = Callable[[int, int], None]


def export(root: Path, to: Path | None) -> str:
    """Write the newest classifier into `to`, or into `WORK/export`; return a sentence that says so.

    Raises `ModelError` where there is no classifier yet or its check fails, `UsageError` for a folder that cannot be used.
    """
    folder, _ = read_work_config(root)
    checkpoint = generations.newest(folder.checkpoints)
    if checkpoint is None:
        raise ModelError(f"{root} has no classifier yet.", hint=f"`camera-trap-al status {root}` says what is missing.")
    if to is None:
        return _export_into_work(folder, checkpoint)
    to = to.absolute()
    if to.exists() and (not to.is_dir() or (any(to.iterdir()) and not (to / "manifest.json").is_file())):
        raise UsageError(f"{to} holds something else than an export.", hint="Name a new folder.")
    atomic.make_folder(to)
    exporters["onnx"].write(export_source(folder, checkpoint), to)
    return f"Wrote the classifier (checkpoint {checkpoint.number}) to {to}; README_export.txt there explains each file."


def _export_into_work(folder: WorkFolder, checkpoint: generations.Generation) -> str:
    lock = take_lock(folder.daemon_lock)
    if lock is None:
        raise UsageError(
            f"The running daemon keeps {folder.export} up to date by itself.", hint="For a copy elsewhere use --to DIR."
        )
    try:
        atomic.make_folder(folder.export)
        exporters["onnx"].write(export_source(folder, checkpoint), folder.export)
    finally:
        lock.release()
    return f"Wrote the classifier (checkpoint {checkpoint.number}) to {folder.export}."


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


def predict(
    export_dir: Path,
    images: Path,
    out: Path,
    *,
    probabilities: bool,
    min_confidence: float | None,
    on_progress: Progress,
) -> list[str]:
    """Classify a folder of images into a CSV; return lines that say how it went."""
    summary = predict_folder(
        export_dir, images, out, probabilities=probabilities, min_confidence=min_confidence, on_progress=on_progress
    )
    lines = [f"Classified {summary.n} images; see {out}"]
    if summary.unreadable:
        beside = out.with_name(f"{out.name}.unreadable.csv")
        lines.append(f"{len(summary.unreadable)} files cannot be read; see {beside}")
    return lines
