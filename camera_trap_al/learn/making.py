"""Make a model ▲: start or continue one, and finish it; between the two, `training.py` may train it.

The state between these calls, and between two lives of the worker, is the folder: after a kill call them again in the
same order, and each does what is left of its work.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from camera_trap_al.core.records import Item
from camera_trap_al.errors import DivergedError, ModelError
from camera_trap_al.learn.backbones import backbone_of, build_network
from camera_trap_al.learn.data import READ_AHEAD, Reader, map_ahead, mean_std, read_item, read_or_say_why
from camera_trap_al.learn.device import derived_seed, seeded
from camera_trap_al.learn.engines import by_onnxruntime, by_torch, choose_precision
from camera_trap_al.learn.losses import losses
from camera_trap_al.learn.model_folder import (
    DRAFT,
    ONNX,
    Draft,
    ModelFacts,
    has_draft,
    is_finished,
    load_head,
    load_network,
    read_draft,
    read_facts,
    with_classes,
    write_draft,
    write_model,
)
from camera_trap_al.learn.pace import BF16, FLOAT32
from camera_trap_al.learn.projection import project
from camera_trap_al.learn.raw_onnx import ImagesToEmbedding, to_onnx
from camera_trap_al.learn.settings import ModelSettings, Progress, Tick, no_tick
from camera_trap_al.learn.weights import find_weights, load_start_weights
from camera_trap_al.store.atomic import discard_file

REFERENCES = 16
CALIBRATION_IMAGES = 64
CALIBRATION_BATCH = 32
PROJECTION_IMAGES = 512

log = logging.getLogger(__name__)


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
    """Commit a model as it is before its first epoch; do nothing if the folder holds one.

    Mean and standard deviation are measured here. A network that starts at random gets its batch-norm statistics
    from a few images: with torch's own (mean 0, variance 1) embeddings may be as small as 1e-9 (mobilenet_v2), which
    half precision cannot hold. One that is pretrained gets the start of its last layer from some: see `project`.

    Parameters
    ----------
    folder : exists
    items : of all data sets
    classes : names; training labels are positions in this list
    pretrained, weights : as for `find_weights`
    seed : >= 0
    read : how items become pixels

    Raises
    ------
    WeightsMissingError, ModelError, ImagesOfflineError
    """
    settings.check()
    if is_finished(folder) or has_draft(folder):
        return
    plan = find_weights(settings.arch, pretrained=pretrained, weights=weights)
    network = build_network(settings.arch, settings.feat_dim, seed=derived_seed(seed, 1))
    text = load_start_weights(network, settings.arch, pretrained=pretrained, weights=weights, tick=tick)
    log.info("The embedding model starts from %s", text)
    mean, std = mean_std(items, seed=seed, read=read, tick=tick)
    facts = ModelFacts(settings, tuple(classes), tuple(mean.tolist()), tuple(std.tolist()), text)
    whole = ImagesToEmbedding(network, facts.mean, facts.std)
    chosen = [items[i] for i in np.random.default_rng([0xCA1B, seed]).permutation(len(items))]
    if plan.kind == "none":
        _calibrate(whole, _read_first(chosen, CALIBRATION_IMAGES, read))
    else:
        images = _read_first(chosen, PROJECTION_IMAGES, read, tick)
        layer = network.get_submodule(backbone_of(settings.arch).head)
        if project(
            whole, layer, images, derived_seed(seed, 3), lambda done: tick(Progress("measuring", done, len(images)))
        ):
            log.info("Its last layer starts from how the features of %d images differ", len(images))
    with seeded(derived_seed(seed, 2)):
        head = losses[settings.loss].head(settings.feat_dim, len(classes))
    write_draft(folder, Draft(facts, network, head, seed))


def continue_model(folder: Path, parent: Path, *, classes: Sequence[str], seed: int) -> None:
    """Commit a copy of the finished model in `parent`, to be trained further; do nothing if the folder holds one.

    Settings, mean and standard deviation are the parent's. Raises `ModelError`.
    """
    if is_finished(folder) or has_draft(folder):
        return
    facts = read_facts(parent)
    network, head = load_network(parent, facts), load_head(parent, facts)
    with seeded(derived_seed(seed, 2)):
        facts, head = with_classes(facts, head, tuple(classes))
    write_draft(folder, Draft(facts, network, head, seed))


def finish_model(
    folder: Path, reference_items: Sequence[Item], *, read: Reader = read_item, tick: Tick = no_tick
) -> None:
    """Write the finished model beside the draft, then remove the draft.

    Parameters
    ----------
    reference_items : candidates for the 16 images that come with the model, so that an export of it can be checked
        without torch; the first 16 that can be read are taken

    Raises
    ------
    ModelError
        The folder holds no model, none of the candidates can be read, an embedding is not finite (the draft is removed),
        or the network cannot be written as ONNX.
    """
    if not is_finished(folder):
        draft = read_draft(folder)
        tick(Progress("finishing", 0, 3))
        images = _read_first(reference_items, REFERENCES, read)
        whole = ImagesToEmbedding(draft.network, draft.facts.mean, draft.facts.std).eval()
        with torch.inference_mode():
            embeddings = whole(torch.from_numpy(images)).numpy()
        if not np.isfinite(embeddings).all():
            discard_file(folder / DRAFT)
            raise DivergedError(
                "The model failed: what it makes of photographs are no longer numbers.",
                hint="Choose a smaller learning rate (embedding_train_lr, embedding_finetuning_lr); it begins anew.",
            )
        tick(Progress("finishing", 1, 3))
        onnx = to_onnx(whole)
        tick(Progress("finishing", 2, 3))
        draft.facts = replace(draft.facts, precision=_precision(draft, onnx, images, embeddings))
        write_model(folder, draft, onnx=onnx, reference_images=images, reference_embeddings=embeddings)
        tick(Progress("finishing", 3, 3))
    discard_file(folder / DRAFT)


def _precision(draft: Draft, onnx: bytes, images: np.ndarray, embeddings: np.ndarray) -> str:
    """Return the precision in which the model is to embed, as this computer does it best."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # A copy: the weights that are written stay on the CPU and as they are laid out.
    whole = ImagesToEmbedding(copy.deepcopy(draft.network), draft.facts.mean, draft.facts.std)
    in_bf16 = by_torch(whole, device, BF16)
    in_float32 = by_torch(whole, device, FLOAT32) if device.type == "cuda" else by_onnxruntime(onnx, ONNX)
    return choose_precision(in_float32, in_bf16, device, images, embeddings)


def _read_first(items: Sequence[Item], n: int, read: Reader, tick: Tick = no_tick) -> np.ndarray:
    """Return the pixels of the first n items that can be read, (m, 256, 256, 3) with 1 <= m <= n."""
    found: list[np.ndarray] = []
    with closing(map_ahead(lambda item: read_or_say_why(item, read), items, ahead=min(n, READ_AHEAD))) as results:
        for pixels in results:
            tick(Progress("measuring", len(found), n))
            if not isinstance(pixels, tuple):
                found.append(pixels)
            if len(found) == n:
                break
    if not found:
        raise ModelError(
            f"Not one of {len(items)} images could be read.",
            hint="Check that the folders of images hold photographs and may be read.",
        )
    return np.stack(found)


def _calibrate(whole: ImagesToEmbedding, images: np.ndarray) -> None:
    """Set the batch-norm statistics of a random network to those of some images; leave it in evaluation mode."""
    whole.eval()
    norms = [module for module in whole.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        for start in range(0, len(images), CALIBRATION_BATCH):
            whole(torch.from_numpy(images[start : start + CALIBRATION_BATCH]))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
