"""The pieces of a report's page: escaped text, tables, sections, and the style. No script, and nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence

from camera_trap_al.core.matching import SHOWN_CHARACTERS, shown

# Of a sentence or a path; paths of Windows have 260, or 32,767 where that is allowed.
MOST_CHARACTERS = 2000
STYLE = """
:root { color-scheme: light dark; --page: #fdfdfb; --text: #1c1c1a; --soft: #5a5a55; --line: #d5d5cd; --card: #f3f3ee;
  --blue: #0b5394; --orange: #b04a08; --green: #2f6d1c; --heat: #7fb2dc; --amiss: #f0a46a; }
@media (prefers-color-scheme: dark) { :root { --page: #171716; --text: #ecece6; --soft: #b3b3aa; --line: #45453f;
  --card: #22221f; --blue: #7db8ee; --orange: #f0a05a; --green: #86c86f; --heat: #1f5e91; --amiss: #8a4512; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .4rem; border-bottom: 2px solid var(--line); padding-bottom: .2rem; }
h3 { font-size: 1.05rem; margin: 1.2rem 0 .3rem; }
p { margin: .4rem 0; max-width: 48rem; }
a { color: var(--blue); }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1rem; list-style: none; margin: .6rem 0; padding: 0; }
.soft { color: var(--soft); }
.todo { background: var(--card); border-left: .4rem solid var(--blue); padding: .7rem 1rem; margin: 1rem 0; }
.problem { border-left-color: var(--orange); }
.todo p { max-width: none; }
.todo h2 { border: 0; margin: 0; padding: 0; font-size: 1rem; }
.wide { overflow-x: auto; max-width: 100%; margin: .6rem 0; }
.wide:focus-visible { outline: 2px solid var(--blue); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; overflow-wrap: break-word; }
caption { text-align: left; color: var(--soft); padding: .2rem 0; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td.n, th.n { text-align: right; white-space: nowrap; }
td.name, th.name { max-width: 24rem; }
.matrix th, .matrix td { padding: .15rem .4rem; text-align: center; border: 1px solid var(--line); white-space: nowrap; }
.matrix tbody th { text-align: right; position: sticky; left: 0; background: var(--page);
  max-width: 10rem; overflow: hidden; text-overflow: ellipsis; }
.matrix thead th { vertical-align: bottom; font-weight: normal; }
.matrix .upright { display: inline-block; writing-mode: vertical-rl; transform: rotate(180deg); text-align: left;
  max-height: 9rem; overflow: hidden; text-overflow: ellipsis; }
.matrix .right { outline: 2px solid var(--blue); outline-offset: -2px; }
details { margin: .6rem 0; }
summary { cursor: pointer; color: var(--blue); }
svg.figure { display: block; width: 100%; max-width: 36rem; height: auto; }
svg.square { max-width: 27rem; }
svg text { fill: var(--text); font: 15px system-ui, sans-serif; }
svg .axis { stroke: var(--soft); fill: none; }
svg .grid { stroke: var(--line); fill: none; }
svg .even { stroke: var(--soft); stroke-dasharray: 5 5; fill: none; }
svg .a { stroke: var(--blue); fill: none; stroke-width: 2.5; }
svg .b { stroke: var(--orange); fill: none; stroke-width: 2.5; stroke-dasharray: 8 4; }
svg .c { stroke: var(--green); fill: none; stroke-width: 2.5; stroke-dasharray: 2 4; }
svg .band { fill: var(--green); opacity: .22; }
svg .dot-a { fill: var(--blue); } svg .dot-b { fill: var(--orange); } svg .dot-c { fill: var(--green); }
svg .fill { fill: var(--blue); }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: .8rem; margin: .6rem 0; }
.pictures figure { margin: 0; background: var(--card); padding: .5rem; }
.pictures img { display: block; max-width: 100%; height: auto; margin: 0 auto .3rem; }
.pictures figcaption { font-size: .875rem; line-height: 1.35; }
@media (max-width: 36rem) { .pictures { grid-template-columns: repeat(2, minmax(0, 1fr)); } td, th { padding: .2rem .3rem; }
  td.name, th.name { max-width: 9rem; } }
@media print { .wide { overflow: visible; } }
""" + "".join(
    f".{name}{n} {{ background: color-mix(in srgb, var(--{colour}) {10 * n}%, transparent); }}\n"
    for name, colour in (("h", "heat"), ("m", "amiss"))
    for n in range(1, 11)
)
STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode("utf-8")).digest()).decode("ascii")
POLICY = f"default-src 'none'; img-src data:; style-src 'sha256-{STYLE_HASH}'; base-uri 'none'; form-action 'none'"


class Markup(str):
    """Text that is HTML already; any other text is escaped where it is put into a page."""

    __slots__ = ()


def text(value: str, most: int = SHOWN_CHARACTERS) -> Markup:
    """Return text of any origin as HTML: escaped, what cannot be seen made visible, cut after so many characters."""
    return value if isinstance(value, Markup) else Markup(html.escape(shown(value, most), quote=True))


def name(value: str) -> Markup:
    """Return a name of any script and origin, whose direction does not turn what is around it."""
    return Markup(f"<bdi>{text(value)}</bdi>")


def path(value: str) -> Markup:
    """Return a path as `name` does a name. Longer than those may be: what tells one image from another is at its end."""
    return Markup(f"<bdi>{text(value, MOST_CHARACTERS)}</bdi>")


def sentence(value: str, kind: str = "") -> Markup:
    """Return a paragraph. Longer than names may be: what is said has paths in it."""
    css = f' class="{kind}"' if kind else ""
    return Markup(f"<p{css}>{text(value, MOST_CHARACTERS)}</p>\n")


def percent(fraction: float | None) -> str:
    """Return a fraction as a person reads it; a dash where it was not measured."""
    return "–" if fraction is None else f"{100 * fraction:.1f} %"


def table(
    caption: str, header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int = 0, kind: str = ""
) -> Markup:
    """Return a table in a frame that scrolls by itself; its last `numbers` columns hold numbers.

    The first cell of a row is its heading.
    """
    n_names = len(header) - numbers
    marks = ["name" if i < n_names else "n" for i in range(len(header))]
    head = "".join(
        f'<th scope="col" class="{mark}">{text(cell)}</th>' for cell, mark in zip(header, marks, strict=True)
    )
    lines = []
    for first, *others in rows:
        cells = "".join(f'<td class="{mark}">{text(cell)}</td>' for cell, mark in zip(others, marks[1:], strict=True))
        lines.append(f'<tr><th scope="row" class="{marks[0]}">{text(first)}</th>{cells}</tr>\n')
    css = f' class="{kind}"' if kind else ""
    inner = f"<table{css}><caption>{text(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{''.join(lines)}"
    return frame(caption, Markup(f"{inner}</tbody></table>"))


def frame(label: str, inner: Markup) -> Markup:
    """Return what may be wider than the window in a frame that scrolls, with the keyboard too."""
    return Markup(f'<div class="wide" role="region" tabindex="0" aria-label="{text(label)}">{inner}</div>\n')


def folded_away(summary: str, inner: Markup) -> Markup:
    """Return what is shown at a click."""
    return Markup(f"<details><summary>{text(summary)}</summary>\n{inner}</details>\n")


def section(anchor: str, title: str, parts: Iterable[str]) -> Markup:
    """Return a section with its heading."""
    inner = "".join(parts)
    return Markup(f'<section aria-labelledby="{anchor}">\n<h2 id="{anchor}">{text(title)}</h2>\n{inner}</section>\n')


def data_uri(png: bytes) -> str:
    """Return a PNG as the address of itself."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
