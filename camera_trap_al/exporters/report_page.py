"""A report as one HTML page that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from camera_trap_al.exporters.report_elements import (
    POLICY,
    STYLE,
    Markup,
    data_uri,
    folded_away,
    frame,
    name,
    path,
    percent,
    section,
    sentence,
    table,
    text,
)
from camera_trap_al.exporters.report_facts import ClassFacts, CurvePoint, Example, Quality, Report, Share
from camera_trap_al.exporters.report_figures import bar, curve_figure, days_figure, reliability_figure

# A wider matrix cannot be read; the classes with the fewest images are counted together.
MOST_CLASSES = 30
MOST_CONFUSIONS = 15
OTHERS = "(others)"


def report_page(report: Report) -> bytes:
    """Return the page, UTF-8; the same report gives the same bytes."""
    body: list[str] = [_head_of(report)]
    for anchor, title, write in SECTIONS:
        parts = write(report)
        why = report.reason(anchor)
        body.append(
            section(anchor, title, parts if parts else [sentence(why or "There is nothing to show yet.", "soft")])
        )
    title = text(f"{report.title}: report")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f'<title>{title}</title>\n<link rel="icon" href="data:,">\n<style>{STYLE}</style>\n</head>\n<body>\n'
        f"{''.join(body)}</body>\n</html>\n"
    ).encode("utf-8", "backslashreplace")


def _head_of(report: Report) -> Markup:
    when = f"As of {report.as_of} (UTC). " if report.as_of else ""
    links = "".join(f'<li><a href="#{anchor}">{text(title)}</a></li>' for anchor, title, _ in SECTIONS)
    todo = ["<h2>What to do next</h2>\n", sentence(report.todo)] if report.todo else []
    problems = ["<h2>Problems</h2>\n", *(sentence(said) for said in report.problems)]
    return Markup(
        f"<header>\n<h1>Report: {name(report.title)}</h1>\n"
        f"{sentence(f'{when}Written by camera-trap-al; this file may be deleted, and is written anew.', 'soft')}"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n</header>\n'
        + (f'<div class="todo">{"".join(todo)}</div>\n' if todo else "")
        + (f'<div class="todo problem">{"".join(problems)}</div>\n' if report.problems else "")
    )


def _state(report: Report) -> Sequence[str]:
    if not report.counts:
        return []
    return [table("Images, labels and what was learned", ("What", "Now"), report.counts, numbers=1)]


def _enough(report: Report) -> Sequence[str]:
    if not report.advice:
        return []
    said = "Labelling is worth it as long as the next labels bring more than their time; these figures say how much that is."
    return [sentence(said), *(sentence(advice) for advice in report.advice)]


def _curve(report: Report) -> Sequence[str]:
    if not report.curve:
        return []
    said = "Each mark is one classifier: the further right, the more labels it learned from; the higher, the better."
    if any(point.estimated is not None for point in report.curve):
        said += (
            " The estimate is of images without a label, by those that were drawn at random; the true figure lies between the"
            " ends of its line with 95 % certainty."
        )
    return [
        sentence(said),
        curve_figure(report.curve),
        folded_away("The numbers of the learning curve", _curve_table(report.curve)),
    ]


def _curve_table(points: Sequence[CurvePoint]) -> Markup:
    header = ("Labels", "Accuracy", "Macro F1", "Estimate", "from", "to")
    rows = [
        (
            f"{point.labels:,}",
            *(percent(v) for v in (point.accuracy, point.macro_f1, point.estimated, point.low, point.high)),
        )
        for point in points
    ]
    return table("Accuracy by number of labels", header, rows, numbers=len(header))


def _classes(report: Report) -> Sequence[str]:
    found = report.quality
    if found is None:
        return []
    header = ("Class", "Precision", "Recall", "F1", "Images", "Predicted", "Labels")
    rows = [
        (
            name(one.name),
            percent(one.precision) if one.predicted else "–",
            percent(one.recall) if one.images else "–",
            percent(_f1(one)) if one.images else "–",
            *(f"{n:,}" for n in (one.images, one.predicted, one.labels)),
        )
        for one in found.classes
    ]
    return [
        sentence(found.how),
        sentence(
            f"Of {found.images:,} images {percent(found.accuracy)} are right; macro F1 {percent(found.macro_f1)}."
        ),
        sentence(
            "Precision: of the images predicted to be this class, how many are. Recall: of the images that are, how many"
            " were recognised. Labels: how many the program learns from."
        ),
        table("Classes", header, rows, numbers=len(header) - 1),
    ]


def _f1(one: ClassFacts) -> float:
    both = one.precision + one.recall
    return 2 * one.precision * one.recall / both if both else 0.0


def _confusion(report: Report) -> Sequence[str]:
    found = report.quality
    if found is None:
        return []
    names, matrix = _joined_classes(found)
    k = len(names)
    wrong = [(matrix[i][j], i, j) for i in range(k) for j in range(k) if i != j and matrix[i][j]]
    wrong.sort(key=lambda one: (-one[0], one[1:]))
    said = (
        "Each row is what images truly are, each column what is predicted: what is right lies on the diagonal, in blue."
    )
    if k < len(found.classes):
        said += f" The {len(found.classes) - k + 1} classes with the fewest images are counted together as {OTHERS}."
    parts = [sentence(said), _matrix_table(names, matrix)]
    if not wrong:
        return [*parts, sentence("Nothing was taken for something else.")]
    rows = [
        (name(names[i]), name(names[j]), f"{n:,}", percent(n / sum(matrix[i]))) for n, i, j in wrong[:MOST_CONFUSIONS]
    ]
    header = ("Truly", "Taken for", "Images", "Of that class")
    return [*parts, table("The commonest mistakes", header, rows, numbers=2)]


def _joined_classes(found: Quality) -> tuple[list[str], list[list[int]]]:
    """Return names and matrix of at most as many classes as can be shown, those with the fewest images joined."""
    n = len(found.classes)
    if n <= MOST_CLASSES:
        return [one.name for one in found.classes], [list(row) for row in found.matrix]
    most = sorted(range(n), key=lambda i: (-found.classes[i].images, -found.classes[i].predicted, i))[
        : MOST_CLASSES - 1
    ]
    kept = {old: new for new, old in enumerate(sorted(most))}
    last = len(kept)
    joined = [[0] * (last + 1) for _ in range(last + 1)]
    for i, row in enumerate(found.matrix):
        for j, count in enumerate(row):
            joined[kept.get(i, last)][kept.get(j, last)] += count
    return [*(found.classes[i].name for i in sorted(most)), OTHERS], joined


def _matrix_table(names: Sequence[str], matrix: Sequence[Sequence[int]]) -> Markup:
    caption = "Confusion matrix: images by true class (rows) and predicted class (columns)"
    head = "".join(f'<th scope="col"><span class="upright">{name(one)}</span></th>' for one in names)
    lines = []
    for i, row in enumerate(matrix):
        total = sum(row)
        cells = "".join(_cell(count, total, is_right=i == j) for j, count in enumerate(row))
        lines.append(f'<tr><th scope="row">{name(names[i])}</th>{cells}</tr>\n')
    corner = "<td>true \\ predicted</td>"
    inner = (
        f'<table class="matrix"><caption>{text(caption)}</caption>\n<thead><tr>{corner}{head}</tr></thead>\n'
        f"<tbody>\n{''.join(lines)}</tbody></table>"
    )
    return frame(caption, Markup(inner))


def _cell(count: int, total: int, *, is_right: bool) -> str:
    if not count:
        return '<td class="right">0</td>' if is_right else "<td></td>"
    shade = max(1, round(10 * count / total))
    kinds = f"h{shade} right" if is_right else f"m{shade}"
    return f'<td class="{kinds}">{count:,}</td>'


def _reliability(report: Report) -> Sequence[str]:
    found = report.quality
    if found is None or not found.bins:
        return []
    rows = [
        (f"{100 * one.low:.0f} to {100 * one.high:.0f} %", f"{one.images:,}", percent(one.sure), percent(one.right))
        for one in found.bins
    ]
    header = ("Said to be sure", "Images", "Sure on average", "Right")
    return [
        sentence(
            "Where the marks lie on the dashed line, of the images said to be 80 % sure 80 % are right; below it the program is"
            " too sure of itself, above it it is better than it says. Large marks stand for many images."
        ),
        sentence(
            f"The expected calibration error is {percent(found.error)}: so far are sureness and truth apart on average."
        ),
        reliability_figure(found.bins),
        folded_away("The numbers of the reliability diagram", table("How sure and how right", header, rows, numbers=3)),
    ]


def _sites(report: Report) -> Sequence[str]:
    if not report.sites:
        return []
    most = max(site.labels for site in report.sites)
    rows = [_site_row(site, most) for site in report.sites]
    header = ("Site", "Labels", "Images", "Labelled", "Compared")
    return [
        sentence(
            "A site is a folder directly in the folder of images. Sites without a label are where surprises come from."
        ),
        table("Labels by site", header, rows, numbers=4),
    ]


def _site_row(site: Share, most: int) -> tuple[str, ...]:
    share = percent(site.labels / site.images) if site.images else "–"
    drawn = bar(site.labels / most if most else 0.0)
    return name(site.name), f"{site.labels:,}", f"{site.images:,}", share, drawn


def _days(report: Report) -> Sequence[str]:
    found = report.days
    if found is None:
        return []
    said = (
        f"The {found.unit} is that in which an image was taken, by the camera's own clock; {found.unit}s without a label are"
        " left out."
    )
    if found.undated:
        said += f" Of {found.undated:,} labelled images the time is not known."
    rows = [(when, f"{count:,}") for when, count in found.counts]
    numbers = table(f"Labels by {found.unit}", (found.unit.capitalize(), "Labels"), rows, numbers=1)
    return [sentence(said), days_figure(found), folded_away(f"The numbers by {found.unit}", numbers)]


def _examples(report: Report) -> Sequence[str]:
    parts: list[str] = []
    for title, said, examples in (
        ("Surest and right", "The program is as sure of these as of few others, and right.", report.best),
        ("Surest and wrong", "These were predicted with the most certainty and are labelled otherwise.", report.worst),
    ):
        if examples:
            pictures = "".join(_picture(example) for example in examples)
            parts += [f"<h3>{text(title)}</h3>\n", sentence(said), f'<div class="pictures">{pictures}</div>\n']
    if parts:
        parts.append(sentence(report.reason("pictures"), "soft"))
    return parts


def _picture(example: Example) -> Markup:
    says = f"Photograph labelled {_spoken(example.truth)}, predicted {_spoken(example.predicted)}"
    if example.truth == example.predicted:
        says = f"Photograph of {_spoken(example.truth)}, recognised"
        caption = Markup(f"<strong>{name(example.truth)}</strong>")
    else:
        caption = Markup(
            f"<strong>{name(example.truth)}</strong>, taken for <strong>{name(example.predicted)}</strong>"
        )
    image = f'<img src="{data_uri(example.png)}" width="{example.width}" height="{example.height}" alt="{text(says)}">'
    sure = f"{100 * example.probability:.0f} % sure"
    where = f'<span class="soft">{path(example.path)}</span>'
    return Markup(f"<figure>{image}<figcaption>{caption}, {sure}<br>{where}</figcaption></figure>\n")


def _spoken(value: str) -> str:
    """Return a name for the middle of a sentence that is read aloud: not longer than one can listen to."""
    return value if len(value) <= 60 else f"{value[:60]}…"


def _doubts(report: Report) -> Sequence[str]:
    if not report.doubts:
        return []
    rows = [
        (path(one.path), name(one.given), name(one.looks_like), f"{100 * one.probability:.0f} %")
        for one in report.doubts
    ]
    parts = [
        sentence(report.doubts_of),
        table("Labels to look at again, the worst first", ("Image", "Label", "Looks like", "Sure"), rows, numbers=1),
        sentence(
            "camera-trap-al audit writes them as a selection for Timelapse, so that they can be looked at and corrected."
        ),
    ]
    return parts


def _names(report: Report) -> Sequence[str]:
    if not report.names:
        return []
    rows = [(name(one.name), ", ".join(one.like) or "–", f"{one.images:,}") for one in report.names]
    return [
        sentence(
            "These were typed as species and are no class yet, so the labels wait. Where one is meant, add it to classes.names"
            " in config.toml; where it is a slip, correct it in Timelapse and export again."
        ),
        table("Names that are no class", ("Name", "Perhaps", "Images"), rows, numbers=1),
    ]


SECTIONS: tuple[tuple[str, str, Callable[[Report], Sequence[str]]], ...] = (
    ("state", "Where things stand", _state),
    ("enough", "Is it enough?", _enough),
    ("curve", "Learning curve", _curve),
    ("classes", "How well each class is recognised", _classes),
    ("confusion", "What is taken for what", _confusion),
    ("reliability", "Is it as sure as it is right?", _reliability),
    ("sites", "Labels by site", _sites),
    ("days", "Labels by day", _days),
    ("examples", "Best and worst examples", _examples),
    ("doubts", "Labels that look wrong", _doubts),
    ("names", "Names to be asked about", _names),
)
