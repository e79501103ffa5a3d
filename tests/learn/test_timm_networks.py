"""Networks of timm as backbones, by a stand-in for timm; the real one, where it is installed, with `--long`."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from camera_trap_al.errors import ModelError, UnknownNameError, UsageError, WeightsMissingError
from camera_trap_al.learn.backbones import backbone_of, build_network, check_arch, sister_pipeline_reads
from camera_trap_al.learn.settings import ModelSettings
from camera_trap_al.learn.weights import load_start_weights

STAND_IN = Path(__file__).with_name("stand_in_timm")
PATCHES, CONV = "timm:patches.tiny", "timm:conv"
HAS_TIMM = importlib.util.find_spec("timm") is not None
DINOV2 = "vit_small_patch14_dinov2.lvd142m"


@pytest.fixture(scope="module", autouse=True)
def imports() -> None:
    """Import what needs torch as the first of these tests runs: every test process reads this file, one runs it."""
    global save_file, torch
    import torch
    from safetensors.torch import save_file


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Put the stand-in for timm in its place; return the folder in which it looks for what was fetched."""
    for name in [name for name in sys.modules if name.split(".")[0] in ("timm", "huggingface_hub")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(STAND_IN))
    monkeypatch.setenv("STAND_IN_HUB", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "hub"


@pytest.fixture(autouse=True)
def forget_the_stand_in() -> Any:
    yield
    for name in [n for n, m in sys.modules.items() if str(STAND_IN) in str(getattr(m, "__file__", "") or "")]:
        del sys.modules[name]


def published() -> dict[str, Any]:
    """Return weights of the network of patches as a publication names them, for images of 518 pixels a side."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        sizes = {"patches.weight": (12, 3, 14, 14), "patches.bias": (12,), "pos_embed": (37 * 37, 12)}
        sizes |= {"qkv.weight": (36, 12), "qkv.bias": (36,), "norm.weight": (12,), "norm.bias": (12,)}
        return {name: torch.randn(*size) for name, size in sizes.items()}


def holds(network: Any, state: dict[str, Any]) -> bool:
    return bool(
        torch.equal(network.patch_embed.weight, state["patches.weight"])
        and torch.equal(network.pos_embed, state["pos_embed"][: 16 * 16])
    )


def test_without_timm_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match="needs the package timm") as caught:
        ModelSettings("timm:vit_small_patch14_dinov2.lvd142m").check()
    assert "pip install camera_trap_al[timm]" in str(caught.value.hint)


@pytest.mark.parametrize(
    "arch",
    ["timm:", "timm:hf-hub:owner/name", "timm:local-dir:/tmp/x", "timm:a/b", "timm:a b", "timm:../x", "timm:a.b.c"],
)
def test_a_name_by_which_timm_would_fetch_or_read_something_else_is_refused(stand_in: Path, arch: str) -> None:
    with pytest.raises(UsageError, match="names no network of timm"):
        check_arch(arch)


def test_names_are_checked_and_weights_planned_without_importing_timm_or_torch() -> None:
    program = (
        "import sys; sys.modules['torch'] = sys.modules['torchvision'] = None;"
        f"sys.path.insert(0, {str(STAND_IN)!r});"
        "from camera_trap_al.learn.settings import ModelSettings;"
        "from camera_trap_al.learn.weights import find_weights;"
        f"ModelSettings({CONV!r}).check(); print(find_weights({CONV!r}, pretrained=True, weights=None).kind);"
        "assert 'timm' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "timm"


@pytest.mark.parametrize("arch", [PATCHES, CONV])
def test_a_network_of_timm_embeds_and_as_onnx_it_gives_the_same(stand_in: Path, arch: str, one_thread: None) -> None:
    from camera_trap_al.learn.onnx_files import open_session
    from camera_trap_al.learn.raw_onnx import ImagesToEmbedding, to_onnx

    network = build_network(arch, 7, seed=3)
    head = network.get_submodule(backbone_of(arch).head)
    assert torch.allclose(head.weight @ head.weight.T, torch.eye(7), atol=1e-5), "orthogonal, as of any backbone"
    whole = ImagesToEmbedding(network, [0.4] * 3, [0.25] * 3).eval()
    images = np.random.default_rng(0).integers(0, 256, (3, 256, 256, 3)).astype(np.uint8)
    with torch.inference_mode():
        expected = whole(torch.from_numpy(images)).numpy()
    (given,) = open_session(to_onnx(whole)).run(None, {"images": images})
    assert expected.shape == (3, 7) and np.abs(given - expected).max() <= 1e-4
    assert not sister_pipeline_reads(arch, 1000)


@pytest.mark.parametrize(
    ("arch", "error", "said"),
    [
        ("timm:patchs.tiny", UnknownNameError, "Did you mean 'patches.tiny'"),
        ("timm:patches.tyny", UnknownNameError, "Did you mean 'patches.tiny'"),
        ("timm:distilled", UsageError, "no single last layer"),
        ("timm:pooled", UsageError, "no single last layer"),
        ("timm:stubborn", UsageError, "cannot build timm:stubborn for images of 224 pixels"),
    ],
)
def test_what_cannot_be_a_backbone_is_said(stand_in: Path, arch: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        build_network(arch, 7, seed=3)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_come_from_a_file_as_timm_would_load_them(stand_in: Path, tmp_path: Path, suffix: str) -> None:
    state, path = published(), tmp_path / f"published{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    network = build_network(PATCHES, 7, seed=3)
    assert load_start_weights(network, PATCHES, pretrained=True, weights=path) == f"weights from {path.name}"
    assert holds(network, state)


def test_a_file_of_another_network_is_refused(stand_in: Path, tmp_path: Path) -> None:
    torch.save({"something": torch.zeros(3)}, tmp_path / "other.pt")
    for arch, said in ((PATCHES, "not of the network Patches"), (CONV, "does not hold weights of timm:conv")):
        with pytest.raises(ModelError, match=said):
            load_start_weights(build_network(arch, 7, seed=3), arch, pretrained=True, weights=tmp_path / "other.pt")


def test_weights_that_were_fetched_before_are_found(stand_in: Path, tmp_path: Path) -> None:
    state, path = published(), stand_in / "timm" / "patches.tiny" / "model.safetensors"
    path.parent.mkdir(parents=True)
    save_file(state, path)
    network = build_network(PATCHES, 7, seed=3)
    assert load_start_weights(network, PATCHES, pretrained=True, weights=None) == f"weights of {PATCHES} from {path}"
    assert holds(network, state)
    theirs = build_network(CONV, 3, seed=8).state_dict()
    kept = tmp_path / "torch" / "hub" / "checkpoints" / "conv-1.pth"
    kept.parent.mkdir(parents=True)
    torch.save(theirs, kept)
    network = build_network(CONV, 7, seed=3)
    assert str(kept) in load_start_weights(network, CONV, pretrained=True, weights=None)
    assert torch.equal(network.stem.weight, theirs["stem.weight"])


def test_nothing_is_fetched_and_the_ways_out_are_named(stand_in: Path) -> None:
    network = build_network(PATCHES, 7, seed=3)
    with pytest.raises(WeightsMissingError, match="none were fetched before") as caught:
        load_start_weights(network, PATCHES, pretrained=True, weights=None)
    hint = str(caught.value.hint)
    assert "timm.create_model('patches.tiny', pretrained=True)" in hint and "embedding_weights" in hint
    assert "random weights" in load_start_weights(network, PATCHES, pretrained=False, weights=None)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_TIMM, reason="timm is not installed")
@pytest.mark.parametrize("arch", [f"timm:{name}" for name in ("resnet10t", "vit_tiny_patch16_224", DINOV2)])
def test_networks_of_timm_itself(arch: str, one_thread: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from camera_trap_al.learn.onnx_files import open_session
    from camera_trap_al.learn.raw_onnx import ImagesToEmbedding, to_onnx

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    network = build_network(arch, 7, seed=3)
    whole = ImagesToEmbedding(network, [0.4] * 3, [0.25] * 3).eval()
    images = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3)).astype(np.uint8)
    with torch.inference_mode():
        expected = whole(torch.from_numpy(images)).numpy()
    (given,) = open_session(to_onnx(whole)).run(None, {"images": images})
    assert np.abs(given - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())
    body = {name: value for name, value in network.state_dict().items() if not name.startswith(backbone_of(arch).head)}
    torch.save(body, tmp_path / "own.pth")
    other = build_network(arch, 7, seed=4)
    load_start_weights(other, arch, pretrained=True, weights=tmp_path / "own.pth")
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in body.items())
