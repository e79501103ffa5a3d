"""The options of sequences."""

from __future__ import annotations

from dataclasses import dataclass

from camera_trap_al.option import option


@dataclass(frozen=True)
class SequencesConfig:
    """Images that belong together, since a camera took them one right after the other."""

    gap_s: float = option(
        60.0,
        "Seconds: images of one folder that were taken less than this apart, one after the other, are one sequence."
        " Without capture times, names that count up. 0: each image is by itself.",
        low=0,
        high=86_400,
    )
    propagate: bool = option(
        False,
        "Let the classifier learn also from unlabelled images of a sequence, under the label of one that has it, unless it"
        " thinks otherwise. Never for validation.",
    )
