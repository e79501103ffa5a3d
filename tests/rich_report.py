"""A report in which every part shows something, made up: for the tests of its page."""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image

from camera_trap_al.exporters.report_facts import CurvePoint, Days, Doubt, Example, Name, Report, Share
from camera_trap_al.report_quality import Measured, quality_of

CLASSES = (
    "Red deer",
    "Roe deer",
    "Wild boar",
    "Fox",
    "Badger",
    "Felis silvestris silvestris (European wildcat)",
    "Hase",
    "鹿",
)


def picture(seed: int, width: int = 160, height: int = 120) -> bytes:
    """Return a PNG of coarse noise."""
    noise = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize((width, height)).save(out, "PNG")
    return out.getvalue()


PNG = picture(0, 1, 1)


@functools.cache
def rich_report() -> Report:
    """Return the report."""
    rng = np.random.default_rng(1)
    truth = rng.integers(0, len(CLASSES), 400)
    scores = rng.normal(size=(400, len(CLASSES)))
    scores[np.arange(400), truth] += 2.5
    proba = (np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)).astype(np.float32)
    measured = Measured(np.arange(400), tuple(CLASSES[i] for i in truth), CLASSES, proba, "Measured on made-up images.")
    long = "season 2026/site with a rather long name that goes on and on/" + "IMG_" + "0" * 80 + ".JPG"
    return Report(
        title="Bialowieza 2026",
        as_of="2026-11-22 10:00:00",
        counts=(("Images without a label", "981,204"), ("Images with a label", "1,400")),
        todo="Import C:\\work\\timelapse_selector.csv in Timelapse, label the selected images, export them.",
        problems=("The disk is almost full: 12 MB are left.",),
        advice=("The next 100 labels would bring about 0.4 points.",),
        curve=tuple(
            CurvePoint(100 * n, 0.5 + 0.03 * n, 0.45 + 0.03 * n, *((0.5 + 0.03 * n, 0.4, 0.9) if n > 4 else ()))
            for n in range(1, 14)
        ),
        quality=quality_of(measured, CLASSES, dict.fromkeys(CLASSES, 175)),
        sites=tuple(Share(f"site {n:02d}", 120 - 7 * n, 50_000 + n) for n in range(12)),
        days=Days("day", tuple((f"2026-05-{n:02d}", 3 + n % 5) for n in range(1, 32)), 14),
        best=tuple(Example(picture(n), 160, 120, long, CLASSES[n % 8], CLASSES[n % 8], 0.99) for n in range(12)),
        worst=tuple(Example(picture(n), 120, 160, long, "Fox", CLASSES[5], 0.9) for n in range(12, 24)),
        doubts=tuple(Doubt(long, "Fox", CLASSES[5], 0.9 - n / 50) for n in range(25)),
        doubts_of="1,400 of 1,400 labels were compared with what is predicted without them.",
        names=(Name("Wild bore", 3, ("Wild boar",)), Name("Lynx", 2, ())),
        why=(("pictures", "Images that may show a person or a vehicle are never shown here."),),
    )
