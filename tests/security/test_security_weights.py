"""Start weights of a stranger: what is pickled in them is not run. Loads torch."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from camera_trap_al.errors import ModelError

pytestmark = pytest.mark.slow


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.proof),)


@pytest.fixture
def proof(tmp_path: Path) -> Path:
    return tmp_path / "it ran"


@pytest.mark.parametrize("name", ["weights.pt", "weights.pth", "weights.safetensors", "weights.bin"])
def test_start_weights_of_a_stranger_are_not_run(tmp_path: Path, proof: Path, name: str) -> None:
    import torch

    from camera_trap_al.learn.weights import read_state_dict

    (tmp_path / name).write_bytes(pickle.dumps(Bomb(proof)))
    with pytest.raises(ModelError, match="cannot be read"):
        read_state_dict(tmp_path / name)
    torch.save({"state_dict": Bomb(proof)}, tmp_path / name)
    with pytest.raises(ModelError, match="cannot be read"):
        read_state_dict(tmp_path / name)
    assert not proof.exists()
