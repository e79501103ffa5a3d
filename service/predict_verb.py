"""The verb `predict` on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from camera_trap_al_service.arguments import factor, fraction
from camera_trap_al_service.logs import say
from camera_trap_al_service.progress import Bars

FORMS = ("csv", "megadetector", "timelapse", "camtrap-dp")


def add_predict(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb `predict`."""
    predict = verbs.add_parser("predict", help="classify a folder of images with an export")
    predict.add_argument("export", type=Path, metavar="EXPORT", help="folder, ZIP file or model.onnx of an export")
    predict.add_argument("images", type=Path, metavar="IMAGES", help="folder of images, or one image")
    predict.add_argument("--out", type=Path, required=True, metavar="FILE", help="to write; camtrap-dp: a new folder")
    predict.add_argument("--format", choices=FORMS, default="csv", help="of FILE (default csv)")
    predict.add_argument("--probabilities", action="store_true", help="csv: one column for each class too")
    predict.add_argument("--min-confidence", type=fraction, default=None, metavar="P", help="below it: unknown")
    predict.add_argument(
        "--detections",
        type=Path,
        default=None,
        metavar="MD.json",
        help="what MegaDetector saw: its animals are classified",
    )
    predict.add_argument(
        "--detection-threshold", type=fraction, default=None, metavar="P", help="boxes from it on count (default 0.2)"
    )
    predict.add_argument(
        "--padding", type=factor, default=None, metavar="F", help="make the squares cut out F times as wide (default 1)"
    )
    predict.add_argument(
        "--time-zone", default=None, metavar="ZONE", help="camtrap-dp: of the cameras' clocks, such as +02:00 or Z"
    )
    predict.add_argument(
        "--sort-into", type=Path, default=None, metavar="DIR", help="also copy the images into folders by species"
    )
    predict.add_argument("--link", action="store_true", help="with --sort-into: hard links in place of copies")
    predict.set_defaults(verb=_predict)


def _predict(options: argparse.Namespace) -> int:
    from camera_trap_al_service.predicting import Asked, predict

    asked = Asked(
        form=options.format,
        probabilities=options.probabilities,
        min_confidence=options.min_confidence,
        detections=options.detections,
        detection_threshold=options.detection_threshold,
        padding=options.padding,
        time_zone=options.time_zone,
        sort_into=options.sort_into,
        link=options.link,
    )
    bars = Bars()
    try:
        done = predict(options.export, options.images, options.out, asked, bars.reporter)
    finally:
        bars.close()
    say(*done.lines)
    return 0
