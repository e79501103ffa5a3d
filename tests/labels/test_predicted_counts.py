"""How many animals a detector saw, as a column of the predictions where the template has a field for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_predictions import predictions

from camera_trap_al.core.records import ImageKey
from camera_trap_al.labels.lines import SelectorLines
from camera_trap_al.labels.prediction_fields import CONFIDENCE, COUNT, PREDICTION, PredictionFields, prediction_fields
from camera_trap_al.labels.template import Field, Template
from camera_trap_al.labels.timelapse import NOT_COUNTED, write_predictions

KEYS = [ImageKey("", "a.JPG"), ImageKey("north", "a.JPG"), ImageKey("north", "b.JPG"), ImageKey("south", "c.JPG")]
SAID = {KEYS[0]: ("deer", 0.5), KEYS[2]: ("fox", 0.25), KEYS[3]: ("deer", 1.0)}
COUNTS = np.array([2, 0, NOT_COUNTED])


def template(**types: str) -> Template:
    return Template(tuple(Field(name, type_, "", (), name) for name, type_ in types.items()))


@pytest.mark.parametrize(
    ("columns", "lines"),
    [
        (
            (PREDICTION, CONFIDENCE, COUNT),
            ["a.JPG,,deer,0.500,2", "a.JPG,north,,,", "b.JPG,north,fox,0.250,0", "c.JPG,south,deer,1.000,"],
        ),
        ((PREDICTION, COUNT), ["a.JPG,,deer,2", "a.JPG,north,,", "b.JPG,north,fox,0", "c.JPG,south,deer,"]),
        ((CONFIDENCE, COUNT), ["a.JPG,,0.500,2", "a.JPG,north,,", "b.JPG,north,0.250,0", "c.JPG,south,1.000,"]),
        ((COUNT,), ["a.JPG,,2", "a.JPG,north,", "b.JPG,north,0", "c.JPG,south,"]),
    ],
)
def test_each_choice_of_columns_has_as_many_cells(columns: tuple[str, ...], lines: list[str], tmp_path: Path) -> None:
    said = predictions(SAID)._replace(counts=COUNTS)
    write_predictions(tmp_path / "p.csv", SelectorLines(KEYS), said, PredictionFields(columns))
    written = (tmp_path / "p.csv").read_bytes().decode().split("\r\n")
    assert written == [",".join(("File", "RelativePath", *columns)), *lines, ""]


def test_a_class_that_the_template_cannot_hold_is_counted_all_the_same(tmp_path: Path) -> None:
    said = predictions(SAID)._replace(counts=COUNTS)
    fields = PredictionFields((PREDICTION, COUNT), frozenset({"deer"}))
    write_predictions(tmp_path / "p.csv", SelectorLines(KEYS), said, fields)
    assert "a.JPG,,,2" in (tmp_path / "p.csv").read_text(encoding="utf-8").splitlines()


def test_the_column_is_there_only_with_counts_and_a_field_that_holds_numbers() -> None:
    both = template(Prediction="Note", Confidence="Note")
    assert prediction_fields(both, ["deer"]).columns == (PREDICTION, CONFIDENCE)
    found = prediction_fields(both, ["deer"], with_count=True)
    assert found.columns == (PREDICTION, CONFIDENCE) and not found.remarks
    every = template(Prediction="Note", Confidence="Note", Count="Counter")
    assert prediction_fields(every, ["deer"]).columns == (PREDICTION, CONFIDENCE)
    assert prediction_fields(every, ["deer"], with_count=True).columns == (PREDICTION, CONFIDENCE, COUNT)
    flag = prediction_fields(template(Prediction="Note", Confidence="Note", Count="Flag"), ["deer"], with_count=True)
    assert flag.columns == (PREDICTION, CONFIDENCE) and "of the type Flag" in flag.remarks[0]
