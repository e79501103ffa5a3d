"""S1: the first pass over full-size frames: scan, mean and standard deviation, decode, embed."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks import plain
from benchmarks.figures import Figure, Run, rows
from benchmarks.frames import affordable, decoded_a_second, frames, kind

FRAMES, TINY_FRAMES = 400, 12
FORWARD_S = 5.0
FACTOR, OF_LIMIT = 6.0, 0.85
# What the program says of its phases, as it begins and as it ends them.
PHASES = {
    "mean": ("Calculating mean", "Finished calculating mean"),
    "embed": ("Extracting embedding", "Finished extracting embedding"),
}


@rows.register("S1")
def first_pass(run: Run) -> Iterator[Figure]:
    """Measure the first pass, its limit on this machine, and the plain reference."""
    import torch

    from camera_trap_al.engine import usable_cores

    n = TINY_FRAMES if run.tiny else FRAMES
    files = frames(run, n)
    decode = decoded_a_second(files)
    phases, model = _ours(run.folder / "work", files[0].parent.parent, tiny=run.tiny)
    forward, how = _forward_a_second(model, 0.2 if run.tiny else FORWARD_S)
    gpu = torch.cuda.is_available()
    limit = min(decode, forward) if gpu else 1 / (1 / decode + 1 / forward)
    passed = sum(phases[name] for name in ("scan", "mean", "embed"))
    sizes = f"{n} {kind(run)}"
    yield Figure("D: scaled decode alone, all cores", decode, "images/s")
    yield Figure("F: forward alone, all cores", forward, "images/s", note=how)
    yield Figure("limit of a first pass", limit, "images/s", note="min(D, F)" if gpu else "1/(1/D + 1/F)")
    for name, text in (("scan", "scan"), ("mean", "decode, mean and standard deviation"), ("embed", "embed")):
        yield Figure(f"phase: {text}", phases[name], "s")
    beside = "start weights, ONNX, choice of precision, scaler, commits; once a model, whatever the number of images"
    yield Figure("beside it: making the model", phases["beside"], "s", note=beside)
    yield Figure("first pass, of the limit", 100 * n / passed / limit, "%", least=100 * OF_LIMIT, note=sizes)
    cores = usable_cores()
    few = plain.first_pass(files[:8], threads=cores) / 8
    some = files if run.long or run.tiny else files[: affordable(files, few)]
    seconds = plain.first_pass(some, threads=cores)
    ours, theirs = passed / n, seconds / len(some)
    note = f"{sizes}; the plain reference: {len(some)} of them in {seconds:.0f} s"
    yield Figure("first pass", ours, "s an image", note=note, reference=theirs)
    most = f"if nothing were lost between D and F it would be {theirs * limit:.1f} ×"
    yield Figure("first pass, times faster than the plain reference", theirs / ours, "×", least=FACTOR, note=most)


def _ours(work_folder: Path, images: Path, *, tiny: bool) -> tuple[dict[str, float], Path]:
    """Return the seconds of each phase, and the folder of the model."""
    from camera_trap_al.jobs import run_job
    from camera_trap_al.loop import Loop
    from camera_trap_al.store import generations
    from camera_trap_al.work import Work
    from camera_trap_al_service.init import init

    options = {"embedding.arch": "tiny" if tiny else "resnet18", "embedding.pretrained": False, "train.epochs": 0}
    init(work_folder, {"data.unlabelled": str(images)}, {**options, "daemon.worker": "inline", "daemon.seed": 1})
    started = time.perf_counter()
    work = Work.open(work_folder)
    try:
        Loop(work).run(until=lambda facts, step: step.name in ("PREPARING", "QUERYING", "WAITING"))
        phases = {"scan": time.perf_counter() - started}
        with _phases_said(phases):
            started = time.perf_counter()
            for job in ("TRAIN", "EMBED_NEXT"):
                run_job(work.folder, work.config, job, lambda progress: None)
            phases["beside"] = time.perf_counter() - started - phases["mean"] - phases["embed"]
        learner = work.learner()
        assert learner is not None and len(work.vectors(learner.number).unreadable) == 0
        return phases, generations.folder_of(work.folder.models, learner.number)
    finally:
        work.close()


@contextmanager
def _phases_said(seconds: dict[str, float]) -> Iterator[None]:
    """Take the seconds of the phases from the lines in the log."""
    begun: dict[str, float] = {}

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text, now = record.getMessage(), time.perf_counter()
            for name, (begin, end) in PHASES.items():
                if text.startswith(end):
                    seconds[name] = seconds.get(name, 0.0) + now - begun[name]
                elif text.startswith(begin):
                    begun[name] = now

    log, listener = logging.getLogger("camera_trap_al"), Listener()
    level = log.level
    log.setLevel(logging.INFO)
    log.addHandler(listener)
    try:
        yield
    finally:
        log.removeHandler(listener)
        log.setLevel(level)


def _forward_a_second(model: Path, seconds: float) -> tuple[float, str]:
    """Return how many images a second a model embeds from memory, as the program would, and how it computes."""
    from camera_trap_al.learn.embedding import Embedder

    embedder = Embedder(model)
    images = np.random.default_rng(0).integers(0, 256, (4 * embedder.batch_size, 256, 256, 3), dtype=np.uint8)
    embedder.embed(images)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        embedder.embed(images)
        done += len(images)
    speed = done / (time.perf_counter() - started)
    return speed, f"{embedder.facts.precision}, {embedder.lanes} batches beside each other, {embedder.device}"
