"""The start of the last layer of a pretrained network: what differs most among images, and nothing where that is unknown."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("one_thread")
FEATURES, OUT = 24, 6


@pytest.fixture(scope="module", autouse=True)
def imports():
    """Import what needs torch as the first of these tests runs."""
    global torch, nn, project, ImagesToEmbedding
    import torch
    from torch import nn

    from camera_trap_al.learn.projection import project
    from camera_trap_al.learn.raw_onnx import ImagesToEmbedding


def whole_network(out=OUT, bias=True):
    """Return a network whose features are colours of parts of an image, mixed with very different strength."""
    torch.manual_seed(3)
    mix = nn.Linear(12, FEATURES)
    mix.weight.data *= torch.logspace(0, -2, FEATURES)[:, None]
    last = nn.Linear(FEATURES, out, bias=bias)
    nn.init.orthogonal_(last.weight)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), mix, last)
    return ImagesToEmbedding(network, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)), last


def pictures(n, seed=0):
    parts = np.random.default_rng(seed).integers(0, 256, (n, 2, 2, 3), dtype=np.uint8)
    return parts.repeat(128, axis=1).repeat(128, axis=2)


def embedded(whole, images):
    with torch.inference_mode():
        return whole(torch.from_numpy(images)).double().numpy()


def features_of(whole, images):
    network = whole.network
    last, network[-1] = network[-1], nn.Identity()
    found = embedded(whole, images)
    network[-1] = last
    return found


def project_here(whole, last, images, seed=1):
    return project(whole, last, images, seed, lambda done: None)


@pytest.mark.parametrize("bias", [True, False])
def test_what_differs_most_is_kept_turned_and_nothing_is_stretched(bias):
    whole, last = whole_network(bias=bias)
    images = pictures(40)
    features = features_of(whole, images)
    best = np.linalg.svd(features - features.mean(axis=0), compute_uv=False)[:OUT]
    assert project_here(whole, last, images)
    found = embedded(whole, images)
    assert np.allclose((last.weight @ last.weight.T).detach().numpy(), np.eye(OUT), atol=1e-5)
    spread = np.linalg.svd(found - found.mean(axis=0), compute_uv=False)
    assert np.allclose(spread, best, rtol=1e-4), "the most that six orthonormal numbers can keep"
    if bias:
        assert np.abs(found.mean(axis=0)).max() < 1e-5
    alone = np.sort(found.var(axis=0))
    assert alone[-1] / alone[0] < (best[0] / best[-1]) ** 2 / 4, "no number is left with the least direction alone"


@pytest.mark.parametrize("n", [1, 2, 5])
def test_fewer_images_than_numbers_leave_the_rest_as_it_was_made(n):
    whole, last = whole_network()
    images = pictures(n)
    features = features_of(whole, images)
    assert project_here(whole, last, images)
    assert np.allclose((last.weight @ last.weight.T).detach().numpy(), np.eye(OUT), atol=1e-5)
    found = embedded(whole, images)
    apart = np.linalg.norm(features[:, None] - features, axis=2)
    assert np.allclose(np.linalg.norm(found[:, None] - found, axis=2), apart, atol=1e-4), "distances are kept whole"


def test_images_that_are_all_alike_say_nothing_and_do_no_harm():
    whole, last = whole_network()
    assert project_here(whole, last, pictures(1).repeat(8, axis=0))
    assert np.allclose((last.weight @ last.weight.T).detach().numpy(), np.eye(OUT), atol=1e-5)
    assert np.isfinite(embedded(whole, pictures(3))).all()


@pytest.mark.parametrize("out", [FEATURES, FEATURES + 3])
def test_a_layer_that_loses_nothing_stays(out):
    whole, last = whole_network(out=out)
    before = last.weight.detach().clone()
    assert not project_here(whole, last, pictures(10))
    assert torch.equal(last.weight, before)


def test_features_that_are_no_numbers_leave_the_layer():
    whole, last = whole_network()
    before = last.weight.detach().clone()
    whole.network[2].bias.data[0] = float("nan")
    assert not project_here(whole, last, pictures(10))
    assert torch.equal(last.weight, before) and not last._forward_pre_hooks


def test_a_layer_of_another_kind_stays():
    whole, _ = whole_network()
    assert not project_here(whole, nn.Conv2d(3, 2, 1), pictures(2))


def test_the_same_seed_gives_the_same_rows_and_what_tick_raises_passes_through():
    rows = []
    for seed in (1, 1, 2):
        whole, last = whole_network()
        project_here(whole, last, pictures(20), seed)
        rows.append(last.weight.detach().clone())
    assert torch.equal(rows[0], rows[1]) and not torch.equal(rows[0], rows[2])
    whole, last = whole_network()
    with pytest.raises(KeyboardInterrupt):
        project(whole, last, pictures(40), 1, interrupt)
    assert not last._forward_pre_hooks


def interrupt(done):
    raise KeyboardInterrupt
