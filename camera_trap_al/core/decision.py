"""What one label file decides, and how the journal writes it down."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from camera_trap_al.core.records import ImageKey, Rejection

KEPT_REJECTIONS = 10_000
JOURNALLED_REJECTIONS = 200
COUNTS = (
    "rows",
    "accepted",
    "corrected",
    "unchanged",
    "blank",
    "unrequested",
    "rejected",
    "skipped",
    "unlabelled",
    "duplicates",
)


class Publications(Protocol):
    """What was published of images: a mapping, of which no more than this is asked."""

    def get(self, key: ImageKey, default: AbstractSet[str], /) -> AbstractSet[str]:
        """Return every species that was ever published as the prediction of an image, `default` for none."""


class TakenLabel(NamedTuple):
    """A label to journal; `was` is the label it corrects, provenance is "oracle" or "confirmed"."""

    key: ImageKey
    species: str
    was: str | None
    provenance: str


class Skip(NamedTuple):
    """An image that needs no answer now; `reason` is "cannot_tell", "withdrawn", "several_species" or "new_name"."""

    key: ImageKey
    reason: str


@dataclass(frozen=True)
class Decision:
    """What one label file decides.

    `counts` holds data rows by what became of them: the other entries of `COUNTS` add up to "rows". Rows of several
    species for one image, and rows that name what is no class yet, count as rejected, though the image is skipped.
    `waiting` are images and such names: they are labels once the name is a class. `rejections` are sorted by line and cut
    at 10,000; `requested_left` is how many awaited images still are.
    """

    taken: tuple[TakenLabel, ...] = ()
    skips: tuple[Skip, ...] = ()
    unlabels: tuple[ImageKey, ...] = ()
    new_classes: tuple[str, ...] = ()
    waiting: tuple[tuple[ImageKey, str], ...] = ()
    rejections: tuple[Rejection, ...] = ()
    warnings: tuple[str, ...] = ()
    normalised: tuple[tuple[str, str], ...] = ()
    n_normalised: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    requested_left: int = 0

    @property
    def is_good(self) -> bool:
        """Return whether any row is good: a label taken or known already, a skip or an unlabel."""
        return bool(self.taken or self.skips or self.unlabels or self.counts.get("unchanged"))

    @property
    def verdict(self) -> str:
        """Return "accepted", "partial" or "rejected"; a file with nothing to take and nothing wrong is accepted."""
        if not self.rejections:
            return "accepted"
        return "partial" if self.is_good else "rejected"


def journal_fields(decision: Decision) -> dict[str, Any]:
    """Return what a `labels` journal line holds of a decision, as JSON values.

    `answer` is all that the receipt needs beside the rows: "was" holds (index in rows, corrected label) pairs.
    """
    return {
        "rows": [(folder, file, species, provenance) for (folder, file), species, _, provenance in decision.taken],
        "skips": [[*skip.key, skip.reason] for skip in decision.skips],
        "unlabels": [[*key] for key in decision.unlabels],
        "new_classes": list(decision.new_classes),
        "waiting": [[*key, name] for key, name in decision.waiting],
        "answer": {
            "verdict": decision.verdict,
            "counts": dict(decision.counts),
            "was": [[i, was] for i, (_, _, was, _) in enumerate(decision.taken) if was is not None],
            "rejected": [rejection_fields(r) for r in decision.rejections[:JOURNALLED_REJECTIONS]],
            "warnings": list(decision.warnings),
            "normalised": {"count": decision.n_normalised, "examples": [[*pair] for pair in decision.normalised]},
            "requested_left": decision.requested_left,
        },
    }


def rejection_fields(rejection: Rejection) -> dict[str, Any]:
    """Return a rejection as a receipt lists it."""
    return {
        "line": rejection.line,
        "path": rejection.path,
        "label": rejection.label,
        "code": rejection.code,
        "text": rejection.text,
        "suggest": list(rejection.suggest),
    }
