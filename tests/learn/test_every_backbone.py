"""Each backbone: one step of training, saved and loaded again, written as ONNX.

The smallest of each convolutional family; all 80 with `--long`.
"""

import copy

import numpy as np
import pytest

from camera_trap_al.learn.backbones import backbones, build_network, load_tensors
from camera_trap_al.learn.losses import random_violating, triplet_loss
from camera_trap_al.learn.onnx_files import open_session

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

SMALLEST = (
    *(
        "resnet18",
        "googlenet",
        "inception_v3",
        "regnet_x_400mf",
        "shufflenet_v2_x0_5",
        "densenet121",
        "efficientnet_b0",
    ),
    *("mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "squeezenet1_1", "convnext_tiny", "alexnet", "vgg11"),
    *("efficientnet_lite0", "tiny"),
)
FEAT_DIM = 7
# These know one size of image only.
FIXED_SIZE = ("vit_", "maxvit_")
SMALL_PX = 96


def pytest_generate_tests(metafunc):
    every = backbones.names()
    metafunc.parametrize("arch", every if metafunc.config.getoption("--long") else [n for n in every if n in SMALLEST])


@pytest.fixture(scope="module", autouse=True)
def imports():
    """Import what needs torch as the first of these tests runs: every test process reads this file, one runs it."""
    global INPUT_PX, ImagesToEmbedding, _calibrate, load, save, standardised, to_onnx, torch
    import torch
    from safetensors.torch import load, save

    from camera_trap_al.learn.data import INPUT_PX
    from camera_trap_al.learn.making import _calibrate
    from camera_trap_al.learn.raw_onnx import ImagesToEmbedding, standardised, to_onnx


def test_a_backbone_trains_is_saved_and_becomes_onnx(arch):
    network = build_network(arch, FEAT_DIM, seed=3)
    photos = np.random.default_rng(0).integers(0, 256, (4, 256, 256, 3)).astype(np.uint8)
    photos[1:] = (photos[1:] * np.array([0.3, 0.6, 1.0]).reshape(3, 1, 1, 1)).astype(np.uint8)
    whole = ImagesToEmbedding(network, [0.4] * 3, [0.25] * 3)
    _calibrate(whole, photos)
    take_a_step(network, INPUT_PX if arch.startswith(FIXED_SIZE) else SMALL_PX)

    expected = embed(whole, photos)
    assert expected.shape == (4, FEAT_DIM) and expected.dtype == torch.float32
    assert expected.abs().mean() > 1e-4 and torch.all(expected.std(dim=0) > 1e-3 * expected.abs().max())
    again = build_network(arch, FEAT_DIM, seed=4)
    load_tensors(again, load(save({name: value.contiguous() for name, value in network.state_dict().items()})))
    assert torch.equal(embed(ImagesToEmbedding(again, [0.4] * 3, [0.25] * 3), photos), expected)
    del again

    session = open_session(to_onnx(whole))
    for n in (1, 3):
        (given,) = session.run(None, {"images": photos[:n]})
        off = np.abs(given - expected[:n].numpy()).max()
        # A very deep network with random weights magnifies rounding: there torch is as far from the truth.
        assert off <= 1e-4 * max(1.0, float(expected.abs().max())) or is_as_exact(
            given, expected[:n], whole, photos[:n]
        )


def take_a_step(network, size):
    """Check that a step of training with the triplet loss reaches every weight, and take it."""
    network.train()
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(1), requires_grad=True)
    loss = triplet_loss(
        network(images), torch.tensor([0, 0, 1, 1]), 1e4, generator=torch.Generator(), select=random_violating
    )
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(images.grad).all() and torch.any(images.grad != 0)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        parameter.data -= 1e-3 * parameter.grad / parameter.grad.norm().clamp(min=1.0)
        parameter.grad = None


def is_as_exact(given, expected, whole, photos):
    """Return whether `given` is at most twice as far as torch's float32 from what float64 gives."""
    side = slice(16, 16 + INPUT_PX)
    with torch.inference_mode():
        inputs = standardised(torch.from_numpy(photos[:, side, side]), whole.mean, whole.std)
        truth = copy.deepcopy(whole.network).double()(inputs.double()).numpy()
    return np.abs(given - truth).max() <= 2 * np.abs(expected.numpy() - truth).max()


def embed(whole, photos):
    with torch.inference_mode():
        return whole.eval()(torch.from_numpy(photos))
