"""Rows of Camtrap DP's tables of media and observations: one image at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from camera_trap_al.core.observed import ANIMAL, PERSON, VEHICLE, Detection, Named, ObservedImage, category_of
from camera_trap_al.core.records import Box
from camera_trap_al.core.spreadsheets import safe_cell
from camera_trap_al.exporters.certainty import DECIMALS, is_sure

MEDIA_COLUMNS = (
    "mediaID",
    "deploymentID",
    "captureMethod",
    "timestamp",
    "filePath",
    "filePublic",
    "fileName",
    "fileMediatype",
    "exifData",
    "favorite",
    "mediaComments",
)
OBSERVATION_COLUMNS = (
    "observationID",
    "deploymentID",
    "mediaID",
    "eventID",
    "eventStart",
    "eventEnd",
    "observationLevel",
    "observationType",
    "cameraSetupType",
    "scientificName",
    "count",
    "lifeStage",
    "sex",
    "behavior",
    "individualID",
    "individualPositionRadius",
    "individualPositionAngle",
    "individualSpeed",
    "bboxX",
    "bboxY",
    "bboxWidth",
    "bboxHeight",
    "classificationMethod",
    "classifiedBy",
    "classificationTimestamp",
    "classificationProbability",
    "observationTags",
    "observationComments",
)
MEDIA_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
    ".gif": "image/gif",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
}
OTHER_MEDIA_TYPE = "image/x-unknown"
HUMAN, BLANK, UNKNOWN, UNCLASSIFIED = "human", "blank", "unknown", "unclassified"
BY_HUMAN, BY_MACHINE = "human", "machine"
TIME_UNKNOWN = "The image does not say when it was taken."
BOX_DECIMALS = 6


@dataclass(frozen=True)
class HumanLabel:
    """What a person said of an image: the species, who said so ("" where not known), and when (ISO 8601 with a zone, or "")."""

    species: str
    by: str = ""
    at: str = ""


@dataclass(frozen=True)
class Rules:
    """Who classified and when, and the classes of nothing and of anything."""

    classifier: str
    detector: str
    at: str
    empty: str
    unknown: str


@dataclass(frozen=True)
class Rows:
    """Makes rows; a species less certain than `min_confidence` is not named."""

    rules: Rules
    min_confidence: float

    def media(self, image: ObservedImage, deployment: str, time: str) -> list[str]:
        """Return the row of an image, which is public nowhere: it lies on somebody's disk."""
        comments = [text for text in (image.problem, "" if image.captured else TIME_UNKNOWN) if text]
        cells = dict.fromkeys(MEDIA_COLUMNS, "")
        cells |= {"mediaID": image.key.path, "deploymentID": deployment, "timestamp": time, "filePath": image.key.path}
        cells |= {"filePublic": "false", "fileName": image.key.file}
        cells["fileMediatype"] = MEDIA_TYPES.get(PurePosixPath(image.key.file).suffix.lower(), OTHER_MEDIA_TYPE)
        cells["mediaComments"] = safe_cell(" ".join(comments))
        return list(cells.values())

    def observations(
        self, image: ObservedImage, deployment: str, time: str, label: HumanLabel | None = None
    ) -> Iterator[tuple[list[str], str]]:
        """Yield the rows of an image, at least one, each with the species that it names, or ""."""
        told = [self._by_person(label)] if label is not None else list(self._by_programs(image))
        for n, facts in enumerate(told, start=1):
            cells = dict.fromkeys(OBSERVATION_COLUMNS, "")
            cells |= {"observationID": f"{image.key.path}#{n}", "deploymentID": deployment, "mediaID": image.key.path}
            cells |= {"eventStart": time, "eventEnd": time, "observationLevel": "media"}
            species = facts.get("scientificName", "")
            cells |= {name: safe_cell(text) for name, text in facts.items()}
            yield list(cells.values()), species

    def _by_person(self, label: HumanLabel) -> dict[str, str]:
        who = {"classificationMethod": BY_HUMAN, "classifiedBy": label.by, "classificationTimestamp": label.at}
        return self._kind(label.species) | who

    def _kind(self, species: str) -> dict[str, str]:
        """Return type and name of what has this class."""
        if species in (self.rules.empty, ""):
            return {"observationType": BLANK}
        if species == self.rules.unknown:
            return {"observationType": UNKNOWN}
        kind = {PERSON: HUMAN, VEHICLE: VEHICLE}.get(category_of(species))
        if kind is not None:
            return {"observationType": kind}
        return {"observationType": ANIMAL, "scientificName": species}

    def _by_programs(self, image: ObservedImage) -> Iterator[dict[str, str]]:
        if image.detections is None:
            yield self._whole(image)
            return
        if image.detections:
            yield from map(self._box, image.detections)
        elif image.problem:
            yield {"observationType": UNCLASSIFIED, "observationComments": image.problem}
        else:
            yield {"observationType": BLANK} | self._machine(self.rules.detector)

    def _whole(self, image: ObservedImage) -> dict[str, str]:
        if not image.named:
            if image.problem:
                return {"observationType": UNCLASSIFIED, "observationComments": image.problem}
            return {"observationType": BLANK} | self._machine(self.rules.classifier)
        best = image.named[0]
        kind = self._kind(best.species) if is_sure(best, self.min_confidence) else {"observationType": UNKNOWN}
        return kind | self._machine(self.rules.classifier, best.probability)

    def _box(self, box: Detection) -> dict[str, str]:
        """Return what is in a box: the detector knows animals from people and vehicles, the classifier which animal."""
        facts = {"observationType": UNKNOWN, "count": "1", **_position(box.box)}
        by_detector = self._machine(self.rules.detector, box.confidence)
        if box.category in (PERSON, VEHICLE):
            return facts | by_detector | {"observationType": HUMAN if box.category == PERSON else VEHICLE}
        if box.category != ANIMAL:
            return facts | by_detector | {"observationTags": f"detection:{box.category}"}
        if not box.named:
            return facts | by_detector | {"observationType": ANIMAL}
        return facts | self._animal(box.named[0]) | self._machine(self.rules.classifier, box.named[0].probability)

    def _animal(self, best: Named) -> dict[str, str]:
        if best.species == self.rules.empty:
            return {"observationComments": "The detector sees an animal in the box, the classifier none."}
        if not is_sure(best, self.min_confidence):
            return {"observationType": ANIMAL, "observationComments": "The species is not certain enough to be named."}
        return self._kind(best.species)

    def _machine(self, who: str, probability: float | None = None) -> dict[str, str]:
        said = "" if probability is None else _number(min(max(probability, 0.0), 1.0), DECIMALS)
        return {
            "classificationMethod": BY_MACHINE,
            "classifiedBy": who,
            "classificationTimestamp": self.rules.at,
            "classificationProbability": said,
        }


def _position(box: Box) -> dict[str, str]:
    """Return the cells of a box, clipped to the image; none where nothing of it is inside."""
    left, top = max(box.left, 0.0), max(box.top, 0.0)
    width, height = min(box.left + box.width, 1.0) - left, min(box.top + box.height, 1.0) - top
    least = 10**-BOX_DECIMALS
    if not (width >= least and height >= least and left < 1 and top < 1):
        return {}
    names = ("bboxX", "bboxY", "bboxWidth", "bboxHeight")
    return {name: _number(value, BOX_DECIMALS) for name, value in zip(names, (left, top, width, height), strict=True)}


def _number(value: float, decimals: int) -> str:
    return f"{value + 0.0:.{decimals}f}".rstrip("0").rstrip(".")
