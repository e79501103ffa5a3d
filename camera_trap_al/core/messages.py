"""When a person is told something: once for each thing that happened, and not too often of one kind."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

FINISHED = "finished"
LABELS_WANTED, PROBLEM = "labels_wanted", "problem"


@dataclass(frozen=True)
class Trouble:
    """Something that needs a person.

    `key` names this one thing, and `kind` what it is one of; `text` says it in a sentence.
    """

    key: str
    kind: str
    text: str


@dataclass(frozen=True)
class Message:
    """What a person is told: `event` is `LABELS_WANTED`, `PROBLEM` or `FINISHED`."""

    event: str
    text: str


@dataclass(frozen=True)
class Told:
    """What was told already.

    Attributes
    ----------
    shown : the round that was announced last, or `FINISHED`; 0 before the first
    keys : of the troubles that were told and are not over
    last : when each kind of trouble was told last, in seconds since 1970
    """

    shown: int | str = 0
    keys: frozenset[str] = frozenset()
    last: Mapping[str, float] = field(default_factory=dict)


def announce(told: Told, shown: int | str, text: str) -> tuple[list[Message], Told]:
    """Return the message that a round, or the end, is shown, unless it was told, and what is told then."""
    if not shown or shown == told.shown:
        return [], told
    return [Message(FINISHED if shown == FINISHED else LABELS_WANTED, text)], replace(told, shown=shown)


def complain(
    told: Told, troubles: Sequence[Trouble], over: Collection[str], now_s: float, every_s: float
) -> tuple[list[Message], Told]:
    """Return the messages about troubles that were not told, one a kind, and what is told then.

    A kind that was told less than `every_s` before `now_s` waits. A clock that was set back keeps nothing waiting longer.

    Parameters
    ----------
    troubles : that there are now
    over : keys of those that are over: where they come again, they are told again
    now_s : seconds since 1970
    """
    keys, last = told.keys - frozenset(over), dict(told.last)
    new = [trouble for trouble in troubles if trouble.key not in keys]
    messages = []
    for kind in dict.fromkeys(trouble.kind for trouble in new):
        if abs(now_s - last.get(kind, float("-inf"))) < every_s:
            continue
        these = [trouble for trouble in new if trouble.kind == kind]
        messages.append(Message(PROBLEM, " ".join(dict.fromkeys(trouble.text for trouble in these))))
        keys |= {trouble.key for trouble in these}
        last[kind] = now_s
    return messages, replace(told, keys=keys, last=last)


def as_json(told: Told) -> dict[str, object]:
    """Return what was told, as it is kept."""
    return {"format": 1, "shown": told.shown, "keys": sorted(told.keys), "last": dict(told.last)}


def from_json(value: Mapping[str, object]) -> Told:
    """Return what was kept; nothing where it is not of this program. Raises nothing."""
    shown, keys, last = value.get("shown"), value.get("keys"), value.get("last")
    if value.get("format") != 1 or not isinstance(keys, list) or not isinstance(last, dict):
        return Told()
    times = {str(kind): at for kind, at in last.items() if isinstance(at, float)}
    return Told(shown if isinstance(shown, int | str) else 0, frozenset(_texts(keys)), times)


def _texts(values: Iterable[object]) -> Iterable[str]:
    return (value for value in values if isinstance(value, str))
