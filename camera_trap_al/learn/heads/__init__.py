"""Heads: how a classifier is fitted on labelled embeddings. The registry, and what a head promises."""

from __future__ import annotations

from typing import Protocol

from camera_trap_al.learn.heads.dense import Examples, Layers
from camera_trap_al.learn.heads.logistic import Logistic
from camera_trap_al.learn.heads.mlp import Perceptron
from camera_trap_al.learn.heads.semi import SemiSupervised
from camera_trap_al.registry import Registry

AUTO = "auto"
"""The choice of a head by cross-validation."""


class Head(Protocol):
    """Fits dense layers. Equal examples in equal order and an equal seed give equal layers on one machine."""

    def fit(self, examples: Examples, seed: int) -> Layers:
        """Return finite layers from embeddings to a score for each class, for a softmax to follow."""
        ...


heads: Registry[Head] = Registry("head")
heads.register("mlp")(Perceptron())
heads.register("logistic")(Logistic())
heads.register("semi")(SemiSupervised())
