"""Exporters: a learner and its classifier as files for other programs. The registry, and what an exporter gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from camera_trap_al.errors import ModelError
from camera_trap_al.registry import Registry
from camera_trap_al.store import atomic

CHECK_FORMAT = 1
CHECK = "check.json"


class ExportCheckError(ModelError):
    """What was to be exported does not predict as the learner does; nothing was published."""


@dataclass(frozen=True)
class ImageFolder:
    """One of the folders of images: what it is for, its name without the path, and how many images it holds."""

    purpose: str
    name: str
    n_images: int


@dataclass(frozen=True)
class RunFacts:
    """What is known of how a classifier came to be and how good it is; what nobody noted is empty or None.

    Parameters
    ----------
    made_at : when the classifier was fitted, UTC, such as `2026-11-22T10:00:00Z`
    labels : how many labels it learned from, by class
    n_propagated : images that it learned from too, by a label of their sequence
    folders : of images
    n_sites, n_labelled_sites : folders that hold images to label, and those of them that hold a label it learned from
    metrics : on validation images, as `metrics.json` holds them, with `confusion_matrix`; {} if there are none
    estimate : of the accuracy on images without a label: `value`, `low`, `high`, `n_judged`; {} if there is none
    calibration_error : expected calibration error, in [0, 1], measured on `calibrated_on`
    calibrated_on : what that was measured on, in words
    licence : what the owner of the data says of its use
    """

    made_at: str = ""
    labels: Mapping[str, int] = field(default_factory=dict)
    n_propagated: int = 0
    folders: tuple[ImageFolder, ...] = ()
    n_sites: int = 0
    n_labelled_sites: int = 0
    metrics: Mapping[str, Any] = field(default_factory=dict)
    estimate: Mapping[str, Any] = field(default_factory=dict)
    calibration_error: float | None = None
    calibrated_on: str = ""
    licence: str = ""


@dataclass(frozen=True)
class ExportSource:
    """What an export is made from.

    Parameters
    ----------
    model_folder : of the model: `model.json`, `embedding.onnx`, `embedding_model_weights.pt`, reference arrays
    checkpoint_folder : of the classifier
    scaler : (2, d) float64: minimum, and range (> 0), of each embedding dimension
    checkpoint : number of the checkpoint
    learner : number of the learner, which is its model's, too
    run : what is known of how it came to be
    """

    model_folder: Path
    checkpoint_folder: Path
    scaler: npt.NDArray[np.float64]
    checkpoint: int
    learner: int
    run: RunFacts = RunFacts()


class Exporter(Protocol):
    """Writes one export format."""

    def contents(self, source: ExportSource) -> dict[str, bytes]:
        """Return the content of each file of the export by name, the manifest last, after the check that `write` makes.

        Raises as `write` does.
        """
        ...

    def write(self, source: ExportSource, folder: Path) -> list[str]:
        """Write the export into a folder that is there, and return the names of its files, the manifest last.

        What is written predicts as the learner does, for an image alone or in any batch; that is checked before any
        file of the folder is replaced.

        Raises
        ------
        ExportCheckError
            It does not; the folder is as it was.
        ModelError
            A file of the source cannot be used; the folder is as it was.
        """
        ...


exporters: Registry[Exporter] = Registry("export format")


def write_check(folder: Path, checkpoint: int, ok: bool, text: str) -> None:
    """Write `check.json`, the outcome of the last check of an export, into its folder; durable on return.

    `text` says what differed, or "".
    """
    facts = {"format": CHECK_FORMAT, "checkpoint": checkpoint, "ok": ok, "text": text}
    atomic.replace_json(folder / CHECK, facts)


from camera_trap_al.exporters import onnx  # noqa: E402, F401 - enters the built-in exporter
