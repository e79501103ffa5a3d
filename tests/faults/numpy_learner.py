"""A stand-in for the modules that import torch: the same calls, the same files written in the same order, numpy alone.

The network is a seeded projection of 4 × 4 colour means. `install` puts it in the place of the real modules and makes
any import of torch an error; `no_torch_site/sitecustomize.py` does so in every process that has that folder on its
PYTHONPATH, so that real workers use it too. `NUMPY_LEARNER_PAUSE_S` makes each mini-batch last longer.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import json
import logging
import os
import sys
import time
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from camera_trap_al.core.records import Item
from camera_trap_al.errors import ModelError
from camera_trap_al.images import IMAGE_PX
from camera_trap_al.learn.backbones import sister_pipeline_reads
from camera_trap_al.learn.data import INPUT_PX, Problem, Reader, centre_crop, mean_std, read_item, read_or_say_why
from camera_trap_al.learn.settings import SAVED, ModelSettings, Progress, Tick, TrainSettings, loaders, no_tick
from camera_trap_al.store.atomic import discard_file, replace_bytes, replace_file, replace_json

FORMAT = 1
FACTS, WEIGHTS, DRAFT = "model.json", "model.safetensors", "epoch.safetensors"
ONNX, SISTER = "embedding.onnx", "embedding_model_weights.pt"
REFERENCE_IMAGES, REFERENCE_EMBEDDINGS = "reference_images.npy", "reference_embeddings.npy"
REFERENCES = 3
GRID = 4
FEATURES = 3 * GRID * GRID
BATCH_SIZE = 32

log = logging.getLogger("numpy_learner")


@dataclass(frozen=True)
class ModelFacts:
    """What `model.json` says of a model."""

    settings: ModelSettings
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weights_from: str = "the numpy learner"

    def as_facts(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "settings": self.settings.as_facts(),
            "classes": list(self.classes),
            "mean": list(self.mean),
            "std": list(self.std),
            "image_px": IMAGE_PX,
            "input_px": INPUT_PX,
            "weights_from": self.weights_from,
            "sister_pipeline_reads": sister_pipeline_reads(self.settings.arch, self.settings.feat_dim),
        }

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> ModelFacts:
        settings = ModelSettings.from_facts(facts["settings"])
        return cls(settings, tuple(facts["classes"]), tuple(facts["mean"]), tuple(facts["std"]), facts["weights_from"])


@dataclass
class Draft:
    """A model in the making: its projection, (48, d) float32, and how far it is."""

    facts: ModelFacts
    projection: np.ndarray
    seed: int
    epoch: int = 0


def start_model(
    folder: Path,
    settings: ModelSettings,
    items: Sequence[Item],
    *,
    classes: Sequence[str],
    pretrained: bool,
    weights: Path | None,
    seed: int,
    read: Reader = read_item,
    tick: Tick = no_tick,
) -> None:
    settings.check()
    if is_finished(folder) or has_draft(folder):
        return
    mean, std = mean_std(items, seed=seed, read=read, tick=_slowly(tick))
    facts = ModelFacts(settings, tuple(classes), tuple(mean.tolist()), tuple(std.tolist()))
    projection = np.random.default_rng([1, seed]).normal(size=(FEATURES, settings.feat_dim)).astype(np.float32)
    write_draft(folder, Draft(facts, projection, seed))


def continue_model(folder: Path, parent: Path, *, classes: Sequence[str], seed: int) -> None:
    if is_finished(folder) or has_draft(folder):
        return
    facts = replace(read_facts(parent), classes=tuple(classes))
    write_draft(folder, Draft(facts, load_projection(parent), seed))


def train(
    folder: Path,
    settings: TrainSettings,
    items: Sequence[Item],
    labels: Sequence[int] | np.ndarray,
    *,
    device: Any = None,
    read: Reader | None = None,
    tick: Tick = no_tick,
    commit_every_s: float = 600.0,
) -> dict[int, Problem]:
    settings.check()
    if is_finished(folder):
        return {}
    draft, targets = read_draft(folder), np.asarray(labels, np.int64)
    if len(items) == 0 or targets.max() >= len(draft.facts.classes):
        raise ModelError(f"Cannot train on {len(items)} images.")
    vectors, problems = _features(items, read or read_item, draft.facts)
    while draft.epoch < settings.epochs:
        batches = loaders[settings.loader](targets, settings, draft.seed, draft.epoch)
        for number, batch in enumerate(batches, 1):
            rng = np.random.default_rng([2, draft.seed, draft.epoch, number])
            towards = rng.normal(size=(len(draft.facts.classes), draft.facts.settings.feat_dim))[targets[batch]]
            step = vectors[batch].T @ towards / len(batch)
            draft.projection += (settings.lr * step).astype(np.float32)
            done = draft.epoch * len(batches) + number
            _slowly(tick)(Progress("training", done, settings.epochs * len(batches)))
        draft.epoch += 1
        write_draft(folder, draft)
        tick(Progress(SAVED, draft.epoch, settings.epochs))
        log.info("Epoch %d of %d", draft.epoch, settings.epochs)
    return problems


def finish_model(
    folder: Path, reference_items: Sequence[Item], *, read: Reader = read_item, tick: Tick = no_tick
) -> None:
    if not is_finished(folder):
        draft = read_draft(folder)
        tick(Progress("finishing", 0, 3))
        images = _read_first(reference_items, read)
        embeddings = embed(images, draft.projection, draft.facts)
        tick(Progress("finishing", 2, 3))
        replace_bytes(folder / WEIGHTS, safetensors.numpy.save({"projection": draft.projection}))
        replace_bytes(folder / ONNX, raw_onnx(draft.projection, draft.facts))
        replace_file(folder / REFERENCE_IMAGES, lambda file: np.save(file, images, allow_pickle=False))
        replace_file(folder / REFERENCE_EMBEDDINGS, lambda file: np.save(file, embeddings, allow_pickle=False))
        replace_file(folder / SISTER, lambda file: file.write(b"weights for the sister pipeline"))
        replace_json(folder / FACTS, draft.facts.as_facts())
        tick(Progress("finishing", 3, 3))
    discard_file(folder / DRAFT)


class Embedder:
    """A finished model, ready to embed."""

    def __init__(self, folder: Path, device: Any = None, *, batch_size: int = BATCH_SIZE) -> None:
        self.facts = read_facts(folder)
        self.batch_size = min(batch_size, BATCH_SIZE)
        self._projection = load_projection(folder)

    @property
    def dimensions(self) -> int:
        return self.facts.settings.feat_dim

    def embed(self, images: np.ndarray) -> np.ndarray:
        return embed(images, self._projection, self.facts)


def embed_items(
    embedder: Embedder, items: Sequence[Item], *, read: Reader = read_item, tick: Tick = no_tick
) -> tuple[np.ndarray, dict[int, Problem]]:
    vectors = np.zeros((len(items), embedder.dimensions), np.float32)
    problems: dict[int, Problem] = {}
    for start in range(0, len(items), embedder.batch_size):
        part = items[start : start + embedder.batch_size]
        for place, item in enumerate(part, start):
            pixels = read_or_say_why(item, read)
            if isinstance(pixels, tuple):
                problems[item.row] = pixels
            else:
                vectors[place] = embedder.embed(pixels[None])[0]
        _slowly(tick)(Progress("embedding", start + len(part), len(items)))
    return vectors, problems


def is_finished(folder: Path) -> bool:
    return (folder / FACTS).is_file()


def has_draft(folder: Path) -> bool:
    try:
        return (folder / DRAFT).is_file() and read_draft(folder) is not None
    except ModelError as error:
        log.warning("Training starts anew: %s", error)
        return False


def read_facts(folder: Path) -> ModelFacts:
    if not is_finished(folder) and (folder / DRAFT).is_file():
        return read_draft(folder).facts
    try:
        return ModelFacts.from_facts(json.loads((folder / FACTS).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder / FACTS} cannot be read ({error}).") from error


def write_draft(folder: Path, draft: Draft) -> None:
    header = json.dumps({**draft.facts.as_facts(), "seed": draft.seed, "epoch": draft.epoch})
    replace_bytes(folder / DRAFT, safetensors.numpy.save({"projection": draft.projection}, {"facts": header}))


def read_draft(folder: Path) -> Draft:
    try:
        data = (folder / DRAFT).read_bytes()
        end = 8 + int.from_bytes(data[:8], "little")
        told = json.loads(json.loads(data[8:end])["__metadata__"]["facts"])
        projection = safetensors.numpy.load(data)["projection"].copy()
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise ModelError(f"{folder / DRAFT} cannot be read ({error}).") from error
    return Draft(ModelFacts.from_facts(told), projection, told["seed"], told["epoch"])


def load_projection(folder: Path) -> np.ndarray:
    try:
        return safetensors.numpy.load((folder / WEIGHTS).read_bytes())["projection"].copy()
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelError(f"{folder / WEIGHTS} cannot be read ({error}).") from error


def features(images: np.ndarray, facts: ModelFacts) -> np.ndarray:
    """Return (n, 48) float32 standardised colour means of uint8 images (n, 256, 256, 3)."""
    side = INPUT_PX // GRID
    cells = centre_crop(images).reshape(len(images), GRID, side, GRID, side, 3)
    # Rows first and in short numbers, as 56 bytes fit into: numpy is ten times as fast so.
    means = cells.sum(axis=2, dtype=np.uint16).sum(axis=3, dtype=np.int64) / side**2 / 255
    scaled = ((means - np.array(facts.mean)) / np.array(facts.std)).astype(np.float32)
    return scaled.transpose(0, 3, 1, 2).reshape(len(images), FEATURES)


def embed(images: np.ndarray, projection: np.ndarray, facts: ModelFacts) -> np.ndarray:
    """Return what the network gives, (n, d) float32; an image's result does not depend on the others."""
    return np.concatenate([features(image[None], facts) @ projection for image in images])


def raw_onnx(projection: np.ndarray, facts: ModelFacts) -> bytes:
    """Return the network as ONNX: `images` uint8 (n, 256, 256, 3) → `embedding` float32 (n, d)."""
    from onnx import TensorProto, helper, numpy_helper

    low = (IMAGE_PX - INPUT_PX) // 2
    values = {
        "starts": np.array([low, low]),
        "ends": np.array([low + INPUT_PX] * 2),
        "axes": np.array([1, 2]),
        "mean": 255 * np.array(facts.mean, np.float32),
        "std": 255 * np.array(facts.std, np.float32),
        "projection": projection,
    }
    side = INPUT_PX // GRID
    nodes = [
        helper.make_node("Slice", ["images", "starts", "ends", "axes"], ["cropped"]),
        helper.make_node("Cast", ["cropped"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["pixels", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["standardised"]),
        helper.make_node("Transpose", ["standardised"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["pooled"], kernel_shape=[side, side], strides=[side, side]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "projection"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "stand-in",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", IMAGE_PX, IMAGE_PX, 3])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", projection.shape[1]])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


def _features(items: Sequence[Item], read: Reader, facts: ModelFacts) -> tuple[np.ndarray, dict[int, Problem]]:
    vectors, problems = np.zeros((len(items), FEATURES), np.float32), {}
    for i, item in enumerate(items):
        pixels = read_or_say_why(item, read)
        if isinstance(pixels, tuple):
            problems[item.row] = pixels
        else:
            vectors[i] = features(pixels[None], facts)[0]
    return vectors, problems


def _read_first(items: Sequence[Item], read: Reader) -> np.ndarray:
    found: list[np.ndarray] = []
    for item in items:
        pixels = read_or_say_why(item, read)
        if not isinstance(pixels, tuple):
            found.append(pixels)
        if len(found) == REFERENCES:
            break
    if not found:
        raise ModelError(f"Not one of {len(items)} images could be read.")
    return np.stack(found)


def _slowly(tick: Tick) -> Tick:
    pause_s = float(os.environ.get("NUMPY_LEARNER_PAUSE_S", "0"))

    def slow(progress: Progress) -> None:
        time.sleep(pause_s)
        tick(progress)

    return slow if pause_s else tick


PACKAGE = "camera_trap_al.learn"
OFFERED: dict[str, tuple[Any, ...]] = {
    f"{PACKAGE}.making": (start_model, continue_model, finish_model),
    f"{PACKAGE}.training": (train,),
    f"{PACKAGE}.embedding": (Embedder, embed_items),
    f"{PACKAGE}.model_folder": (ModelFacts, Draft, is_finished, has_draft, read_facts, read_draft, write_draft),
}


class StandIn(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the stand-in where the real module is imported, and refuses torch."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name in ("torch", "torchvision"):
            raise AssertionError(f"{name} is imported although the numpy learner stands in for it")
        return importlib.machinery.ModuleSpec(name, self) if name in OFFERED else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return types.ModuleType(spec.name, "The numpy learner in the place of the real module.")

    def exec_module(self, module: types.ModuleType) -> None:
        vars(module).update({thing.__name__: thing for thing in OFFERED[module.__name__]})


def install() -> Callable[[], None]:
    """Put the stand-in in the place of the modules that import torch; return a function that undoes it.

    From now on an import of torch fails, unless it was imported before.
    """
    package = importlib.import_module(PACKAGE)
    before = {name: sys.modules.pop(name, None) for name in OFFERED}
    finder = StandIn()
    sys.meta_path.insert(0, finder)
    for name in OFFERED:
        importlib.import_module(name)

    def undo() -> None:
        sys.meta_path.remove(finder)
        for name, module in before.items():
            attribute = name.rpartition(".")[2]
            sys.modules.pop(name, None)
            vars(package).pop(attribute, None)
            if module is not None:
                sys.modules[name] = module
                setattr(package, attribute, module)

    return undo
