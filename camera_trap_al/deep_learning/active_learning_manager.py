"""The façade `ActiveLearningEnvironment`: which images are labelled, and which to ask for next, for learners of your own.

Its interface is that of the class of this name in train_image_classifier_al (Apache License 2.0), which goes back to
microsoft/CameraTraps (MIT License). The query strategies are those of the whole program.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camera_trap_al.core.seeds import key_hash, seed_from
from camera_trap_al.errors import UsageError
from camera_trap_al.registry import did_you_mean
from camera_trap_al.strategies import LabelledBlock, PoolBlock, strategies

if TYPE_CHECKING:
    import pandas as pd

    from camera_trap_al.deep_learning.data_loader import ExtendedImageFolder

POOLS = ("active", "default", "val")
KINDS = {"unlabelled": "default", "val": "val", "train": "active"}
BLOCK_ROWS = 4096
log = logging.getLogger(__name__)


class ActiveLearningEnvironment:
    """Pools of images as lists of indices into a data set, each image in one of them.

    `active_pool` holds the labelled images, `default_pool` the unlabelled ones and `val_pool` those for tests;
    `num_new_labels` counts the labels added since it was last set to 0.

    Parameters
    ----------
    dataset : an `ExtendedImageFolder`
    engine : your network: `embedding(loader, normalize=…)` returns the (n, d) array of the embeddings of a loader's
        images, `train_one_epoch(loader, epoch, False)` trains it; None where `embedding` is given and nothing is trained
    active_learning_strategy : name of a query strategy
    data_pools : {"active": […], "default": […], "val": […]}; None to tell labelled from unlabelled images by the data set
    num_new_labels : what to count from
    embedding : (n, d) array, a row for each image of the data set
    """

    def __init__(
        self,
        dataset: ExtendedImageFolder,
        engine: Any,
        active_learning_strategy: str,
        data_pools: Mapping[str, Sequence[int]] | None = None,
        num_new_labels: int = 0,
        embedding: npt.NDArray[np.floating] | None = None,
    ) -> None:
        strategies.check(active_learning_strategy)
        if not isinstance(data_pools, Mapping | None):
            raise TypeError(
                f"data_pools is a {type(data_pools).__name__}; give a dictionary of lists of indices, or None."
            )
        self.dataset, self.engine, self.al_strat = dataset, engine, active_learning_strategy
        self.embedding, self.num_new_labels = embedding, num_new_labels
        labelled = dataset.get_labelled_indices()
        rest = sorted(set(range(len(dataset))) - set(labelled))
        pools = {"active": labelled, "default": rest} if data_pools is None else data_pools
        self.active_pool = [int(i) for i in pools["active"]]
        self.default_pool = [int(i) for i in pools["default"]]
        self.val_pool = [int(i) for i in pools.get("val", ())]
        self.sampler = strategies[active_learning_strategy]

    def add_data(self, root_dir: str | os.PathLike[str], data_type: str) -> None:
        """Add a folder of images to the data set, and to the pool of `data_type` ("train", "val" or "unlabelled").

        They have no embedding until `updateEmbedding`. Raises `UsageError` for a class that the data set does not have.
        """
        if data_type not in KINDS:
            raise UsageError(f"There are no images of type '{data_type}'.{did_you_mean(data_type, KINDS)}")
        new = self.dataset.add_data(root_dir, ignore_labels=data_type == "unlabelled")
        self._pool(KINDS[data_type]).extend(new)

    def updateEmbedding(self, normalize: bool = True, batch_size: int = 256, num_workers: int = 4) -> None:
        """Let the engine embed every image of the data set anew."""
        log.info("Extracting embedding...")
        every = list(range(len(self.dataset)))
        options: dict[str, Any] = {"shuffle": False, "sub_indices": every, "transfm": "val"}
        loader = self.dataset.getSingleLoader(batch_size=batch_size, num_workers=num_workers, **options)
        self.embedding = np.asarray(self.engine.embedding(loader, normalize=normalize))
        log.info("Finished extracting embedding")
        self.update_sampler()

    def update_sampler(self, al_strat: str | None = None) -> None:
        """Use another query strategy from now on, or the same one anew."""
        name = self.al_strat if al_strat is None else al_strat
        self.sampler, self.al_strat = strategies[name], name

    def train_embedding_model(
        self,
        epochs: int,
        loader_type: str,
        batch_size: int = 128,
        num_classes: int = 20,
        num_samples: int = 10,
        num_workers: int = 10,
    ) -> None:
        """Let the engine train on the labelled images, in "single" (shuffled) or "balanced" batches."""
        options: dict[str, Any] = {"num_workers": num_workers, "sub_indices": self.active_pool, "transfm": "train"}
        if loader_type == "single":
            loader = self.dataset.getSingleLoader(batch_size=batch_size, shuffle=True, **options)
        elif loader_type == "balanced":
            loader = self.dataset.getBalancedLoader(P=num_classes, K=num_samples, **options)
        else:
            near = did_you_mean(loader_type, ("single", "balanced"))
            raise UsageError(f"There is no loader called '{loader_type}'.{near}", hint="Use single or balanced.")
        log.info("Training embedding model...")
        for epoch in range(epochs):
            self.engine.train_one_epoch(loader, epoch, False)
        log.info("Finished training embedding model...")

    def update_optimizer(self, lr: float, weight_decay: float) -> None:
        """Give the engine a new Adam optimiser for its `model`."""
        import torch

        self.engine.optimizer = torch.optim.Adam(self.engine.model.parameters(), lr=lr, weight_decay=weight_decay)

    def sample_labels(self, N: int, model: Any) -> list[int]:
        """Return the indices of the `N` unlabelled images to ask for, or of all that are left.

        Parameters
        ----------
        model : a scikit-learn classifier, fitted on `get_train_set()`, with `classes_` and `predict_proba`
        """
        seed = seed_from("active learning environment", len(self.active_pool), len(self.default_pool))
        rows = self.sampler.query(_EnvironmentPool(self, model), N, seed)
        return [int(row) for row in rows]

    def add_new_labels(self, new_labels: Mapping[int, str]) -> None:
        """Take labels, index → class name, and move these images to the labelled ones.

        Raises `UsageError` for a name that is no class; nothing is changed then.
        """
        self.dataset.update_labels(new_labels)
        known = set(self.active_pool)
        self.active_pool.extend(int(i) for i in new_labels if i not in known)
        self.default_pool = [i for i in self.default_pool if i not in new_labels]
        self.num_new_labels += len(new_labels)

    def get_train_set(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the (n, d) embeddings of the labelled images and their (n,) class indices."""
        return self._embedded(self.active_pool), self._targets(self.active_pool)

    def get_test_set(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the (n, d) embeddings of the validation images and their (n,) class indices."""
        return self._embedded(self.val_pool), self._targets(self.val_pool)

    def get_pools(self) -> dict[str, Any]:
        """Return the embeddings, and of labelled and unlabelled images the indices and the (path, target) pairs."""
        samples = self.dataset.samples
        return {
            "embedding": self.embedding,
            "active_indices": self.active_pool,
            "default_indices": self.default_pool,
            "active_pool": [samples[i] for i in self.active_pool],
            "default_pool": [samples[i] for i in self.default_pool],
        }

    def get_path_csv(self, data_pool: str | Sequence[str]) -> pd.DataFrame:
        """Return `dataset.get_path_csv` of one or several pools ("active", "default", "val")."""
        names = [data_pool] if isinstance(data_pool, str) else list(data_pool)
        pools = {name: self._pool(name) for name in names}
        return self.dataset.get_path_csv([i for name in POOLS for i in pools.get(name, ())])

    def val_pool_exists(self) -> bool:
        """Return whether there are validation images."""
        return len(self.val_pool) > 0

    def get_pool_size(self, pool_type: str) -> int:
        """Return how many images a pool ("active", "default", "val") holds."""
        return len(self._pool(pool_type))

    def _pool(self, name: str) -> list[int]:
        if name not in POOLS:
            raise UsageError(f"There is no pool called '{name}'.{did_you_mean(name, POOLS)}", hint=f"Use {POOLS}.")
        pool: list[int] = getattr(self, f"{name}_pool")
        return pool

    def _embedded(self, indices: Sequence[int]) -> np.ndarray:
        if self.embedding is None or len(self.embedding) < len(self.dataset):
            raise UsageError("Some images have no embedding yet.", hint="Call updateEmbedding() first.")
        return np.asarray(self.embedding[list(indices)])

    def _targets(self, indices: Sequence[int]) -> np.ndarray:
        return np.array([self.dataset.targets[i] for i in indices], dtype=np.int64)


class _EnvironmentPool:
    """The pools as a query strategy sees them; rows are indices into the data set."""

    def __init__(self, environment: ActiveLearningEnvironment, model: Any) -> None:
        self._environment, self._model = environment, model
        self._known = [int(c) for c in getattr(model, "classes_", ())]

    @property
    def classes(self) -> Sequence[str]:
        """The classes, in the order of the columns of `proba`."""
        return [self._environment.dataset.classes[c] for c in self._known]

    def tick(self) -> None:
        """Nothing ends a choice made in a script but an interrupt."""

    def unlabelled_blocks(self) -> Iterator[PoolBlock]:
        """Yield the unlabelled images, a block at a time."""
        environment = self._environment
        for start in range(0, len(environment.default_pool), BLOCK_ROWS):
            rows = environment.default_pool[start : start + BLOCK_ROWS]
            embeddings = environment._embedded(rows).astype(np.float32)
            paths = [environment.dataset.relative_path(i).replace("\\", "/") for i in rows]
            hashes = np.array([key_hash(path) for path in paths], dtype=np.int64).view(np.uint64)
            proba = np.asarray(self._model.predict_proba(environment._embedded(rows)), dtype=np.float32)
            yield PoolBlock(np.array(rows, dtype=np.int64), hashes, proba, embeddings)

    def labelled_blocks(self) -> Iterator[LabelledBlock]:
        """Yield the labelled images, a block at a time."""
        environment, place = self._environment, {c: i for i, c in enumerate(self._known)}
        for start in range(0, len(environment.active_pool), BLOCK_ROWS):
            rows = environment.active_pool[start : start + BLOCK_ROWS]
            labels = [place.get(int(target), -1) for target in environment._targets(rows)]
            yield LabelledBlock(environment._embedded(rows).astype(np.float32), np.array(labels, dtype=np.int64))
