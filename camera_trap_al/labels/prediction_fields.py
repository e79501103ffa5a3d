"""Which fields of a Timelapse template can hold predictions: one column too many, or one value, and nothing is imported."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from camera_trap_al.core.spreadsheets import safe_cell
from camera_trap_al.errors import TemplateError
from camera_trap_al.labels.template import OPTIONAL_FIELDS, Field, Template, find_templates, read_template

PREDICTION, CONFIDENCE, COUNT = "Prediction", "Confidence", "Count"
_WORD = re.compile(r"[A-Za-z0-9_-]*")


@dataclass(frozen=True)
class PredictionFields:
    """The columns that predictions may have, and why others are left out.

    Attributes
    ----------
    columns : of `PREDICTION`, `CONFIDENCE` and `COUNT`, those that the template has and that can hold them
    left_out : classes that the field Prediction cannot hold: an image that is predicted to be one gets empty cells
    remarks : what a person should know of it, in sentences
    """

    columns: tuple[str, ...] = (PREDICTION, CONFIDENCE)
    left_out: frozenset[str] = frozenset()
    remarks: tuple[str, ...] = ()


def read_prediction_fields(root: Path, classes: Sequence[str], *, with_count: bool = False) -> PredictionFields:
    """Return what the first template of an image folder can hold.

    Prediction and Confidence where there is none that can be read; `with_count` says whether there are counts, too.
    """
    try:
        templates = find_templates(root)
        return prediction_fields(read_template(templates[0]), classes, with_count) if templates else PredictionFields()
    except TemplateError as error:
        return PredictionFields(remarks=(f"Predictions have the columns Prediction and Confidence. {error}",))


def prediction_fields(template: Template, classes: Sequence[str], with_count: bool = False) -> PredictionFields:
    """Return what a template can hold of the predictions of classes, and of counts."""
    fields = {name: template.field(name) for name in (PREDICTION, CONFIDENCE, *([COUNT] if with_count else []))}
    remarks, columns = list[str](), list[str]()
    for name, field in fields.items():
        if field is None and name == COUNT:
            continue  # a template may well do without
        if field is None:
            remarks.append(f"The template has no field {name}, so timelapse_predictions.csv has no such column.")
        elif field.type not in OPTIONAL_FIELDS[name]:
            text = f"The field {name} of the template is of the type {field.type}, which cannot hold it, so"
            remarks.append(f"{text} timelapse_predictions.csv has no such column.")
        else:
            columns.append(name)
    if not columns:
        remarks.append("No timelapse_predictions.csv is written: Timelapse would import nothing from it.")
    left_out = _left_out(fields[PREDICTION], classes) if PREDICTION in columns else frozenset()
    if left_out:
        text = f"The field {PREDICTION} of the template cannot hold {', '.join(sorted(left_out))}"
        remarks.append(f"{text}: where that is predicted, it stays empty.")
    return PredictionFields(tuple(columns), left_out, tuple(remarks))


def _left_out(field: Field | None, classes: Sequence[str]) -> frozenset[str]:
    """Return the classes that a field cannot hold, as they are written into a CSV."""
    assert field is not None
    can_hold: Callable[[str], bool] = {
        "FixedChoice": lambda text: text in field.choices,
        "MultiChoice": lambda text: text in field.choices and "," not in text,
        "AlphaNumeric": lambda text: _WORD.fullmatch(text) is not None,
    }.get(field.type, lambda text: True)
    return frozenset(name for name in classes if not can_hold(safe_cell(name)))
