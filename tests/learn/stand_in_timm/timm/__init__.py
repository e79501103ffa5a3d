"""Stands in for timm where it is not installed: two small networks, and the few functions of it that are used."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from . import nets

_OWN = {"fixed_input_size": False, "input_size": (3, 224, 224), "classifier": "head", "url": "", "hf_hub_id": ""}
_OWN |= {"hf_hub_filename": None}
NETWORKS: dict[str, tuple[Any, dict[str, Any]]] = {
    "patches.tiny": (
        nets.Patches,
        {"fixed_input_size": True, "input_size": (3, 518, 518), "hf_hub_id": "timm/patches.tiny"},
    ),
    "conv": (nets.Conv, {"classifier": "head.fc", "url": "https://example.org/weights/conv-1.pth"}),
    "distilled": (nets.Conv, {"classifier": ("head.fc", "head.fc")}),
    "pooled": (nets.Conv, {"classifier": "head.pool"}),
    "stubborn": (nets.Conv, {"fixed_input_size": True, "input_size": (3, 299, 299)}),
}


def is_model(name: str) -> bool:
    return name.partition(".")[0] in {known.partition(".")[0] for known in NETWORKS}


def list_models(pretrained: bool = False) -> list[str]:
    return list(NETWORKS)


def get_pretrained_cfg(name: str) -> Any:
    if name not in NETWORKS:
        raise RuntimeError("Invalid pretrained tag")
    return SimpleNamespace(**_OWN | NETWORKS[name][1])


def create_model(name: str, pretrained: bool, num_classes: int, **options: Any) -> Any:
    assert not pretrained, "nothing is ever fetched"
    return NETWORKS[name][0](num_classes, **options)
