"""What a model folder holds ▲: the finished model, and the draft that a killed training resumes from.

Finished: `model.safetensors` (torchvision's names), `model.json`, `embedding.onnx`, `reference_images.npy` and
`reference_embeddings.npy`, `embedding_model_weights.pt` for the sister pipeline, `head.safetensors` (softmax only).
Draft: `epoch.safetensors`, weights and optimiser state and, in its header, the facts; one file, so one commit.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from camera_trap_al.errors import ModelError
from camera_trap_al.images import IMAGE_PX
from camera_trap_al.learn.backbones import build_network, load_tensors, sister_pipeline_reads
from camera_trap_al.learn.data import INPUT_PX
from camera_trap_al.learn.losses import losses
from camera_trap_al.learn.pace import FLOAT32
from camera_trap_al.learn.settings import ModelSettings
from camera_trap_al.store.atomic import replace_bytes, replace_file, replace_json

FORMAT = 1
FACTS, WEIGHTS, HEAD, DRAFT = "model.json", "model.safetensors", "head.safetensors", "epoch.safetensors"
ONNX, SISTER = "embedding.onnx", "embedding_model_weights.pt"
REFERENCE_IMAGES, REFERENCE_EMBEDDINGS = "reference_images.npy", "reference_embeddings.npy"
PROGRESS = ("seed", "epoch", "batch", "batch_limit")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelFacts:
    """What `model.json` says of a model. `mean` and `std` are of red, green and blue (three numbers), in [0, 1].

    `precision` ("float32", "bf16") is the one in which all rows are embedded, on whichever computer, so that embeddings
    of one learner are alike.
    """

    settings: ModelSettings
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weights_from: str
    precision: str = FLOAT32

    def as_facts(self) -> dict[str, Any]:
        """Return the facts for JSON."""
        return {
            "format": FORMAT,
            "settings": self.settings.as_facts(),
            "classes": list(self.classes),
            "mean": list(self.mean),
            "std": list(self.std),
            "image_px": IMAGE_PX,
            "input_px": INPUT_PX,
            "weights_from": self.weights_from,
            "precision": self.precision,
            "sister_pipeline_reads": sister_pipeline_reads(self.settings.arch, self.settings.feat_dim),
        }

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any], where: Path) -> ModelFacts:
        """Return the facts written by `as_facts`. Raises `ModelError` for another format."""
        if facts.get("format") != FORMAT:
            text = f"{where} is of format {facts.get('format')}; this version reads format {FORMAT}."
            raise ModelError(text, hint="Update the program.")
        settings = ModelSettings.from_facts(facts["settings"])
        mean, std = (float(v) for v in facts["mean"]), (float(v) for v in facts["std"])
        names, precision = tuple(facts["classes"]), facts.get("precision", FLOAT32)
        return cls(settings, names, tuple(mean), tuple(std), facts["weights_from"], precision)


@dataclass
class Draft:
    """A model in the making, as of the mini-batch before (`epoch`, `batch`).

    `moments` is the optimiser's state as tensors by name; empty before the first step. `batch_limit` is the largest
    batch that memory allowed so far, 0 for no limit. `trains_in` is the precision that the training began with, empty
    before that.
    """

    facts: ModelFacts
    network: nn.Module
    head: nn.Module | None
    seed: int
    epoch: int = 0
    batch: int = 0
    batch_limit: int = 0
    trains_in: str = ""
    moments: dict[str, Tensor] = field(default_factory=dict)


def is_finished(folder: Path) -> bool:
    """Say whether the folder holds a finished model (`model.json` is written last)."""
    return (folder / FACTS).is_file()


def read_facts(folder: Path) -> ModelFacts:
    """Read what a model is, finished or (from the draft's header) in the making. Raises `ModelError`."""
    path = folder / FACTS
    if not path.is_file() and (folder / DRAFT).is_file():
        return ModelFacts.from_facts(_read_header(folder / DRAFT), folder / DRAFT)
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        return ModelFacts.from_facts(facts, path)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{path} cannot be read ({error}).", hint="Set this folder aside; an older model counts."
        ) from error


def load_network(folder: Path, facts: ModelFacts) -> nn.Module:
    """Rebuild the network of a finished model, on the CPU, in evaluation mode. Raises `ModelError`."""
    network = build_network(facts.settings.arch, facts.settings.feat_dim, seed=0)
    _load(network, _read_tensors(folder / WEIGHTS), folder / WEIGHTS)
    return network.eval()


def load_head(folder: Path, facts: ModelFacts) -> nn.Module | None:
    """Rebuild the loss's own layer of a finished model, or None if its loss has none. Raises `ModelError`."""
    head = losses[facts.settings.loss].head(facts.settings.feat_dim, len(facts.classes))
    if head is not None:
        _load(head, _read_tensors(folder / HEAD), folder / HEAD)
    return head


def write_draft(folder: Path, draft: Draft) -> None:
    """Commit a draft; durable on return."""
    tensors = {f"network.{name}": value for name, value in draft.network.state_dict().items()}
    if draft.head is not None:
        tensors |= {f"head.{name}": value for name, value in draft.head.state_dict().items()}
    tensors |= {f"moments.{name}": value for name, value in draft.moments.items()}
    numbers = {name: getattr(draft, name) for name in PROGRESS}
    facts = {**draft.facts.as_facts(), **numbers, "trains_in": draft.trains_in}
    header = {"facts": json.dumps(facts, ensure_ascii=False)}
    replace_bytes(folder / DRAFT, to_safetensors(_plain(tensors), header))


def has_draft(folder: Path) -> bool:
    """Say whether the folder holds a draft; a damaged one is none, and is named in a warning."""
    try:
        return (folder / DRAFT).is_file() and bool(_read_header(folder / DRAFT))
    except ModelError as error:
        log.warning("Training starts anew: %s", error)
        return False


def read_draft(folder: Path) -> Draft:
    """Read the last committed draft. Raises `ModelError`, also where there is none."""
    path = folder / DRAFT
    told = _read_header(path)
    facts = ModelFacts.from_facts(told, path)
    tensors = _read_tensors(path)
    network = build_network(facts.settings.arch, facts.settings.feat_dim, seed=0)
    _load(network, _part(tensors, "network."), path)
    head = losses[facts.settings.loss].head(facts.settings.feat_dim, len(facts.classes))
    if head is not None:
        _load(head, _part(tensors, "head."), path)
    progress = {name: int(told[name]) for name in PROGRESS}
    # Copies: what safetensors reads is mapped to the file, and Windows replaces no file that is mapped.
    moments = {name: value.clone() for name, value in _part(tensors, "moments.").items()}
    return Draft(facts, network, head, trains_in=told.get("trains_in", ""), moments=moments, **progress)


def write_model(
    folder: Path, draft: Draft, *, onnx: bytes, reference_images: np.ndarray, reference_embeddings: np.ndarray
) -> None:
    """Write every file of a finished model, `model.json` last; each is durable on return."""
    replace_bytes(folder / WEIGHTS, to_safetensors(_plain(draft.network.state_dict())))
    if draft.head is not None:
        replace_bytes(folder / HEAD, to_safetensors(_plain(draft.head.state_dict())))
    replace_bytes(folder / ONNX, onnx)
    replace_file(folder / REFERENCE_IMAGES, lambda file: np.save(file, reference_images, allow_pickle=False))
    replace_file(folder / REFERENCE_EMBEDDINGS, lambda file: np.save(file, reference_embeddings, allow_pickle=False))
    replace_file(folder / SISTER, lambda file: torch.save(sister_model(draft), file))
    replace_json(folder / FACTS, draft.facts.as_facts())


def sister_model(draft: Draft) -> dict[str, Any]:
    """Return what the sister pipeline (Animal Classifier Pipeline) reads as `embedding_model_weights.pt`.

    Its reader wraps the network in `module`; its softmax network holds the embedding and a classifier beside it.
    Plain Python values and CPU tensors only, so that `torch.load(weights_only=True)` takes it.
    """
    settings, classes = draft.facts.settings, list(draft.facts.classes)
    inner = "module.inner_model." if draft.head is None else "module.embedding.inner_model."
    state = OrderedDict((inner + name, value) for name, value in _plain(draft.network.state_dict()).items())
    if draft.head is not None:
        state.update((f"module.classifier.{n}", v) for n, v in _plain(draft.head.state_dict()).items())
    return {
        "arch_name": settings.arch,
        "feat_dim": settings.feat_dim,
        "loss_type": settings.loss,
        "embedding_model_state_dict": state,
        "num_classes": len(classes),
        "classes": classes,
        "class_to_idx": {name: i for i, name in enumerate(classes)},
        "loss_func_strategy": settings.selection,
        "loss_func_margin": settings.margin,
    }


def with_classes(
    facts: ModelFacts, head: nn.Module | None, classes: tuple[str, ...]
) -> tuple[ModelFacts, nn.Module | None]:
    """Return facts and head for another list of classes; a class that was known keeps its weights."""
    new_head = losses[facts.settings.loss].head(facts.settings.feat_dim, len(classes))
    if head is not None and new_head is not None:
        old, new = head.state_dict(), new_head.state_dict()
        for i, name in enumerate(classes):
            if name in facts.classes:
                for key in new:
                    new[key][i] = old[key][facts.classes.index(name)]
        new_head.load_state_dict(new)
    return replace(facts, classes=classes), new_head


def _read_header(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            header: dict[str, Any] = json.loads(file.metadata()["facts"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error}).", hint="Set this folder aside and train again.") from error
    return header


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{path} cannot be read ({error}).", hint="Set this folder aside; an older model counts."
        ) from error


def _load(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    try:
        load_tensors(module, tensors)
    except RuntimeError as error:
        raise ModelError(
            f"The weights in {path} do not fit its architecture.", hint="Set this folder aside."
        ) from error
