"""What the journal says, added up: labels, skips, requests, classes, and which label files were taken."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from camera_trap_al.core.matching import folded
from camera_trap_al.core.records import ImageKey, Prediction, Request

TakenFile = tuple[str, str, int]
"""Name, SHA-256 and mtime in nanoseconds of a label file."""
LASTING_SKIPS = frozenset({"cannot_tell", "several_species", "withdrawn", "new_name"})
KEPT_BACK = frozenset({"person", "without_animal"})
"""Skips of images that are not to be shown any more, for what a detector saw in them since they were asked for."""
"""What people said. Any other skip (unreadable, missing) ends when the image is asked for again."""


class Label(NamedTuple):
    """What a person said of an image, and the journal `seq` of the line that says so."""

    species: str
    provenance: str
    seq: int


@dataclass
class History:
    """The journal, projected into memory; `apply` takes its lines one after another.

    `skips` maps an image to (reason, seq): it needs no answer, until a label comes. `waiting` maps an image to the name that
    a person gave it, which is no class yet: once it is one, the image has that label. `withdrawn` maps the `seq` of a line
    that counts no more to that of the `undo` line that says so. `overruled` holds where label files of one round disagree:
    {seq: {later seq: (image, species of the earlier file) …}}; `named`, of how many images of a label file the name became
    a class later: {seq: {later seq: images}}. `granted` maps the wishes that were carried out to the `seq` of their lines.
    """

    identity: str = ""
    labels: dict[ImageKey, Label] = field(default_factory=dict)
    skips: dict[ImageKey, tuple[str, int]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    requested: set[ImageKey] = field(default_factory=set)
    published: dict[ImageKey, set[str]] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    taken: dict[TakenFile, int] = field(default_factory=dict)
    waiting: dict[ImageKey, str] = field(default_factory=dict)
    closed: set[int] = field(default_factory=set)
    settings: dict[str, Any] = field(default_factory=dict)
    withdrawn: dict[int, int] = field(default_factory=dict)
    overruled: dict[int, dict[int, list[tuple[ImageKey, str]]]] = field(default_factory=dict)
    named: dict[int, dict[int, int]] = field(default_factory=dict)
    granted: dict[str, int] = field(default_factory=dict)
    end: int = 0
    _answers: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    _undos: dict[int, int] = field(default_factory=dict)
    _waited: set[ImageKey] = field(default_factory=set)

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
        if "wish" in line:
            self.granted[line["wish"]] = self.end
        match line["kind"]:
            case "open":
                self.identity = line["identity"]
            case "config":
                self.settings = dict(line["settings"])
            case "request":
                return self._add_request(line)
            case "classes" | "labels" | "skip":
                if line["kind"] == "labels":
                    self.taken[(line["name"], line["sha256"], line["mtime_ns"])] = self.end
                self._answers[self.end] = line
                return self._count(line)
            case "undo":
                return self._undo(line)
            case "close":
                self.closed.add(line["round"])
        return []

    def remarks(self) -> dict[int, list[dict[str, Any]]]:
        """Return what later lines say of label files, by their `seq`, for their receipts.

        Each remark has "what" ("undone", "overruled" by or "overrules" another file of its round, "named": what waited for
        a class has it), "seq", the other line, and "images", of how many images it is said.
        """
        said: dict[int, list[dict[str, Any]]] = {}
        for seq, by in sorted(self.withdrawn.items()):
            said.setdefault(seq, []).append(
                {"what": "undone", "seq": by, "images": len(_keys_of(self._answers.get(seq, {})))}
            )
        for seq, later in sorted(self.overruled.items()):
            for other, images in sorted(later.items()):
                said.setdefault(seq, []).append({"what": "overruled", "seq": other, "images": len(images)})
                said.setdefault(other, []).append({"what": "overrules", "seq": seq, "images": len(images)})
        for seq, named in sorted(self.named.items()):
            for other, n_images in sorted(named.items()):
                said.setdefault(seq, []).append({"what": "named", "seq": other, "images": n_images})
        return said

    def undo_problem(self, seq: int) -> str:
        """Return why line `seq` cannot be withdrawn, or ""."""
        if seq in self.withdrawn:
            return f"Number {seq} was withdrawn already; undo number {self.withdrawn[seq]} to bring it back."
        if seq in self._undos or self._answers.get(seq, {}).get("kind") == "labels":
            return ""
        return f"Number {seq} is no label file that was taken, and no undo."

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

    def kept_back(self) -> frozenset[ImageKey]:
        """Return the images of the newest request that are not to be shown any more."""
        keys = self.requests[-1].keys if self.requests else ()
        return frozenset(key for key in keys if key in self.skips and self.skips[key][0] in KEPT_BACK)

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

    def _add_request(self, line: Mapping[str, Any]) -> list[ImageKey]:
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
                frozenset(keys[place] for place in _random_places(line)),
            )
        )
        self.requested.update(keys)
        for key, prediction in predictions.items():
            self.published.setdefault(key, set()).add(prediction.species)
        usable_again = [key for key in keys if key in self.skips and self.skips[key][0] not in LASTING_SKIPS]
        for key in usable_again:
            del self.skips[key]
        return usable_again

    def _undo(self, line: Mapping[str, Any]) -> list[ImageKey]:
        before = set(self.withdrawn)
        self._undos[line["seq"]] = line["withdraws"]
        self.withdrawn = {}
        for seq in sorted(self._undos, reverse=True):
            if seq not in self.withdrawn:
                self.withdrawn[self._undos[seq]] = seq
        self._count_anew()
        changed = before.symmetric_difference(self.withdrawn)
        keys = [key for seq in sorted(changed) if seq in self._answers for key in _keys_of(self._answers[seq])]
        # With a file that brought a class go the labels of what had waited for that class.
        return [*keys, *sorted(self._waited.difference(keys))]

    def _count_anew(self) -> None:
        self.labels, self.skips, self.overruled, self.classes = {}, {}, {}, []
        self.waiting, self.named = {}, {}
        asked = {request.seq: request.keys for request in self.requests}
        for seq in sorted({*self._answers, *asked} - set(self.withdrawn)):
            if seq in self._answers:
                self._count(self._answers[seq])
            for key in asked.get(seq, ()):
                if key in self.skips and self.skips[key][0] not in LASTING_SKIPS:
                    del self.skips[key]
        # A class that a withdrawn file brought stays while labels of later files name it.
        self._add_classes(label.species for label in self.labels.values())
        self._name_waiting(self.end)

    def _count(self, line: Mapping[str, Any]) -> list[ImageKey]:
        """Let a `classes`, `labels` or `skip` line count; return the images it names."""
        seq, n_classes = line["seq"], len(self.classes)
        self._add_classes(line.get("names", ()))
        self._add_classes(line.get("new_classes", ()))
        keys = _keys_of(line)
        alike: dict[tuple[str, str], Label] = {}
        # An opening work folder counts hundreds of thousands, so images of which the same is said share one `Label`.
        for key, (_, _, species, provenance) in zip(keys, line.get("rows", ()), strict=False):
            before = self.labels.get(key)
            if before is not None and before.species != species:
                self._note_overruled(before, key, line)
            label = alike.get((species, provenance))
            if label is None:
                label = alike[species, provenance] = Label(species, provenance, seq)
            self.labels[key] = label
            self.skips.pop(key, None)
        for folder, file, reason in line.get("skips", ()):
            self.skips[ImageKey(folder, file)] = (reason, seq)
        for folder, file in line.get("unlabels", ()):
            self.labels.pop(ImageKey(folder, file), None)
            self.skips.pop(ImageKey(folder, file), None)
        if self.waiting:
            for key in keys:
                self.waiting.pop(key, None)
        for folder, file, name in line.get("waiting", ()):
            self.waiting[ImageKey(folder, file)] = name
            self._waited.add(ImageKey(folder, file))
        # Whatever waits was compared with the classes there were.
        is_due = self.waiting and (len(self.classes) > n_classes or line.get("waiting"))
        return keys + self._name_waiting(seq) if is_due else keys

    def _name_waiting(self, seq: int) -> list[ImageKey]:
        """Give the images whose name is a class now that label; return them."""
        known = {folded(name): name for name in self.classes}
        named = [(key, known[folded(name)]) for key, name in self.waiting.items() if folded(name) in known]
        for key, species in named:
            del self.waiting[key]
            _, since = self.skips.pop(key)
            self.labels[key] = Label(species, "oracle", seq)
            later = self.named.setdefault(since, {})
            later[seq] = later.get(seq, 0) + 1
        return [key for key, _ in named]

    def _note_overruled(self, before: Label, key: ImageKey, line: Mapping[str, Any]) -> None:
        earlier = self._answers.get(before.seq, {})
        if earlier.get("round") == line.get("round") and earlier.get("name") != line.get("name"):
            self.overruled.setdefault(before.seq, {}).setdefault(line["seq"], []).append((key, before.species))


def _random_places(line: Mapping[str, Any]) -> Iterable[int]:
    """Return which images of a request were drawn at random; up to 0.4.0 that was said by the strategy alone."""
    by_strategy = range(len(line["keys"]) if line.get("strategy") == "uniform" else 0)
    places: Iterable[int] = line.get("random", by_strategy)
    return places


def _keys_of(line: Mapping[str, Any]) -> list[ImageKey]:
    """Return the images that an answer line names."""
    named = itertools.chain(line.get("rows", ()), line.get("skips", ()), line.get("unlabels", ()))
    return [ImageKey(row[0], row[1]) for row in named]
