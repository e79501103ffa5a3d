"""The losses against slow, obvious versions."""

import math

import pytest

from camera_trap_al.errors import UnknownNameError, UsageError
from camera_trap_al.learn.losses import (
    hard_pairs,
    hardest_violating,
    losses,
    random_pairs,
    random_violating,
    selection_for,
    selections,
    semi_hard_violating,
    siamese_loss,
    softmax_loss,
    triplet_loss,
)
from camera_trap_al.learn.settings import ModelSettings

MARGIN = 1.0


@pytest.fixture(scope="module", autouse=True)
def imports():
    """Import what needs torch as the first of these tests runs: every test process reads this file, one runs it."""
    global torch
    import torch


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(b=14, d=5, classes=3, seed=0):
    rng = generator(seed)
    return torch.randn(b, d, generator=rng), torch.randint(0, classes, (b,), generator=rng)


def squared(a, b):
    return float(((a - b) ** 2).sum())


def obvious_terms(embeddings, labels, margin):
    """{(anchor, positive): {negative: |a - p|^2 - |a - n|^2 + margin}} by loops."""
    terms = {}
    for i in range(len(labels)):
        for j in range(i + 1, len(labels)):
            if labels[i] == labels[j]:
                near = squared(embeddings[i], embeddings[j])
                terms[i, j] = {
                    k: near - squared(embeddings[i], embeddings[k]) + margin
                    for k in range(len(labels))
                    if labels[k] != labels[i]
                }
    return terms


def obvious_choices(embeddings, labels, margin, allowed=lambda term, margin: term > 0):
    """{(anchor, positive): negatives that may be chosen}."""
    return {
        pair: {k for k, term in terms.items() if allowed(term, margin)}
        for pair, terms in obvious_terms(embeddings, labels, margin).items()
    }


def obvious_pairs(labels):
    """Pairs of one class, and pairs of two classes, by loops."""
    every = [(i, j) for i in range(len(labels)) for j in range(i + 1, len(labels))]
    return [(i, j) for i, j in every if labels[i] == labels[j]], [(i, j) for i, j in every if labels[i] != labels[j]]


@pytest.mark.parametrize("seed", range(8))
def test_each_pair_of_a_class_gets_one_violating_negative_or_none(seed):
    embeddings, labels = batch(seed=seed)
    triplets = random_violating(embeddings, labels, MARGIN, generator(seed)).tolist()
    choices = obvious_choices(embeddings, labels, MARGIN)
    assert [(a, p) for a, p, _ in triplets] == sorted(pair for pair, negatives in choices.items() if negatives)
    assert all(n in choices[a, p] for a, p, n in triplets)


@pytest.mark.parametrize("seed", range(8))
def test_the_hardest_negative_is_the_one_with_the_largest_term_if_it_violates_the_margin(seed):
    embeddings, labels = batch(seed=seed)
    expected = []
    for (a, p), terms in sorted(obvious_terms(embeddings, labels, MARGIN).items()):
        if terms and max(terms.values()) > 0:
            expected.append((a, p, max(terms, key=terms.get)))
    chosen = hardest_violating(embeddings, labels, MARGIN, generator(seed))
    assert [tuple(t) for t in chosen.tolist()] == expected and len(expected) > 3


@pytest.mark.parametrize("seed", range(8))
def test_a_semi_hard_negative_is_farther_than_the_positive_by_less_than_the_margin(seed):
    embeddings, labels = batch(seed=seed)
    margin = 4.0
    triplets = semi_hard_violating(embeddings, labels, margin, generator(seed)).tolist()
    choices = obvious_choices(embeddings, labels, margin, lambda term, margin: 0 < term < margin)
    assert [(a, p) for a, p, _ in triplets] == sorted(pair for pair, negatives in choices.items() if negatives)
    assert triplets and all(n in choices[a, p] for a, p, n in triplets)


def test_every_violating_negative_is_chosen_about_equally_often():
    embeddings, labels = torch.zeros(6, 2), torch.tensor([0, 0, 1, 1, 2, 2])
    counts = torch.zeros(6)
    for seed in range(600):
        triplets = random_violating(embeddings, labels, MARGIN, generator(seed))
        counts[triplets[0, 2]] += 1
    assert counts[:2].sum() == 0
    assert counts[2:].min() > 100 and counts[2:].max() < 200


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("classes", [2, 3, 9])
def test_random_pairs_are_all_of_one_class_and_as_many_of_two(seed, classes):
    embeddings, labels = batch(classes=classes, seed=seed)
    alike, unlike = obvious_pairs(labels.tolist())
    pairs = [tuple(pair) for pair in random_pairs(embeddings, labels, MARGIN, generator(seed)).tolist()]
    assert pairs[: len(alike)] == alike
    others = pairs[len(alike) :]
    assert len(set(others)) == len(others) == min(len(alike), len(unlike)) and set(others) <= set(unlike)


def test_every_pair_of_two_classes_is_chosen_about_equally_often():
    embeddings, labels = torch.zeros(4, 2), torch.tensor([0, 0, 1, 2])
    counts = dict.fromkeys(obvious_pairs(labels.tolist())[1], 0)
    for seed in range(500):
        *_, last = random_pairs(embeddings, labels, MARGIN, generator(seed)).tolist()
        counts[tuple(last)] += 1
    assert all(60 < n < 140 for n in counts.values())


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("classes", [2, 3, 9])
def test_hard_pairs_are_all_of_one_class_and_the_nearest_of_two(seed, classes):
    embeddings, labels = batch(classes=classes, seed=seed)
    alike, unlike = obvious_pairs(labels.tolist())
    nearest = sorted(unlike, key=lambda pair: squared(embeddings[pair[0]], embeddings[pair[1]]))
    pairs = [tuple(pair) for pair in hard_pairs(embeddings, labels, MARGIN, generator(seed)).tolist()]
    assert pairs == alike + nearest[: len(alike)]


@pytest.mark.parametrize("select", [random_pairs, hard_pairs])
@pytest.mark.parametrize("seed", range(4))
def test_the_siamese_loss_is_the_mean_over_the_chosen_pairs(select, seed):
    embeddings, labels = batch(b=9, d=2, seed=seed)
    terms = []
    for i, j in select(embeddings, labels, 2.0, generator(seed)).tolist():
        square = squared(embeddings[i], embeddings[j])
        terms.append(square if labels[i] == labels[j] else max(0.0, 2.0 - math.sqrt(square)) ** 2)
    loss = siamese_loss(embeddings, labels, 2.0, generator=generator(seed), select=select)
    assert float(loss) == pytest.approx(sum(terms) / len(terms), rel=1e-5)


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


COMBINATIONS = [(loss, name) for loss in losses.names() for name in selections.names() if selection_for(loss, name)]


def measured(loss, selection, embeddings, labels, margin=MARGIN):
    return losses[loss].measure(embeddings, labels, None, margin, selection_for(loss, selection), generator())


def test_these_are_the_combinations():
    assert COMBINATIONS == [
        ("siamese", "hard_pair"),
        ("siamese", "random"),
        ("triplet", "hardest"),
        ("triplet", "random"),
        ("triplet", "semi_hard"),
    ]


@pytest.mark.parametrize(("loss", "selection"), COMBINATIONS)
@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3], [0]])
def test_without_a_triplet_or_pair_the_loss_is_zero_and_has_a_gradient(loss, selection, labels):
    embeddings = torch.randn(len(labels), 3, requires_grad=True)
    value = measured(loss, selection, embeddings, torch.tensor(labels))
    value.backward()
    assert value.item() == 0.0
    assert torch.equal(embeddings.grad, torch.zeros_like(embeddings))


@pytest.mark.parametrize(("loss", "selection"), COMBINATIONS)
@pytest.mark.parametrize("d", [1, 3])
def test_images_that_are_all_equal_give_a_finite_loss_and_gradient(loss, selection, d):
    embeddings = torch.ones(6, d, requires_grad=True)
    value = measured(loss, selection, embeddings, torch.tensor([0, 0, 1, 1, 2, 2]))
    value.backward()
    assert 0 <= value.item() <= MARGIN and torch.isfinite(embeddings.grad).all()


@pytest.mark.parametrize(("loss", "selection"), COMBINATIONS)
def test_a_loss_that_is_no_number_is_not_hidden(loss, selection):
    embeddings = torch.full((6, 3), torch.nan)
    assert math.isnan(measured(loss, selection, embeddings, torch.tensor([0, 0, 1, 1, 2, 2])))


@pytest.mark.parametrize(("loss", "selection"), COMBINATIONS)
def test_steps_down_any_loss_tell_the_classes_apart(loss, selection):
    embeddings, labels = batch(b=18)
    for _ in range(100):
        embeddings = embeddings.detach().requires_grad_(True)
        measured(loss, selection, embeddings, labels, margin=3.0).backward()
        embeddings = embeddings - embeddings.grad
    distances = torch.cdist(embeddings.detach(), embeddings.detach())
    distances.fill_diagonal_(torch.inf)
    assert torch.equal(labels[distances.argmin(dim=1)], labels)


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
    assert after.item() < before.item()


def test_the_softmax_loss_is_the_cross_entropy_of_the_rectified_embedding():
    embeddings, labels = batch(classes=3)
    head = losses["softmax"].head(5, 3)
    proba = torch.softmax(embeddings.clamp(min=0) @ head.weight.T + head.bias, dim=1)
    expected = -proba[torch.arange(len(labels)), labels].log().mean()
    assert float(softmax_loss(embeddings, labels, head)) == pytest.approx(float(expected), rel=1e-5)


def test_only_the_softmax_loss_has_a_layer_of_its_own():
    assert losses["triplet"].head(5, 3) is None and losses["siamese"].head(5, 3) is None
    assert losses["softmax"].head(5, 3).weight.shape == (3, 5)


@pytest.mark.parametrize(("loss", "selection"), [*COMBINATIONS, *(("softmax", name) for name in selections.names())])
def test_a_combination_that_works_is_accepted(loss, selection):
    ModelSettings(loss=loss, selection=selection).check()


def test_a_data_strategy_of_another_loss_is_refused_with_the_ways_out():
    text = (
        "The data strategy 'hard_pair' chooses pairs, but the loss 'triplet' learns from triplets."
        " Set embedding_loss_data_strategy to hardest or random or semi_hard, or embedding_loss_type to siamese."
    )
    with pytest.raises(UsageError) as raised:
        ModelSettings(loss="triplet", selection="hard_pair").check()
    assert str(raised.value) == text


@pytest.mark.parametrize("selection", ["hardest", "semi_hard"])
def test_the_siamese_loss_takes_no_triplets(selection):
    with pytest.raises(
        UsageError, match=r"'siamese' learns from pairs. Set .* to hard_pair or random, or .* to triplet"
    ):
        ModelSettings(loss="siamese", selection=selection).check()


@pytest.mark.parametrize(("loss", "selection"), [("siamese", "random"), ("triplet", "semi_hard")])
def test_a_margin_of_zero_is_refused_where_it_keeps_no_classes_apart(loss, selection):
    with pytest.raises(UsageError, match="keeps no classes apart"):
        ModelSettings(loss=loss, selection=selection, margin=0.0).check()
    ModelSettings(margin=0.0).check()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"loss": "tripplet"},
            "no embedding loss called 'tripplet'. Did you mean 'triplet'.* siamese, softmax, triplet",
        ),
        (
            {"selection": "semihard"},
            "no data strategy called 'semihard'. Did you mean 'semi_hard'.* hard_pair, hardest",
        ),
        ({"loss": "softmax", "selection": "semihard"}, "Did you mean 'semi_hard'"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_and_all_others(options, text):
    with pytest.raises(UnknownNameError, match=text):
        ModelSettings(**options).check()
