"""Whether training a network helped: what labels say of the embeddings before and after it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from camera_trap_al.learn.calibration import FEWEST_ROWS, looked_at, predict_left_out
from camera_trap_al.learn.heads.dense import FloatArray, IntArray

# Differences of so many standard errors are taken for more than chance.
CLEAR = 2.0
VERDICTS = {"yes": "it helped", "no": "it did not help", "unclear": "no clear difference"}


@dataclass(frozen=True)
class Worth:
    """Accuracies of classifiers on labels that they had not seen, by the embeddings after a training and before it.

    Parameters
    ----------
    accuracy, before : fractions in [0, 1]
    n_judged : labels that both were judged by
    by : as in `Calibration`
    helped : "yes" where clearly more labels were got right after it than before, "no" where no more were, else "unclear"
    """

    accuracy: float
    before: float
    n_judged: int
    by: str
    helped: str

    def facts(self) -> dict[str, Any]:
        """Return the JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        """Return it as a sentence."""
        return (
            f"{VERDICTS[self.helped]} (accuracy {self.accuracy:.3f}, before {self.before:.3f}, cross-validated by"
            f" {self.by} on {self.n_judged} labels)"
        )


def compare_embeddings(
    after: FloatArray,
    before: FloatArray,
    species: Sequence[str],
    groups: npt.ArrayLike,
    head: str,
    seed: int,
    *,
    images: IntArray | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Worth | None:
    """Judge two embeddings of the same labelled images by cross-validation; None where the labels are too few for that.

    The networks may have been trained on these very labels, the later one on more of them, which flatters it: "no" can be
    relied on, "yes" less so. Of more than 2,000 labels as many are drawn.

    Parameters
    ----------
    after, before : (n, d) and (n, e) scaled vectors
    species, groups, head, seed, images, tick : as for `predict_left_out`

    Source: the test of paired proportions, McNemar 1947.
    """
    images = np.arange(len(species)) if images is None else images
    rows = looked_at(images, seed)
    known, of_group, images = [species[i] for i in rows.tolist()], np.asarray(groups)[rows], images[rows]
    if len(set(known)) < 2:
        return None
    found = [predict_left_out(v[rows], known, of_group, head, seed, images=images, tick=tick) for v in (after, before)]
    judged = found[0].judged
    if int(judged.sum()) < FEWEST_ROWS:
        return None
    right, was_right = (one.proba[judged].argmax(axis=1) == one.targets[judged] for one in found)
    gained, lost = int((right & ~was_right).sum()), int((was_right & ~right).sum())
    clear = CLEAR * math.sqrt(gained + lost)
    # What flatters the later network makes even a small loss a plain answer.
    helped = "no" if gained <= lost else "yes" if gained - lost > clear else "unclear"
    n_judged = int(judged.sum())
    return Worth(float(right.mean()), float(was_right.mean()), n_judged, found[0].by, helped)
