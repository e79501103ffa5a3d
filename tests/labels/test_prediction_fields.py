"""Predictions have the columns that the template has, and no value that it cannot hold: Timelapse takes all of them."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_predictions import predictions

from camera_trap_al.core.records import ImageKey
from camera_trap_al.labels.lines import SelectorLines
from camera_trap_al.labels.prediction_fields import (
    CONFIDENCE,
    PREDICTION,
    PredictionFields,
    prediction_fields,
    read_prediction_fields,
)
from camera_trap_al.labels.template import Field, Template, make_template
from camera_trap_al.labels.timelapse import write_predictions
from camera_trap_al_service.timelapse_user import ImageSet

CLASSES = ["deer", "fox", 'red, "fox"', "=hyena"]
KEYS = [ImageKey("", "a.JPG"), ImageKey("north", "b.JPG"), ImageKey("north", "c.JPG"), ImageKey("south", "d.JPG")]
SAID = dict(zip(KEYS, zip(CLASSES, (0.5, 0.25, 1.0, 0.0), strict=True), strict=True))
MENU = json.dumps({"IncludeEmptyChoice": False, "ChoiceListNonEmpty": ["deer", "lynx"]})
ORACLE = next(
    (
        path
        for folder in Path(__file__).resolve().parents
        if (path := folder / "shared" / "timelapse" / "timelapse_oracle.py").is_file()
    ),
    None,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for key in KEYS:
        path = folder / key.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    make_template(folder / "TimelapseTemplate.tdb", ["deer", "fox"])
    return folder


def retype(root: Path, types: Mapping[str, str]) -> Path:
    """Give fields of the template other types; "" takes a field away."""
    template = root / "TimelapseTemplate.tdb"
    with closing(sqlite3.connect(template)) as database, database:
        for name, type_ in types.items():
            if not type_:
                database.execute("DELETE FROM TemplateTable WHERE DataLabel = ?", (name,))
                continue
            menu = MENU if type_ in ("FixedChoice", "MultiChoice") else ""
            database.execute("UPDATE TemplateTable SET Type = ?, List = ? WHERE DataLabel = ?", (type_, menu, name))
    return template


def with_types(root: Path, types: Mapping[str, str]) -> ImageSet:
    """Open the images in Timelapse, with other types of fields."""
    return ImageSet.open(root, retype(root, types))


def shown(root: Path, user: ImageSet) -> dict[str, tuple[str, str]]:
    """Write the predictions, import them, and return Prediction and Confidence by file."""
    fields = read_prediction_fields(root, CLASSES)
    path = root.parent / "predictions.csv"
    write_predictions(path, SelectorLines(KEYS), predictions(SAID), fields)
    result = user.import_csv(path)
    assert result.imported, result.messages
    assert result.unmatched == []
    rows = {row.key[1]: row.values for row in user.select_all()}
    return {name: (row.get(PREDICTION, "-"), row.get(CONFIDENCE, "-")) for name, row in rows.items()}


def test_a_template_of_ours_takes_both_columns(root: Path) -> None:
    assert read_prediction_fields(root, CLASSES) == PredictionFields()
    assert shown(root, with_types(root, {})) == {
        "a.JPG": ("deer", "0.500"),
        "b.JPG": ("fox", "0.250"),
        "c.JPG": ('red, "fox"', "1.000"),
        "d.JPG": ("'=hyena", "0.000"),
    }


@pytest.mark.parametrize(
    ("types", "first", "third"),
    [
        ({CONFIDENCE: ""}, ("deer", "-"), ('red, "fox"', "-")),
        ({PREDICTION: ""}, ("-", "0.500"), ("-", "1.000")),
        ({CONFIDENCE: "DecimalPositive"}, ("deer", "0.500"), ('red, "fox"', "1.000")),
        ({CONFIDENCE: "IntegerAny"}, ("deer", ""), ('red, "fox"', "")),
        ({CONFIDENCE: "Counter"}, ("deer", ""), ('red, "fox"', "")),
        ({PREDICTION: "MultiLine"}, ("deer", "0.500"), ('red, "fox"', "1.000")),
        ({PREDICTION: "FixedChoice"}, ("deer", "0.500"), ("", "")),
        ({PREDICTION: "FixedChoice", CONFIDENCE: "DecimalAny"}, ("deer", "0.500"), ("", "")),
        ({PREDICTION: "FixedChoice", CONFIDENCE: "Counter"}, ("deer", ""), ("", "")),
    ],
)
def test_timelapse_takes_what_a_changed_template_can_hold(
    root: Path, types: Mapping[str, str], first: tuple[str, str], third: tuple[str, str]
) -> None:
    taken = shown(root, with_types(root, types))
    assert (taken["a.JPG"], taken["c.JPG"]) == (first, third)


@pytest.mark.parametrize("types", [{PREDICTION: "", CONFIDENCE: ""}, {PREDICTION: "Flag", CONFIDENCE: "Counter"}])
def test_a_template_that_holds_neither_leaves_no_column_and_says_so(root: Path, types: Mapping[str, str]) -> None:
    with_types(root, types)
    fields = read_prediction_fields(root, CLASSES)
    assert fields.columns == () and "No timelapse_predictions.csv is written" in fields.remarks[-1]


@pytest.mark.parametrize("type_", ["MultiChoice", "AlphaNumeric"])
def test_other_fields_hold_the_classes_that_they_can(type_: str) -> None:
    choices = ("deer", 'red, "fox"', "=hyena") if type_ == "MultiChoice" else ()
    template = Template((Field(PREDICTION, type_, "", choices, ""),))
    can = set(CLASSES) - prediction_fields(template, CLASSES).left_out
    assert can == ({"deer"} if type_ == "MultiChoice" else {"deer", "fox"})


@pytest.mark.skipif(ORACLE is None, reason="shared/timelapse/timelapse_oracle.py is not beside this checkout")
@pytest.mark.parametrize("prediction", ["Note", "FixedChoice", "MultiChoice", "AlphaNumeric"])
@pytest.mark.parametrize("confidence", ["Note", "DecimalAny", "DecimalPositive", "IntegerPositive", "AlphaNumeric"])
def test_the_re_statement_of_timelapse_takes_them_too(root: Path, prediction: str, confidence: str) -> None:
    retype(root, {PREDICTION: prediction, CONFIDENCE: confidence})
    fields = read_prediction_fields(root, CLASSES)
    path = root.parent / "predictions.csv"
    write_predictions(path, SelectorLines(KEYS), predictions(SAID), fields)
    assert ORACLE is not None
    spec = importlib.util.spec_from_file_location("timelapse_oracle", ORACLE)
    assert spec is not None and spec.loader is not None
    module = sys.modules["timelapse_oracle"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.ImageSet.open(root, root / "TimelapseTemplate.tdb") as user:
        result = user.import_csv(path)
        assert result.imported and result.rows_changed == len(KEYS), result
        assert user.find("", "a.JPG")[PREDICTION] == "deer"


def test_what_a_menu_lacks_is_named(root: Path) -> None:
    with_types(root, {PREDICTION: "FixedChoice"})
    fields = read_prediction_fields(root, CLASSES)
    assert fields.left_out == {"fox", 'red, "fox"', "=hyena"}
    assert "cannot hold =hyena, fox" in fields.remarks[0]


def test_without_a_template_that_can_be_read_both_columns_are_written(root: Path, tmp_path: Path) -> None:
    assert read_prediction_fields(tmp_path, CLASSES) == PredictionFields()
    (root / "TimelapseTemplate.tdb").write_bytes(b"noise")
    fields = read_prediction_fields(root, CLASSES)
    assert fields.columns == (PREDICTION, CONFIDENCE) and "cannot be read as a Timelapse template" in fields.remarks[0]


FIELDS = st.builds(
    Field,
    st.sampled_from([PREDICTION, CONFIDENCE, "prediction", "Species"]),
    st.sampled_from(
        ["Note", "MultiLine", "FixedChoice", "MultiChoice", "AlphaNumeric", "Counter", "DecimalAny", "Odd"]
    ),
    st.just(""),
    st.lists(st.sampled_from(CLASSES), max_size=3).map(tuple),
    st.just(""),
)


@given(st.lists(FIELDS, max_size=4))
def test_every_column_is_a_field_of_the_template_and_every_lack_is_said(fields: list[Field]) -> None:
    template = Template(tuple(fields))
    found = prediction_fields(template, CLASSES)
    assert all(template.field(name) is not None for name in found.columns)
    assert len(found.remarks) >= 2 - len(found.columns)
    assert not found.left_out or PREDICTION in found.columns and found.remarks


def test_an_image_of_the_top_folder_gives_its_prediction_to_no_namesake_below(tmp_path: Path) -> None:
    root = tmp_path / "images"
    keys = [ImageKey(folder, name) for folder in ("", "S1", "S,2") for name in ("1.JPG", "2, b.JPG", "3.JPG")]
    for key in keys:
        path = root / key.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    make_template(root / "TimelapseTemplate.tdb", CLASSES)
    user = ImageSet.open(root, root / "TimelapseTemplate.tdb")
    said = {keys[0]: ("deer", 0.9), keys[1]: ("fox", 0.8), keys[3]: ("fox", 0.7)}
    write_predictions(tmp_path / "p.csv", SelectorLines(keys), predictions(said), PredictionFields())
    assert user.import_csv(tmp_path / "p.csv").imported
    shown_ = {row.key: (row.values[PREDICTION], row.values[CONFIDENCE]) for row in user.select_all()}
    wanted = {(key.relative_path, key.file): said.get(key) for key in keys}
    assert shown_ == {key: (one[0], f"{one[1]:.3f}") if one else ("", "") for key, one in wanted.items()}
    # No other row is written than needed.
    assert (tmp_path / "p.csv").read_text(encoding="utf-8").count("\n") == 1 + len(said) + 3
