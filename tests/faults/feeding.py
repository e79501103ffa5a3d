"""Who works beside a daemon that is killed: a feeder that drops label files, a reader that reads what is published."""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit import HEADER, SPECIES, asked, label_text

READS_PER_S = 100
ROWS = 30
XLSX = b"PK\x03\x04\x14\0\0\0\x08\0" + bytes(200)


@dataclass
class Version:
    """One content of one label file, wholly there: its hash and its good rows."""

    name: str
    sha256: str
    labels: dict[str, str]


@dataclass
class Reader(threading.Thread):
    """Reads published files over and over; notes what is torn or gone, and every receipt."""

    work: Path
    n_images: int
    stop: threading.Event = field(default_factory=threading.Event)
    reads: int = 0
    torn: list[str] = field(default_factory=list)
    receipts: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    _seen: set[Path] = field(default_factory=set)
    _receipt_times: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(daemon=True, name="reader")

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        whole: dict[Path, Callable[[bytes], object]] = {
            self.work / "timelapse_selector.csv": lambda data: self._check_table(data, b"File,RelativePath,Selected"),
            self.work / "data" / "labels.csv": lambda data: self._check_table(data, b"path,label"),
            self.work / "data" / "label_request.json": lambda data: json.loads(data)["selector"]["sha256"],
            self.work / "status.json": lambda data: json.loads(data)["state"],
        }
        while not self.stop.wait(1 / READS_PER_S):
            for path, check in whole.items():
                self._read(path, check)
            for path in (self.work / "new_labels_bin").glob("*.receipt.json"):
                changed = self._time_of(path)
                if changed != self._receipt_times.get(path.name):
                    self._receipt_times[path.name] = changed
                    self._read(path, self._note_receipt)

    def _time_of(self, path: Path) -> int:
        try:
            return path.stat().st_mtime_ns
        except OSError as error:
            self.torn.append(f"{path.name}: {error}")
            return -1

    def _read(self, path: Path, check: Callable[[bytes], object]) -> None:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            if path in self._seen:
                self.torn.append(f"{path.name} was gone for a moment")
            return
        self._seen.add(path)
        self.reads += 1
        try:
            check(data)
        except (ValueError, KeyError, AssertionError) as error:
            self.torn.append(f"{path.name}: {error!r}: {data[-200:]!r}")

    def _check_table(self, data: bytes, header: bytes) -> None:
        assert data.startswith(header + b"\r\n") and data.endswith(b"\r\n"), "its beginning or end is missing"
        n_lines = data.count(b"\r\n")
        assert n_lines == self.n_images + 1, f"{n_lines} lines"

    def _note_receipt(self, data: bytes) -> None:
        receipt = json.loads(data)
        assert receipt["schema"] == "receipt/1"
        self.receipts[receipt["file"], receipt["sha256"]] = receipt


@dataclass
class Feeder(threading.Thread):
    """Drops label files as people and programs do, at random times, until it is stopped.

    Each file labels images that were asked for, then some of `unasked`, and corrects some that it labelled before. Some
    arrive slowly, some are renamed into place, some are no label files at all, some replace an older one of the same name.
    """

    work: Path
    reader: Reader
    seed: int
    unasked: list[str] = field(default_factory=list)
    pause_s: float = 0.4
    stop: threading.Event = field(default_factory=threading.Event)
    finished: list[Version] = field(default_factory=list)
    bad: list[Version] = field(default_factory=list)
    given: dict[str, str] = field(default_factory=dict)
    problem: BaseException | None = None

    def __post_init__(self) -> None:
        super().__init__(daemon=True, name="feeder")
        self.rng = random.Random(self.seed)
        self.bin = self.work / "new_labels_bin"

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        try:
            while not self.stop.wait(self.rng.uniform(0.2, 1.8) * self.pause_s):
                self.drop_one()
        except BaseException as error:
            self.problem = error
            raise

    def drop_one(self) -> None:
        """Drop one label file, if anything is asked for."""
        fresh = [path for path in [*asked(self.work), *self.unasked] if path not in self.given]
        again = self.rng.sample(sorted(self.given), min(len(self.given), self.rng.choice([0, 1, 4])))
        images = list(dict.fromkeys([*fresh[: self.rng.randint(1, ROWS)], *again]))
        kind = self.rng.choice(["slow", "slow", "rename", "rename", "rename", "no end", "words", "junk"])
        if kind == "junk":
            name, data = self._junk()
            self._rename_in(name, data)
            self.bad.append(Version(name, hashlib.sha256(data).hexdigest(), {}))
        if not images or kind == "junk":
            return
        labels = {path: self.rng.choice(SPECIES) for path in images}
        data = label_text(labels)
        if kind == "words":
            data += b"IMG_00000.JPG,,no such animal\r\nno such image.JPG,site a,red\r\n"
        elif kind == "no end":
            data = data[:-2]
        old = sorted({version.name for version in self.finished}.difference(self.unanswered()))
        name = self.rng.choice(old) if old and self.rng.random() < 0.2 else f"week {len(self.finished)}.csv"
        if kind == "slow":
            self._copy_slowly(name, data)
        else:
            self._rename_in(name, data)
        self.given |= labels
        self.finished.append(Version(name, hashlib.sha256(data).hexdigest(), labels))

    def _junk(self) -> tuple[str, bytes]:
        n = len(self.bad)
        data = self.rng.choice(
            [
                XLSX + bytes([n % 256]) * 9,
                HEADER.encode() + b"IMG_00000.JPG,,nothing %d\r\n" % n,
                b"Datei;Ort;Art\r\n" + b"a;b;c\r\n" * (n + 1),
                HEADER.encode() + b'"an open quote %d,,red\r\n' % n,
            ]
        )
        return f"junk {n}.csv", data

    def _rename_in(self, name: str, data: bytes) -> None:
        hidden = self.bin / f".{name}.copying"
        hidden.write_bytes(data)
        hidden.replace(self.bin / name)

    def _copy_slowly(self, name: str, data: bytes) -> None:
        with (self.bin / name).open("wb", buffering=0) as file:
            while data:
                cut = self.rng.randint(1, 1 + len(data) // 3)
                file.write(data[:cut])
                data = data[cut:]
                time.sleep(self.rng.uniform(0, 0.05))

    def unanswered(self) -> list[str]:
        """Return the files whose newest content no receipt names yet."""
        newest = {version.name: version for version in [*self.finished, *self.bad]}
        return [v.name for v in newest.values() if (v.name, v.sha256) not in self.reader.receipts]


def end_process(pid: int) -> bool:
    """End a process at once; return whether it was there."""
    try:
        os.kill(pid, 9)
    except OSError:
        return False
    return True
