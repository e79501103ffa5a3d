"""Model folder + scaler + classifier → `export/`: built in memory, checked in onnxruntime, then put in place.

The four files of the reference program, which its sister pipeline reads, and beside them the whole way from image to
probabilities as ONNX.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from camera_trap_al.errors import ModelError
from camera_trap_al.exporters import ExportSource, exporters
from camera_trap_al.exporters.check import check_export
from camera_trap_al.exporters.graphs import IMAGES, classifier_graph, embedding_graph, model_graph, parse
from camera_trap_al.exporters.model_card import MODEL_CARD, licence_line, model_card
from camera_trap_al.exporters.readme import PREPROCESSING, readme
from camera_trap_al.exporters.sister import why_not_readable
from camera_trap_al.learn.classifier import REFERENCE, Classifier, load_classifier
from camera_trap_al.learn.onnx_files import CLASSES, CREATED_BY, CREATOR, FORMAT_KEY, METADATA_FORMAT, PROBABILITIES
from camera_trap_al.store import atomic, generations
from camera_trap_al.version import program_version

FORMAT = 1
MANIFEST = "manifest.json"
MODEL_FACTS, RAW_ONNX, SISTER = "model.json", "embedding.onnx", "embedding_model_weights.pt"
REFERENCE_IMAGES, REFERENCE_EMBEDDINGS = "reference_images.npy", "reference_embeddings.npy"
INPUT = {
    "name": IMAGES,
    "type": "uint8",
    "shape": ["n", 256, 256, 3],
    "colour_order": "RGB",
    "value_range": [0, 255],
    "orientation": "upright (EXIF orientation applied)",
    "resize": "bilinear to 256 x 256, squashed, nothing cut off",
    "inside": "centre crop to 224 x 224, division by 255, mean and std, embedding scaler",
}
OUTPUT = {"name": PROBABILITIES, "type": "float32", "shape": ["n", "classes"], "rows_sum_to": 1}
LIBRARIES = ("numpy", "onnx", "onnxruntime", "scikit-learn", "skl2onnx")


@dataclass(frozen=True)
class Parts:
    """The source as read: JSON facts of the model, its files as bytes, its reference arrays, and the classifier.

    `images` is (m, 256, 256, 3) uint8, `embeddings` (m, d) float32, raw, `proba` (m, k) float32.
    """

    facts: Mapping[str, Any]
    raw_onnx: bytes
    sister: bytes
    images: npt.NDArray[np.uint8]
    embeddings: npt.NDArray[np.float32]
    proba: npt.NDArray[np.float32]
    classifier: Classifier


class OnnxExport:
    """The export for other programs, and for our own `predict`."""

    def contents(self, source: ExportSource) -> dict[str, bytes]:
        """Build and check the export. See `Exporter` for what is promised and raised."""
        parts = read_parts(source)
        files = build_files(source, parts)
        check_export(files, parts.images, parts.embeddings, source.scaler, parts.proba, parts.classifier.classes)
        return {**files, MANIFEST: _json(_manifest(source, parts, files))}

    def write(self, source: ExportSource, folder: Path) -> list[str]:
        """Write and check the export; files are replaced one by one, `manifest.json` last.

        A file that would not change is left alone. See `Exporter` for what is promised and raised.
        """
        files = self.contents(source)
        for name, data in files.items():
            if name == MANIFEST or not _holds(folder / name, data):
                atomic.replace_bytes(folder / name, data)
        return list(files)


def read_parts(source: ExportSource) -> Parts:
    """Read what an export is made from. Raises `ModelError` for a file that is missing, damaged or does not fit."""
    model = source.model_folder
    try:
        parts = Parts(
            facts=json.loads(generations.read_noted(model, MODEL_FACTS)),
            raw_onnx=generations.read_noted(model, RAW_ONNX),
            sister=generations.read_noted(model, SISTER),
            images=_array(generations.read_noted(model, REFERENCE_IMAGES)),
            embeddings=_array(generations.read_noted(model, REFERENCE_EMBEDDINGS)),
            proba=np.load(source.checkpoint_folder / REFERENCE, allow_pickle=False),
            classifier=load_classifier(source.checkpoint_folder),
        )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"A file that the export is made from cannot be read ({error}).", hint="Fit or train again."
        ) from error
    _check_sizes(source, parts)
    return parts


def build_files(source: ExportSource, parts: Parts) -> dict[str, bytes]:
    """Return the content of every file of an export but its manifest, by name."""
    classes = parts.classifier.classes
    raw = parse(parts.raw_onnx, RAW_ONNX)
    metadata = _metadata(source, parts)
    return {
        "classifier.onnx": classifier_graph(parts.classifier),
        SISTER: parts.sister,
        "dataset_mean.npy": _npy(parts.facts["mean"]),
        "dataset_std.npy": _npy(parts.facts["std"]),
        "embedding.onnx": embedding_graph(raw, source.scaler, metadata),
        "model.onnx": model_graph(raw, source.scaler, parts.classifier, metadata),
        "classes.json": _json(list(classes)),
        "classes.txt": "".join(f"{name}\n" for name in classes).encode("utf-8"),
        MODEL_CARD: model_card(source, parts.facts, parts.classifier, _created_by()).encode("utf-8"),
        "README_export.txt": readme(parts.facts, classes, source.checkpoint, source.learner).encode("utf-8"),
    }


def _check_sizes(source: ExportSource, parts: Parts) -> None:
    d, k = parts.embeddings.shape[1], len(parts.classifier.classes)
    sizes = (parts.classifier.feat_dim, source.scaler.shape, parts.proba.shape, len(parts.images))
    if sizes != (d, (2, d), (len(parts.images), k), len(parts.embeddings)) or len(parts.images) == 0:
        raise ModelError(
            f"Checkpoint {source.checkpoint} and learner {source.learner} do not fit together: the model has {d}"
            f" dimensions and {len(parts.embeddings)} reference images, the scaler {source.scaler.shape[-1]} dimensions,"
            f" the classifier {parts.classifier.feat_dim} and {len(parts.proba)} reference images.",
            hint="Fit the classifier again.",
        )


def _metadata(source: ExportSource, parts: Parts) -> dict[str, str]:
    """Return what `model.onnx` and `embedding.onnx` say of themselves (docs/exports.md says it of each key)."""
    classes, run = parts.classifier.classes, source.run
    values = {
        CLASSES: list(classes),
        "training_counts": {name: run.labels[name] for name in classes if name in run.labels},
        "input": INPUT,
        "output": OUTPUT,
        "mean": parts.facts["mean"],
        "std": parts.facts["std"],
        "calibration": {
            "temperature": parts.classifier.temperature,
            "folded_in": True,
            "expected_calibration_error": run.calibration_error,
            "measured_on": run.calibrated_on,
        },
    }
    texts = {
        FORMAT_KEY: str(METADATA_FORMAT),
        "preprocessing": PREPROCESSING,
        "licence": licence_line(run),
        "checkpoint": str(source.checkpoint),
        "learner": str(source.learner),
        CREATED_BY: _created_by(),
    }
    return {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()} | texts


def _manifest(source: ExportSource, parts: Parts, files: Mapping[str, bytes]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "kind": "export",
        "model": source.learner,
        "learner": source.learner,
        "checkpoint": source.checkpoint,
        "classes": list(parts.classifier.classes),
        "acp_compatible": not why_not_readable(parts.facts, parts.classifier.classes),
        "settings": parts.facts["settings"],
        "created_by": _created_by(),
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "files": {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
        },
    }


def _created_by() -> str:
    return f"{CREATOR} {program_version()}"


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode("utf-8")


def _array(data: bytes) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return array


def _npy(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array(values, dtype=np.float64), allow_pickle=False)
    return buffer.getvalue()


def _holds(path: Path, data: bytes) -> bool:
    if path.is_symlink() or not path.is_file() or path.stat().st_size != len(data):
        return False
    return generations.file_sha256(path) == hashlib.sha256(data).hexdigest()


exporters.register("onnx")(OnnxExport())
