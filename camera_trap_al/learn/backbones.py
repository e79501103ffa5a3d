"""The networks that can be a backbone, by name, with the last layer replaced by the embedding.

torch is imported inside the functions, so that the names can be listed without it. Where start weights come from is
said in `weights.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from camera_trap_al.registry import Registry

if TYPE_CHECKING:
    from torch import nn

RESNETS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
)
MOBILENETS = {
    "mobilenet_v2": "classifier.1",
    "mobilenet_v3_small": "classifier.3",
    "mobilenet_v3_large": "classifier.3",
}
LATER = (
    *("alexnet", "googlenet", "inception_v3", "maxvit_t", "squeezenet1_0", "squeezenet1_1"),
    *("convnext_tiny", "convnext_small", "convnext_base", "convnext_large"),
    *("densenet121", "densenet161", "densenet169", "densenet201"),
    *(f"efficientnet_b{i}" for i in range(8)),
    *("efficientnet_v2_s", "efficientnet_v2_m", "efficientnet_v2_l"),
    *("mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3"),
    *(f"regnet_x_{size}" for size in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf")),
    *(f"regnet_y_{size}" for size in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf", "128gf")),
    *(f"shufflenet_v2_x{size}" for size in ("0_5", "1_0", "1_5", "2_0")),
    *("swin_t", "swin_s", "swin_b", "swin_v2_t", "swin_v2_s", "swin_v2_b"),
    *(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")),
    *("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14"),
)


@dataclass(frozen=True)
class Backbone:
    """A network by name.

    `build` makes it with random weights; it takes float images (n, 3, 224, 224). `head` is the dotted name of its
    last linear layer. `weights` says who offers pretrained ones: "torchvision", "packaged" (an extra) or "none".
    """

    build: Callable[[], nn.Module]
    head: str
    weights: str


backbones: Registry[Backbone] = Registry("backbone architecture", later=LATER)


def build_network(arch: str, feat_dim: int, *, seed: int) -> nn.Module:
    """Build a backbone with random weights and an embedding of `feat_dim` numbers as its last layer.

    The new layer starts orthogonal (orthonormal rows, or columns where `feat_dim` is larger than the layer's input)
    with zero bias: an untrained projection then keeps the distances between features as well as it can, where
    torch's own start would shrink and distort them. Source: Saxe et al. 2014.

    Parameters
    ----------
    arch : a name in `backbones`
    feat_dim : number of embedding dimensions
    seed : same seed, same weights; torch's global random state is left as it was

    Returns
    -------
    Module from (n, 3, 224, 224) float32 to (n, feat_dim) float32
    """
    from torch import nn

    from camera_trap_al.learn.device import seeded

    backbone = backbones[arch]
    with seeded(seed):
        network = backbone.build()
        parent, _, name = backbone.head.rpartition(".")
        owner = network.get_submodule(parent)
        old = owner.get_submodule(name)
        assert isinstance(old, nn.Linear), f"the head of {arch} is no linear layer"
        new = nn.Linear(old.in_features, feat_dim)
        nn.init.orthogonal_(new.weight)
        nn.init.zeros_(new.bias)
        setattr(owner, name, new)
    return network


def sister_pipeline_reads(arch: str, feat_dim: int) -> bool:
    """Say whether the sister pipeline can rebuild this network: it replaces the last layer of ResNets only."""
    return arch in RESNETS[:5] or (feat_dim == 1000 and backbones[arch].weights == "torchvision")


def _torchvision(arch: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from torchvision import models

        network: nn.Module = models.get_model(arch, weights=None)
        return network

    return build


for _arch in RESNETS:
    backbones.register(_arch)(Backbone(_torchvision(_arch), "fc", "torchvision"))
for _arch, _head in MOBILENETS.items():
    backbones.register(_arch)(Backbone(_torchvision(_arch), _head, "torchvision"))


def _efficientnet_lite0() -> nn.Module:
    from camera_trap_al.learn.efficientnet_lite import efficientnet_lite0

    return efficientnet_lite0()


backbones.register("efficientnet_lite0")(Backbone(_efficientnet_lite0, "classifier", "packaged"))


def _tiny() -> nn.Module:
    """Three strided convolutions, 15,000 weights: for tests, and to try the program without a GPU."""
    from torch import nn

    layers: list[nn.Module] = []
    for inputs, outputs, kernel, stride in ((3, 16, 5, 4), (16, 24, 3, 2), (24, 48, 3, 2)):
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
    features = nn.Sequential(*layers)
    return nn.Sequential(
        OrderedDict(features=features, pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), head=nn.Linear(48, 10))
    )


backbones.register("tiny")(Backbone(_tiny, "head", "none"))
