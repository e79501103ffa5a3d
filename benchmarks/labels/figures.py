"""What the replays of several sets come to: the table, how the default does against its targets, and rare classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from camera_trap_al.comparison import SCORES, Replays, as_text, curve_of
from camera_trap_al.learn.replay_figure import Curve
from camera_trap_al.replay import SEED_RECIPE
from camera_trap_al.replay_season import Season

LEAST_VALIDATION, RAREST_SHARE = 8, 0.25
RARE_AT = (50, 100, 200, 400)
TARGETS = {"saving_against_seed": 0.40, "saving_against_uniform": 0.50}


def rare_recall(season: Season, replays: Replays, method: str) -> dict[str, float]:
    """Return the mean recall of the rarest classes after some numbers of labels, in [0, 1].

    The rarest are the quarter with the fewest images to label of the classes with at least eight validation images.
    """
    validation = np.bincount(season.labels[season.validation], minlength=len(season.classes))
    to_label = np.bincount(season.labels[: season.n_known], minlength=len(season.classes))
    measured = np.flatnonzero((validation >= LEAST_VALIDATION) & (to_label > 0))
    rarest = measured[np.argsort(to_label[measured], kind="stable")][: math.ceil(RAREST_SHARE * len(measured))]
    found: dict[str, list[float]] = {}
    for points in replays.points[method].values():
        for point in points:
            if point["asked"] in RARE_AT:
                hits = np.array(point["hits"])[rarest] / validation[rarest]
                found.setdefault(str(point["asked"]), []).append(float(hits.mean()))
    return {asked: round(float(np.mean(values)), 4) for asked, values in found.items()}


def panel(replays: Replays, score: str = "macro_f1") -> tuple[list[Curve], float, str]:
    """Return what a picture shows of one set: the default, the uniform draw with its head, and the original's recipe."""
    shown = {replays.default, replays.uniform_for(replays.default), SEED_RECIPE}
    best, head = replays.best(score)
    curves = [curve_of(replays, method, score) for method in replays.methods if method.name in shown]
    return curves, best, f"{head}, all labels"


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table in Markdown for each set: labels needed, and the share of them that others need."""
    lines = []
    for name, said in results.items():
        best = ", ".join(f"{SCORES[score]} {said['best'][score]['score']:.3f}" for score in SCORES)
        lines += [f"**{name}** (all labels: {best})", ""]
        heads = [f"labels for 90 % of {SCORES[score]} | of uniform | of the original" for score in SCORES]
        lines += [f"| method | seeds | {' | '.join(heads)} |", "|---|---" + "|---" * 3 * len(SCORES) + "|"]
        for method, found in said["methods"].items():
            cells = [f"**{method}**" if method == said["default"] else method, str(found["seeds"])]
            for score in SCORES:
                cells.append(as_text(found[score]["labels"]["90"], found[score]["asked"][-1]))
                cells += [_share(found, key, score) for key in ("saving_against_uniform", "saving_against_seed")]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _share(found: Mapping[str, Any], key: str, score: str) -> str:
    saved = found.get(key, {}).get(score)
    if saved is None or saved["value"] is None:
        return "–"
    most = "≤ " if saved["at_least"] else ""
    low, high = ("" if end is None else f"{1 - end:.0%}" for end in (saved["high"], saved["low"]))
    return f"{most}{1 - saved['value']:.0%} ({low}–{high})"


def overall(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the medians over sets and backbones of what each method saves, and the recall of rare classes."""
    methods = dict.fromkeys(method for said in results.values() for method in said["methods"])
    found: dict[str, Any] = {}
    for method in methods:
        there = [said for said in results.values() if method in said["methods"]]
        each = [said["methods"][method] for said in there]
        found[method] = {
            key: {score: _median([one.get(key, {}).get(score, {}).get("value") for one in each]) for score in SCORES}
            for key in TARGETS
        }
        rare = [(said["rare_recall"][method], said["rare_recall"].get(SEED_RECIPE, {})) for said in there]
        found[method]["rare_recall_above_seed"] = {
            str(asked): _mean(
                [
                    mine[str(asked)] - other[str(asked)]
                    for mine, other in rare
                    if str(asked) in mine and str(asked) in other
                ]
            )
            for asked in RARE_AT
        }
    return found


def _median(values: Sequence[float | None]) -> float | None:
    """Return the median, in which what is not known, since the score was not reached, counts as saving nothing."""
    known = [0.0 if value is None else value for value in values]
    return round(median(known), 3) if known else None


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None
