"""Notices work that goes in circles: a step or job that says it succeeded, again and again, while nothing changes.

Each state of docs/architecture.md changes the facts that made it due. Should one not, this keeps the machine cool.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

STEP_REPEATS = 50
JOB_REPEATS = 5


@dataclass
class Circles:
    """How often in a row each step or job succeeded on the very same facts."""

    _last: dict[str, tuple[Hashable, int]] = field(default_factory=dict)

    def goes_in(self, name: str, facts: Hashable, most: int) -> bool:
        """Count a success of `name` and return whether it was one of more than `most` on the same facts."""
        before, n = self._last.get(name, (None, 0))
        n = n + 1 if before == facts else 1
        self._last[name] = (facts, n)
        return n > most
