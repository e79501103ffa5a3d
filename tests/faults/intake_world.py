"""A label file through the program's own reader, decision and receipt, in the words of the contract oracle."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from contract_oracle import Answer, Outcome, World

from camera_trap_al.core.decision import Decision, journal_fields
from camera_trap_al.core.intake import IntakeSettings, decide
from camera_trap_al.core.matching import KnownClasses, KnownImages
from camera_trap_al.core.records import ImageKey
from camera_trap_al.errors import LabelFileError
from camera_trap_al.labels.inbox import PrivateCopy
from camera_trap_al.labels.receipts import CODES, receipt_from_line, receipt_of_decision, receipt_of_error
from camera_trap_al.labels.species_csv import Limits, read_species_csv

AT = "2024-05-01T10:00:00Z"


@lru_cache(maxsize=8)
def _known_images(pool: frozenset[tuple[str, str]], aliases: tuple[tuple[str, str], ...]) -> KnownImages:
    return KnownImages([ImageKey(*key) for key in sorted(pool)], [f"{old}={new}" for old, new in aliases])


def decided(path: Path, world: World, limits: Limits | None = None) -> Decision:
    """Read and decide the file at `path`. Raises `LabelFileError` and nothing else."""
    images = _known_images(world.pool, world.path_alias)
    classes = KnownClasses(
        world.classes, skip_words=world.skip_words, reserved=world.reserved, unlabel_token=world.unlabel_token
    )
    unrequested = "accept" if world.unrequested == "accept" else "ignore"
    requested = {ImageKey(*key) for key in world.requested}
    return decide(
        read_species_csv(path, column=world.column, knows=images.knows, limits=limits).rows,
        images=images,
        classes=classes,
        requested=requested,
        awaited=[key for key in requested if key not in world.labels],
        current=world.labels.get,
        published={ImageKey(*key): names for key, names in world.published.items()},
        settings=IntakeSettings(unrequested, world.auto_add, world.auto_add_min),
        not_pool=lambda key: key.relative_path.partition("/")[0] in world.held and key not in images,
    )


def receipt_of(path: Path, world: World, limits: Limits | None = None) -> dict[str, Any]:
    """Return the receipt that a file gets, by way of its journal line where it has a good row."""
    copy = PrivateCopy(path, path.name, "0" * 64, 1)
    try:
        decision = decided(path, world, limits)
    except LabelFileError as error:
        return receipt_of_error(copy, error, AT)
    if not decision.is_good:
        return receipt_of_decision(copy, decision, AT)
    facts = {"name": copy.name, "sha256": copy.sha256, "mtime_ns": copy.mtime_ns, "at": AT}
    return receipt_from_line({"seq": 7, "kind": "labels"} | facts | journal_fields(decision))


def answer_of(receipt: dict[str, Any]) -> Answer:
    """Return a receipt in the oracle's words, after checking what every receipt has to hold."""
    counts, rejected = receipt["counts"], receipt["rejected"]
    assert {row["code"] for row in rejected} <= CODES.keys()
    assert sum(n for name, n in counts.items() if name != "rows") == counts["rows"], counts
    images: dict[tuple[str, str], Outcome] = {}

    def note(path: str, outcome: Outcome) -> None:
        assert images.setdefault(tuple(ImageKey.of(path)), outcome) == outcome, f"{path} was decided twice"

    for row in receipt["accepted"]:
        note(row["path"], ("label", row["label"], row["provenance"]))
    for row in receipt["skipped"]:
        note(row["path"], ("skip", row["reason"]))
    for path in receipt["unlabelled"]:
        note(path, ("unlabel",))
    codes = [(row["line"], row["code"]) for row in rejected]
    return Answer(receipt["verdict"], images, codes, frozenset(receipt["new_classes"]))
