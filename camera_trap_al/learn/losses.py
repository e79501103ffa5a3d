"""Losses for the embedding: triplet and softmax; which triplets count.

torch is imported inside the functions, so that the names can be listed without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from camera_trap_al.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    Select = Callable[[Tensor, Tensor, float, torch.Generator], Tensor]


@dataclass(frozen=True)
class Loss:
    """A loss by name.

    `head(feat_dim, n_classes)` makes the layer that is trained along with the embedding, or None. `measure` maps
    embeddings (b, d), labels (b,) int64, that head, the margin, the triplet selection and a CPU generator to a
    scalar tensor.
    """

    head: Callable[[int, int], nn.Module | None]
    measure: Callable[[Tensor, Tensor, nn.Module | None, float, Select, torch.Generator], Tensor]


losses: Registry[Loss] = Registry("embedding loss", later=["siamese"])
selections: Registry[Select] = Registry("data strategy", later=["hardest", "semi_hard", "hard_pair"])


@selections.register("random")
def random_violating(embeddings: Tensor, labels: Tensor, margin: float, generator: torch.Generator) -> Tensor:
    """Choose for each pair of one class one negative, at random among those that violate the margin.

    Returns
    -------
    (t, 3) int64 tensor of anchor, positive, negative; sorted by anchor and positive. Each pair of images of one class
    stands in it once, unless all images of other classes are farther away from its anchor than its positive and the
    margin. t is 0 without such a pair.

    Source: the reference program's `RandomNegativeTripletSelector`, after Schroff et al. 2015 (FaceNet).
    """
    import torch

    points = embeddings.detach()
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist").square()
    alike = labels[:, None] == labels[None, :]
    anchors, positives = torch.nonzero(torch.triu(alike, diagonal=1), as_tuple=True)
    violates = distances[anchors, positives][:, None] - distances[anchors] + margin > 0
    violates &= ~alike[anchors]
    counts = violates.sum(dim=1)
    # One number a pair, drawn on the CPU: the choice is the same on every device.
    draws = torch.rand(len(anchors), generator=generator, dtype=torch.float64).to(points.device)
    nth = (draws * counts).long()
    negatives = (violates.cumsum(dim=1) <= nth[:, None]).sum(dim=1)
    triplets = torch.stack([anchors, positives, negatives], dim=1)
    return triplets[counts > 0]


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


def softmax_loss(embeddings: Tensor, labels: Tensor, head: nn.Module) -> Tensor:
    """Return the cross-entropy of `head` on the rectified embedding, as the sister pipeline's network has it."""
    from torch.nn import functional

    return functional.cross_entropy(head(functional.relu(embeddings)), labels)


def _no_head(feat_dim: int, n_classes: int) -> None:
    return None


def _linear_head(feat_dim: int, n_classes: int) -> nn.Module:
    from torch import nn

    return nn.Linear(feat_dim, n_classes)


def _measure_triplet(
    embeddings: Tensor,
    labels: Tensor,
    head: nn.Module | None,
    margin: float,
    select: Select,
    generator: torch.Generator,
) -> Tensor:
    return triplet_loss(embeddings, labels, margin, generator=generator, select=select)


def _measure_softmax(
    embeddings: Tensor,
    labels: Tensor,
    head: nn.Module | None,
    margin: float,
    select: Select,
    generator: torch.Generator,
) -> Tensor:
    assert head is not None
    return softmax_loss(embeddings, labels, head)


losses.register("triplet")(Loss(_no_head, _measure_triplet))
losses.register("softmax")(Loss(_linear_head, _measure_softmax))
