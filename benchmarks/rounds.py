"""S4, S5 and S9: a round, alone and beside a training; and the largest files of a round."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import plain
from benchmarks.beside import SETTLE_S, daemon, learner_of, turnaround_s, wait_for
from benchmarks.figures import Figure, Run, rows
from benchmarks.made_up import MadeUp, made_up_work
from camera_trap_al.catalog.found import POOL as POOL_ROOT
from camera_trap_al.catalog.found import Found, Seen
from camera_trap_al.core.records import ImageKey
from camera_trap_al.engine import usable_cores
from camera_trap_al.errors import StopRequested
from camera_trap_al.jobs import run_job
from camera_trap_al.layout import WorkFolder
from camera_trap_al.learn.settings import Progress
from camera_trap_al.loop import Loop
from camera_trap_al.rounds import publish
from camera_trap_al.store import embeddings, generations
from camera_trap_al.store.shards import write_shard
from camera_trap_al.work import Work

POOL, LABELS, ASKED, CLASSES = 100_000, 5_000, 100, 20
ROUNDS = 7
MOST_S, MOST_BESIDE_S, FACTOR = 5.0, 15.0, 20.0
FEW, ROUNDS_OF_FEW = 1_000, 3
REEMBEDDED, STEPS, TUNED = 2_000, 2, 2
MILLION, BLOCK, MOST_MB = 1_000_000, 10_000, 600.0
TAKING_IN = frozenset({"REGISTERING", "PROJECTING", "TAKING_LABELS", "ANSWERING"})
STABLE = f"stable: unchanged for {SETTLE_S:g} s (labels.settle_s), which is not counted"


@rows.register("S4")
def turnaround(run: Run) -> Iterator[Figure]:
    """Measure rounds of the running program with few labels, as many as the plain reference has time for, and with all."""
    n, few, many = (1_000, 40, 100) if run.tiny else (POOL, FEW, LABELS)
    made = made_up_work(
        run.folder / "made", n, n_labels=few, n_classes=CLASSES, options={"labels.unrequested": "accept"}
    )
    more = _file_of_labels(made, max(many - few - (2 + ROUNDS_OF_FEW) * ASKED, 1))
    with daemon(made.work) as process:
        with_few = turnarounds(made, process, 2 if run.tiny else ROUNDS_OF_FEW)
        os.replace(more, WorkFolder.at(made.work).bin / "more.csv")
        with_many = turnarounds(made, process, 2 if run.tiny else ROUNDS)
    n_plain = many if run.long else few
    theirs = _plainly(run.folder / "plain", made, n_plain)
    sizes = f"pool of {n}, {CLASSES} classes, {ASKED} labels more each round"
    text = "turnaround: label file stable → next selector, {} labels"
    note = f"{sizes}; {_spread(with_many)}; {STABLE}"
    yield Figure(text.format(many), statistics.median(with_many), "s", most=MOST_S, note=note)
    ours = statistics.median(with_many if run.long else with_few)
    parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in theirs.parts.items())
    note = f"{sizes}; {_spread(with_many if run.long else with_few)}; the plain reference: {parts}"
    yield Figure(f"{text.format(n_plain)}, like it", ours, "s", note=note, reference=theirs.seconds)
    note = f"both with {n_plain} labels, of which its perceptron needs a minute to learn" if not run.long else ""
    text = f"times faster than the plain reference, {n_plain} labels"
    yield Figure(text, theirs.seconds / ours, "×", least=FACTOR, note=note)


@rows.register("S5")
def beside_training(run: Run) -> Iterator[Figure]:
    """Measure rounds while a worker fine-tunes ResNet18, and while it embeds 2,000 images with what came of it.

    The fine-tune goes on from where an earlier one was stopped, which is near its end: whole, it would take ten minutes.
    """
    options = {"finetune.epochs": 1, "finetune.period": ASKED}
    n, rounds = (2_000, 2) if run.tiny else (POOL, ROUNDS)
    arch = "tiny" if run.tiny else "resnet18"
    n_labels = 200 if run.tiny else LABELS - ASKED
    made = made_up_work(run.folder / "made", n, n_labels=n_labels, n_classes=CLASSES, options=options, arch=arch)
    folder = WorkFolder.at(made.work)
    batch = _stop_a_fine_tune(made, n_labels + ASKED)
    sizes = f"pool of {n}, {n_labels} labels, {arch}"
    with daemon(made.work) as process:
        turnaround_s(made, process)  # the classifier is fitted first; then enough labels are there for a fine-tune
        trained = f"a fine-tune, its last {STEPS} mini-batches of {batch} images"
        yield from _beside(
            run, trained, sizes, made, process, lambda: TUNED not in generations.numbers(folder.models), rounds
        )
    embedded = min(REEMBEDDED, n // 2)
    _embed_all_but(made, embedded)
    with daemon(made.work) as process:
        embedding = f"a re-embedding of {embedded} images"
        yield from _beside(run, embedding, sizes, made, process, lambda: learner_of(folder) < TUNED, rounds)
    yield Figure("fine-tunes that finished and became current", float(_is_trained(folder, TUNED)), "", least=1.0)


def _beside(
    run: Run, what: str, sizes: str, made: MadeUp, process: subprocess.Popen[bytes], goes_on: Callable[[], bool], n: int
) -> Iterator[Figure]:
    """Measure the first `n` rounds that begin while something goes on beside them; wait for its end.

    What is tiny may have ended before a round begins: one is made then all the same.
    """
    seconds: list[float] = []
    started = time.monotonic()
    while len(seconds) < n and (goes_on() or (run.tiny and not seconds)):
        seconds.append(turnaround_s(made, process))
    seconds = seconds or [float("nan")]
    note = f"{sizes}; {_spread(seconds)}; {STABLE}"
    yield Figure(f"turnaround beside {what}, median", statistics.median(seconds), "s", most=MOST_BESIDE_S, note=note)
    wait_for(lambda: not goes_on(), "the end of the worker's job", process)
    yield Figure(f"{what}, beside these rounds", time.monotonic() - started, "s")


def _stop_a_fine_tune(made: MadeUp, n_labels: int) -> int:
    """Leave a fine-tune as one that was stopped with few mini-batches to go; return how many images are in each."""
    work = Work.open(made.work)
    try:
        loader = work.config.loader

        def stop(progress: Progress) -> None:
            raise StopRequested

        with contextlib.suppress(StopRequested):
            small = replace(work.config, loader=replace(loader, classes=2, samples=2))
            run_job(work.folder, small, "FINETUNE", stop)
        folder = generations.hidden_folder_of(work.folder.models, TUNED)
    finally:
        work.close()
    from camera_trap_al.learn.model_folder import read_draft, write_draft

    batch = min(loader.classes, CLASSES) * loader.samples
    draft = read_draft(folder)
    draft.batch = max(0, n_labels // batch - STEPS)
    write_draft(folder, draft)
    return batch


def _is_trained(folder: WorkFolder, number: int) -> bool:
    """Return whether a model is current, was trained, and has other weights than the one before it."""
    here, before = (generations.folder_of(folder.models, n) for n in (number, number - 1))
    trained = (generations.read_manifest(here) or {}).get("trained")
    changed = (here / "model.safetensors").read_bytes() != (before / "model.safetensors").read_bytes()
    return learner_of(folder) == number and trained is True and changed


def _embed_all_but(made: MadeUp, n: int) -> None:
    """Write made-up embeddings of the newest model for all images but `n`; what a worker began with counts."""
    work = Work.open(made.work)
    try:
        number, rows_ = max(generations.numbers(work.folder.models)), work.catalog.live_rows(POOL_ROOT)
        folder = generations.folder_of(work.folder.embedding, number)
        mark = embeddings.made_by(work.folder.models, number, work.catalog_id)
        covered = embeddings.Vectors(folder, mark).covers(rows_)
        left = rows_[~covered][n:]
        rng = np.random.default_rng(7)
        for start in range(0, len(left), embeddings.SHARD_ROWS):
            part = left[start : start + embeddings.SHARD_ROWS]
            vectors = rng.standard_normal((len(part), work.config.embedding.feat_dim), dtype=np.float32)
            write_shard(folder, part, vectors, {}, mark)
    finally:
        work.close()


def turnarounds(made: MadeUp, process: subprocess.Popen[bytes], n: int = ROUNDS) -> list[float]:
    """Return the seconds of `n` rounds of the running program, after a first one that is not counted."""
    return [turnaround_s(made, process) for _ in range(1 + n)][1:]


def _spread(seconds: list[float]) -> str:
    return f"median of {len(seconds)} rounds, {min(seconds):.1f} to {max(seconds):.1f} s"


def _file_of_labels(made: MadeUp, n: int) -> Path:
    """Write a label file of `n` images that were never asked for, beside the work folder; return where it is."""
    work = Work.open(made.work)
    try:
        keys = work.catalog.keys_of(work.catalog.askable()[0][:n].tolist())
    finally:
        work.close()
    lines = [f"{key.file},{key.relative_path},{made.label_of(key)}" for key in keys]
    path = made.work.with_name("more.csv")
    path.write_bytes("\r\n".join(["File,RelativePath,Species", *lines, ""]).encode("utf-8"))
    return path


def _plainly(folder: Path, made: MadeUp, n_labels: int) -> plain.Turnaround:
    """Let the plain reference make a round on the vectors and labels of a work folder."""
    folder.mkdir()
    work = Work.open(made.work)
    try:
        labelled, species = work.catalog.labelled()
        rows_, _ = work.catalog.askable()
        learner = work.learner()
        assert learner is not None
        n_labels = min(n_labels, len(labelled))
        every = np.concatenate([labelled[:n_labels], rows_])
        vectors = work.vectors(learner.number).read(every)
    finally:
        work.close()
    return plain.turnaround(
        folder,
        vectors,
        list(range(n_labels)),
        species[:n_labels],
        n_asked=min(ASKED, n_labels // 2),
        threads=usable_cores(),
    )


@rows.register("S9")
def largest_files(run: Run) -> Iterator[Figure]:
    """Measure the selector of a million images, and label files that have a labelled row for each of them."""
    n = 2_000 if run.tiny else MILLION
    made = _catalogue_only(run.folder, n)
    work = Work.open(made.work)
    try:
        seconds = []
        for first in (0, 1):
            keys = [_key(i) for i in range(first, n, n // ASKED)]
            fields = {"round": first + 1, "strategy": "uniform", "seed": 0, "learner": 0, "checkpoint": 0}
            work.append("request", fields | {"keys": [[*key] for key in keys], "predictions": []})
            started = time.perf_counter()
            publish(work)
            seconds.append(time.perf_counter() - started)
        size = work.folder.selector.stat().st_size / 1e6
        note = f"{size:.0f} MB; in the next round, of the same images: {seconds[1]:.2f} s"
        yield Figure(f"selector of {n} images, with label_request.json", seconds[0], "s", most=10.0, note=note)
        path = _labelled_rows(run.folder / "rows.csv", made, n)
        asked = len(work.history.requested)
        for unrequested, taken in (("ignore", asked), ("accept", n - asked)):
            labels = replace(work.config.labels, unrequested=unrequested)
            work.config = replace(work.config, labels=labels)
            text = f"label file of {n} rows taken in, all labelled, {taken} of them count"
            note = f"labels.unrequested = {unrequested}"
            yield Figure(text, _taken_in(work, path, taken), "s", most=30.0, note=note)
            if peak := _peak_mb():
                note = "of the whole process, from its start on, the lines of the selector included"
                yield Figure(f"most memory until these {taken} are in", peak, "MB", most=MOST_MB, note=note)
    finally:
        work.close()


def _labelled_rows(path: Path, made: MadeUp, n: int) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        for i in range(n):
            key, species = _key(i), made.classes[i % len(made.classes)]
            file.write(f"Root,{key.file},{key.relative_path},2026-01-01 00:00:00,true,{species},\r\n")
    return path


def _taken_in(work: Work, path: Path, taken: int) -> float:
    """Return the seconds until a label file of these rows is read, checked, journalled, projected and answered."""
    name = f"{work.config.labels.unrequested}.csv"
    with (work.folder.bin / name).open("wb") as file, path.open("rb") as lines:
        file.write(f"RootFolder,File,RelativePath,DateTime,Selected,Species,{name}\r\n".encode())
        shutil.copyfileobj(lines, file)
    started = time.perf_counter()
    Loop(work).run(until=lambda facts, step: step.name not in TAKING_IN)
    seconds = time.perf_counter() - started
    receipt = json.loads((work.folder.bin / f"{name}.receipt.json").read_text(encoding="utf-8"))
    assert receipt["counts"]["accepted"] == taken and work.catalog.mark == work.journal.end
    return seconds


def _catalogue_only(folder: Path, n: int) -> MadeUp:
    """Make a work folder whose catalogue knows one image that is there, and `n` that are nowhere."""
    options = {"labels.unrequested": "accept", "labels.settle_s": 0.0, "query.first": "wait"}
    made = made_up_work(folder / "made", 1, n_classes=CLASSES, options=options, learner=False)
    work = Work.open(made.work)
    seen = Seen()
    try:
        for start in range(0, n, BLOCK):
            found = [Found(_key(i).path, 1, 1) for i in range(start, min(start + BLOCK, n))]
            work.catalog.add_found(POOL_ROOT, found, 2, seen)
        work.catalog.end_scan(2, seen, [POOL_ROOT], {}, elapsed_s=0.0)
    finally:
        work.close()
    return made


def _key(i: int) -> ImageKey:
    return ImageKey(f"site {i // BLOCK:03d}/card 1", f"IMG_{i:07d}.JPG")


def _peak_mb() -> float:
    """Return the most memory that this process ever held, 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
