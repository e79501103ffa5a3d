"""The JSON of MegaDetector (batch format 1.0 to 1.6), which other detectors write, too."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from camera_trap_al.core.observed import WHOLE_IMAGE, DetectorInfo
from camera_trap_al.core.records import Box
from camera_trap_al.importers.detections import (
    CUT,
    DetectionFileError,
    Detections,
    OnProgress,
    checked_box,
    key_of,
    number_in,
    storable,
)
from camera_trap_al.importers.json_stream import JsonStream, NotJson

AGAIN = "Run the detector again, or copy the file again."
FOREIGN = "Give the JSON that MegaDetector wrote for these images (batch format)."
METADATA_CHARS = 200
# Lists of other formats, and what to do with those.
OTHERS = {
    "predictions": (
        "is SpeciesNet's own list of predictions",
        "Turn it into MegaDetector's format: python -m speciesnet.scripts.speciesnet_to_md FILE.json MD.json",
    ),
    "annotations": (
        "is PytorchWildlife's own list of annotations, or one in the COCO format",
        "PytorchWildlife writes MegaDetector's format by save_detection_timelapse_json.",
    ),
}


def read_megadetector(path: Path, root: Path | None = None, on_progress: OnProgress = lambda done: None) -> Detections:
    """Read a file in MegaDetector's batch format; memory is about 200 bytes an image and 41 a box.

    Categories count by their name in `detection_categories`; without that table they are 1 animal, 2 person, 3 vehicle.
    Boxes are clipped to the image. What is left out is counted: boxes without a size, a box or a confidence that is no
    number, images without a path, videos.

    Parameters
    ----------
    root : the folder of images, from which absolute paths are taken on
    on_progress : called now and then with how many images were read

    Raises
    ------
    DetectionFileError
        It is no such file, cut short, or of another version.
    """
    found = Detections(on_progress)
    seen: dict[str, Any] = {}
    try:
        with path.open("rb") as file:
            text = io.TextIOWrapper(file, encoding="utf-8-sig")
            for key, value in JsonStream(text).members("images", *OTHERS):
                if key in OTHERS and not len(found):
                    what, hint = OTHERS[key]
                    raise DetectionFileError(f"{path} {what}, not MegaDetector's batch format.", hint=hint)
                if key == "images":
                    seen["images"] = True
                    _take(found, value, root)
                else:
                    seen[key] = value
                    if key == "info":
                        _check_version(path, value)
    except UnicodeDecodeError as error:
        raise DetectionFileError(f"{path} is no UTF-8 text, so it is no JSON of a detector.", hint=FOREIGN) from error
    except NotJson as error:
        hint = AGAIN if seen else FOREIGN
        raise DetectionFileError(f"{path} is no whole JSON object: {error}.", hint=hint) from error
    except OSError as error:
        raise DetectionFileError(
            f"{path} cannot be read ({error.strerror or error}).", hint="Check the path."
        ) from error
    _use_facts(found, seen, path)
    return found


def _use_facts(found: Detections, seen: Mapping[str, Any], path: Path) -> None:
    if "images" not in seen and "detection_categories" not in seen:
        raise DetectionFileError(f"{path} is no file of detections: it has no list `images`.", hint=FOREIGN)
    found.check_any(path, FOREIGN)
    categories = seen.get("detection_categories")
    if isinstance(categories, dict):
        found.name_categories({number: name for number, name in categories.items() if isinstance(name, str)})
    found.check_categories(path)
    info = seen.get("info")
    if isinstance(info, dict):
        found.info = _info(info)


def _check_version(path: Path, info: Any) -> None:
    version = str(info.get("format_version") or "1") if isinstance(info, dict) else "1"
    if not re.fullmatch(r"1(\.\d+)*", version):
        raise DetectionFileError(
            f"{path} is of format {version[:20]}; formats 1.0 to 1.6 are read.", hint="Save it in format 1.6."
        )


def _info(info: Mapping[str, Any]) -> DetectorInfo:
    metadata = info.get("detector_metadata")
    return DetectorInfo(
        _text(info.get("detector")),
        _text(info.get("detection_completion_time")),
        {
            _text(name): value if isinstance(value, int | float) else _text(value)
            for name, value in (metadata if isinstance(metadata, dict) else {}).items()
            if isinstance(value, str) or (number_in(value) is not None)
        },
    )


def _text(value: Any) -> str:
    return storable(value[:METADATA_CHARS]) if isinstance(value, str) else ""


def _take(found: Detections, image: Any, root: Path | None) -> None:
    name = image.get("file") if isinstance(image, dict) else None
    if not isinstance(name, str):
        found.leave_out("an entry without a file", "")
        return
    key = key_of(name, root)
    detections = image.get("detections")
    if isinstance(key, str):
        found.leave_out(key, name)
    elif "frame_rate" in image or _is_of_frames(detections):
        found.leave_out("a video", name)
    else:
        found.put(key, _boxes(found, detections, name) if isinstance(detections, list) else None)


def _is_of_frames(detections: Any) -> bool:
    return isinstance(detections, list) and any("frame_number" in d for d in detections if isinstance(d, dict))


def _boxes(found: Detections, detections: list[Any], name: str) -> list[tuple[str, float, Box]]:
    boxes = []
    for detection in detections:
        one = _box(detection)
        if isinstance(one, str):
            found.leave_out(one, name)
            continue
        category, confidence, box, is_cut = one
        boxes.append((category, confidence, box))
        if is_cut:
            found.leave_out(CUT, name)
    return boxes


def _box(detection: Any) -> tuple[str, float, Box, bool] | str:
    """Return category, confidence, box and whether a part of it is cut off; or why there is none."""
    if not isinstance(detection, dict):
        return "a detection that is no object"
    corner = detection.get("bbox")
    corner = WHOLE_IMAGE if corner is None else corner if isinstance(corner, list) else []
    one = checked_box(detection.get("conf"), corner)
    category = detection.get("category")
    if isinstance(one, str):
        return one
    if isinstance(category, bool) or not isinstance(category, str | int | float):
        return "a box without a category"
    return storable(str(category).removesuffix(".0")), *one
