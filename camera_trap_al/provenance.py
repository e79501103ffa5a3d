"""How a classifier came to be, for those who get it: noted with the checkpoint, read for an export."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from camera_trap_al.advice import read_estimates
from camera_trap_al.catalog.found import POOL, TRAIN, VALIDATION
from camera_trap_al.exporters import ImageFolder, RunFacts
from camera_trap_al.layout import WorkFolder
from camera_trap_al.learn.classifier import Classifier
from camera_trap_al.learn.evaluate import CALIBRATION_ERROR, CONFUSION, MATRIX, METRICS, RESULTS_PREFIX
from camera_trap_al.store import generations
from camera_trap_al.store.json_files import MOST_BYTES, read_object
from camera_trap_al.store.shards import RowArray
from camera_trap_al.work import Work, image_folders

PURPOSES = {TRAIN: "to train on", POOL: "to label", VALIDATION: "for validation"}
VALIDATION_IMAGES = "validation images"


def learned_from(work: Work, classifier: Classifier, rows: RowArray, species: Sequence[str]) -> dict[str, Any]:
    """Return what a classifier was fitted on, as JSON values for the manifest of its checkpoint.

    Parameters
    ----------
    rows, species : of the n labels that people gave
    """
    counts = work.catalog.counts()
    n_images = {TRAIN: counts.train, POOL: counts.pool, VALIDATION: counts.validation}
    names = work.cached("names", work.catalog.fact("pool_version", 0), work.catalog.names)
    labelled = names.folders[np.isin(names.rows, rows)]
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "labels": dict(sorted(Counter(species).items())),
        "folders": [
            {"purpose": PURPOSES[kind], "name": folder.name, "images": n_images[kind]}
            for kind, folder in image_folders(work.config).items()
        ],
        "sites": len(names.folder_names),
        "labelled_sites": len(np.unique(labelled)),
        "calibration": _calibration(work.folder, classifier),
    }


def run_facts(folder: WorkFolder, checkpoint: generations.Generation, licence: str) -> RunFacts:
    """Return what is known of a checkpoint; a version that noted nothing leaves gaps."""
    noted = checkpoint.manifest.get("learned_from", {})
    calibration, metrics = noted.get("calibration", {}), _metrics(folder, checkpoint)
    error, measured_on = calibration.get("error"), calibration.get("on", "")
    if CALIBRATION_ERROR in metrics:
        error, measured_on = metrics[CALIBRATION_ERROR], f"{metrics['n']} {VALIDATION_IMAGES}"
    return RunFacts(
        made_at=noted.get("at", ""),
        labels=noted.get("labels", {}),
        n_propagated=checkpoint.manifest.get("n_propagated", 0),
        folders=tuple(ImageFolder(f["purpose"], f["name"], f["images"]) for f in noted.get("folders", ())),
        n_sites=noted.get("sites", 0),
        n_labelled_sites=noted.get("labelled_sites", 0),
        metrics=metrics,
        estimate=_estimate(folder, checkpoint),
        calibration_error=error,
        calibrated_on=measured_on,
        licence=licence,
    )


def _calibration(folder: WorkFolder, classifier: Classifier) -> dict[str, Any]:
    """Return the calibration error that goes with the temperature of a classifier, {} where it was not measured."""
    try:
        noted = read_object(folder.calibration)
        if (noted["head"], noted["temperature"]) != (classifier.head, classifier.temperature):
            return {}
        error = _fraction(noted["scores"][classifier.head]["error"])
        return {"error": error, "on": f"{int(noted['n_judged'])} labels that it had not seen (cross-validation)"}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _metrics(folder: WorkFolder, checkpoint: generations.Generation) -> Mapping[str, Any]:
    """Return the metrics of a checkpoint with its confusion matrix, {} where there are none that fit together."""
    results = folder.test_results / f"{RESULTS_PREFIX}{checkpoint.manifest['n_labels']}"
    try:
        metrics = read_object(results / METRICS)
        matrix = _matrix(results / MATRIX)
        names = [str(name) for name in metrics["conf_mat_classes"]]
        per_class = {str(name): _figures(noted) for name, noted in metrics["per_class"].items()}
        if metrics["checkpoint"] != checkpoint.number or not names or matrix.shape != (len(names), len(names)):
            return {}
        found: dict[str, Any] = {"n": int(matrix.sum()), "accuracy": _fraction(metrics["accuracy"])}
        found |= {"macro_f1": _fraction(metrics["macro_f1"]), "conf_mat_classes": names, "per_class": per_class}
        if CALIBRATION_ERROR in metrics:
            found[CALIBRATION_ERROR] = _fraction(metrics[CALIBRATION_ERROR])
        return found | {CONFUSION: matrix.tolist()} if found["n"] == metrics["n"] else {}
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _matrix(path: Path) -> RowArray:
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path} is too large")
    # Mapped, so that a header that promises more than is there is refused; and copied, since Windows replaces no such file.
    return np.array(np.load(path, mmap_mode="r", allow_pickle=False), dtype=np.int64)


def _figures(noted: Mapping[str, Any]) -> dict[str, float]:
    figures = {name: _fraction(noted[name]) for name in ("precision", "recall", "f1")}
    return {**figures, "support": int(noted["support"])}


def _fraction(value: Any) -> float:
    if not 0 <= float(value) <= 1:
        raise ValueError(f"{value} is no fraction")
    return float(value)


def _estimate(folder: WorkFolder, checkpoint: generations.Generation) -> Mapping[str, Any]:
    for noted in read_estimates(folder):
        if noted.get("checkpoint") == checkpoint.number and noted.get("accuracy"):
            accuracy = noted["accuracy"]
            return {"n_judged": noted["n_judged"], **{name: accuracy[name] for name in ("value", "low", "high")}}
    return {}
