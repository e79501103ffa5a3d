"""The picture of replays as PNG bytes: what each method knows by how many labels it asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camera_trap_al.learn.figures import GREY, TEXT_PT, TITLE_PT, _figure, _png

FloatArray = npt.NDArray[np.float64]
ROLE_LOOKS = {
    "default": {"color": "#0b5394", "linewidth": 2.6, "zorder": 5},
    "uniform": {"color": "#777777", "linewidth": 1.8, "linestyle": "--", "zorder": 4},
    "recipe": {"color": "#c55a11", "linewidth": 1.8, "linestyle": "-.", "zorder": 4},
}
OTHER_COLOURS = (
    "#38761d",
    "#8e44ad",
    "#b8860b",
    "#008b8b",
    "#ad1457",
    "#5d4037",
    "#607d8b",
    "#9e9d24",
    "#e57373",
    "#4fc3f7",
)
OTHER_LINES = ("-", (0, (4, 1)), ":")
STANDARD_ERRORS = 2.0


@dataclass(frozen=True)
class Curve:
    """What one method knows: (r, p) scores in [0, 1] after each of (p,) numbers of labels.

    `role` is "default", "uniform" or "recipe" for those that every picture has, else "".
    """

    name: str
    role: str
    asked: FloatArray
    scores: FloatArray


def replay_figure(panels: Mapping[str, tuple[Sequence[Curve], float, str]], target: str, share: float) -> bytes:
    """Draw the mean curves of methods, a panel for each score, as PNG.

    A band of two standard errors is drawn around the three that every picture has.

    Parameters
    ----------
    panels : score → its curves, the best score with all labels, and what reached that
    target, share : the name of the line that is drawn at that share of the best score
    """
    figure = _figure()
    figure.set_size_inches(7.0 * len(panels), 5.4)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (score, (curves, best, who)) in zip(axes, panels.items(), strict=True):
        others = iter(range(len(curves)))
        for curve in curves:
            look = ROLE_LOOKS.get(curve.role) or _look(next(others))
            mean = 100 * curve.scores.mean(axis=0)
            ax.plot(curve.asked, mean, label=curve.name, **look)
            if curve.role and len(curve.scores) > 1:
                error = 100 * STANDARD_ERRORS * curve.scores.std(axis=0, ddof=1) / len(curve.scores) ** 0.5
                ax.fill_between(curve.asked, mean - error, mean + error, color=look["color"], alpha=0.15, linewidth=0)
        ax.axhline(100 * best, color=GREY, linewidth=0.8)
        ax.axhline(100 * best * share, color=GREY, linewidth=0.8, linestyle=":")
        right = max(float(curve.asked[-1]) for curve in curves)
        look_of_text = {"fontsize": TEXT_PT - 2, "color": GREY, "ha": "right", "va": "bottom"}
        ax.text(right, 100 * best, who, **look_of_text)
        ax.text(right, 100 * best * share, target, **look_of_text)
        ax.set_xlim(0, max(right, 1))
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0f} %")
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        ax.set_xlabel("Labels asked for", fontsize=TEXT_PT + 1)
        ax.set_title(score[0].upper() + score[1:], loc="left", fontsize=TITLE_PT, fontweight="bold")
        ax.grid(color="#dddddd", linewidth=0.8)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    axes[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=TEXT_PT - 1)
    return _png(figure)


def _look(number: int) -> dict[str, object]:
    line = OTHER_LINES[number // len(OTHER_COLOURS) % len(OTHER_LINES)]
    return {"color": OTHER_COLOURS[number % len(OTHER_COLOURS)], "linewidth": 1.2, "linestyle": line, "zorder": 3}
