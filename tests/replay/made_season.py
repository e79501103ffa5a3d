"""A made-up season: embeddings around a centre for each class, some classes rarer than others."""

from __future__ import annotations

import numpy as np

from camera_trap_al.core.seeds import key_hash
from camera_trap_al.replay_season import Season


def made_season(
    n_train: int = 12, n_pool: int = 90, n_validation: int = 30, spread: float = 0.6, seed: int = 0
) -> Season:
    """Return a season of three classes whose images lie in four folders, each by itself."""
    rng = np.random.default_rng(seed)
    n = n_train + n_pool + n_validation
    labels = np.arange(n) % 7 % 3
    vectors = np.eye(6, dtype=np.float32)[labels] + spread * rng.standard_normal((n, 6)).astype(np.float32)
    hashes = np.array([key_hash(f"site{i % 4}/IMG_{i:04d}.JPG") for i in range(n)], np.int64).view(np.uint64)
    numbers = np.arange(n)
    return Season(vectors, hashes, labels, numbers, numbers % 4, n_train, n_pool, ("bird", "cat", "dog"))
