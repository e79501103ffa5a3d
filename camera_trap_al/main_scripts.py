"""The façade `run_active_learning`: the whole program as one call, as in train_image_classifier_al. No logic of its own."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

DEFAULT_FOLDER = "Active Learning Files"
NEVER = 2**62
Folder = str | os.PathLike[str]


def run_active_learning(
    train_data: Folder,
    unlabelled_data: Folder,
    validation_data: Folder | None = None,
    validate_model: bool = True,
    use_checkpoints: bool = True,
    num_workers: int = 0,
    output_dir: Folder = "default",
    active_batch: int = 100,
    active_learning_strategy: str = "margin",
    use_pretrained: bool = True,
    embedding_arch: str = "resnet18",
    embedding_loss_type: str = "triplet",
    embedding_loss_margin: float = 1.0,
    embedding_loss_data_strategy: str = "random",
    feat_dim: int = 256,
    normalize_embedding: bool = True,
    extract_embedding_batch_size: int = 256,
    embedding_finetuning_period: float = 2000,
    embedding_finetuning_lr: float = 0.0001,
    embedding_finetuning_weight_decay: float = 0,
    embedding_finetuning_num_epochs: int = 20,
    embedding_finetuning_loader_type: str = "balanced",
    embedding_train_lr: float = 0.00001,
    embedding_train_weight_decay: float = 0.0005,
    embedding_train_num_epochs: int = 5,
    embedding_train_loader_type: str = "single",
    balanced_loader_num_classes: int = 20,
    balanced_loader_num_samples: int = 10,
) -> None:
    """Train a classifier with active learning, asking for labels on the terminal, until all images are labelled.

    Images lie in sub-folders; those directly in a folder are ignored. A second call with the same `output_dir` goes on
    where the first one ended, whatever ended it. The same folder can be opened with `camera-trap-al run` at any time.

    Parameters
    ----------
    train_data : labelled images, one sub-folder a class
    unlabelled_data : images to label; the names of its sub-folders mean nothing
    validation_data : labelled images that never train, of classes of `train_data`; None for no tests
    validate_model : test on `validation_data` before each request, and after the last labels
    use_checkpoints : False to set aside what was learned before and learn anew; labels are always kept
    num_workers : processes that decode images; 0 for as many as pay
    output_dir : where everything is kept; "default" for `Active Learning Files` in the working directory
    active_batch : images asked for at once
    active_learning_strategy : how they are chosen (docs/strategies.md)
    use_pretrained : start from weights learned on ImageNet
    embedding_arch : network, by the name of torchvision's builder
    embedding_loss_type, embedding_loss_margin, embedding_loss_data_strategy : what the network learns from
    feat_dim : numbers in an embedding
    normalize_embedding : scale each of them to 0..1
    extract_embedding_batch_size : images embedded at once
    embedding_finetuning_period : new labels after which the network is fine-tuned; infinity for never
    embedding_finetuning_lr, embedding_finetuning_weight_decay, embedding_finetuning_num_epochs, \
embedding_finetuning_loader_type : Adam's learning rate and weight decay, passes over the images, and "single" or
        "balanced" batches
    embedding_train_lr, embedding_train_weight_decay, embedding_train_num_epochs, embedding_train_loader_type : the same
        for the first training
    balanced_loader_num_classes, balanced_loader_num_samples : classes in a balanced batch, and images of each

    What a call that goes on ignores: the folders of images, and what defines the network (`use_pretrained`,
    `embedding_arch`, the loss, `feat_dim`).

    Raises
    ------
    ValueError
        a choice that there is not, with the nearest one, or a value or folder that cannot be used
    CameraTrapAlError
        it cannot go on; labels that were taken are safe
    """
    values: dict[str, Any] = {name: _plain(value) for name, value in locals().items()}
    period = values["embedding_finetuning_period"]
    if isinstance(period, int | float) and not math.isnan(period):
        values["embedding_finetuning_period"] = int(min(max(period, 1), NEVER))
    root = values.pop("output_dir")
    # As the reference program's first line of its log did, so that setting a level is enough to see it.
    logging.basicConfig()
    from camera_trap_al_service import console  # type: ignore[import-not-found, unused-ignore]

    console.run(Path.cwd() / DEFAULT_FOLDER if root == "default" else Path(root).expanduser().absolute(), values)


def _plain(value: object) -> object:
    """Return a value as options have it: folders as text, numbers without their numpy types."""
    if value is None:
        return ""
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value
