"""What a model is, how it is trained, and the report of progress. No torch here: configuration and daemon read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from camera_trap_al.errors import ModelError, UsageError
from camera_trap_al.learn.backbones import check_arch
from camera_trap_al.learn.batches import balanced_batches, single_batches
from camera_trap_al.learn.losses import check_selection
from camera_trap_al.registry import Registry

loaders: Registry[Loader] = Registry("loader")


@dataclass(frozen=True)
class ModelSettings:
    """What a model *is*; fixed for its life and that of its descendants.

    `feat_dim` is the number of embedding dimensions. `margin` (in squared embedding distance for triplets, in distance
    for pairs) and `selection` (which triplets or pairs count) have no meaning for the softmax loss.
    """

    arch: str = "resnet18"
    feat_dim: int = 256
    loss: str = "triplet"
    margin: float = 1.0
    selection: str = "random"

    def check(self) -> None:
        """Raise `UnknownNameError` or `UsageError` for a setting that cannot be used."""
        check_arch(self.arch)
        if not 1 <= self.feat_dim <= 4096:
            raise UsageError(f"feat_dim is {self.feat_dim}.", hint="Choose 1 to 4096; 256 is usual.")
        if not self.margin >= 0:
            raise UsageError(f"embedding_loss_margin is {self.margin}.", hint="Choose 0 or more; 1.0 is usual.")
        check_selection(self.loss, self.selection, self.margin)

    def as_facts(self) -> dict[str, Any]:
        """Return the settings for JSON."""
        return asdict(self)

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> ModelSettings:
        """Return the settings written by `as_facts`. Raises `ModelError` for anything else."""
        try:
            return cls(**facts)
        except TypeError as error:
            text = f"The settings of this model are not of this version ({error})."
            raise ModelError(text, hint="Update the program, or train a new model.") from error


@dataclass(frozen=True)
class TrainSettings:
    """How a model is trained, once. Adam; `lr` and `weight_decay` are its step size and L2 penalty.

    `batch_size` belongs to the loader `single`, `balanced_classes` × `balanced_samples` is the batch of `balanced`.
    `layers` is "all", or "last" to train only the embedding layer (and the loss's own), which takes no backward pass
    through the others.
    """

    epochs: int
    lr: float
    weight_decay: float = 0.0
    loader: str = "single"
    batch_size: int = 128
    balanced_classes: int = 20
    balanced_samples: int = 10
    layers: str = "all"

    def check(self) -> None:
        """Raise `UnknownNameError` or `UsageError` for a setting that cannot be used."""
        loaders.check(self.loader)
        smallest = {"epochs": 0, "lr": 0, "weight_decay": 0}
        smallest |= {"batch_size": 2, "balanced_classes": 1, "balanced_samples": 1}
        for name, least in smallest.items():
            value = getattr(self, name)
            if not value >= least:
                raise UsageError(f"{name} is {value}; it cannot be under {least}.")


Loader = Callable[[np.ndarray, TrainSettings, int, int], list[np.ndarray]]
"""Maps labels (n,), settings, seed and epoch to the batches of that epoch, as arrays of indices into the labels."""


@loaders.register("single")
def _single(labels: np.ndarray, settings: TrainSettings, seed: int, epoch: int) -> list[np.ndarray]:
    return single_batches(labels, settings.batch_size, seed=seed, epoch=epoch)


@loaders.register("balanced")
def _balanced(labels: np.ndarray, settings: TrainSettings, seed: int, epoch: int) -> list[np.ndarray]:
    return balanced_batches(labels, settings.balanced_classes, settings.balanced_samples, seed=seed, epoch=epoch)


@dataclass(frozen=True)
class Progress:
    """How far a job is: `done` of `total` in one phase.

    Phases: "downloading" (bytes), "measuring", "embedding" (images), "training" (mini-batches), "finishing" (parts),
    "comparing" (fits).
    """

    phase: str
    done: int
    total: int


SAVED = "saved"
"""The phase of a `Progress` that says: so much is durable now, and a job may end here without losing anything."""

Tick = Callable[[Progress], None]
"""Called at each mini-batch; may raise `StopRequested`, which passes through everything here untouched."""


def no_tick(progress: Progress) -> None:
    """Report progress to nobody."""
