"""Networks of the package timm as backbones, named `timm:NAME` (DINOv2's among them): the extra `[timm]`.

timm, which imports torch, is imported inside the functions, so in the worker only. Nothing is ever fetched: weights come
from a file, or from where timm and Hugging Face keep what was fetched before. Files are read by `weights.py`, as weights
and nothing else.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from camera_trap_al.errors import ModelError, UnknownNameError, UsageError
from camera_trap_al.registry import did_you_mean

if TYPE_CHECKING:
    from torch import Tensor, nn

PREFIX = "timm:"
INSTALL = "Run `pip install camera_trap_al[timm]`, or choose another embedding_arch."
INPUT_PX = 224
# What Hugging Face's copies of timm's weights are called, those that cannot run code first.
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
# No `hf-hub:` and no `local-dir:`, which timm would fetch or read by itself.
_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_\-]+)?")


def is_timm(arch: str) -> bool:
    """Return whether an architecture is one of timm's, by its name."""
    return arch.startswith(PREFIX)


def check_timm(arch: str) -> None:
    """Raise `UsageError` where a name cannot be one of timm's, or timm is not installed. Imports nothing."""
    name = arch.removeprefix(PREFIX)
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"'{arch}' names no network of timm.",
            hint="Write it as timm:NAME, such as timm:vit_small_patch14_dinov2.lvd142m.",
        )
    if importlib.util.find_spec("timm") is None:
        raise UsageError(f"embedding_arch = {arch} needs the package timm, which is not installed.", hint=INSTALL)


def build_timm(arch: str) -> nn.Module:
    """Build a network of timm with random weights and a last layer, for images of 224 × 224 pixels.

    Raises
    ------
    UnknownNameError
        timm has no network of this name
    UsageError
        it takes no images of that size, or has no single last layer that an embedding could replace
    """
    facts = _facts(arch)
    # Most take any size; those that do not are built for this one, where they can be.
    fixed = facts.fixed_input_size and tuple(facts.input_size[-2:]) != (INPUT_PX, INPUT_PX)
    import timm
    from torch import nn

    try:
        network: nn.Module = timm.create_model(
            arch.removeprefix(PREFIX), pretrained=False, num_classes=10, **({"img_size": INPUT_PX} if fixed else {})
        )
    # timm names no class of errors for what a network refuses.
    except Exception as error:
        raise UsageError(
            f"timm cannot build {arch} for images of {INPUT_PX} pixels a side ({error}).",
            hint="Choose another network.",
        ) from error
    last = network.get_submodule(timm_head(arch))
    if not isinstance(last, nn.Linear) and not (isinstance(last, nn.Conv2d) and last.kernel_size == (1, 1)):
        raise _no_head(arch)
    return network


def timm_head(arch: str) -> str:
    """Return the dotted name of the last layer of a network of timm. Raises as `build_timm`."""
    head = _facts(arch).classifier
    if not isinstance(head, str) or not head:
        raise _no_head(arch)
    return head


def _no_head(arch: str) -> UsageError:
    return UsageError(
        f"{arch} has no single last layer that an embedding could replace.", hint="Choose another network of timm."
    )


def find_timm_weights(arch: str) -> Path | None:
    """Return the file of pretrained weights that was fetched before, by timm or Hugging Face, or None.

    Raises as `build_timm`.
    """
    return next((path for path in _places(arch) if path.is_file()), None)


def how_to_fetch(arch: str) -> str:
    """Return the command that fetches the weights of a network, where there is a network to fetch them from."""
    name = arch.removeprefix(PREFIX)
    return f"python -c \"import timm; timm.create_model('{name}', pretrained=True)\""


def as_timm_loads(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights under the names and in the shapes of a network of timm, as timm itself would load them.

    Files of publications name their layers otherwise, and position embeddings are of another image size: most families
    of timm have a function for their own. Raises `ModelError` where it cannot make sense of the file.
    """
    convert: Any = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return dict(state)
    try:
        return dict(convert(dict(state), network))
    # Whatever a file of another network leads it to.
    except Exception as error:
        raise ModelError(
            f"The weights are not of the network {type(network).__name__} of timm ({error}).",
            hint="Set embedding_arch to the network that the file was made with.",
        ) from error


def _facts(arch: str) -> Any:
    """Return what timm says of a network: its `PretrainedCfg`."""
    check_timm(arch)
    import timm

    name = arch.removeprefix(PREFIX)
    try:
        facts = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    # timm knows the network, but none of its weights by the name after the dot.
    except RuntimeError:
        facts = None
    if facts is None:
        known = timm.list_models(pretrained=True) + timm.list_models()
        raise UnknownNameError(
            f"timm has no network called '{name}'.{did_you_mean(name, known)}",
            hint='`python -c "import timm; print(timm.list_models(pretrained=True))"` lists them.',
        )
    return facts


def _places(arch: str) -> Iterator[Path]:
    """Yield the files in which weights of a network would be, had they been fetched; those that cannot run code first."""
    facts = _facts(arch)
    if facts.hf_hub_id:
        from huggingface_hub import try_to_load_from_cache

        names = (facts.hf_hub_filename,) if facts.hf_hub_filename else HUB_FILES
        found = [try_to_load_from_cache(facts.hf_hub_id, name) for name in names]
        yield from (Path(path) for path in found if isinstance(path, str))
    if facts.url:
        from camera_trap_al.learn.weights import cache_folder

        yield cache_folder() / PurePosixPath(facts.url).name
