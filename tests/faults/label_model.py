"""What the labels, skips and rounds of a season should be: a slow, obvious account of docs/reliability.md 2.4 and 2.5.

An image is its path. A row of a label file is (path, word); the words beside species are those of `WORDS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = tuple[str, str]
UNSURE, UNLABEL, DELETE, BLANK, UNKNOWN = "unsure", "__unlabel__", "(delete)", "", "no such animal"
WORDS = (UNSURE, UNLABEL, DELETE, BLANK, UNKNOWN)
MIN_ANSWERED = 0.9


@dataclass
class Effects:
    """What one label file did: labels given, images skipped, labels taken away."""

    labels: dict[str, str] = field(default_factory=dict)
    skips: set[str] = field(default_factory=set)
    unlabels: set[str] = field(default_factory=set)
    is_good: bool = False


@dataclass
class Model:
    """All that happened, by journal number, and what follows from it."""

    files: dict[int, Effects] = field(default_factory=dict)
    undos: dict[int, int] = field(default_factory=dict)
    requests: dict[int, tuple[str, ...]] = field(default_factory=dict)
    closed: set[int] = field(default_factory=set)
    labels: dict[str, str] = field(default_factory=dict)
    skips: set[str] = field(default_factory=set)

    def asked(self) -> set[str]:
        """Return the images of all requests."""
        return {path for keys in self.requests.values() for path in keys}

    def effects(self, rows: Sequence[Row]) -> Effects:
        """Return what a label file would do now."""
        done, said = Effects(), dict[str, list[str]]()
        for path, word in rows:
            if path in self.asked() and word not in (BLANK, UNKNOWN):
                said.setdefault(path, []).append(word)
        for path, words in said.items():
            species = {word for word in words if word not in WORDS}
            if len(species) > 1:
                done.skips.add(path)
            elif species:
                (name,) = species
                done.is_good = True
                if self.labels.get(path) != name:
                    done.labels[path] = name
            elif UNLABEL in words:
                done.unlabels.add(path)
            else:
                done.skips.add(path)
        done.is_good = done.is_good or bool(done.skips or done.unlabels)
        return done

    def take(self, seq: int, rows: Sequence[Row]) -> None:
        """Take a label file in as number `seq`."""
        self.files[seq] = self.effects(rows)
        assert self.files[seq].is_good, "a file without a good row has no number"
        self.count()

    def undo(self, seq: int, withdraws: int) -> None:
        """Withdraw a label file or an undo."""
        self.undos[seq] = withdraws
        self.count()

    def withdrawn(self) -> set[int]:
        """Return the numbers that count no more: an undo that is itself undone withdraws nothing."""
        gone: set[int] = set()
        for seq in sorted(self.undos, reverse=True):
            if seq not in gone:
                gone.add(self.undos[seq])
        return gone

    def count(self) -> None:
        """Add up everything anew."""
        self.labels, self.skips = {}, set()
        gone = self.withdrawn()
        for seq in sorted(self.files):
            if seq in gone:
                continue
            done = self.files[seq]
            self.labels |= done.labels
            self.skips = (self.skips - set(done.labels)) | done.skips
            for path in done.unlabels:
                self.labels.pop(path, None)
                self.skips.discard(path)

    def open_round(self) -> int:
        """Return the number of the newest request while too few of its images are answered, else 0."""
        number = len(self.requests)
        if not number or number in self.closed:
            return 0
        keys = self.requests[number]
        answered = sum(path in self.labels or path in self.skips for path in keys)
        return number if answered < MIN_ANSWERED * len(keys) else 0

    def ask(self, line: Mapping[str, Any], pool: set[str], batch: int) -> None:
        """Check a request and note it."""
        paths = [f"{folder}/{name}".lstrip("/") for folder, name in line["keys"]]
        left = pool - set(self.labels) - self.skips
        assert not self.open_round(), "a second request is open"
        assert line["round"] == len(self.requests) + 1
        assert len(set(paths)) == len(paths) == min(batch, len(left)) and set(paths) <= left
        self.requests[line["round"]] = tuple(paths)
