"""Texts of the command line as values; a text that is none is said so by argparse."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from camera_trap_al.errors import UsageError


def whole(text: str) -> int:
    """Return a whole number of 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number")
    return int(text)


def fraction(text: str) -> float:
    """Return a number in [0, 1]."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number between 0 and 1")
    return value


def factor(text: str) -> float:
    """Return a number in [1, 10]."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value <= 10:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number between 1 and 10")
    return value


def names(text: str) -> list[str]:
    """Return the names between commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def key_values(texts: Sequence[str]) -> dict[str, str]:
    """Return the options given as `-o KEY=VALUE`. Raises `UsageError`."""
    given: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"-o {text} is not KEY=VALUE.", hint="Such as -o active_batch=25.")
        given[key.strip()] = value.strip()
    return given
