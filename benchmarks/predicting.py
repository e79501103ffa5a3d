"""S11: `predict` from an export over full-size frames, beside a loop that takes them one by one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks import plain
from benchmarks.figures import Figure, Run, rows
from benchmarks.frames import affordable, decoded_a_second, frames, kind

FRAMES, TINY_FRAMES = 400, 12
CLASSES, DIMENSIONS = 20, 256
FORWARD_S = 4.0
FACTOR = 6.0


@rows.register("S11")
def predicting(run: Run) -> Iterator[Figure]:
    """Measure `predict`, and decode and network alone."""
    from camera_trap_al.engine import usable_cores
    from camera_trap_al_service.predicting import Asked, predict

    files = frames(run, TINY_FRAMES if run.tiny else FRAMES)
    export = run.folder / "export"
    make_export(run.folder, export, files[:20])
    decode = decoded_a_second(files)
    forward = _forward_a_second(export, 0.2 if run.tiny else FORWARD_S)
    yield Figure("D: scaled decode alone, all cores", decode, "images/s")
    yield Figure("F: network and classifier alone, all cores", forward, "images/s", note="onnxruntime")
    started = time.perf_counter()
    done = predict(export, files[0].parent.parent, run.folder / "predictions.csv", Asked())
    ours = (time.perf_counter() - started) / len(files)
    assert done.n == len(files)
    limit = 1 / (1 / decode + 1 / forward)
    yield Figure("predict, of the limit 1/(1/D + 1/F)", 100 / ours / limit, "%", note="opening the export included")
    cores = usable_cores()
    some = files if run.long or run.tiny else files[: affordable(files, plain.predict(files[:8], export, cores) / 8)]
    theirs = plain.predict(some, export, cores) / len(some)
    note = f"{len(files)} {kind(run)}, ResNet18; the plain reference: {len(some)} of them"
    yield Figure("predict", ours, "s an image", note=note, reference=theirs)
    most = f"if nothing were lost between D and F it would be {theirs * limit:.1f} ×"
    yield Figure("predict, times faster than the plain reference", theirs / ours, "×", least=FACTOR, note=most)


def make_export(folder: Path, export: Path, files: Sequence[Path]) -> None:
    """Make an export of ResNet18 with random weights, and of a classifier of 20 classes that is fitted on random vectors."""
    from camera_trap_al.core.records import Item
    from camera_trap_al.exporters import ExportSource, exporters
    from camera_trap_al.learn.classifier import fit_classifier, save_classifier
    from camera_trap_al.learn.making import finish_model, start_model
    from camera_trap_al.learn.model_folder import REFERENCE_EMBEDDINGS
    from camera_trap_al.learn.settings import ModelSettings
    from camera_trap_al.store import generations

    model, checkpoint = folder / "model", folder / "checkpoint"
    for made in (model, checkpoint, export):
        made.mkdir()
    items = [Item(i, str(path)) for i, path in enumerate(files)]
    settings = ModelSettings("resnet18", DIMENSIONS)
    start_model(model, settings, items, classes=[], pretrained=False, weights=None, seed=1)
    finish_model(model, items)
    generations.write_manifest(model, {"kind": "model"})
    raw = np.load(model / REFERENCE_EMBEDDINGS)
    scaler = np.stack([raw.min(axis=0), np.ptp(raw, axis=0) + 1e-6]).astype(np.float64)
    vectors = np.random.default_rng(1).random((10 * CLASSES, DIMENSIONS), np.float32)
    names = [f"species {i % CLASSES:02d}" for i in range(len(vectors))]
    reference = ((raw - scaler[0]) / scaler[1]).astype(np.float32)
    save_classifier(fit_classifier(vectors, names, seed=1), checkpoint, reference=reference, learner=1, n_labels=1)
    exporters["onnx"].write(ExportSource(model, checkpoint, scaler, checkpoint=1, learner=1), export)


def _forward_a_second(export: Path, seconds: float) -> float:
    from camera_trap_al.learn.predict import CHUNK_IMAGES, open_export

    model = open_export(export)
    images = np.random.default_rng(0).integers(0, 256, (CHUNK_IMAGES, 256, 256, 3), dtype=np.uint8)
    model.probabilities(images)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        model.probabilities(images)
        done += len(images)
    return done / (time.perf_counter() - started)
