"""Made-up work folders of any size: small files as images, embeddings drawn around a centre for each class, labels.

All that the product can write it writes itself: its own scan fills the catalogue, its own journal and shards hold the
rest. Only the network is made up (colour means times a random matrix), unless a real one is asked for.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from camera_trap_al import upkeep
from camera_trap_al.catalog.found import POOL
from camera_trap_al.config import build
from camera_trap_al.config_file import config_text
from camera_trap_al.core.acquisition import key_priority
from camera_trap_al.core.records import ImageKey
from camera_trap_al.core.seeds import key_hash
from camera_trap_al.facts import pending_shards
from camera_trap_al.images import content_hash
from camera_trap_al.layout import WorkFolder
from camera_trap_al.store import embeddings, generations, shards
from camera_trap_al.work import Work, image_folders

FILES_IN_A_FOLDER = 1000
SPREAD = 0.25  # distance of the classes' centres; of 20 classes in 256 dimensions 5,000 labels teach about nine in ten
REQUESTS = 50
SCALED_SHARDS = 5
REFERENCES = 4
MEAN, STD = [0.4, 0.4, 0.4], [0.25, 0.25, 0.25]
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class MadeUp:
    """A made-up work folder, its images, and what can be seen on them; `scan_s` is how long the first scan took."""

    work: Path
    images: Path
    classes: tuple[str, ...]
    scan_s: float = 0.0

    def label_of(self, key: ImageKey) -> str:
        """Return the species on an image."""
        return self.classes[_class_numbers(np.array([key_hash(key.path)]).view(np.uint64), len(self.classes))[0]]


def made_up_work(
    folder: Path,
    n_images: int,
    *,
    n_labels: int = 0,
    n_classes: int = 20,
    dim: int = 256,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    learner: bool = True,
    arch: str = "",
    image: bytes | None = None,
    say: Callable[[str], None] | None = None,
) -> MadeUp:
    """Make a work folder `folder/work` for images in `folder/images`, as a daemon leaves it that was stopped.

    Parameters
    ----------
    folder : empty, or not there yet
    n_images : small files to label, a thousand in each folder, hard links of a few where the disk can
    n_labels : how many of them are labelled, in up to 50 rounds that are closed; no classifier is fitted yet
    n_classes, dim : classes, the n-th 1/n as frequent as the first; dimensions of an embedding
    seed : of the embeddings; files and labels depend on the names only
    options : of `config.toml`, by key; else no network is trained, and nothing is evaluated
    learner : whether there are a model and embeddings of all images
    arch : of a real network (needs torch, which is slow to start), "" for a made-up one that cannot be trained on
    image : the content of all images; by default a JPEG of 64 × 48 pixels
    say : takes a line now and then; by default standard error does where there are over 200,000 images
    """
    say = say or (_say if n_images > 200_000 else lambda line: None)
    classes = tuple(f"class {i:02d}" for i in range(n_classes))
    made = MadeUp(folder.absolute() / "work", folder.absolute() / "images", classes)
    data = image or tiny_jpeg()
    say(f"made up: writing {n_images} images")
    write_images(made.images, n_images, data)
    given = {"train.epochs": 0, "finetune.epochs": 0, "validation.enabled": False} | dict(options or {})
    given |= {"data.unlabelled": str(made.images), "classes.names": list(classes)}
    given |= {"embedding.feat_dim": dim, "embedding.pretrained": False, "embedding.arch": arch or "tiny"}
    made.work.mkdir(parents=True)
    WorkFolder.at(made.work).config.write_text(config_text(build(given, "benchmarks")), encoding="utf-8")
    work = Work.open(made.work)
    try:
        started = time.monotonic()
        while not work.catalog.fact("scanned", False):
            upkeep.catalogue(work)
        made = replace(made, scan_s=time.monotonic() - started)
        say(f"made up: scanned in {made.scan_s:.0f} s")
        upkeep.register(work)
        if n_labels:
            _label(work, made, n_labels)
        upkeep.project(work)
        if learner:
            _write_model(work, dim, classes, seed, arch)
            _write_embeddings(work, n_classes, dim, seed, content_hash(data), say)
    finally:
        work.close()
    return made


def tiny_jpeg(width: int = 64, height: int = 48) -> bytes:
    """Return a JPEG of noise."""
    pixels = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels.repeat(8, 0).repeat(8, 1)).save(file, "JPEG", quality=60)
    return file.getvalue()


def write_images(root: Path, n: int, data: bytes) -> None:
    """Write `n` files of the same content, a thousand in each folder: one, and links to it where the disk can."""
    for start in range(0, n, FILES_IN_A_FOLDER):
        site = root / f"site-{start // FILES_IN_A_FOLDER:05d}"
        site.mkdir(parents=True)
        first = str(site / f"IMG_{start:08d}.jpg")
        Path(first).write_bytes(data)
        for i in range(start + 1, min(start + FILES_IN_A_FOLDER, n)):
            path = f"{site}{os.sep}IMG_{i:08d}.jpg"
            try:
                os.link(first, path)
            except OSError:
                Path(path).write_bytes(data)


def answer(work_folder: Path, label_of: Callable[[ImageKey], str], *, name: str = "", share: float = 1.0) -> Path:
    """Put a label file into the bin, as Timelapse exports it, with a species for each image of the open request.

    `share` of the images are answered. The file appears whole. Raises `LookupError` where no request is open.
    """
    folder = WorkFolder.at(work_folder)
    request = json.loads(folder.request.read_text(encoding="utf-8"))
    keys = [ImageKey.of(path) for path in request["images"]]
    if not keys:
        raise LookupError(f"no request is open in {work_folder}")
    lines = ["File,RelativePath,DateTime,DeleteFlag,Species"]
    for key in keys[: max(1, round(share * len(keys)))]:
        place = key.relative_path.replace("/", "\\")
        lines.append(f"{key.file},{place},2026-01-01 00:00:00,false,{label_of(key)}")
    path = folder.bin / (name or f"labels-{request['round']:05d}.csv")
    partial = path.with_name(path.name + ".tmp")
    partial.write_bytes("\r\n".join([*lines, ""]).encode("utf-8"))
    os.replace(partial, path)
    return path


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _class_numbers(hashes: Hashes, n_classes: int) -> npt.NDArray[np.int64]:
    share = np.cumsum(1 / np.arange(1, n_classes + 1))
    uniform = key_priority(hashes, 1) / np.float64(2**64)
    return np.minimum(np.searchsorted(share / share[-1], uniform, side="right"), n_classes - 1)


def _label(work: Work, made: MadeUp, n: int) -> None:
    rows, hashes = work.catalog.askable()
    drawn = rows[np.argsort(key_priority(hashes, 2), kind="stable")[:n]]
    for number, part in enumerate(np.array_split(drawn, min(REQUESTS, n)), 1):
        keys = work.catalog.keys_of(part)
        request = {"round": number, "strategy": "uniform", "seed": number, "learner": 0, "checkpoint": 0}
        work.append("request", request | {"keys": [[*key] for key in keys], "predictions": []})
        counts = {"rows": len(keys), "accepted": len(keys)}
        labels = {
            "name": f"made-up-{number:05d}.csv",
            "sha256": f"{number:064x}",
            "mtime_ns": number,
            "round": number,
            "rows": [[*key, made.label_of(key), "oracle"] for key in keys],
            "answer": {"verdict": "accepted", "counts": counts, "was": [], "rejected": [], "warnings": []},
        }
        labels["answer"] |= {"normalised": {"count": 0, "examples": []}, "requested_left": 0}
        work.append("labels", labels)


def _write_model(work: Work, dim: int, classes: tuple[str, ...], seed: int, arch: str) -> None:
    hidden = generations.hidden_folder_of(work.folder.models, 1)
    hidden.mkdir()
    if arch:
        _write_real_model(work, hidden, classes)
    else:
        _write_made_up_model(hidden, dim, classes, seed)
    facts = {"kind": "model", "parent": 0, "trained": True, "seed": seed, "journal": work.journal.end}
    generations.commit(work.folder.models, 1, facts | {"n_labels": len(work.history.labels), "job": "TRAIN"})


def _write_made_up_model(hidden: Path, dim: int, classes: tuple[str, ...], seed: int) -> None:
    from onnx import TensorProto, helper, numpy_helper

    matrix = np.random.default_rng([3, seed]).normal(size=(3, dim)).astype(np.float32)
    images = np.random.default_rng([4, seed]).integers(0, 255, (REFERENCES, 256, 256, 3), np.uint8)
    np.save(hidden / "reference_images.npy", images)
    np.save(hidden / "reference_embeddings.npy", images.mean(axis=(1, 2), dtype=np.float32) @ matrix)
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["colours"], keepdims=0),
        helper.make_node("MatMul", ["colours", "matrix"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "made_up",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 256, 256, 3])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", dim])],
        [numpy_helper.from_array(np.array([1, 2]), "axes"), numpy_helper.from_array(matrix, "matrix")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    (hidden / "embedding.onnx").write_bytes(model.SerializeToString())
    (hidden / "embedding_model_weights.pt").write_bytes(b"no weights: this network is made up")
    settings = {"arch": "tiny", "feat_dim": dim, "loss": "triplet", "margin": 1.0, "selection": "random"}
    facts = {"format": 1, "settings": settings, "mean": MEAN, "std": STD, "image_px": 256, "input_px": 224}
    facts |= {"classes": list(classes), "weights_from": "made up", "sister_pipeline_reads": False}
    (hidden / "model.json").write_text(json.dumps(facts), encoding="utf-8")


def _write_real_model(work: Work, hidden: Path, classes: tuple[str, ...]) -> None:
    from camera_trap_al.jobs import model_settings
    from camera_trap_al.learn.making import finish_model, start_model

    folders = {kind: str(path) for kind, path in image_folders(work.config).items()}
    items = work.catalog.items(work.catalog.live_rows(POOL)[:64].tolist(), folders)
    start_model(hidden, model_settings(work.config), items, classes=classes, pretrained=False, weights=None, seed=1)
    finish_model(hidden, items)


def _write_embeddings(
    work: Work, n_classes: int, dim: int, seed: int, content: str, say: Callable[[str], None]
) -> None:
    """Write shards around the classes' centres, the scaler and the manifest; let the catalogue take in what they say."""
    rows = work.catalog.live_rows(POOL)
    numbers = _class_numbers(_hashes_of(work, rows), n_classes)
    centres = SPREAD * np.random.default_rng([5, seed]).standard_normal((n_classes, dim), dtype=np.float32)
    folder = generations.folder_of(work.folder.embedding, 1)
    mark = embeddings.made_by(work.folder.models, 1, work.catalog_id)
    started, first = time.monotonic(), []
    for start in range(0, len(rows), shards.SHARD_ROWS):
        part = rows[start : start + shards.SHARD_ROWS]
        noise = np.random.default_rng([6, seed, start]).standard_normal((len(part), dim), dtype=np.float32)
        vectors = noise + centres[numbers[start : start + len(part)]]
        shards.write_shard(folder, part, vectors, {}, mark, hashes=dict.fromkeys(part.tolist(), content))
        if len(first) < SCALED_SHARDS:
            first.append((part, vectors))
    say(f"made up: wrote embeddings in {time.monotonic() - started:.0f} s")
    scaler = embeddings.fit_scaler(first, normalize=True)
    embeddings.commit_learner(folder, scaler, {"kind": "learner", "model": 1, "made_by": mark, "kept_back": False})
    started = time.monotonic()
    # As the step does for one shard after another, which takes minutes for a million images in random order.
    every = dict.fromkeys(rows.tolist(), content)
    for n, (number, name) in enumerate(pending_shards(work)):
        learner = generations.folder_of(work.folder.embedding, number)
        work.catalog.absorb(f"{learner.name}/{name}", {}, {} if n else every)
    say(f"made up: absorbed shards in {time.monotonic() - started:.0f} s")


def _hashes_of(work: Work, rows: npt.NDArray[np.int64]) -> Hashes:
    """Return the key hashes of all live pool rows, in their order."""
    keys = work.catalog.keys_of(rows.tolist())
    return np.array([key_hash(key.path) for key in keys], dtype=np.int64).view(np.uint64)
