"""EfficientNet-Lite0 ▲, which torchvision lacks, from torchvision's blocks.

Only the network. Whence its weights come is said in `packaged.py`.
"""

from __future__ import annotations

import torch
from torch import nn
from torchvision.ops import Conv2dNormActivation

FEATURES = 1280
IMAGENET_CLASSES = 1000

# Repeats, kernel size, stride of the first, expansion, output channels: table 1 of Tan and Le, B0.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM_CHANNELS = 32
DROPOUT = 0.2
# As TensorFlow trained the published weights (its momentum 0.99 is 0.01 here).
BATCH_NORM_EPS = 1e-3
BATCH_NORM_MOMENTUM = 0.01


class InvertedResidual(nn.Module):
    """Expand by 1×1, filter each channel by k×k, project by 1×1; add the input where shapes allow.

    Without squeeze-and-excitation, and with ReLU6: that is what "Lite" leaves out of EfficientNet's block.
    """

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [_convolution(inputs, hidden)] if expansion > 1 else []
        self.layers = nn.Sequential(
            *expand,
            _convolution(hidden, hidden, kernel=kernel, stride=stride, groups=hidden),
            _convolution(hidden, outputs, activation=None),
        )
        self.adds_input = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (b, inputs, h, w) to (b, outputs, h / stride, w / stride)."""
        y: torch.Tensor = self.layers(x)
        return x + y if self.adds_input else y


class EfficientNetLite(nn.Module):
    """The network of `efficientnet_lite0`, laid out as torchvision's: `features`, `avgpool`, `classifier`.

    `classifier` is one linear layer over 1,280 features, so that a caller can put another in its place.
    """

    def __init__(self, num_classes: int = IMAGENET_CLASSES) -> None:
        super().__init__()
        blocks, channels = [], STEM_CHANNELS
        for repeats, kernel, first_stride, expansion, outputs in STAGES:
            for i in range(repeats):
                stride = first_stride if i == 0 else 1
                blocks.append(InvertedResidual(channels, outputs, kernel=kernel, stride=stride, expansion=expansion))
                channels = outputs
        stem = _convolution(3, STEM_CHANNELS, kernel=3, stride=2)
        self.features = nn.Sequential(stem, *blocks, _convolution(channels, FEATURES))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(DROPOUT)
        self.classifier = nn.Linear(FEATURES, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (b, 3, h, w) float images to (b, num_classes); h and w are multiples of 32 (made for 224)."""
        pooled = torch.flatten(self.avgpool(self.features(x)), 1)
        scores: torch.Tensor = self.classifier(self.dropout(pooled))
        return scores


def efficientnet_lite0(num_classes: int = IMAGENET_CLASSES) -> nn.Module:
    """Build EfficientNet-Lite0 with random weights: 4.7 million parameters, 224 pixels, 1,280 features.

    The network is EfficientNet-B0 (Tan and Le 2019, "EfficientNet: rethinking model scaling for convolutional neural
    networks") with the changes of the Lite variant (TensorFlow's `efficientnet/lite`, Liu 2020): no
    squeeze-and-excitation, ReLU6 for Swish, stem and head of fixed width. Padding is TensorFlow's "SAME", so that
    weights trained there give the same output here.

    Parameters
    ----------
    num_classes : outputs of `classifier`
    """
    return EfficientNetLite(num_classes)


def _convolution(
    inputs: int,
    outputs: int,
    *,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    activation: type[nn.Module] | None = nn.ReLU6,
) -> nn.Sequential:
    """Convolution, batch norm, activation; the odd pixel of TensorFlow's "SAME" goes to the right and the bottom."""
    total = kernel - stride
    before, after = total // 2, total - total // 2
    convolution: nn.Sequential = Conv2dNormActivation(
        inputs,
        outputs,
        kernel_size=kernel,
        stride=stride,
        padding=before if before == after else 0,
        groups=groups,
        norm_layer=_batch_norm,
        activation_layer=activation,
        inplace=None if activation is None else True,
    )
    if before == after:
        return convolution
    return nn.Sequential(nn.ZeroPad2d((before, after, before, after)), convolution)


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS, momentum=BATCH_NORM_MOMENTUM)
