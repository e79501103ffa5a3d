"""The networks that can be a backbone, by name, with the last layer replaced by the embedding.

torch is imported inside the functions, so that the names can be listed without it. Where start weights come from is
said in `weights.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from camera_trap_al.errors import UsageError
from camera_trap_al.learn.timm_networks import build_timm, check_timm, is_timm, timm_head
from camera_trap_al.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

# The dotted name of the last layer → torchvision's networks that have it there.
HEADS: dict[str, tuple[str, ...]] = {
    "fc": (
        *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
        *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
        *("googlenet", "inception_v3"),
        *(f"regnet_x_{size}" for size in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf")),
        *(f"regnet_y_{size}" for size in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf")),
        *(f"shufflenet_v2_x{size}" for size in ("0_5", "1_0", "1_5", "2_0")),
    ),
    "classifier": ("densenet121", "densenet161", "densenet169", "densenet201"),
    "classifier.1": (
        *(f"efficientnet_b{i}" for i in range(8)),
        *("efficientnet_v2_s", "efficientnet_v2_m", "efficientnet_v2_l"),
        *("mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3"),
        *("mobilenet_v2", "squeezenet1_0", "squeezenet1_1"),
    ),
    "classifier.2": ("convnext_tiny", "convnext_small", "convnext_base", "convnext_large"),
    "classifier.3": ("mobilenet_v3_small", "mobilenet_v3_large"),
    "classifier.5": ("maxvit_t",),
    "classifier.6": ("alexnet", *(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn"))),
    "head": ("swin_t", "swin_s", "swin_b", "swin_v2_t", "swin_v2_s", "swin_v2_b"),
    "heads.head": ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32"),
}
# Without their auxiliary classifiers, which only another loss could train; the same weights as torchvision's, which want
# their input scaled anew.
OPTIONS: dict[str, dict[str, bool]] = dict.fromkeys(
    ("googlenet", "inception_v3"), {"aux_logits": False, "transform_input": True, "init_weights": True}
)
# More than the 2 GB that one ONNX file can hold → the largest of the family that is less.
TOO_LARGE = {"regnet_y_128gf": "regnet_y_32gf", "vit_h_14": "vit_l_16"}
# The sister pipeline replaces the last layer of networks whose names begin so. Of any other it rebuilds torchvision's,
# with 1,000 numbers: not the ones that differ from it here, nor mnasnet, whose weights must tell their version.
SISTER_REPLACES = ("resnet", "densenet", "vgg", "alexnet")
SISTER_DIFFERS = ("googlenet", "inception", "squeezenet", "mnasnet")


@dataclass(frozen=True)
class Backbone:
    """A network by name.

    `build` makes it with random weights; it takes float images (n, 3, 224, 224), also where a publication has larger
    ones (inception 299, swin_v2 256). `head` is the dotted name of its last layer, linear or a 1 × 1 convolution.
    `weights` says who offers pretrained ones: "torchvision", "packaged" (an extra), "timm" or "none".
    """

    build: Callable[[], nn.Module]
    head: str
    weights: str


backbones: Registry[Backbone] = Registry("backbone architecture")


def check_arch(arch: str) -> None:
    """Raise `UnknownNameError` for a name that is no backbone, `UsageError` for one of torchvision's that is too large."""
    if arch in TOO_LARGE:
        raise UsageError(
            f"The backbone architecture '{arch}' cannot be used: its weights are more than the 2 GB that an ONNX file holds.",
            hint=f"Use a smaller one, such as {TOO_LARGE[arch]}; resnet18 and resnet50 are usual.",
        )
    if is_timm(arch):
        check_timm(arch)
        return
    backbones.check(arch)


def backbone_of(arch: str) -> Backbone:
    """Return the backbone of this name: one of `backbones`, or of timm's, which is imported then.

    Raises `UnknownNameError`, or for timm's `UsageError`.
    """
    if is_timm(arch):
        return Backbone(lambda: build_timm(arch), timm_head(arch), "timm")
    return backbones[arch]


def build_network(arch: str, feat_dim: int, *, seed: int) -> nn.Module:
    """Build a backbone with random weights and an embedding of `feat_dim` numbers as its last layer.

    The new layer starts orthogonal (orthonormal rows, or columns where `feat_dim` is larger than the layer's input)
    with zero bias: an untrained projection then keeps the distances between features as well as it can, where
    torch's own start would shrink and distort them. Source: Saxe et al. 2014.

    Parameters
    ----------
    arch : a name in `backbones`, or `timm:NAME`
    feat_dim : number of embedding dimensions
    seed : same seed, same weights; torch's global random state is left as it was

    Returns
    -------
    Module from (n, 3, 224, 224) float32 to (n, feat_dim) float32
    """
    from torch import nn

    from camera_trap_al.learn.device import seeded

    backbone = backbone_of(arch)
    with seeded(seed):
        network = backbone.build()
        parent, _, name = backbone.head.rpartition(".")
        owner = network.get_submodule(parent)
        old = owner.get_submodule(name)
        new: nn.Linear | nn.Conv2d
        if isinstance(old, nn.Linear):
            new = nn.Linear(old.in_features, feat_dim, bias=old.bias is not None)
        else:
            assert isinstance(old, nn.Conv2d) and old.kernel_size == (1, 1), f"the head of {arch} is neither"
            new = nn.Conv2d(old.in_channels, feat_dim, 1)
        nn.init.orthogonal_(new.weight)
        if new.bias is not None:
            nn.init.zeros_(new.bias)
        setattr(owner, name, new)
    return network


def load_tensors(network: nn.Module, tensors: Mapping[str, Tensor], *, strict: bool = True) -> None:
    """Copy tensors into a network by name, as those of its present form.

    A file of plain tensors lacks the versions of layers that torch notes in a state dict, and mnasnet refuses what
    has none. Raises `RuntimeError` where shapes (or, if `strict`, names) differ.
    """
    state = OrderedDict(tensors)
    state._metadata = network.state_dict()._metadata  # type: ignore[attr-defined]
    network.load_state_dict(state, strict=strict)


def sister_pipeline_reads(arch: str, feat_dim: int) -> bool:
    """Say whether the sister pipeline can rebuild this network.

    It replaces the last layer of ResNets, DenseNets, VGGs and AlexNet, and takes others of torchvision as they come,
    with 1,000 numbers.
    """
    if is_timm(arch) or backbones[arch].weights != "torchvision":
        return False
    return arch.startswith(SISTER_REPLACES) or (feat_dim == 1000 and not arch.startswith(SISTER_DIFFERS))


def _torchvision(arch: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from torch import nn
        from torchvision import models

        network: nn.Module = models.get_model(arch, weights=None, **OPTIONS.get(arch, {}))
        if arch.startswith("squeezenet"):
            # Behind its last layer it rectifies, which would hold about half of an embedding at zero for good.
            network.get_submodule("classifier")[2] = nn.Identity()  # type: ignore[operator]
        return network

    return build


for _head, _archs in HEADS.items():
    for _arch in _archs:
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
