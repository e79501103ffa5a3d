"""The options of items: what is cut out of images for which a detector's boxes are known."""

from __future__ import annotations

from dataclasses import dataclass

from camera_trap_al.option import option


@dataclass(frozen=True)
class ItemsConfig:
    """What is looked at of an image whose animals a detector such as MegaDetector has found (docs/detections.md)."""

    detection_threshold: float = option(
        0.2, "Confidence from which on a box of the detector counts, of animals, people and vehicles.", low=0, high=1
    )
    padding: float = option(1.0, "How many times as wide the square around an animal is made.", low=1, high=10)
    without_detection: str = option(
        "whole",
        "What becomes of an image in which the detector saw nothing. whole: used as a whole image; skip: left out; empty:"
        " left out, and predicted as classes.empty.",
        choices=("whole", "skip", "empty"),
    )
    share_label: bool = option(
        True, "Let each animal of an image with several have its label. false: such images train nothing."
    )
