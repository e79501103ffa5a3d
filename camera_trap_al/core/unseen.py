"""How many species are probably among the images that nobody has labelled yet, told by the images drawn at random."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

from camera_trap_al.core.estimates import NORMAL_975

FEWEST_DRAWN = 20


@dataclass(frozen=True)
class Unseen:
    """Species without any label.

    Parameters
    ----------
    species : how many there probably are, at the least
    share : of the images, how many show one of them; a fraction
    share_high : how many there are at most, with 97.5 % probability
    n_drawn : images drawn at random that this was told by
    """

    species: float
    share: float
    share_high: float
    n_drawn: int


def estimate_unseen(drawn: Mapping[str, int], elsewhere: Set[str]) -> Unseen | None:
    """Return how many species were probably never seen, or None where too few images were drawn.

    Species that are known from elsewhere are left out of account: among all others the images drawn at random are the
    only ones that were looked at, so those seen once and twice there tell of those that were never seen.

    Parameters
    ----------
    drawn : how often each species was found among the images drawn at random
    elsewhere : species that other labels or folders name

    Sources: Good 1953, for the share; Chao 1984, bias-corrected, for the number, which is a lower bound. Upper end:
    Wilson 1927.
    """
    n = sum(drawn.values())
    if n < FEWEST_DRAWN:
        return None
    counts = [count for name, count in drawn.items() if name not in elsewhere]
    once, twice = counts.count(1), counts.count(2)
    species = (n - 1) / n * once * (once - 1) / (2 * (twice + 1))
    share, z2 = once / n, NORMAL_975**2
    half = NORMAL_975 * ((share * (1 - share) + z2 / (4 * n)) / n) ** 0.5
    return Unseen(species, share, min(1.0, (share + z2 / (2 * n) + half) / (1 + z2 / n)), n)
