"""The façade `ExtendedImageFolder` ▲: labelled and unlabelled images as one torch data set, for learners of your own.

Its interface is that of the class of this name in train_image_classifier_al (Apache License 2.0), which goes back to
microsoft/CameraTraps (MIT License). Reading, transforms and batches are those of `learn`.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Sampler, Subset
from torchvision.datasets import ImageFolder

from camera_trap_al.catalog.found import TRAIN
from camera_trap_al.catalog.scan import Tally, walk
from camera_trap_al.core.records import UNLABELLED, Item
from camera_trap_al.errors import UsageError
from camera_trap_al.images import IMAGE_PX, read_image
from camera_trap_al.learn.batches import balanced_batches
from camera_trap_al.learn.data import augment, centre_crop, mean_std
from camera_trap_al.registry import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

MODES = ("train", "val")
log = logging.getLogger(__name__)
Target = int | float


class ExtendedImageFolder(ImageFolder):
    """Images in class folders, to which others can be added, with labels or without.

    `dataset[i]` is (image, target, path): an image of 256 × 256 pixels, or what the transform in force makes of it; the
    index of its class, or `unlab_class_num`; and its absolute path. `samples`, `targets`, `classes`, `class_to_idx` and
    `root` are those of an `ImageFolder`.

    Folders without images, hidden ones and those of Timelapse's backups are no classes. Images directly in the folder
    are left out.

    Parameters
    ----------
    base_folder : labelled images, one sub-folder a class
    fit : measure `mean` and `std`, (3,) float64 arrays in 0..1, on a sample of these images; else both are None and
        pixels are not standardised

    Raises `UsageError` (a `ValueError`) where there is no image.
    """

    def __init__(self, base_folder: str | os.PathLike[str], fit: bool = True) -> None:
        super().__init__(Path(base_folder).expanduser().absolute(), loader=read_picture)
        self.root = str(self.root)
        self.unlab_class_num = float("-inf")
        self.mean: np.ndarray | None = None
        self.std: np.ndarray | None = None
        if fit:
            self.mean, self.std = self.calc_mean_std()
        self.trnsfm: dict[str, Callable[[Image.Image], torch.Tensor]] = {m: self.get_transform(m) for m in MODES}

    def find_classes(self, directory: str | os.PathLike[str]) -> tuple[list[str], dict[str, int]]:
        """Return the sorted class names and name → index."""
        names = sorted({name for _, name in _look(Path(directory))})
        return names, {name: i for i, name in enumerate(names)}

    @staticmethod
    def make_dataset(
        directory: str | os.PathLike[str], class_to_idx: dict[str, int] | None = None, *more: Any, **named: Any
    ) -> list[tuple[str, int]]:
        """Return (absolute path, class index) of each image, in order of path."""
        assert class_to_idx is not None
        return [(path, class_to_idx[name]) for path, name in _look(Path(directory))]

    def __getitem__(self, index: int) -> tuple[Any, Target, str]:
        """Return (image, target, absolute path). Raises `ImageUnreadableError` or `OSError`."""
        path, target = self.samples[index]
        sample = self.loader(path)
        if self.transform is not None:
            sample = self.transform(sample)
        if self.target_transform is not None:
            target = self.target_transform(target)
        return sample, target, path

    def setTransform(self, transform: str) -> None:
        """Put the transform "train" or "val" in force."""
        _check_mode(transform)
        self.transform = self.trnsfm[transform]

    def get_transform(self, trns_mode: str) -> Callable[[Image.Image], torch.Tensor]:
        """Return what makes a (3, 224, 224) float32 tensor of an image: changed at random for "train", else its middle."""
        _check_mode(trns_mode)
        mean = np.zeros(3) if self.mean is None else self.mean
        std = np.ones(3) if self.std is None else self.std
        kind = _ForTraining if trns_mode == "train" else _ForTests
        return kind(tuple(mean.tolist()), tuple(std.tolist()))

    def calc_mean_std(self) -> tuple[np.ndarray, np.ndarray]:
        """Measure mean and standard deviation of red, green and blue, (3,) float64, on up to 10,000 images."""
        return mean_std([Item(i, path) for i, (path, _) in enumerate(self.samples)], seed=0)

    def add_data(self, base_folder: str | os.PathLike[str], ignore_labels: bool = False) -> list[int]:
        """Add a folder of class folders at the end and return the new indices.

        With `ignore_labels` the names of its sub-folders mean nothing and its images are unlabelled. Raises `UsageError`
        for a class that this data set does not have, or a folder without images; nothing is added then.
        """
        found = _look(Path(base_folder).expanduser().absolute())
        names = dict.fromkeys(name for _, name in found)
        if not ignore_labels:
            self._check_classes(names, f"in {base_folder}")
        targets = [self.unlab_class_num if ignore_labels else self.class_to_idx[name] for _, name in found]
        new = list(range(len(self.samples), len(self.samples) + len(found)))
        self.samples.extend((path, target) for (path, _), target in zip(found, targets, strict=True))
        self.targets.extend(targets)
        return new

    def update_labels(self, new_labels: Mapping[int, str]) -> None:
        """Give images labels: index → class name.

        Raises `UsageError` for a name that is no class, or an index that no image has; nothing is changed then.
        """
        self._check_classes(dict.fromkeys(new_labels.values()), "among the new labels")
        unknown = [index for index in new_labels if not 0 <= index < len(self.samples)]
        if unknown:
            raise UsageError(f"There is no image number {unknown[0]}; there are {len(self.samples)}, from 0 on.")
        for index, name in new_labels.items():
            self._set_target(index, self.class_to_idx[name])

    def remove_label(self, label: str) -> None:
        """Make the images of a class unlabelled and forget the class. `add_data(folder, ignore_labels=True)` is simpler."""
        self._check_classes([label], "to be removed")
        gone = self.classes.index(label)
        del self.classes[gone]
        self.class_to_idx = {name: i for i, name in enumerate(self.classes)}
        for index, target in enumerate(self.targets):
            if target >= gone:
                self._set_target(index, self.unlab_class_num if target == gone else target - 1)

    def get_labelled_indices(self) -> list[int]:
        """Return the indices of images that have a label."""
        return [i for i, target in enumerate(self.targets) if target != self.unlab_class_num]

    def getClassesInfo(self) -> tuple[list[str], dict[str, int]]:
        """Return the class names, and name → index."""
        return self.classes, self.class_to_idx

    def get_snapshot(self) -> pd.DataFrame:
        """Return a data frame of `path`, absolute, and `label`, a class name or "unlabelled"."""
        import pandas as pd

        names = [UNLABELLED if target == self.unlab_class_num else self.classes[int(target)] for target in self.targets]
        return pd.DataFrame({"path": [path for path, _ in self.samples], "label": names})

    def get_path_csv(self, inds: Sequence[int]) -> pd.DataFrame:
        """Return a data frame of `path`, the absolute paths of these images, whose index holds their indices."""
        import pandas as pd

        paths = [self.samples[i][0] for i in inds]
        return pd.DataFrame({"index": list(inds), "path": paths}).set_index("index")

    def relative_path(self, index: int) -> str:
        """Return the path of an image relative to `root`, absolute where it is on another drive."""
        path = self.samples[index][0]
        try:
            return os.path.relpath(path, self.root)
        except ValueError:
            return str(path)

    def getSingleLoader(
        self,
        batch_size: int = 128,
        shuffle: bool = True,
        num_workers: int = 4,
        sub_indices: Sequence[int] | None = None,
        transfm: str = "train",
    ) -> DataLoader[Any]:
        """Return a loader of (images, targets, paths) that visits each image once."""
        subset = self._subset(sub_indices, transfm)
        return DataLoader(subset, batch_size=batch_size, shuffle=shuffle, num_workers=num_workers)

    def getBalancedLoader(
        self,
        P: int = 10,
        K: int = 10,
        num_workers: int = 4,
        sub_indices: Sequence[int] | None = None,
        transfm: str = "train",
    ) -> DataLoader[Any]:
        """Return a loader of (images, targets, paths) whose batches hold `K` images of each of `P` classes.

        `P` is capped at the classes there are; a class with fewer than `K` images gives some of them again.
        """
        subset = self._subset(sub_indices, transfm)
        targets = np.array([self.targets[i] for i in subset.indices])
        batches = _BalancedBatches(np.unique(targets, return_inverse=True)[1], P, K)
        return DataLoader(subset, batch_sampler=batches, num_workers=num_workers)

    def _subset(self, indices: Sequence[int] | None, transfm: str) -> Subset[Any]:
        """Return some images, with a transform that another loader does not change; later labels show in it."""
        self.setTransform(transfm)
        return Subset(copy.copy(self), list(range(len(self)) if indices is None else indices))

    def _set_target(self, index: int, target: Target) -> None:
        self.targets[index] = target
        self.samples[index] = (self.samples[index][0], target)

    def _check_classes(self, names: Mapping[str, None] | list[str], where: str) -> None:
        for name in names:
            if name not in self.class_to_idx:
                known = ", ".join(self.classes)
                hint = f"Use one of: {known}."
                raise UsageError(f"'{name}' {where} is no class.{did_you_mean(str(name), self.classes)}", hint=hint)


def read_picture(path: str) -> Image.Image:
    """Decode an image as the whole program does: upright, RGB, squashed to 256 × 256.

    Set `dataset.loader` to another function of the path for images as large as they are. Raises `ImageUnreadableError`.
    """
    return Image.fromarray(read_image(path))


def _look(folder: Path) -> list[tuple[str, str]]:
    """Return absolute path and class name of the images in the sub-folders of `folder`, in order of path."""
    tally = Tally()
    try:
        images = walk(folder, TRAIN, tool="any", leave_out=None, tally=tally)
        found = [(str(folder.joinpath(*image.path.split("/"))), image.class_name) for image in images]
    except OSError as error:
        raise UsageError(f"{folder} cannot be listed: {error.strerror or error}.") from error
    if not found:
        raise UsageError(f"There is no photograph in a sub-folder of {folder}.", hint="Name a folder of class folders.")
    if tally.counts["top"]:
        log.warning("%d images directly in %s are left out", tally.counts["top"], folder)
    return found


def _check_mode(mode: str) -> None:
    if mode not in MODES:
        raise UsageError(f"There is no transform called '{mode}'.{did_you_mean(mode, MODES)}", hint="Use train or val.")


@dataclass(frozen=True)
class _ForTests:
    """Squashed to 256 pixels, the middle 224, standardised."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, picture: Image.Image) -> torch.Tensor:
        return self.standardised(centre_crop(_squashed(picture)))

    def standardised(self, pixels: np.ndarray) -> torch.Tensor:
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        values = (pixels.astype(np.float32) / 255 - mean) / std
        return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))


@dataclass(frozen=True)
class _ForTraining(_ForTests):
    """As training changes images at random (`learn.data.augment`). Seeded by torch, in each of its loading processes."""

    def __call__(self, picture: Image.Image) -> torch.Tensor:
        rng = np.random.default_rng(_torch_seed())
        pixels, erasure = augment(_squashed(picture), rng)
        tensor = self.standardised(pixels)
        if erasure is not None:
            noise = torch.from_numpy(erasure.noise.transpose(2, 0, 1).copy())
            top, left = erasure.top, erasure.left
            tensor[:, top : top + noise.shape[1], left : left + noise.shape[2]] = noise
        return tensor


def _squashed(picture: Image.Image) -> np.ndarray:
    return np.array(picture.convert("RGB").resize((IMAGE_PX, IMAGE_PX), Image.Resampling.BILINEAR))


def _torch_seed() -> int:
    return int(torch.randint(2**62, ()).item())


class _BalancedBatches(Sampler[list[int]]):
    """The balanced batches of one pass, drawn anew at each."""

    def __init__(self, labels: np.ndarray, n_classes: int, n_samples: int) -> None:
        self._labels, self._n_classes, self._n_samples = labels, n_classes, n_samples

    def _draw(self, seed: int) -> list[np.ndarray]:
        return balanced_batches(self._labels, self._n_classes, self._n_samples, seed=seed, epoch=0)

    def __iter__(self) -> Iterator[list[int]]:
        return (batch.tolist() for batch in self._draw(_torch_seed()))

    def __len__(self) -> int:
        return len(self._draw(0))
