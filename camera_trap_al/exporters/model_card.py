"""`model_card.md`: what a classifier is for, what it learned from, how good it is, and what it must not be used for."""

from __future__ import annotations

import importlib.metadata
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from camera_trap_al.core.spreadsheets import UNPRINTABLE, safe_cell
from camera_trap_al.exporters import ExportSource, RunFacts
from camera_trap_al.learn.classifier import Classifier

MODEL_CARD = "model_card.md"
# Below these a class is named among the limits: too few to learn it from, and to say how good it is.
FEW_LABELS, FEW_VALIDATION = 20, 20
MOST_CONFUSIONS = 10
# Longer than any name, and than what anybody says of a licence.
LONGEST = 2000
DIRECTIONS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
LIBRARIES = ("numpy", "onnx", "onnxruntime", "scikit-learn", "skl2onnx")
NOT_SAID = "Not chosen by this program: the owner of the images and labels decides; ask before passing it on."
_MARKS = re.compile(r"([\\`*_{}\[\]<>()#|~&!$])")
_LINKS = re.compile(r"(?i)(:)(?=//)|(?<=www)(\.)|(@)")

PURPOSE = """\
Naming what is on pictures of camera traps: it gives each picture a probability for each of its classes. It is meant for
pictures like those it learned from: the same cameras, places, seasons and species. People should look at what it says,
above all where the probability is low or the species is rare."""

MEANING = """\
Precision: of the images given this name, the part that bears it. Recall: of the images that bear it, the part that is
given this name. F1: both in one figure. A dash: not measured."""

MISUSE = """\
- It must not decide alone about people, animals or land: not about shooting, trapping, fines or alarms, and not on whether
  a rare species is there or gone.
- It knows only the classes of the table below. Any other species, a person or a vehicle among them, gets one of these
  names too, sometimes with a high probability.
- At other places, with other cameras, or by night where it learned by day, it may do much worse. Label a few hundred
  pictures of a new place first, and measure.
- Counts and rates of species made from it carry its mistakes; correct for them, or check them by hand."""


def model_card(source: ExportSource, facts: Mapping[str, Any], classifier: Classifier, created_by: str) -> str:
    """Return the text of `model_card.md`; equal facts give equal text.

    Parameters
    ----------
    facts : of the model, as `model.json` holds them
    created_by : program and version that writes the export
    """
    run = source.run
    sections = {
        "What it is for": [PURPOSE],
        "What it must not be used for": [MISUSE, *_limits(run, classifier.classes)],
        "What it learned from": _data(run),
        "Labels and validation by class": _by_class(run, classifier.classes),
        "How good it is": _quality(run),
        "What it confuses": _confusions(run),
        "Calibration": _calibration(run, classifier.temperature),
        "Licence": [licence_line(run, plain)],
        "Versions": _versions(facts, classifier, created_by),
    }
    title = f"# Model card: camera trap classifier, checkpoint {source.checkpoint}"
    made = f"Fitted {_date(run.made_at)}; learner {source.learner}; {len(classifier.classes)} classes."
    parts = [title, made]
    for name, lines in sections.items():
        parts += [f"## {name}", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def licence_line(run: RunFacts, shown: Any = str) -> str:
    """Return what may be done with the classifier, as one line; `shown` makes the owner's words fit for where they go."""
    said = " ".join(_visible(run.licence).split())
    return str(shown(said)) if said else NOT_SAID


def plain(text: str) -> str:
    """Return text of other people that Markdown, a browser and a spreadsheet show as it is and take for nothing else."""
    escaped = _MARKS.sub(r"\\\1", safe_cell(_visible(text).strip()))
    return _LINKS.sub(lambda match: f"\\{match[0]}", escaped) or "(no name)"


def _visible(text: str) -> str:
    return "".join(" " if _is_hidden(character) else character for character in text[:LONGEST])


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in UNPRINTABLE or unicodedata.bidirectional(character) in DIRECTIONS


def _limits(run: RunFacts, classes: Sequence[str]) -> list[str]:
    lines = []
    few = [f"{plain(name)} ({run.labels.get(name, 0)})" for name in classes if run.labels.get(name, 0) < FEW_LABELS]
    if run.labels and few:
        lines.append(f"- Learned from fewer than {FEW_LABELS} labels, so hardly to be relied on: {', '.join(few)}.")
    seen = {name: _support(run, name) for name in classes}
    unseen = [f"{plain(name)} ({n})" for name, n in seen.items() if n < FEW_VALIDATION]
    if run.metrics and unseen:
        lines.append(f"- Measured on fewer than {FEW_VALIDATION} validation images: {', '.join(unseen)}.")
    if not run.metrics:
        lines.append("- It was not measured on validation images.")
    if unknown := [plain(name) for name in _per_class(run) if name not in classes]:
        lines.append(f"- Among the validation images, but no class, so never right there: {', '.join(unknown)}.")
    if run.n_sites > run.n_labelled_sites:
        n = run.n_sites - run.n_labelled_sites
        lines.append(f"- {n:,} of the {run.n_sites:,} folders with images hold no label that it learned from.")
    return lines


def _data(run: RunFacts) -> list[str]:
    if not run.labels:
        return ["The version that fitted this classifier did not note it."]
    n = sum(run.labels.values())
    lines = [f"{n:,} labels{_propagated(run)}."]
    if run.n_sites:
        lines.append(
            f"The images to label are in {run.n_sites:,} folders (sites); {run.n_labelled_sites:,} of them hold a label"
            " that it learned from."
        )
    lines.append("")
    rows = [[folder.purpose, plain(folder.name), f"{folder.n_images:,}"] for folder in run.folders]
    return [*lines, *_table(("Images", "Folder", "Number"), rows)]


def _propagated(run: RunFacts) -> str:
    if not run.n_propagated:
        return ""
    return f", and {run.n_propagated:,} other images of the same sequences, which were given the same label"


def _by_class(run: RunFacts, classes: Sequence[str]) -> list[str]:
    found, matrix = _per_class(run), run.metrics.get("confusion_matrix", ())
    n_predicted = dict(zip(run.metrics.get("conf_mat_classes", ()), map(sum, zip(*matrix, strict=True)), strict=True))
    rows = []
    for name in [*classes, *(name for name in found if name not in classes)]:
        noted, n = found.get(name, {}), _support(run, name)
        parts = (("precision", n_predicted.get(name, 0)), ("recall", n), ("f1", n))
        figures = [_fraction(noted[key]) if of_any else "-" for key, of_any in parts]
        labels = f"{run.labels.get(name, 0):,}" if run.labels else "-"
        rows.append([plain(name), labels, f"{_support(run, name):,}" if run.metrics else "-", *figures])
    header = ("Class", "Labels", "Validation images", "Precision", "Recall", "F1")
    return [*_table(header, rows), "", MEANING]


def _quality(run: RunFacts) -> list[str]:
    lines = []
    if run.metrics:
        m = run.metrics
        lines.append(
            f"On {m['n']:,} validation images, which it never learned from: accuracy {_fraction(m['accuracy'])},"
            f" macro F1 {_fraction(m['macro_f1'])}."
        )
    if run.estimate:
        e = run.estimate
        lines.append(
            f"On the images without a label, estimated by {e['n_judged']:,} images drawn at random: accuracy"
            f" {_fraction(e['value'])} (95 % sure: {_fraction(e['low'])} to {_fraction(e['high'])})."
        )
    return lines or ["Not measured: there were no validation images, and too few images drawn at random."]


def _confusions(run: RunFacts) -> list[str]:
    matrix, names = run.metrics.get("confusion_matrix"), run.metrics.get("conf_mat_classes", ())
    if not matrix:
        return ["Not measured."]
    pairs = [
        (n, sum(row), names[i], names[j]) for i, row in enumerate(matrix) for j, n in enumerate(row) if i != j and n > 0
    ]
    if not pairs:
        return [f"None of the {run.metrics['n']:,} validation images was taken for another class."]
    pairs.sort(key=lambda pair: (-pair[0], -pair[0] / pair[1], pair[2:]))
    rows = [
        [plain(true), plain(said), f"{n:,}", _fraction(n / total)] for n, total, true, said in pairs[:MOST_CONFUSIONS]
    ]
    shown = "" if len(pairs) <= MOST_CONFUSIONS else f"The {MOST_CONFUSIONS} most frequent of {len(pairs):,} mistakes."
    table = _table(("It is", "Taken for", "Images", "Part of that species' images"), rows)
    return [*table, "", shown] if shown else table


def _calibration(run: RunFacts, temperature: float) -> list[str]:
    lines = [
        f"The probabilities were divided by a temperature of {temperature:.3g} before the softmax; that is inside the"
        " files, so nothing is left to do."
    ]
    if run.calibration_error is None:
        return [*lines, "The expected calibration error was not measured."]
    return [
        *lines,
        f"The expected calibration error is {run.calibration_error:.3f}, measured on {plain(run.calibrated_on)}: so far"
        " are probability and the part that is right apart, on average.",
    ]


def _versions(facts: Mapping[str, Any], classifier: Classifier, created_by: str) -> list[str]:
    settings = facts["settings"]
    rows = [
        ["Written by", created_by],
        ["Network", f"{settings['arch']}, {settings['feat_dim']} dimensions, loss {settings['loss']}"],
        ["Head", f"{classifier.head}; layers: {len(classifier.weights)}"],
        *([name, importlib.metadata.version(name)] for name in LIBRARIES),
    ]
    return _table(("What", "Which"), [[plain(cell) for cell in row] for row in rows])


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _per_class(run: RunFacts) -> Mapping[str, Any]:
    found: Mapping[str, Any] = run.metrics.get("per_class", {})
    return found


def _support(run: RunFacts, name: str) -> int:
    return int(_per_class(run).get(name, {}).get("support", 0))


def _fraction(value: Any) -> str:
    return f"{value:.3f}"


def _date(at: str) -> str:
    return f"{at[:10]} {at[11:16]} UTC" if at else "on a day that was not noted"
