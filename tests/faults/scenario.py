"""A short season in stages, played with the numpy learner and without waiting: what the fault tests interrupt.

A stage is what people do (files put into the bin, an image that goes bad, an undo) and what the program makes of it. It
is played from any state that its beginning may have left, so a stage that was killed is simply played again.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy_learner
from season import HUES, QUICK, draw
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Engine

from camera_trap_al import engine, loop
from camera_trap_al.catalog import catalog
from camera_trap_al.core.crops import Wanted
from camera_trap_al.core.steps import Facts, Step
from camera_trap_al.errors import ImageUnreadableError
from camera_trap_al.layout import WorkFolder
from camera_trap_al.learn import evaluate
from camera_trap_al.learn.heads import mlp
from camera_trap_al.work import Work
from camera_trap_al_service.init import init

N_IMAGES = 24
FIRST_TIME_S = 1_700_000_000
NOW_S = 1_750_000_000.0
OPTIONS = {
    **QUICK,
    # Written when the clock decides, and worth nothing after a crash: test_pixel_cache.py.
    "cache.max_gb": 0.0,
    "query.batch": 6,
    "train.min_labels": 6,
    "finetune.period": 8,
    "embedding.feat_dim": 4,
}
MOST_FAILURES = 5
UNDO_ID = "ab" * 16
_read: dict[tuple[int, int, int, int], bytes] = {}
_decoded: dict[tuple[str, int, int], engine.Decoded | ImageUnreadableError] = {}
PLACES = ("", "site a", "site b")
CHANGED_IN_PLACE = ("journal.jsonl", "catalog.sqlite")


def key_of(i: int) -> tuple[str, str]:
    return PLACES[i % 3], f"IMG_{i // 3:04d}.JPG"


TRUTH = {key_of(i): list(HUES)[i % 7 % 3] for i in range(N_IMAGES)}


def quicken() -> None:
    """Make this process fast rather than durable, and its rests and waits short. Call it in a child only."""
    numpy_learner.install()
    os.fsync = lambda descriptor: None
    # What is written is the same in every run, so that folders can be compared.
    time.time = lambda: NOW_S
    clock = time.gmtime
    time.gmtime = lambda seconds=None: clock(NOW_S if seconds is None else seconds)  # type: ignore[assignment]
    uuid.uuid4 = identities.give
    catalog.create_engine = quick_engine  # type: ignore[assignment]
    mlp.MIN_STEPS = mlp.MAX_STEPS = 6
    evaluate.confusion_figure = lambda *given: b"figure"
    evaluate.curve_figure = lambda *given: b"figure"
    # A step that failed is tried again at once, so that what comes of it is the same as without the failure.
    loop.FIRST_REST_S = loop.LONGEST_REST_S = 0.0
    loop.LONGEST_WAIT_S = 0.01
    loop.Rests.start = _give_up_soon(loop.Rests.start)  # type: ignore[method-assign]
    engine.Decoders.read = _read_here  # type: ignore[method-assign]


class _Identities:
    """Identities, each another one, and in every run the same."""

    n = 0

    def give(self) -> uuid.UUID:
        self.n += 1
        return uuid.UUID(int=self.n, version=4)


identities = _Identities()
_compiled: dict[Any, Any] = {}


def quick_engine(*given: Any, **named: Any) -> Engine:
    """Make an engine that syncs nothing and knows the SQL that others of this process made of the same statements."""
    engine = create_engine(*given, **named)
    event.listen(engine, "connect", lambda connection, record: connection.execute("PRAGMA synchronous = OFF"))
    return engine.execution_options(compiled_cache=_compiled)


def _give_up_soon(start: Callable[..., None]) -> Callable[..., None]:
    def counted(rests: loop.Rests, name: str, **given: Any) -> None:
        start(rests, name, **given)
        if rests.failures[name] > MOST_FAILURES:
            raise RuntimeError(f"{name} fails again and again") from sys.exc_info()[1]

    return counted


def _read_here(decoders: engine.Decoders, path: Path | str, **given: Any) -> engine.Decoded:
    """Decode in this process, each content once."""
    facts = Path(path).stat()
    known = (str(path), facts.st_size, facts.st_mtime_ns)
    if known not in _decoded:
        try:
            wanted = Wanted(engine.IMAGE_PX, given.get("box"))
            _decoded[known] = engine.Decoders._read_in_thread(decoders, Path(path), wanted)
        except ImageUnreadableError as error:
            _decoded[known] = error
    found = _decoded[known]
    if isinstance(found, ImageUnreadableError):
        raise found
    return found


def make_season(root: Path) -> Path:
    """Draw 24 pictures to label (one damaged), 6 to train on and 3 for validation; return the new work folder."""
    rng = np.random.default_rng(1)
    for name, hue in HUES.items():
        for i in range(2):
            draw(root / "train" / name / f"{i}.jpg", hue, rng)
        draw(root / "validation" / name / "0.jpg", hue, rng)
    for i in range(N_IMAGES):
        place, name = key_of(i)
        draw(root / "pool" / place / name, HUES[TRUTH[place, name]], rng)
    damaged = root / "pool" / "site b" / "IMG_0003.JPG"
    damaged.write_bytes(damaged.read_bytes()[:200])
    for path in sorted(root.rglob("*.jpg")) + sorted(root.rglob("*.JPG")):
        os.utime(path, (FIRST_TIME_S, FIRST_TIME_S))
    given = {f"data.{kind}": str(root / folder) for kind, folder in FOLDERS.items()}
    init(root / "work", given, OPTIONS)
    return root / "work"


FOLDERS = {"unlabelled": "pool", "train": "train", "validation": "validation"}


@dataclass(frozen=True)
class Memory:
    """What a loop remembers between two turns and a new process would not, and which identities were given out."""

    listed: tuple[int, int]
    scan_ended_s: float
    reported_s: float
    identities: int


def memory_of(work: Work) -> Memory:
    return Memory(work.listed, work.scan_ended_s, work.reported_s, identities.n)


def play(
    root: Path,
    stage: int,
    *,
    until: Callable[[Facts, Step], bool] = lambda facts, step: False,
    on_turn: Callable[[loop.Loop, Facts, Step], None] | None = None,
    memory: Memory | None = None,
) -> None:
    """Play one stage to its end, or until `until` says so of a turn; do nothing twice that was done before.

    With a `memory` it goes on as the process did that remembered this.
    """
    feed(root, stage)
    is_over = loop.is_idle if stage == len(STAGES) - 1 else _is_round_over
    work = Work.open(root / "work")
    try:
        if memory is not None:
            work.listed, work.scan_ended_s, work.reported_s = memory.listed, memory.scan_ended_s, memory.reported_s
            identities.n = memory.identities
        turns = loop.Loop(work, on_turn=on_turn)
        turns.run(until=lambda facts, step: is_over(facts, step) or until(facts, step))
    finally:
        work.close()


def feed(root: Path, stage: int) -> None:
    """Do what people do at the beginning of a stage, unless it is done."""
    note = root / f"fed-{stage}"
    if not note.exists():
        STAGES[stage](root)
        note.touch()


def user_files(root: Path) -> dict[str, bytes]:
    """Return the content of every file that belongs to people, by path."""
    bin_files = [p for p in (root / "work" / "new_labels_bin").iterdir() if p.suffix == ".csv"]
    return {str(p): p.read_bytes() for p in [*bin_files, root / "work" / "config.toml"]} | _images(root)


def _images(root: Path) -> dict[str, bytes]:
    theirs = [p for folder in FOLDERS.values() for p in (root / folder).rglob("*") if p.is_file()]
    found = {}
    for path in theirs:
        facts = path.stat()
        # No program can set when a file's content or name was changed last.
        known = (facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
        if known not in _read:
            _read[known] = path.read_bytes()
        found[str(path)] = _read[known]
    return found


def put(root: Path, name: str, rows: list[tuple[tuple[str, str], str]]) -> None:
    """Export a label file into the bin, as another program does."""
    path = root / "work" / "new_labels_bin" / name
    lines = ["File,RelativePath,Species", *(f"{key[1]},{key[0]},{species}" for key, species in rows)]
    write_user_file(path, "".join(f"{line}\r\n" for line in lines).encode())


def write_user_file(path: Path, data: bytes) -> None:
    """Write a file as people do, with a time that is the same in every run."""
    path.write_bytes(data)
    set_time(path)


def set_time(path: Path) -> None:
    """Give a file a time that its name alone decides."""
    number = FIRST_TIME_S + sum(path.name.encode())
    os.utime(path, (number, number))


def asked(root: Path) -> list[tuple[str, str]]:
    """Return the images that the selector selects."""
    with (root / "work" / "timelapse_selector.csv").open(encoding="utf-8", newline="") as file:
        return [(row["RelativePath"], row["File"]) for row in csv.DictReader(file) if row["Selected"] == "true"]


def _is_round_over(facts: Facts, step: Step) -> bool:
    return step.name in ("EVALUATING", "EXPORTING", "REPORTING", "WAITING") and not facts.unsettled


def _begin(root: Path) -> None:
    """The program alone: scan, first model, first request."""


def _label_all(root: Path) -> None:
    put(root, "round1.csv", [(key, TRUTH[key]) for key in asked(root)])


def _label_some_badly(root: Path) -> None:
    keys = asked(root)
    first = _rows_of(root, "round1.csv")
    put(root, "round2a.csv", [(key, TRUTH[key]) for key in keys[:3]] + [(keys[3], "redd"), (("away", "X.JPG"), "red")])
    put(root, "corrected.csv", [(key, "green" if TRUTH[key] != "green" else "blue") for key in first[:2]])
    write_user_file(root / "work" / "new_labels_bin" / "table.csv", b"PK\x03\x04 this is a workbook")
    put(root, "wrong.csv", [(keys[4], "unicorn")])


def _spoil_undo_and_label(root: Path) -> None:
    keys = asked(root)
    spoilt = root / "pool" / keys[-1][0] / keys[-1][1]
    write_user_file(spoilt, spoilt.read_bytes()[:150])
    put(root, "round2b.csv", [(key, TRUTH[key]) for key in keys[3:-2]] + [(keys[-2], "unsure")])
    journal = (root / "work" / "data" / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    seq = next(json.loads(line)["seq"] for line in journal if '"corrected.csv"' in line)
    wishes = WorkFolder.at(root / "work").wishes
    wishes.mkdir(exist_ok=True)
    wish = {"format": 1, "id": UNDO_ID, "what": "undo", "arguments": {"seq": seq}}
    (wishes / f"{1:019d}-{UNDO_ID}.json").write_text(json.dumps(wish), encoding="utf-8")


def _label_the_next(root: Path) -> None:
    put(root, "round3.csv", [(key, TRUTH[key]) for key in asked(root)[:-1]])


STAGES: tuple[Callable[[Path], None], ...] = (
    _begin,
    _label_all,
    _label_some_badly,
    _spoil_undo_and_label,
    _label_the_next,
)


def _rows_of(root: Path, name: str) -> list[tuple[str, str]]:
    with (root / "work" / "new_labels_bin" / name).open(encoding="utf-8", newline="") as file:
        return [(row["RelativePath"], row["File"]) for row in csv.DictReader(file)]


def copy_work(source: Path, target: Path) -> None:
    """Put a copy of a work folder at `target`, times and all.

    A file that is only ever replaced is linked, not copied; journal, catalogue, locks and what is being written change in
    place, and of a label file a link would look like a change (ctime).
    """
    if target.exists():
        remove_tree(target)
    _copy_tree(str(source), str(target))


def _copy_tree(source: str, target: str) -> None:
    # As text, since thousands of folders are copied.
    os.mkdir(target)  # noqa: PTH102
    in_bin = source.endswith("new_labels_bin")
    with os.scandir(source) as entries:
        for entry in entries:
            path = os.path.join(target, entry.name)  # noqa: PTH118
            if entry.is_dir():
                _copy_tree(entry.path, path)
            elif entry.name.startswith(CHANGED_IN_PLACE) or entry.name.endswith((".lock", ".partial")) or in_bin:
                shutil.copy2(entry.path, path)
            else:
                os.link(entry.path, path)


def remove_tree(folder: Path | str) -> None:
    """Remove a folder and all that is in it."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                remove_tree(entry.path)
            else:
                os.unlink(entry.path)  # noqa: PTH108
    os.rmdir(folder)  # noqa: PTH106
