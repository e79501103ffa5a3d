"""Losses for the embedding: triplet, siamese and softmax; and which triplets or pairs of a batch count.

torch is imported inside the functions, so that the names can be listed without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from camera_trap_al.errors import UsageError
from camera_trap_al.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    Select = Callable[[Tensor, Tensor, float, torch.Generator], Tensor]

TRIPLETS, PAIRS, IMAGES = "triplets", "pairs", "single images"
# A distance of 0 has no direction to leave it by; below this square, root and gradient are those of a constant.
LEAST_SQUARE = 1e-12


@dataclass(frozen=True)
class Loss:
    """A loss by name.

    `learns_from` is `TRIPLETS`, `PAIRS` or `IMAGES`. `head(feat_dim, n_classes)` makes the layer that is trained along
    with the embedding, or None. `measure` maps embeddings (b, d), labels (b,) int64, that head, the margin, what
    `selection_for` returned and a CPU generator to a scalar tensor.
    """

    learns_from: str
    head: Callable[[int, int], nn.Module | None]
    measure: Callable[[Tensor, Tensor, nn.Module | None, float, Select | None, torch.Generator], Tensor]


losses: Registry[Loss] = Registry("embedding loss")
selections: Registry[Mapping[str, Select]] = Registry("data strategy")
"""Name → what it chooses (`TRIPLETS`, `PAIRS`) → how. A way to choose maps embeddings (b, d), labels (b,) int64, the
margin and a CPU generator to an int64 tensor of places in the batch: (t, 3) anchor, positive, negative, or (p, 2).
"""


def check_selection(loss: str, selection: str, margin: float) -> None:
    """Raise `UnknownNameError` or `UsageError` for a data strategy, or a margin, with which a loss can teach nothing.

    A loss of single images (softmax) uses neither.
    """
    wanted, offered = losses[loss].learns_from, selections[selection]
    if wanted == IMAGES:
        return
    if wanted not in offered:
        fitting = " or ".join(name for name in selections.names() if wanted in selections[name])
        others = " or ".join(name for name in losses.names() if losses[name].learns_from in offered)
        raise UsageError(
            f"The data strategy '{selection}' chooses {' and '.join(offered)}, but the loss '{loss}' learns from {wanted}.",
            hint=f"Set embedding_loss_data_strategy to {fitting}, or embedding_loss_type to {others}.",
        )
    if margin == 0 and (wanted == PAIRS or selection == "semi_hard"):
        raise UsageError(
            f"With embedding_loss_margin = 0 the loss '{loss}' with the data strategy '{selection}' keeps no classes apart.",
            hint="Choose more than 0; 1.0 is usual.",
        )


def selection_for(loss: str, selection: str) -> Select | None:
    """Return how a loss chooses from a batch, None for one of single images; see `check_selection`."""
    return selections[selection].get(losses[loss].learns_from)


def random_violating(embeddings: Tensor, labels: Tensor, margin: float, generator: torch.Generator) -> Tensor:
    """Choose for each pair of one class one negative, at random among those that violate the margin.

    Returns
    -------
    (t, 3) int64 tensor of anchor, positive, negative; sorted by anchor and positive. Each pair of images of one class
    stands in it once, unless all images of other classes are farther away from its anchor than its positive and the
    margin. t is 0 without such a pair.

    Source: the reference program's `RandomNegativeTripletSelector`, after Schroff et al. 2015 (FaceNet).
    """
    anchors, positives, terms = _terms(embeddings, labels, margin)
    return _with_random_negative(anchors, positives, terms > 0, generator)


def hardest_violating(embeddings: Tensor, labels: Tensor, margin: float, generator: torch.Generator) -> Tensor:
    """Choose for each pair of one class the negative nearest to its anchor, if that violates the margin.

    Returns as `random_violating` does; nothing is drawn. Source: the reference program's
    `HardestNegativeTripletSelector`, after Schroff et al. 2015.
    """
    import torch

    anchors, positives, terms = _terms(embeddings, labels, margin)
    largest, negatives = terms.max(dim=1)
    return torch.stack([anchors, positives, negatives], dim=1)[largest > 0]


def semi_hard_violating(embeddings: Tensor, labels: Tensor, margin: float, generator: torch.Generator) -> Tensor:
    """Choose for each pair of one class one negative, at random among those farther than its positive, but by less
    than the margin.

    Returns as `random_violating` does. Source: the reference program's `SemihardNegativeTripletSelector`, after
    Schroff et al. 2015.
    """
    anchors, positives, terms = _terms(embeddings, labels, margin)
    return _with_random_negative(anchors, positives, (terms > 0) & (terms < margin), generator)


def random_pairs(embeddings: Tensor, labels: Tensor, margin: float, generator: torch.Generator) -> Tensor:
    """Choose all pairs of one class, and as many pairs of two classes at random (all, where there are fewer).

    Returns
    -------
    (p, 2) int64 tensor, the smaller place first, pairs of one class first; p is 0 where the batch is of one class, or
    holds no two images of any

    Source: the reference program's `AllPositivePairSelector(balance=True)`.
    """
    import torch

    alike, unlike = _pairs(labels)
    order = torch.randperm(len(unlike), generator=generator)[: len(alike)]
    return _both(alike, unlike[order.to(unlike.device)])


def hard_pairs(embeddings: Tensor, labels: Tensor, margin: float, generator: torch.Generator) -> Tensor:
    """Choose all pairs of one class, and as many pairs of two classes: those nearest to each other.

    Returns as `random_pairs` does; nothing is drawn, and of equal distances the earlier pairs are taken. Source: the
    reference program's `HardNegativePairSelector`.
    """
    alike, unlike = _pairs(labels)
    nearest = _squares(embeddings)[unlike[:, 0], unlike[:, 1]].argsort(stable=True)
    return _both(alike, unlike[nearest[: len(alike)]])


selections.register("random")({TRIPLETS: random_violating, PAIRS: random_pairs})
selections.register("hardest")({TRIPLETS: hardest_violating})
selections.register("semi_hard")({TRIPLETS: semi_hard_violating})
selections.register("hard_pair")({PAIRS: hard_pairs})


def triplet_loss(
    embeddings: Tensor,
    labels: Tensor,
    margin: float,
    *,
    generator: torch.Generator,
    select: Select = random_violating,
) -> Tensor:
    """Average max(0, |a − p|² − |a − n|² + margin) over the selected triplets of a batch.

    Parameters
    ----------
    embeddings : (b, d) float tensor
    labels : (b,) int64 tensor
    margin : in squared distance, > 0
    generator : on the CPU; same state, same triplets
    select : which triplets count

    Returns
    -------
    Scalar tensor, >= 0; exactly 0, with a gradient of zeros, where there is no triplet.

    Source: Schroff et al. 2015, "FaceNet"; Norouzzadeh et al. 2021 use it as here, on unnormalised embeddings.
    """
    triplets = select(embeddings, labels, margin, generator)
    if len(triplets) == 0:
        return embeddings.sum() * 0.0
    anchors, positives, negatives = (embeddings[triplets[:, i]] for i in range(3))
    near = (anchors - positives).square().sum(dim=1)
    far = (anchors - negatives).square().sum(dim=1)
    return (near - far + margin).clamp(min=0.0).mean()


def siamese_loss(
    embeddings: Tensor,
    labels: Tensor,
    margin: float,
    *,
    generator: torch.Generator,
    select: Select = random_pairs,
) -> Tensor:
    """Average |a − b|² over selected pairs of one class, and max(0, margin − |a − b|)² over those of two classes.

    Parameters as for `triplet_loss`, but the margin is in distance, and `select` says which pairs count.

    Returns
    -------
    Scalar tensor, >= 0; exactly 0, with a gradient of zeros, where there is no pair.

    Source: Hadsell, Chopra and LeCun 2006, "Dimensionality reduction by learning an invariant mapping", there with a
    factor of one half; without it in the reference program.
    """
    import torch

    pairs = select(embeddings, labels, margin, generator)
    if len(pairs) == 0:
        return embeddings.sum() * 0.0
    first, second = pairs[:, 0], pairs[:, 1]
    squares = (embeddings[first] - embeddings[second]).square().sum(dim=1)
    short_of = (margin - squares.clamp(min=LEAST_SQUARE).sqrt()).clamp(min=0.0)
    return torch.where(labels[first] == labels[second], squares, short_of.square()).mean()


def softmax_loss(embeddings: Tensor, labels: Tensor, head: nn.Module) -> Tensor:
    """Return the cross-entropy of `head` on the rectified embedding, as the sister pipeline's network has it."""
    from torch.nn import functional

    return functional.cross_entropy(head(functional.relu(embeddings)), labels)


def _terms(embeddings: Tensor, labels: Tensor, margin: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return anchor and positive of each pair of one class, (p,) each, and (p, b) |a − p|² − |a − n|² + margin.

    The last is −inf where the image in the place n is of the same class.
    """
    import torch

    squares = _squares(embeddings)
    alike = labels[:, None] == labels[None, :]
    anchors, positives = torch.nonzero(torch.triu(alike, diagonal=1), as_tuple=True)
    terms = squares[anchors, positives][:, None] - squares[anchors] + margin
    return anchors, positives, terms.masked_fill(alike[anchors], -torch.inf)


def _with_random_negative(anchors: Tensor, positives: Tensor, allowed: Tensor, generator: torch.Generator) -> Tensor:
    """Add to each pair one of its allowed negatives; `allowed` is (p, b) bool. A pair without any is left out."""
    import torch

    counts = allowed.sum(dim=1)
    # One number a pair, drawn on the CPU: the choice is the same on every device.
    draws = torch.rand(len(anchors), generator=generator, dtype=torch.float64).to(counts.device)
    nth = (draws * counts).long()
    negatives = (allowed.cumsum(dim=1) <= nth[:, None]).sum(dim=1)
    triplets = torch.stack([anchors, positives, negatives], dim=1)
    return triplets[counts > 0]


def _squares(embeddings: Tensor) -> Tensor:
    """Return squared distances (b, b), without gradient."""
    import torch

    points = embeddings.detach()
    return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist").square()


def _pairs(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pairs of one class and the pairs of two classes, (p, 2) each, sorted."""
    import torch

    alike = labels[:, None] == labels[None, :]
    return torch.nonzero(torch.triu(alike, diagonal=1)), torch.nonzero(torch.triu(~alike, diagonal=1))


def _both(alike: Tensor, unlike: Tensor) -> Tensor:
    """Join the two kinds of pairs; either kind alone would only draw all images together, or drive all apart."""
    import torch

    return torch.cat([alike, unlike]) if len(unlike) else unlike


def _no_head(feat_dim: int, n_classes: int) -> None:
    return None


def _linear_head(feat_dim: int, n_classes: int) -> nn.Module:
    from torch import nn

    return nn.Linear(feat_dim, n_classes)


def _of_selected(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a loss over selected triplets or pairs as the `measure` of a `Loss`."""

    def measure(
        embeddings: Tensor,
        labels: Tensor,
        head: nn.Module | None,
        margin: float,
        select: Select | None,
        generator: torch.Generator,
    ) -> Tensor:
        assert select is not None
        return loss(embeddings, labels, margin, generator=generator, select=select)

    return measure


def _measure_softmax(
    embeddings: Tensor,
    labels: Tensor,
    head: nn.Module | None,
    margin: float,
    select: Select | None,
    generator: torch.Generator,
) -> Tensor:
    assert head is not None
    return softmax_loss(embeddings, labels, head)


losses.register("triplet")(Loss(TRIPLETS, _no_head, _of_selected(triplet_loss)))
losses.register("siamese")(Loss(PAIRS, _no_head, _of_selected(siamese_loss)))
losses.register("softmax")(Loss(IMAGES, _linear_head, _measure_softmax))
