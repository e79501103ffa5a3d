"""The backbones: embeddings, gradients, names."""

import subprocess
import sys

import pytest

from camera_trap_al.errors import UnknownNameError, UsageError
from camera_trap_al.learn.backbones import (
    TOO_LARGE,
    backbones,
    build_network,
    check_arch,
    sister_pipeline_reads,
)
from camera_trap_al.learn.settings import ModelSettings, TrainSettings

# Every one: test_every_backbone.py. What is slow in these tests is to import torchvision, which takes as long as torch.
FAMILIES = [*(pytest.param(arch, marks=pytest.mark.slow) for arch in ("squeezenet1_1", "efficientnet_lite0")), "tiny"]


@pytest.fixture(scope="module", autouse=True)
def imports():
    """Import what needs torch as the first of these tests runs: every test process reads this file, one runs it."""
    global load, save, torch
    import torch
    from safetensors.torch import load, save


@pytest.mark.parametrize("arch", FAMILIES)
def test_a_backbone_embeds_passes_gradients_and_survives_saving(arch):
    network = build_network(arch, 7, seed=3).eval()
    images = torch.randn(2, 3, 32, 32, requires_grad=True)
    embedding = network(images)
    assert embedding.shape == (2, 7) and embedding.dtype == torch.float32
    (embedding * torch.randn(2, 7)).sum().backward()
    assert torch.any(images.grad != 0)
    saved = save(network.state_dict())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.load_state_dict(load(saved))
        assert torch.equal(network(images), embedding)


@pytest.mark.slow
def test_every_network_of_torchvision_is_a_backbone_or_too_large():
    import torchvision

    known = set(torchvision.models.list_models(module=torchvision.models))
    ours = {name for name in backbones.names() if backbones[name].weights == "torchvision"}
    assert ours | set(TOO_LARGE) == known and not ours & set(TOO_LARGE)


@pytest.mark.parametrize(("arch", "instead"), TOO_LARGE.items())
def test_what_is_too_large_is_refused_with_a_smaller_one(arch, instead):
    with pytest.raises(UsageError, match=f"'{arch}' cannot be used: .* 2 GB .* such as {instead};"):
        ModelSettings(arch).check()
    check_arch(instead)


def test_an_embedding_may_be_a_single_number():
    network = build_network("tiny", 1, seed=0).eval()
    assert network(torch.randn(3, 3, 32, 32)).shape == (3, 1)


def test_the_same_seed_gives_the_same_weights_and_leaves_torch_alone():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first, again, other = (build_network("tiny", 8, seed=s).state_dict() for s in (5, 5, 6))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


@pytest.mark.parametrize("feat_dim", [8, 100])
def test_the_new_layer_starts_orthogonal(feat_dim):
    head = build_network("tiny", feat_dim, seed=0).head
    w = head.weight.detach()
    product = w @ w.T if feat_dim <= w.shape[1] else w.T @ w
    assert torch.allclose(product, torch.eye(len(product)), atol=1e-5)
    assert torch.count_nonzero(head.bias) == 0


def test_tiny_is_tiny():
    assert sum(p.numel() for p in build_network("tiny", 64, seed=0).parameters()) < 25_000


def test_names_can_be_listed_without_torch():
    program = (
        "import sys; sys.modules['torch'] = sys.modules['torchvision'] = None;"
        "from camera_trap_al.learn import backbones, losses, settings;"
        "settings.ModelSettings().check(); settings.TrainSettings(1, 0.1).check();"
        "print(backbones.backbones.names(), losses.losses.names(), losses.selections.names())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "'resnet18'" in done.stdout and "'triplet'" in done.stdout


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(UnknownNameError, match="Did you mean 'resnet18'"):
        build_network("resnet8", 8, seed=0)


@pytest.mark.parametrize(
    ("options", "nearest"),
    [
        ({"arch": "efficientnetb0"}, "efficientnet_b0"),
        ({"arch": "vgg_16"}, "vgg16"),
        ({"arch": "inception"}, "inception"),
    ],
)
def test_an_unknown_architecture_is_answered_with_the_nearest(options, nearest):
    with pytest.raises(UnknownNameError, match=f"Did you mean '{nearest}"):
        ModelSettings(**options).check()


def test_an_unknown_loader_is_answered_with_the_nearest():
    with pytest.raises(
        UnknownNameError, match=r"no loader called 'balance'. Did you mean 'balanced'.*balanced, single"
    ):
        TrainSettings(1, 0.1, loader="balance").check()


@pytest.mark.parametrize(
    ("arch", "any_dimension", "thousand"),
    [
        ("resnet50", True, True),
        ("densenet201", True, True),
        ("vgg16_bn", True, True),
        ("alexnet", True, True),
        *((arch, False, True) for arch in ("wide_resnet50_2", "resnext50_32x4d", "mobilenet_v2", "efficientnet_b0")),
        *((arch, False, True) for arch in ("convnext_tiny", "vit_b_16", "swin_t", "maxvit_t", "regnet_y_400mf")),
        *((arch, False, False) for arch in ("inception_v3", "googlenet", "squeezenet1_0", "mnasnet1_0")),
        *((arch, False, False) for arch in ("tiny", "efficientnet_lite0")),
    ],
)
def test_the_sister_pipeline_reads_some_in_any_dimension_and_others_as_torchvision_has_them(
    arch, any_dimension, thousand
):
    assert (sister_pipeline_reads(arch, 256), sister_pipeline_reads(arch, 1000)) == (any_dimension, thousand)
