"""A label file cut at every byte and completed later, by way of bin, settle rule, private copy and journal.

The clock is turned by hand; nothing sleeps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from camera_trap_al import taking
from camera_trap_al.config import Config, DataConfig
from camera_trap_al.core.history import History
from camera_trap_al.core.records import ImageKey
from camera_trap_al.labels.inbox import DOUBT_FACTOR, Inbox
from camera_trap_al.labels.receipts import read_receipt
from camera_trap_al.store import atomic
from camera_trap_al.store.journal import LabelJournal, read_journal

pytestmark = pytest.mark.faults

SETTLE_S = 2.0
CLASSES = ["Bird", "Bird of prey", "dee", "deer", "é", "étourneau"]
KEYS = [ImageKey.of(path) for path in ("S1/a.JPG", "S1/a.JPG.JPG", "S/a.JPG", "S1/b.JPG", "r.JPG", "Forêt/é.JPG")]
TRUTH = {"S1/a.JPG": "Bird of prey", "S1/b.JPG": "deer", "r.JPG": "deer", "Forêt/é.JPG": "étourneau"}
WHOLE = (
    "File,RelativePath,Species\r\na.JPG,S1,Bird of prey\r\nb.JPG,S1,deer\r\nr.JPG,,deer\r\né.JPG,Forêt,étourneau\r\n"
)
FORMS = {
    "CRLF": WHOLE.encode(),
    "LF": WHOLE.replace("\r\n", "\n").encode(),
    "CR": WHOLE.replace("\r\n", "\r").encode(),
    "UTF-16": WHOLE.encode("utf-16"),
    "Windows-1252 with semicolons": WHOLE.replace(",", ";").encode("cp1252"),
    "quoted": "".join(f'"{line}"\r\n' for line in WHOLE.replace(",", '","').split("\r\n") if line).encode(),
    "notes of several lines": b"Note,File,RelativePath,Species\r\n"
    + "".join(f'"one, ""two""\r\n\r\nthree",{line}\r\n' for line in WHOLE.splitlines()[1:]).encode(),
    "no line end at the end": WHOLE.encode().rstrip(),
    "a mark and Ctrl-Z": WHOLE.encode("utf-8-sig") + b"\x1a",
}
PAUSES = {"shorter than the wait": 1.0, "longer than the wait": 3.0, "longer than any wait": 70.0}


class Clock:
    """The module `time`, with a monotonic clock that is turned by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


class Bin:
    """A work folder that has a bin, a journal and a pool, and takes label files as the daemon does."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self.clock = clock
        places = {name: root / name for name in ("bin", "reports", "intake")}
        for folder in places.values():
            folder.mkdir(parents=True)
        self.folder = SimpleNamespace(**places, published=root / "published.npz")
        self.path = root / "journal.jsonl"
        self.journal = LabelJournal.create(self.path, "test", "0")
        self.history = History()
        self.inbox = Inbox(places["bin"], SETTLE_S)
        self.config = Config(data=DataConfig(unlabelled=str(root / "images")))
        self.catalog = SimpleNamespace(
            fact=lambda name, default=0: default,
            pool_keys=lambda **_: list(KEYS),
            unusable=lambda keys: [],
            live_rows=lambda *kinds: np.zeros(0, int),
            keys_of=lambda rows: [],
        )
        self.append("classes", {"names": CLASSES, "source": "test"})
        asked = {"round": 1, "strategy": "margin", "seed": 1, "learner": 0, "checkpoint": 0}
        self.append("request", asked | {"keys": [list(key) for key in KEYS], "predictions": []})

    def append(self, kind: str, fields: dict[str, Any]) -> Any:
        line = self.journal.append(kind, fields)
        self.history.apply(line)
        return line

    def cached(self, name: str, stamp: Any, compute: Callable[[], Any]) -> Any:
        return compute()

    def turns(self, seconds: float) -> None:
        """Let time pass, with a look into the bin each second, or each five where it is long."""
        between_s = 1.0 if seconds < 15 else 5.0
        for _ in range(int(seconds / between_s) + 1):
            for _ in range(4):
                needs = taking.bin_files(self)  # type: ignore[arg-type]
                for name in needs.unanswered:
                    taking.answer(self, name)  # type: ignore[arg-type]
                for name in needs.untaken:
                    taking.take_labels(self, name)  # type: ignore[arg-type]
                if not needs.unanswered and not needs.untaken:
                    break
            self.clock.now += between_s

    @property
    def labels(self) -> dict[str, str]:
        """What the journal on the disk says."""
        history = History.of(read_journal(self.path)[0])
        return {key.path: label.species for key, label in history.labels.items()}

    def receipt(self, name: str) -> dict[str, Any]:
        return read_receipt(self.folder.bin, self.folder.reports, name) or {}


@pytest.fixture
def make_bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Bin]]:
    clock = Clock()
    made: list[Bin] = []
    monkeypatch.setattr(taking, "time", clock)
    # That a write is on the disk is shown elsewhere; here thousands of files would wait for it.
    monkeypatch.setattr(atomic.os, "fsync", lambda descriptor: None)

    def make(name: str) -> Bin:
        made.append(Bin(tmp_path / name, clock))
        return made[-1]

    yield make
    for bin in made:
        bin.journal.close()


def test_the_reference_files_give_the_whole_result(make_bin: Callable[[str], Bin]) -> None:
    for number, data in enumerate(FORMS.values()):
        bin = make_bin(str(number))
        (bin.folder.bin / "week.csv").write_bytes(data)
        bin.turns(SETTLE_S * DOUBT_FACTOR + 1)
        assert bin.labels == TRUTH
        assert bin.receipt("week.csv")["verdict"] == "accepted"


@pytest.mark.parametrize("form", FORMS)
def test_a_copy_cut_at_any_byte_and_completed_ends_at_the_whole_result(
    form: str, make_bin: Callable[[str], Bin], figure: Callable[[str, str], None]
) -> None:
    data, n_copies, n_early = FORMS[form], 0, 0
    for name, pause_s in PAUSES.items():
        for size in range(len(data)):
            bin = make_bin(f"{name} {size}")
            path = bin.folder.bin / "week.csv"
            path.write_bytes(data[:size])
            bin.turns(pause_s)
            early = bin.labels
            if pause_s < SETTLE_S * DOUBT_FACTOR:
                assert all(TRUTH.get(image) == species for image, species in early.items()), (name, size, early)
            with path.open("ab") as file:
                file.write(data[size:])
            bin.turns(SETTLE_S * DOUBT_FACTOR + 2)
            assert bin.labels == TRUTH, (name, size, early)
            assert bin.receipt("week.csv")["verdict"] == "accepted"
            n_copies += 1
            n_early += early != TRUTH and bool(early)
    figure(
        "partial copies",
        f"{form}: {n_copies} copies cut and completed, 100 % whole at last; {n_early} read in part first",
    )


@pytest.mark.parametrize("step", [1, 7, 40])
def test_a_file_that_grows_slowly_is_read_once_it_is_whole(step: int, make_bin: Callable[[str], Bin]) -> None:
    bin = make_bin("growing")
    data = FORMS["CRLF"]
    for size in range(0, len(data), step):
        with (bin.folder.bin / "week.csv").open("ab") as file:
            file.write(data[size : size + step])
        bin.turns(0.0)
        assert bin.labels == {}
    bin.turns(SETTLE_S + 1)
    assert bin.labels == TRUTH
    assert [line["kind"] for line in bin.journal.lines].count("labels") == 1
