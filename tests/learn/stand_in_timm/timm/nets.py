"""A network of patches that knows one size of image, and one of convolutions that takes any."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

PATCH, WIDTH = 14, 12


class Patches(nn.Module):
    def __init__(self, num_classes: int, img_size: int = 518) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.pos_embed = nn.Parameter(torch.randn((img_size // PATCH) ** 2, WIDTH))
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patch_embed(images).flatten(2).transpose(1, 2) + self.pos_embed
        q, k, v = self.qkv(self.norm(tokens)).chunk(3, dim=-1)
        tokens = tokens + nn.functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.head(self.norm(tokens).mean(dim=1))
        return out


class Conv(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 5, 4)
        self.norm = nn.BatchNorm2d(8)
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Sequential(OrderedDict(pool=pool, fc=nn.Linear(8, num_classes)))

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.norm(self.stem(images))))
        return out


def checkpoint_filter_fn(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Take files of a publication: other names, and as many positions as larger images have."""
    state = {name.replace("patches.", "patch_embed."): value for name, value in state.items()}
    if isinstance(model, Patches):
        state["pos_embed"] = state["pos_embed"][: len(model.pos_embed)]
    return state
