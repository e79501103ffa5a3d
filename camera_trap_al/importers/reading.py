"""Which of the formats a file of detections is in, by its first character."""

from __future__ import annotations

from pathlib import Path

from camera_trap_al.importers.detections import DetectionFileError, Detections, OnProgress
from camera_trap_al.importers.detector_csv import read_detector_csv
from camera_trap_al.importers.megadetector import FOREIGN, read_megadetector


def read_detections(path: Path, root: Path | None = None, on_progress: OnProgress = lambda done: None) -> Detections:
    """Read MegaDetector's JSON, or the CSV of older detectors.

    Parameters
    ----------
    root : the folder of images, from which absolute paths are taken on
    on_progress : called now and then with how many images were read

    Raises
    ------
    DetectionFileError
        It is neither, cut short, of another version, or ambiguous.
    """
    try:
        with path.open("rb") as file:
            start = file.read(256).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError as error:
        raise DetectionFileError(
            f"{path} cannot be read ({error.strerror or error}).", hint="Check the path."
        ) from error
    if not start:
        raise DetectionFileError(f"{path} is empty.", hint=FOREIGN)
    if start.startswith(b"["):
        raise DetectionFileError(
            f"{path} is a list, such as PytorchWildlife gives in its newer versions, not MegaDetector's batch format.",
            hint="PytorchWildlife writes MegaDetector's format by save_detection_timelapse_json.",
        )
    if start.startswith(b"{"):
        return read_megadetector(path, root, on_progress)
    return read_detector_csv(path, root, on_progress)
