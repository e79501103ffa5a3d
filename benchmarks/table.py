"""Results of rows as a table, as a summary line and as JSON, and set against an earlier run."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure

FORMAT = 1
TEXT_WIDTH, NOTE_WIDTH = 80, 116
HEADER = ("row", "what", "measured", "target", "reference", "ratio", "earlier", "now/earlier", "")

Earlier = Mapping[tuple[str, str], float]
"""The value of each figure of an earlier run by row and text."""


@dataclass(frozen=True)
class Result:
    """What became of a row.

    Parameters
    ----------
    seconds : how long it took
    error : why it ended before its time, or ""; the figures that it had by then count
    threads : by library, how many threads it used at its end
    """

    row: str
    figures: Sequence[Figure]
    seconds: float
    error: str = ""
    threads: Mapping[str, int] = field(default_factory=dict)

    @property
    def n_missed(self) -> int:
        """How many figures fall short; an error is one more, and so is a row without any figure."""
        return sum(figure.is_missed for figure in self.figures) + bool(self.error or not self.figures)


def table(results: Iterable[Result], earlier: Earlier | None = None) -> str:
    """Return the table as lines of text."""
    lines: list[tuple[str, ...] | str] = [HEADER]
    for result in results:
        for figure in result.figures:
            lines.append(_cells(result.row, figure, earlier or {}))
            lines += textwrap.wrap(figure.note, NOTE_WIDTH)
        if result.error or not result.figures:
            lines.append((result.row, "the whole row", *[""] * 6, "MISS"))
            lines += textwrap.wrap(result.error or "It gave no figure.", NOTE_WIDTH)
    rows = [line for line in lines if isinstance(line, tuple)]
    shown = [i for i in range(len(HEADER)) if i in (0, 1, 2, 3, 8) or any(row[i] for row in rows[1:])]
    widths = {i: max(len(row[i]) for row in rows) for i in shown}

    def text(line: tuple[str, ...] | str) -> str:
        if isinstance(line, str):
            return f"{'':{widths[0] + 4}}{line}"
        cells = [f"{line[i]:<{widths[i]}}" if i < 2 or i == 8 else f"{line[i]:>{widths[i]}}" for i in shown]
        return "  ".join(cells).rstrip()

    return "\n".join(text(line) for line in lines)


def summary(results: Sequence[Result], seconds: float) -> str:
    """Return the last line: how many figures there are, how many reach their target, and which rows do not."""
    n = sum(len(result.figures) + bool(result.error or not result.figures) for result in results)
    missed = sum(result.n_missed for result in results)
    where = ", ".join(result.row for result in results if result.n_missed)
    with_target = sum(figure.most is not None or figure.least is not None for r in results for figure in r.figures)
    reach = with_target - sum(figure.is_missed for result in results for figure in result.figures)
    took = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
    return f"{n} figures, {reach} reach their target, {missed} MISS{f': {where}' if missed else ''}; {took}"


def as_json(results: Sequence[Result], facts: Mapping[str, Any]) -> str:
    """Return the results with `facts` (machine, versions, …) as JSON; a number that is none becomes null."""
    rows = {
        result.row: {
            "seconds": result.seconds,
            "error": result.error,
            "threads": dict(result.threads),
            "figures": [{**as_facts(figure), "missed": figure.is_missed} for figure in result.figures],
        }
        for result in results
    }
    return json.dumps({"format": FORMAT, **facts, "rows": rows}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_facts(figure: Figure) -> dict[str, Any]:
    """Return a figure as a record for JSON."""
    return {key: _finite(value) for key, value in asdict(figure).items()}


def as_figure(facts: Mapping[str, Any]) -> Figure:
    """Return the figure of a record."""
    value = math.nan if facts["value"] is None else facts["value"]
    return Figure(**{**{key: facts[key] for key in asdict(Figure("", 0, "")) if key in facts}, "value": value})


def read_earlier(path: Path) -> Earlier:
    """Return the values of a run that was stored as JSON. Raises `OSError` or `ValueError`."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise ValueError(f"{path} is no table of this program, or one of another format")
    return {
        (row, figure["text"]): figure["value"]
        for row, result in stored["rows"].items()
        for figure in result["figures"]
        if figure["value"] is not None
    }


def times_better(figure: Figure) -> float | None:
    """Return by how much the figure is better than its plain reference: 2.0 is twice as good."""
    if figure.reference is None:
        return None
    more_is_better = figure.least is not None or figure.unit.endswith("/s")
    better, worse = (figure.value, figure.reference) if more_is_better else (figure.reference, figure.value)
    return better / worse if worse else math.nan


def _cells(row: str, figure: Figure, earlier: Earlier) -> tuple[str, ...]:
    unit = figure.unit
    ratio, before = times_better(figure), earlier.get((row, figure.text))
    target = f"≤ {_number(figure.most)} {unit}" if figure.most is not None else ""
    if figure.least is not None:
        target += f"{' ' if target else ''}≥ {_number(figure.least)} {unit}"
    return (
        row,
        textwrap.shorten(figure.text, TEXT_WIDTH, placeholder=" …") if len(figure.text) > TEXT_WIDTH else figure.text,
        f"{_number(figure.value)} {unit}",
        target.strip(),
        f"{_number(figure.reference)} {unit}" if figure.reference is not None else "",
        f"{_number(ratio)}×" if ratio is not None else "",
        f"{_number(before)} {unit}" if before is not None else "",
        _number(figure.value / before) if before else "",
        "MISS" if figure.is_missed else "",
    )


def _number(value: float) -> str:
    """Return three significant digits, whole numbers with thousands marked."""
    if not math.isfinite(value):
        return "none"
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:,.{min(digits, 4)}f}"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
