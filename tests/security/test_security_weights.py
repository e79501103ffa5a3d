"""Start weights of a stranger: what is pickled in them is not run. Loads torch."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from planted import Bomb

from camera_trap_al.errors import ModelError

pytestmark = pytest.mark.slow


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
