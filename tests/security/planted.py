"""What a stranger plants: something that acts when it is unpickled."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.proof),)
