"""Pictures of results as PNG bytes, for people: confusion matrix and learning curve. Drawn without a display."""

from __future__ import annotations

import io
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camera_trap_al.learn.fonts import font_families

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
POINTS_PER_INCH = 72
TITLE_PT, TEXT_PT, SMALLEST_PT = 14.0, 10.0, 4.5
NAME_COLUMNS = 30
# Width of a digit or an average letter, as a part of the font size.
COLUMN_EM = 0.64
LARGEST_CELL_INCHES, SMALLEST_CELL_INCHES = 1.3, 0.3
SMALL_SIDE_INCHES, LARGE_SIDE_INCHES = 4.2, 11.0
SHARES_UP_TO = 15
RIGHT_COLOURS, WRONG_COLOURS = "Blues", "Oranges"
# Cells are never as dark as the ends of the two colour maps.
DARKEST = 0.85
CURVE_COLOURS = ("#0b5394", "#c55a11")
ESTIMATE_COLOUR = "#3b7d23"
GREY = "#555555"

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def confusion_figure(matrix: IntArray, classes: Sequence[str], subtitle: str) -> bytes:
    """Draw a confusion matrix as PNG.

    A cell holds its count and is shaded by its share of the row, which is all images truly of that class: blue where
    the prediction is right, orange where it is not. Zeros stay blank. Names of more than 30 columns are cut.

    Parameters
    ----------
    matrix : (k, k) int64, true class by predicted class
    classes : k names, in any script
    subtitle : one line under the title
    """
    figure = _figure()
    names = [cut_name(name) for name in classes]
    families = font_families(names)
    k = len(names)
    cell = _cell_inches(k)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    figure.set_size_inches(cell * k, cell * k)
    n_true = matrix.sum(axis=1)
    shares = np.divide(matrix, n_true[:, None], out=np.zeros(matrix.shape), where=n_true[:, None] > 0)
    colours = _colours(shares)
    axes.imshow(colours, interpolation="nearest", aspect="equal")
    _draw_counts(axes, matrix, shares, colours, cell)
    _draw_names(axes, names, n_true, families, cell)
    _draw_titles(axes, subtitle, k * cell)
    return _png(figure)


def curve_figure(
    labels: Sequence[int],
    curves: Mapping[str, Sequence[float]],
    estimated: Sequence[tuple[int, float, float, float]] = (),
) -> bytes:
    """Draw up to two curves of fractions (0 to 1) against the number of labels, and estimates with intervals, as PNG.

    Parameters
    ----------
    labels, curves : p numbers of labels, and p values for each curve, measured on validation images
    estimated : labels, value, low and high end of the accuracy on images without a label
    """
    from matplotlib.ticker import MaxNLocator

    figure = _figure()
    figure.set_size_inches(7.5, 4.8)
    axes = figure.add_subplot()
    for (name, values), colour in zip(curves.items(), CURVE_COLOURS, strict=False):
        percent = [100 * value for value in values]
        axes.plot(labels, percent, marker="o", markersize=4.5, linewidth=2, color=colour, label=name, clip_on=False)
    if estimated:
        _draw_estimates(axes, estimated)
    axes.set_ylim(0, 100)
    axes.set_xlim(0, max(*labels, *(point[0] for point in estimated), 1) * 1.05)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0f} %")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("Labels learned from", fontsize=TEXT_PT + 1)
    axes.set_title("Learning curve", loc="left", fontsize=TITLE_PT, fontweight="bold", pad=24)
    if curves:
        last = ", ".join(f"{name} {values[-1]:.1%}" for name, values in curves.items())
        newest = f"On the validation images, with {labels[-1]:,} labels: {last}"
    else:
        size, value, low, high = estimated[-1]
        newest = f"Estimated with {size:,} labels: {value:.0%} of the images without a label ({low:.0%} to {high:.0%})"
    axes.text(0, 1.025, newest, transform=axes.transAxes, fontsize=TEXT_PT, color=GREY)
    axes.grid(color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=True, framealpha=0.9, edgecolor="none")
    return _png(figure)


def _draw_estimates(axes: Axes, estimated: Sequence[tuple[int, float, float, float]]) -> None:
    sizes = [point[0] for point in estimated]
    values, lows, highs = ([100 * point[i] for point in estimated] for i in (1, 2, 3))
    name = "Accuracy, estimated without validation images (95 %)"
    above_below = [
        [value - low for value, low in zip(values, lows, strict=True)],
        [high - value for value, high in zip(values, highs, strict=True)],
    ]
    look: dict[str, Any] = {"fmt": "s--", "markersize": 3.5, "linewidth": 1.2, "elinewidth": 1, "capsize": 2}
    axes.errorbar(sizes, values, yerr=above_below, color=ESTIMATE_COLOUR, label=name, **look)


def cut_name(name: str, columns: int = NAME_COLUMNS) -> str:
    """Return a name on one line, of at most `columns` Latin letters' width; "…" where it was cut."""
    line = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    if _columns(line) <= columns:
        return line
    while _columns(line) > columns - 1:
        line = line[:-1]
    return f"{line.rstrip()}…"


def _columns(text: str) -> int:
    """Return the width of a text in Latin letters; East Asian ones take two, combining ones none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _cell_inches(k: int) -> float:
    side = min(SMALL_SIDE_INCHES + 0.32 * max(k - 4, 0), LARGE_SIDE_INCHES)
    return float(np.clip(side / k, SMALLEST_CELL_INCHES, LARGEST_CELL_INCHES))


def _fitting_pt(columns: int, inches: float) -> float:
    """Return the size at which so many columns are at most so wide, not above the usual size."""
    return min(TEXT_PT, inches * POINTS_PER_INCH / (COLUMN_EM * max(columns, 1)))


def _colours(shares: FloatArray) -> FloatArray:
    from matplotlib import colormaps

    # The root makes small shares visible: in most rows the mistakes are few.
    wrong = colormaps[WRONG_COLOURS](np.sqrt(shares) * DARKEST)[..., :3]
    right = colormaps[RIGHT_COLOURS](shares * DARKEST)[..., :3]
    colours: FloatArray = np.where(np.eye(len(shares), dtype=bool)[..., None], right, wrong)
    colours[shares == 0] = 1.0
    return colours


def _draw_counts(axes: Axes, matrix: IntArray, shares: FloatArray, colours: FloatArray, cell: float) -> None:
    size = _fitting_pt(max(len(f"{matrix.max()}"), 2), cell * 0.84)
    if size < SMALLEST_PT:
        return
    is_dark = colours @ np.array([0.299, 0.587, 0.114]) < 0.55
    for row, column in np.argwhere(matrix > 0):
        ink = "white" if is_dark[row, column] else "black"
        count = f"{matrix[row, column]}"
        if len(matrix) > SHARES_UP_TO:
            _write(axes, column, row, count, size, ink)
            continue
        line = size * 1.25 / POINTS_PER_INCH / cell
        _write(axes, column, row - 0.4 * line, count, size * 1.1, ink)
        _write(axes, column, row + 0.6 * line, f"{shares[row, column]:.0%}", size * 0.75, ink)


def _write(axes: Axes, x: float, y: float, text: str, size: float, ink: str) -> None:
    drawn = axes.text(x, y, text, ha="center", va="center_baseline", fontsize=size, color=ink)
    # It lies inside the matrix; to measure thousands of them would double the time of the picture.
    drawn.set_in_layout(False)


def _draw_names(axes: Axes, names: Sequence[str], n_true: IntArray, families: list[str], cell: float) -> None:
    k = len(names)
    size = float(np.clip(cell * POINTS_PER_INCH * 0.55, SMALLEST_PT, TEXT_PT))
    fits = max(_columns(name) for name in names) * COLUMN_EM * size < cell * POINTS_PER_INCH * 0.95
    look: dict[str, Any] = {"fontsize": size, "fontfamily": families, "parse_math": False}
    rows = [f"{name}  ({n:,})" for name, n in zip(names, n_true, strict=True)]
    axes.set_yticks(range(k), rows, **look)
    axes.set_xticks(range(k), names, rotation=0 if fits else 90, **look)
    axes.tick_params(length=0, pad=5)
    axes.set_xticks(np.arange(k + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(k + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#e3e3e3", linewidth=0.6)
    axes.tick_params(which="minor", length=0)
    for spine in axes.spines.values():
        spine.set_color("#999999")
    axes.set_xlabel("Predicted", fontsize=TEXT_PT + 2, labelpad=10)
    axes.set_ylabel("True class (images)", fontsize=TEXT_PT + 2, labelpad=10)


def _draw_titles(axes: Axes, subtitle: str, side: float) -> None:
    def above(inches: float) -> float:
        return 1 + inches / side

    place: dict[str, Any] = {"transform": axes.transAxes, "ha": "left", "va": "bottom"}
    axes.text(0, above(0.62), "Confusion matrix", fontsize=TITLE_PT, fontweight="bold", **place)
    axes.text(0, above(0.37), subtitle, fontsize=TEXT_PT, color=GREY, **place)
    legend = "Shade: share of the true class. Blue: right, orange: mistaken."
    axes.text(0, above(0.14), legend, fontsize=TEXT_PT, color=GREY, **place)


def _figure() -> Figure:
    from matplotlib.figure import Figure

    return Figure(dpi=DPI, facecolor="white")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A character that no font here has is drawn as a box; the warning would name it once for each cell.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.25)
    return buffer.getvalue()
