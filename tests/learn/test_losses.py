"""The losses against slow, obvious versions."""

import pytest
import torch

from camera_trap_al.errors import UnknownNameError
from camera_trap_al.learn.losses import losses, random_violating, selections, softmax_loss, triplet_loss

MARGIN = 1.0


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(b=14, d=5, classes=3, seed=0):
    rng = generator(seed)
    return torch.randn(b, d, generator=rng), torch.randint(0, classes, (b,), generator=rng)


def squared(a, b):
    return float(((a - b) ** 2).sum())


def obvious_choices(embeddings, labels, margin):
    """{(anchor, positive): negatives that violate the margin} by loops."""
    choices = {}
    for i in range(len(labels)):
        for j in range(i + 1, len(labels)):
            if labels[i] == labels[j]:
                near = squared(embeddings[i], embeddings[j])
                choices[i, j] = {
                    k
                    for k in range(len(labels))
                    if labels[k] != labels[i] and near - squared(embeddings[i], embeddings[k]) + margin > 0
                }
    return choices


@pytest.mark.parametrize("seed", range(8))
def test_each_pair_of_a_class_gets_one_violating_negative_or_none(seed):
    embeddings, labels = batch(seed=seed)
    triplets = random_violating(embeddings, labels, MARGIN, generator(seed)).tolist()
    choices = obvious_choices(embeddings, labels, MARGIN)
    assert [(a, p) for a, p, _ in triplets] == sorted(pair for pair, negatives in choices.items() if negatives)
    assert all(n in choices[a, p] for a, p, n in triplets)


def test_every_violating_negative_is_chosen_about_equally_often():
    embeddings, labels = torch.zeros(6, 2), torch.tensor([0, 0, 1, 1, 2, 2])
    counts = torch.zeros(6)
    for seed in range(600):
        triplets = random_violating(embeddings, labels, MARGIN, generator(seed))
        counts[triplets[0, 2]] += 1
    assert counts[:2].sum() == 0
    assert counts[2:].min() > 100 and counts[2:].max() < 200


@pytest.mark.parametrize("seed", range(4))
def test_the_triplet_loss_is_the_mean_over_the_chosen_triplets(seed):
    embeddings, labels = batch(seed=seed)
    triplets = random_violating(embeddings, labels, MARGIN, generator(seed)).tolist()
    terms = [
        max(0.0, squared(embeddings[a], embeddings[p]) - squared(embeddings[a], embeddings[n]) + MARGIN)
        for a, p, n in triplets
    ]
    loss = triplet_loss(embeddings, labels, MARGIN, generator=generator(seed))
    assert float(loss) == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_the_same_seed_gives_the_same_loss():
    embeddings, labels = batch()
    values = {float(triplet_loss(embeddings, labels, MARGIN, generator=generator(s))) for s in (1, 1, 1)}
    assert len(values) == 1


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3], [0]])
def test_without_a_triplet_the_loss_is_zero_and_has_a_gradient(labels):
    embeddings = torch.randn(len(labels), 3, requires_grad=True)
    loss = triplet_loss(embeddings, torch.tensor(labels), MARGIN, generator=generator())
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(embeddings.grad, torch.zeros_like(embeddings))


def test_classes_that_are_far_apart_give_zero():
    embeddings = torch.tensor([[0.0], [0.1], [50.0], [50.1]], requires_grad=True)
    loss = triplet_loss(embeddings, torch.tensor([0, 0, 1, 1]), MARGIN, generator=generator())
    assert loss.item() == 0.0


def test_a_step_down_the_triplet_loss_brings_a_class_together():
    embeddings, labels = batch(b=30)
    embeddings.requires_grad_(True)
    before = triplet_loss(embeddings, labels, MARGIN, generator=generator())
    before.backward()
    after = triplet_loss(embeddings.detach() - 0.05 * embeddings.grad, labels, MARGIN, generator=generator())
    assert float(after) < float(before)


def test_the_softmax_loss_is_the_cross_entropy_of_the_rectified_embedding():
    embeddings, labels = batch(classes=3)
    head = losses["softmax"].head(5, 3)
    proba = torch.softmax(embeddings.clamp(min=0) @ head.weight.T + head.bias, dim=1)
    expected = -proba[torch.arange(len(labels)), labels].log().mean()
    assert float(softmax_loss(embeddings, labels, head)) == pytest.approx(float(expected), rel=1e-5)


def test_only_the_softmax_loss_has_a_layer_of_its_own():
    assert losses["triplet"].head(5, 3) is None
    assert losses["softmax"].head(5, 3).weight.shape == (3, 5)


@pytest.mark.parametrize(
    ("registry", "name"), [(losses, "siamese"), (selections, "hardest"), (selections, "hard_pair")]
)
def test_promised_losses_and_selections_are_not_in_this_version_yet(registry, name):
    with pytest.raises(UnknownNameError, match="not in this version yet"):
        registry[name]
