"""Name → thing. One registry for each choice that a person makes by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from camera_trap_al.errors import UnknownNameError

T = TypeVar("T")


def nearest(name: str, known: Iterable[str], n: int = 1) -> list[str]:
    """Return up to `n` of `known` that look like `name`, the likeliest first."""
    by_folded = {k.casefold(): k for k in sorted(known, reverse=True)}
    found = difflib.get_close_matches(name.casefold(), sorted(by_folded), n=n, cutoff=0.6)
    return [by_folded[f] for f in found]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest known name, or ""."""
    likely = nearest(name, known)
    return f" Did you mean '{likely[0]}'?" if likely else ""


class Registry(Generic[T]):
    """Things of one kind by name.

    Parameters
    ----------
    kind : what they are, in a person's words ("query strategy")
    later : names that are promised but not built; asking for one says so
    """

    def __init__(self, kind: str, later: Iterable[str] = ()) -> None:
        self.kind = kind
        self.later = frozenset(later)
        self._things: dict[str, T] = {}
        self._marks: dict[str, frozenset[str]] = {}

    def register(self, name: str, *marks: str) -> Callable[[T], T]:
        """Return a decorator that enters a thing under `name`; `marks` are what `has` tells of it."""

        def enter(thing: T) -> T:
            assert name not in self._things, f"{self.kind} {name!r} is registered twice"
            self._things[name] = thing
            self._marks[name] = frozenset(marks)
            return thing

        return enter

    def has(self, name: str, mark: str) -> bool:
        """Return whether a thing was entered with `mark`. Raises `UnknownNameError`."""
        self.check(name)
        return mark in self._marks[name]

    def names(self) -> list[str]:
        """Return the known names, sorted."""
        return sorted(self._things)

    def check(self, name: str) -> None:
        """Raise `UnknownNameError` with the known names unless `name` is one of them."""
        if name in self._things:
            return
        known = ", ".join(self.names())
        if name in self.later:
            raise UnknownNameError(
                f"The {self.kind} '{name}' is not in this version yet.", hint=f"Use one of: {known}."
            )
        raise UnknownNameError(
            f"There is no {self.kind} called '{name}'.{did_you_mean(name, self.names())}", hint=f"Use one of: {known}."
        )

    def __getitem__(self, name: str) -> T:
        self.check(name)
        return self._things[name]
