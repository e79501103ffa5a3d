"""When a species is certain enough to be named."""

from __future__ import annotations

from camera_trap_al.core.observed import Named

DECIMALS = 4


def is_sure(named: Named, least: float) -> bool:
    """Return whether a probability, as it is written, with four decimals, is at least so much."""
    return round(named.probability, DECIMALS) >= least
