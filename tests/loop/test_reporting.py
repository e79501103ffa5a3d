"""REPORTING: predictions as the template has them, and recognitions, both of which Timelapse takes."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from season import Season, make_season

from camera_trap_al import recognising
from camera_trap_al.config_service import ReportConfig
from camera_trap_al.labels.template import find_templates
from camera_trap_al.loop import Loop
from camera_trap_al.results import read_remarks, report
from camera_trap_al.work import Work
from camera_trap_al_service.daemon import describe
from camera_trap_al_service.reading import status_text
from camera_trap_al_service.timelapse_user import ImageSet

pytestmark = pytest.mark.slow
ORACLE = Path(__file__).resolve().parents[3] / "shared" / "timelapse" / "timelapse_oracle.py"


@pytest.fixture(scope="module")
def fitted(pictures: Path, tmp_path_factory: pytest.TempPathFactory, no_torch: None) -> Season:
    """Return a season with a classifier of its training images, and nothing labelled."""
    options = {"train.epochs": 0, "finetune.epochs": 0}
    season = make_season(pictures, tmp_path_factory.mktemp("fitted") / "season", ("train",), options)
    work = Work.open(season.work)
    try:
        Loop(work).run(until=lambda facts, step: step.name == "REPORTING" or step.name == "EXPORTING")
    finally:
        work.close()
    return season


@pytest.fixture
def work(fitted: Season) -> Iterator[Work]:
    template = find_templates(fitted.root / "pool")[0]
    before = template.read_bytes()
    opened = Work.open(fitted.work)
    try:
        yield opened
    finally:
        opened.close()
        template.write_bytes(before)


def configured(work: Work, **groups: Any) -> None:
    work.config = dataclasses.replace(work.config, **groups)


def drop_fields(work: Work, *names: str) -> None:
    with closing(sqlite3.connect(find_templates(work.pool_root())[0])) as database, database:
        for name in names:
            database.execute("DELETE FROM TemplateTable WHERE DataLabel = ?", (name,))


def recognitions(work: Work) -> Any:
    return json.loads(work.folder.recognitions.read_text(encoding="utf-8"))


def test_timelapse_takes_the_predictions_of_every_image_without_a_label(work: Work) -> None:
    report(work)
    user = ImageSet.open(work.pool_root(), find_templates(work.pool_root())[0])
    result = user.import_csv(work.folder.predictions)
    assert result.imported and result.unmatched == [] and result.rows_changed == 60
    assert {row.values["Prediction"] for row in user.select_all()} <= {"red", "green", "blue"}
    assert all(0 < float(row.values["Confidence"]) <= 1 for row in user.select_all())
    assert read_remarks(work) == []


def test_a_template_with_one_of_the_fields_gets_that_column_and_the_other_is_remarked(work: Work) -> None:
    drop_fields(work, "Confidence")
    report(work)
    lines = work.folder.predictions.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "File,RelativePath,Prediction" and all(line.count(",") == 2 for line in lines)
    user = ImageSet.open(work.pool_root(), find_templates(work.pool_root())[0])
    assert user.import_csv(work.folder.predictions).imported
    assert ["no field Confidence" in text for text in read_remarks(work)] == [True]


def test_with_neither_field_there_is_no_file_and_that_is_said(work: Work) -> None:
    report(work)
    drop_fields(work, "Confidence", "Prediction")
    report(work)
    assert not work.folder.predictions.exists() and "Timelapse would import nothing" in read_remarks(work)[-1]
    assert work.folder.recognitions.exists()
    status = describe(work, Loop(work).look()[0], "waiting") | {"running": True, "holder": "", "problems": []}
    assert f"Predictions: {read_remarks(work)[-1]}" in status_text(status).splitlines()


def test_predictions_that_are_not_known_to_be_ours_any_more_are_published_again(work: Work) -> None:
    report(work)
    assert Loop(work).look()[0].reported == 1
    work.folder.published.unlink()
    assert Loop(work).look()[0].reported == 0
    report(work)
    assert Loop(work).look()[0].reported == 1


def test_another_tool_always_gets_both_columns(work: Work) -> None:
    drop_fields(work, "Confidence", "Prediction")
    configured(work, labels=dataclasses.replace(work.config.labels, tool="any"))
    report(work)
    header = work.folder.predictions.read_text(encoding="utf-8").splitlines()[0]
    assert header == "File,RelativePath,Prediction,Confidence" and read_remarks(work) == []


def test_recognitions_are_whole_images_in_megadetectors_format_and_agree_with_the_predictions(work: Work) -> None:
    report(work)
    written = recognitions(work)
    names = written["classification_categories"]
    assert sorted(names.values()) == ["blue", "green", "red"] and written["detection_categories"]["1"] == "animal"
    said = {}
    for image in written["images"]:
        (box,) = image["detections"]
        assert (box["category"], box["conf"], box["bbox"]) == ("1", 1.0, [0.0, 0.0, 1.0, 1.0])
        probabilities = [p for _, p in box["classifications"]]
        assert probabilities == sorted(probabilities, reverse=True) and all(p >= 0.05 for p in probabilities[1:])
        said[image["file"]] = names[box["classifications"][0][0]]
    lines = [line.split(",") for line in work.folder.predictions.read_text(encoding="utf-8").splitlines()[1:]]
    assert said == {f"{place}/{file}" if place else file: species for file, place, species, _ in lines}


def test_an_image_taken_for_empty_has_no_box(work: Work) -> None:
    configured(work, classes=dataclasses.replace(work.config.classes, empty="red"))
    report(work)
    written = recognitions(work)
    empty = {image["file"] for image in written["images"] if not image["detections"]}
    lines = [line.split(",") for line in work.folder.predictions.read_text(encoding="utf-8").splitlines()[1:]]
    assert empty == {f"{place}/{file}" if place else file for file, place, species, _ in lines if species == "red"}


@pytest.mark.parametrize(("wanted", "most", "is_there"), [("auto", 59, False), ("auto", 60, True), ("always", 1, True)])
def test_large_pools_get_recognitions_only_where_they_are_wanted(
    work: Work, monkeypatch: pytest.MonkeyPatch, wanted: str, most: int, is_there: bool
) -> None:
    monkeypatch.setattr(recognising, "MOST_BY_DEFAULT", most)
    work.folder.recognitions.write_text("{}", encoding="utf-8")
    configured(work, report=ReportConfig(recognitions=wanted))
    report(work)
    assert work.folder.recognitions.exists() == is_there


def test_recognitions_that_are_not_wanted_are_removed(work: Work) -> None:
    report(work)
    configured(work, report=ReportConfig(recognitions="never"))
    report(work)
    assert not work.folder.recognitions.exists() and work.folder.predictions.exists()


@pytest.mark.skipif(not ORACLE.is_file(), reason="shared/timelapse/timelapse_oracle.py is not beside this checkout")
def test_the_re_statement_of_timelapse_imports_both(work: Work) -> None:
    import importlib.util
    import sys

    spec = importlib.util.spec_from_file_location("timelapse_oracle", ORACLE)
    assert spec is not None and spec.loader is not None
    module = sys.modules["timelapse_oracle"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    report(work)
    with module.ImageSet.open(work.pool_root()) as user:
        assert user.import_csv(work.folder.predictions).imported
        result = user.import_recognitions(work.folder.recognitions)
        assert result.imported, str(result)
