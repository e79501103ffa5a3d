"""The figures of a report as inline SVG: learning curve, reliability, counts. Colours come from the page's style."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from camera_trap_al.exporters.report_elements import Markup, percent, text
from camera_trap_al.exporters.report_facts import Bin, CurvePoint, Days

WIDTH, HEIGHT = 480, 300
SIDE = 360
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 40, 52
MOST_TICKS = 5
Points = Sequence[tuple[float, float]]


def curve_figure(points: Sequence[CurvePoint]) -> Markup:
    """Draw accuracies by number of labels: lines with marks, and a band where an estimate lies."""
    most = max(max(point.labels for point in points), 1)
    x, y = _scale(0, most, LEFT, WIDTH - RIGHT), _scale(0, 1, HEIGHT - BOTTOM, TOP)
    parts = [_percent_axis(y, WIDTH - RIGHT), *_number_axis(x, most)]
    known = [point for point in points if point.estimated is not None]
    band = [(x(p.labels), y(p.low or 0.0)) for p in known] + [(x(p.labels), y(p.high or 0.0)) for p in reversed(known)]
    if len(known) > 1:
        parts.append(f'<polygon class="band" points="{_joined(band)}"/>')
    for p in known:
        at, low, high = x(p.labels), y(p.low or 0.0), y(p.high or 0.0)
        parts.append(f'<line class="c" x1="{at:.1f}" x2="{at:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
    series = (
        ("a", "Accuracy", [(x(p.labels), y(p.accuracy)) for p in points if p.accuracy is not None]),
        ("b", "Macro F1", [(x(p.labels), y(p.macro_f1)) for p in points if p.macro_f1 is not None]),
        ("c", "Estimate", [(x(p.labels), y(p.estimated)) for p in points if p.estimated is not None]),
    )
    drawn = [(kind, label, places) for kind, label, places in series if places]
    for n, (kind, label, places) in enumerate(drawn):
        parts.append(f'<polyline class="{kind}" points="{_joined(places)}"/>')
        parts += [_mark(kind, *place) for place in places]
        at = LEFT + 136 * n
        parts.append(f'<line class="{kind}" x1="{at}" x2="{at + 34}" y1="16" y2="16"/>{_mark(kind, at + 17, 16)}')
        parts.append(f'<text x="{at + 42}" y="21">{text(label)}</text>')
    parts.append(_title_of_x("Labels"))
    last = points[-1]
    said = f"Learning curve up to {last.labels} labels: accuracy {percent(last.accuracy)}, estimate {percent(last.estimated)}."
    return _figure(said, WIDTH, HEIGHT, parts)


def reliability_figure(bins: Sequence[Bin]) -> Markup:
    """Draw how many predictions are right by how sure they are; on the dashed line sureness is to be taken at its word."""
    x, y = _scale(0, 1, LEFT, SIDE - RIGHT), _scale(0, 1, SIDE - BOTTOM, TOP)
    parts = [_percent_axis(y, SIDE - RIGHT)]
    for n in range(0, 101, 25):
        anchor = "end" if n == 100 else "middle"
        at = SIDE - 2 if n == 100 else x(n / 100)
        parts.append(f'<text x="{at:.1f}" y="{SIDE - BOTTOM + 20}" text-anchor="{anchor}">{n} %</text>')
    parts.append(f'<line class="even" x1="{x(0):.1f}" y1="{y(0):.1f}" x2="{x(1):.1f}" y2="{y(1):.1f}"/>')
    most = max(found.images for found in bins)
    for found in bins:
        at, up = x(found.sure), y(found.right)
        parts.append(f'<line class="a" x1="{at:.1f}" x2="{at:.1f}" y1="{y(found.sure):.1f}" y2="{up:.1f}"/>')
        radius = 3 + 6 * (found.images / most) ** 0.5
        parts.append(f'<circle class="dot-a" cx="{at:.1f}" cy="{up:.1f}" r="{radius:.1f}"/>')
    parts.append(f'<text x="{LEFT}" y="21">Right</text>')
    parts.append(f'<text x="{SIDE - RIGHT}" y="{SIDE - 8}" text-anchor="end">Sure</text>')
    first, last = percent(bins[0].sure), percent(bins[-1].sure)
    said = f"Reliability diagram: {len(bins)} groups of predictions, from {first} to {last} sure."
    return _figure(said, SIDE, SIDE, parts, "figure square")


def days_figure(days: Days) -> Markup:
    """Draw how many labels there are of each day, month or year, those without any between the first and last not shown."""
    most = max(count for _, count in days.counts)
    y = _scale(0, most, HEIGHT - BOTTOM, TOP)
    step = (WIDTH - RIGHT - LEFT) / len(days.counts)
    parts = []
    for tick in _ticks(most):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(tick) + 5:.1f}" text-anchor="end">{tick:,}</text>')
    for n, (_, count) in enumerate(days.counts):
        at, up = LEFT + n * step, y(count)
        width = max(min(0.85 * step, 60), 0.6)
        left = at + (step - width) / 2
        parts.append(
            f'<rect class="fill" x="{left:.1f}" y="{up:.1f}" width="{width:.1f}" height="{HEIGHT - BOTTOM - up:.1f}"/>'
        )
    first, last = days.counts[0][0], days.counts[-1][0]
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - BOTTOM + 20}">{text(first)}</text>')
    if len(days.counts) > 1:
        parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - BOTTOM + 20}" text-anchor="end">{text(last)}</text>')
    parts.append(_title_of_x(days.unit.capitalize()))
    parts.append(f'<text x="{LEFT}" y="21">Labels</text>')
    return _figure(f"Labels by {days.unit}, from {first} to {last}, at most {most:,}.", WIDTH, HEIGHT, parts)


def bar(share: float) -> Markup:
    """Return a small bar, for a share in [0, 1]; the number stands beside it, so it says nothing to who cannot see it."""
    length = max(120 * share, 1.0) if share > 0 else 0.0
    return Markup(
        '<svg width="120" height="12" viewBox="0 0 120 12" aria-hidden="true" focusable="false">'
        f'<rect class="fill" width="{length:.1f}" height="12"/></svg>'
    )


def _figure(said: str, width: int, height: int, parts: Sequence[str], kind: str = "figure") -> Markup:
    inner = "".join(parts)
    return Markup(
        f'<svg class="{kind}" role="img" aria-label="{text(said)}" viewBox="0 0 {width} {height}">{inner}</svg>\n'
    )


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _percent_axis(y: Callable[[float], float], right: float) -> str:
    lines = []
    for n in range(0, 101, 25):
        at = y(n / 100)
        lines.append(f'<line class="{"grid" if n else "axis"}" x1="{LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        lines.append(f'<text x="{LEFT - 8}" y="{at + 5:.1f}" text-anchor="end">{n} %</text>')
    return "".join(lines)


def _number_axis(x: Callable[[float], float], most: int) -> list[str]:
    return [
        f'<text x="{x(tick):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{tick:,}</text>'
        for tick in _ticks(most)
    ]


def _ticks(most: int) -> list[int]:
    """Return round numbers from 0 to `most`, at most six."""
    step = 1
    while most / step > MOST_TICKS:
        step = step * 5 // 2 if str(step)[0] == "2" else step * 2
    return list(range(0, most + 1, step))


def _title_of_x(title: str) -> str:
    return f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{text(title)}</text>'


def _mark(kind: str, x: float, y: float) -> str:
    if kind == "a":
        return f'<circle class="dot-a" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
    if kind == "b":
        return f'<rect class="dot-b" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>'
    return f'<polygon class="dot-c" points="{x:.1f},{y - 6:.1f} {x + 6:.1f},{y + 5:.1f} {x - 6:.1f},{y + 5:.1f}"/>'


def _joined(places: Points) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
