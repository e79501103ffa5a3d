"""What the journal says, added up: labels, skips, requests, classes, and which label files were taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from camera_trap_al.core.records import ImageKey, Prediction, Request

TakenFile = tuple[str, str, int]
"""Name, SHA-256 and mtime in nanoseconds of a label file."""


@dataclass(frozen=True)
class Label:
    """What a person said of an image, and the journal `seq` of the line that says so."""

    species: str
    provenance: str
    seq: int


@dataclass
class History:
    """The journal, projected into memory; `apply` takes its lines one after another.

    `skips` maps an image to (reason, seq): it needs no answer, until a label comes.
    """

    identity: str = ""
    labels: dict[ImageKey, Label] = field(default_factory=dict)
    skips: dict[ImageKey, tuple[str, int]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    requested: set[ImageKey] = field(default_factory=set)
    published: dict[ImageKey, set[str]] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    taken: dict[TakenFile, int] = field(default_factory=dict)
    closed: set[int] = field(default_factory=set)
    settings: dict[str, Any] = field(default_factory=dict)
    end: int = 0

    @classmethod
    def of(cls, lines: Iterable[Mapping[str, Any]]) -> History:
        """Return the history of a whole journal."""
        history = cls()
        for line in lines:
            history.apply(line)
        return history

    def apply(self, line: Mapping[str, Any]) -> list[ImageKey]:
        """Take in the next line; return the images whose label or skip it may have changed."""
        self.end = line["seq"]
        match line["kind"]:
            case "open":
                self.identity = line["identity"]
            case "classes":
                self._add_classes(line["names"])
            case "config":
                self.settings = dict(line["settings"])
            case "request":
                self._add_request(line)
            case "labels":
                return self._add_labels(line)
            case "skip":
                return [self._skip(ImageKey(*key), reason) for *key, reason in line["skips"]]
            case "close":
                self.closed.add(line["round"])
        return []

    def label_of(self, key: ImageKey) -> str | None:
        """Return the species a person gave an image, or None."""
        label = self.labels.get(key)
        return label.species if label else None

    def is_answered(self, key: ImageKey) -> bool:
        """Return whether an image has a label or needs none."""
        return key in self.labels or key in self.skips

    def newest_round(self) -> int:
        """Return the number of the newest request, 0 before the first."""
        return self.requests[-1].round if self.requests else 0

    def awaited(self) -> list[ImageKey]:
        """Return the images of the newest request that are neither labelled nor skipped."""
        return [key for key in self.requests[-1].keys if not self.is_answered(key)] if self.requests else []

    def open_round(self, min_answered: float) -> int:
        """Return the round of the newest request while too few of its images are answered, else 0."""
        if not self.requests or self.requests[-1].round in self.closed:
            return 0
        request = self.requests[-1]
        answered = sum(self.is_answered(key) for key in request.keys)
        return request.round if answered < min_answered * len(request.keys) else 0

    def labels_since(self, seq: int) -> int:
        """Return how many images have a label given after journal line `seq`."""
        return sum(label.seq > seq for label in self.labels.values())

    def spent(self) -> int:
        """Return how many images were asked for and not skipped, each counted once."""
        return sum(key not in self.skips for key in self.requested)

    def _add_classes(self, names: Iterable[str]) -> None:
        self.classes = sorted({*self.classes, *names})

    def _add_request(self, line: Mapping[str, Any]) -> None:
        keys = tuple(ImageKey(*key) for key in line["keys"])
        predictions = (
            {
                key: Prediction(species, confidence)
                for key, (species, confidence) in zip(keys, line["predictions"], strict=True)
            }
            if line["predictions"]
            else {}
        )
        self.requests.append(
            Request(
                line["round"],
                line["seq"],
                line["strategy"],
                line["seed"],
                line["learner"],
                line["checkpoint"],
                keys,
                predictions,
            )
        )
        self.requested.update(keys)
        for key, prediction in predictions.items():
            self.published.setdefault(key, set()).add(prediction.species)

    def _add_labels(self, line: Mapping[str, Any]) -> list[ImageKey]:
        seq = line["seq"]
        self.taken[(line["name"], line["sha256"], line["mtime_ns"])] = seq
        self._add_classes(line.get("new_classes", ()))
        touched = []
        for folder, file, species, provenance in line["rows"]:
            key = ImageKey(folder, file)
            self.labels[key] = Label(species, provenance, seq)
            self.skips.pop(key, None)
            touched.append(key)
        for folder, file, reason in line.get("skips", ()):
            touched.append(self._skip(ImageKey(folder, file), reason))
        for folder, file in line.get("unlabels", ()):
            key = ImageKey(folder, file)
            self.labels.pop(key, None)
            self.skips.pop(key, None)
            touched.append(key)
        return touched

    def _skip(self, key: ImageKey, reason: str) -> ImageKey:
        self.skips[key] = (reason, self.end)
        return key
