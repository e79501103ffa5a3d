"""What replays of a season come to: `curves.csv`, `summary.json` and `curves.png`, and the same as lines for a person."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from camera_trap_al.core.savings import Estimate, FloatArray, Saving, needed, saving
from camera_trap_al.learn.replay_figure import Curve, replay_figure
from camera_trap_al.replay import SEED_RECIPE, Method
from camera_trap_al.replays import Plan, read_points
from camera_trap_al.store import atomic
from camera_trap_al.strategies import UNIFORM

SUMMARY, CURVES, PICTURE = "summary.json", "curves.csv", "curves.png"
FORMAT = 1
SCORES = {"accuracy": "accuracy", "macro_f1": "macro F1"}
SHARES = (80, 90, 95)
SHOWN_SHARE = 90
COLUMNS = ("method", "strategy", "head", "seed", "asked", "labels", "accuracy", "macro_f1")


@dataclass(frozen=True)
class Replays:
    """All replays of one season.

    Parameters
    ----------
    points : what each replay came to, by method and seed, as `replay` yields it
    full : what each head knows of all labels, by its name
    default : the name of the method that the program uses
    """

    methods: tuple[Method, ...]
    points: Mapping[str, Mapping[int, list[dict[str, Any]]]]
    full: Mapping[str, list[dict[str, Any]]]
    default: str

    @classmethod
    def read(cls, runs: Path, plans: Sequence[Plan], mark: str, default: str) -> Replays:
        """Read the replays that are there; methods of which there is none are left out."""
        points: dict[str, dict[int, list[dict[str, Any]]]] = {}
        full: dict[str, list[dict[str, Any]]] = {}
        for plan in plans:
            found = read_points(runs, plan, mark)
            if found and plan.is_full:
                full.setdefault(plan.method.head, []).extend(found)
            elif found:
                points.setdefault(plan.method.name, {})[plan.seed] = found
        methods = dict.fromkeys(plan.method for plan in plans if plan.method.name in points and not plan.is_full)
        return cls(tuple(methods), points, full, default)

    def curves(self, method: str, score: str) -> tuple[FloatArray, FloatArray]:
        """Return the (p,) numbers of images asked for that all replays of a method have, and their (r, p) scores."""
        runs = list(self.points[method].values())
        # A replay that began with one class alone has no first point.
        common = sorted(set.intersection(*({point["asked"] for point in run} for run in runs)))
        scores = [[{point["asked"]: point[score] for point in run}[asked] for asked in common] for run in runs]
        return np.array(common, np.float64), np.array(scores, np.float64)

    def best(self, score: str) -> tuple[float, str]:
        """Return the best score that any head reaches with all labels, on average, and that head."""
        return max((float(np.mean([point[score] for point in found])), head) for head, found in self.full.items())

    def needed(self, method: str, score: str, share: int) -> Estimate:
        """Return how many images a method asks for until it reaches a share (percent) of the best score."""
        return needed(*self.curves(method, score), share / 100 * self.best(score)[0], seed=share)

    def saving(self, method: str, other: str, score: str, share: int = SHOWN_SHARE) -> Saving:
        """Return which fraction of another method's labels one saves at a share (percent) of the best score."""
        target = share / 100 * self.best(score)[0]
        return saving(self.curves(method, score), self.curves(other, score), target, seed=share)

    def uniform_for(self, method: str) -> str:
        """Return the name of the uniform draw with the head of a method, "" where that was not replayed."""
        head = next((m.head for m in self.methods if m.name == method), "")
        return next((m.name for m in self.methods if m.strategy == UNIFORM and m.head == head), "")


def summary(replays: Replays) -> dict[str, Any]:
    """Return what `summary.json` says of replays; what is not known is null."""
    return {
        "default": replays.default,
        "best": {score: dict(zip(("score", "head"), replays.best(score), strict=True)) for score in SCORES},
        **(savings(replays, replays.default) if replays.default in replays.points else {}),
        "methods": {method.name: _method(replays, method) for method in replays.methods},
    }


def savings(replays: Replays, method: str) -> dict[str, Any]:
    """Return what a method saves at 90 %: against a uniform draw with its head, and against the reference program."""
    against = {"saving_against_uniform": replays.uniform_for(method), "saving_against_seed": SEED_RECIPE}
    return {
        key: {score: _saving(replays.saving(method, other, score)) for score in SCORES}
        for key, other in against.items()
        if other in replays.points and other != method
    }


def _method(replays: Replays, method: Method) -> dict[str, Any]:
    found: dict[str, Any] = {"strategy": method.strategy, "head": method.head}
    found |= {"seeds": len(replays.points[method.name]), **savings(replays, method.name)}
    for score in SCORES:
        asked, curves = replays.curves(method.name, score)
        reached = {f"{share}": _estimate(replays.needed(method.name, score, share)) for share in SHARES}
        found[score] = {"labels": reached, "asked": asked.astype(int).tolist()}
        found[score] |= {"mean": np.round(curves.mean(axis=0), 4).tolist(), "sd": np.round(_sd(curves), 4).tolist()}
    return found


def _sd(curves: FloatArray) -> FloatArray:
    spread: FloatArray = curves.std(axis=0, ddof=1) if len(curves) > 1 else np.zeros(curves.shape[1])
    return spread


def _estimate(found: Estimate, digits: int = 1) -> dict[str, float | None]:
    return {name: round(value, digits) if math.isfinite(value) else None for name, value in vars(found).items()}


def _saving(found: Saving) -> dict[str, float | bool | None]:
    return {**_estimate(found.estimate, 3), "at_least": found.is_at_least}


def write_comparison(out: Path, replays: Replays, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write `curves.csv`, `curves.png` and, last, `summary.json` into a folder; return what the latter says.

    Parameters
    ----------
    facts : JSON values to note in `summary.json`: of the season and of how it was replayed
    """
    atomic.replace_bytes(out / CURVES, _csv(replays).encode("utf-8"))
    shown = {}
    for score, name in SCORES.items():
        best, head = replays.best(score)
        curves = [curve_of(replays, method, score) for method in replays.methods]
        shown[name] = (curves, best, f"{head}, all labels")
    atomic.replace_bytes(out / PICTURE, picture(shown))
    said = {"format": FORMAT, **facts, **summary(replays)}
    atomic.replace_json(out / SUMMARY, said)
    return said


def picture(shown: Mapping[str, tuple[Sequence[Curve], float, str]]) -> bytes:
    """Return a PNG with a panel for each title: its curves, the best score with all labels, and what reached that."""
    return replay_figure(shown, f"{SHOWN_SHARE} % of the best", SHOWN_SHARE / 100)


def curve_of(replays: Replays, method: Method, score: str) -> Curve:
    """Return what a method knows by how many labels it asked for, and its part in a picture."""
    asked, curves = replays.curves(method.name, score)
    role = {replays.default: "default", replays.uniform_for(replays.default): "uniform", SEED_RECIPE: "recipe"}.get(
        method.name, ""
    )
    return Curve(method.name, role, asked, curves)


def _csv(replays: Replays) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for method in replays.methods:
        for seed, points in sorted(replays.points[method.name].items()):
            for p in points:
                row = [method.name, method.strategy, method.head, seed, p["asked"], p["labels"]]
                writer.writerow([*row, f"{p['accuracy']:.6f}", f"{p['macro_f1']:.6f}"])
    return text.getvalue()


def lines_of(said: Mapping[str, Any]) -> list[str]:
    """Return what `summary.json` says as lines for a person: a table, and what the default saves."""
    lines = []
    for score, name in SCORES.items():
        best = said["best"][score]
        lines.append(f"{name}: with all labels {best['score']:.3f} ({best['head']}); labels needed for a share of that")
        lines.append(f"  {'':<28}" + "".join(f"{share} %".rjust(18) for share in SHARES))
        for method, found in said["methods"].items():
            mark = "*" if method == said["default"] else " "
            cells = [as_text(found[score]["labels"][f"{share}"], found[score]["asked"][-1]) for share in SHARES]
            lines.append(f" {mark}{method:<28}" + "".join(cell.rjust(18) for cell in cells))
    for key, other in (("saving_against_uniform", "a uniform draw"), ("saving_against_seed", "the reference program")):
        if key in said:
            each = [f"{_percent(said[key][score])} for {name}" for score, name in SCORES.items()]
            lines.append(f"Labels that {said['default']} saves against {other}, at 90 %: {', '.join(each)}.")
    return lines


def as_text(found: Mapping[str, float | None], most: int) -> str:
    """Return a number of labels with its interval, such as "120 (100–150)", or "> 400" where it is not reached."""
    if found["value"] is None:
        return f"> {most}"
    high = f"> {most}" if found["high"] is None else f"{found['high']:.0f}"
    return f"{found['value']:.0f} ({found['low'] or 0:.0f}–{high})"


def _percent(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return "not known"
    least = "at least " if found["at_least"] else ""
    return f"{least}{found['value']:.0%} ({found['low']:.0%} to {found['high']:.0%})"
