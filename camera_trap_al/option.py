"""How one option is described."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field
from typing import Any


def option(
    default: Any,
    text: str,
    *,
    choices: Iterable[str] = (),
    low: float | None = None,
    high: float = float("inf"),
    alias: str = "",
) -> Any:
    """Describe one option; `alias` is the flat parameter name of `run_active_learning`."""
    facts = {"text": text, "choices": tuple(choices), "low": low, "high": high, "alias": alias}
    return field(default=default, metadata=facts)
