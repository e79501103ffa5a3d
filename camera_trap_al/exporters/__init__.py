"""Exporters: a learner and its classifier as files for other programs. The registry, and what an exporter gets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

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
class ExportSource:
    """What an export is made from.

    Parameters
    ----------
    model_folder : of the model: `model.json`, `embedding.onnx`, `embedding_model_weights.pt`, reference arrays
    checkpoint_folder : of the classifier
    scaler : (2, d) float64: minimum, and range (> 0), of each embedding dimension
    checkpoint : number of the checkpoint
    learner : number of the learner, which is its model's, too
    """

    model_folder: Path
    checkpoint_folder: Path
    scaler: npt.NDArray[np.float64]
    checkpoint: int
    learner: int


class Exporter(Protocol):
    """Writes one export format."""

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
