"""A season of which MegaDetector's boxes are known, played by a person in Timelapse: items are crops, labels are of images."""

from __future__ import annotations

import csv
import dataclasses
import errno
import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from season import HUES, QUICK, Season, draw_pictures
from seen_by_detector import ANIMAL, KIND, N_ANIMALS, PERSON, SEEN, VEHICLE, boxes_of, detections, key_of

from camera_trap_al.auditing import audit_seed, judge_labels, worst_of
from camera_trap_al.calibrating import pool_sample
from camera_trap_al.core.grouping import is_single
from camera_trap_al.core.history import Label
from camera_trap_al.core.records import ImageKey
from camera_trap_al.core.seeds import key_hash
from camera_trap_al.facts import fit_rows
from camera_trap_al.giving_way import GaveWay
from camera_trap_al.labels.published import read_published
from camera_trap_al.labels.template import find_templates
from camera_trap_al.learn.classifier import load_classifier
from camera_trap_al.loop import Loop
from camera_trap_al.observed_pool import classify, observed
from camera_trap_al.propagation import propagated
from camera_trap_al.results import report
from camera_trap_al.sequences import sequences_of
from camera_trap_al.store.atomic import Operation, failpoints
from camera_trap_al.store.json_files import read_object
from camera_trap_al.work import Work
from camera_trap_al_service.detections import drop_detections
from camera_trap_al_service.init import init
from camera_trap_al_service.timelapse_user import ImageSet

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_torch")]


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("camera_trap_al.learn.evaluate.confusion_figure", lambda *given: b"figure")
    monkeypatch.setattr("camera_trap_al.learn.evaluate.curve_figure", lambda *given: b"figure")


def make(root: Path, pictures: Path, boxes_of: Callable[[int], list[Any] | None] | None, **options: Any) -> Season:
    shutil.copytree(pictures, root)
    truth = {(key_of(i).relative_path, key_of(i).file): list(HUES)[i % 7 % 3] for i in range(60)}
    given = {f"data.{kind}": str(root / kind) for kind in ("train", "validation")}
    given["data.unlabelled"] = str(root / "pool")
    dotted = {key.replace("__", "."): value for key, value in options.items()}
    md = None if boxes_of is None else detections(root / "md.json", boxes_of)
    init(root / "work", given, {**QUICK, **dotted}, detections=md)
    return Season(root, truth)


def play(season: Season, rounds: int) -> list[list[ImageKey]]:
    label, requests = season.person(), season.run()
    for _ in range(rounds - 1):
        label()
        requests = season.run()
    return requests


def add_count(season: Season) -> None:
    with closing(sqlite3.connect(find_templates(season.root / "pool")[0])) as database, database:
        columns = [name for _, name, *_ in database.execute("PRAGMA table_info(TemplateTable)")]
        one = database.execute("SELECT * FROM TemplateTable WHERE DataLabel = 'Prediction'").fetchone()
        row = dict(zip(columns, one, strict=True))
        row |= {"Id": None, "DataLabel": "Count", "Label": "Count", "Type": "Counter", "DefaultValue": "0"}
        marks = ", ".join("?" * len(columns))
        database.execute(f"INSERT INTO TemplateTable VALUES ({marks})", [row[name] for name in columns])


@pytest.fixture(scope="module")
def played(
    pictures: Path, tmp_path_factory: pytest.TempPathFactory, no_torch: None
) -> tuple[Season, list[list[ImageKey]]]:
    """Return a season after two rounds of labels, and its three requests."""
    options = {
        "train__epochs": 0,
        "finetune__epochs": 0,
        "classes__empty": "nothing",
        "items__without_detection": "empty",
    }
    season = make(tmp_path_factory.mktemp("crops") / "season", pictures, boxes_of, **options)
    add_count(season)
    return season, play(season, 3)


@pytest.fixture
def work(played: tuple[Season, list[list[ImageKey]]]) -> Iterator[Work]:
    with closing(Work.open(played[0].work)) as opened:
        yield opened


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def path_of(row: dict[str, str]) -> str:
    return "/".join(filter(None, (row["RelativePath"].replace("\\", "/"), row["File"])))


def test_people_and_vehicles_are_never_asked_for_and_no_image_twice(
    played: tuple[Season, list[list[ImageKey]]], work: Work
) -> None:
    _, requests = played
    asked = [key for keys in requests for key in keys]
    assert len(requests) == 3 and all(len(keys) == 9 for keys in requests)
    assert len(set(asked)) == len(asked)
    assert {KIND[key.path] for key in asked} <= {0, 5, 6, 7, 8, 9}
    for request in work.history.requests[1:]:
        assert set(request.predictions) == set(request.keys)
    assert len(table(work.folder.selector)) == 60
    assert sum(row["Selected"] == "true" for row in table(work.folder.selector)) == 9


def test_a_label_trains_each_animal_of_its_image_and_counts_once(work: Work) -> None:
    checkpoint = work.checkpoint()
    assert checkpoint is not None
    rows, species = fit_rows(work, checkpoint.manifest["learner"])
    labels = work.history.labels
    n_items = Counter(key.path for key in work.catalog.keys_of(rows) if key in labels)
    assert n_items == {key.path: N_ANIMALS.get(KIND[key.path], 1) for key in labels} and max(n_items.values()) == 3
    assert checkpoint.manifest["n_labels"] == len(labels) + 6 < len(rows)
    assert sum(checkpoint.manifest["learned_from"]["labels"].values()) == len(labels) + 6
    by_row = dict(zip(work.catalog.keys_of(rows), species, strict=True))
    assert all(by_row[key] == label.species for key, label in labels.items())


def test_labels_are_compared_and_listed_once_for_each_image(work: Work) -> None:
    checkpoint = work.checkpoint()
    assert checkpoint is not None
    learner, seed = checkpoint.manifest["learner"], audit_seed(work.config, work.history)
    judged = judge_labels(work.catalog, work.vectors(learner), lambda: sequences_of(work), seed)
    assert judged.n_labels == len(judged.rows) == len(work.history.labels) + 6
    assert is_single(work.catalog.images_of(judged.rows))
    audit = worst_of(judged, work.catalog, work.history, empty="", top=100)
    assert len({one.path for one in audit.worst}) == len(audit.worst) <= audit.n_judged <= audit.n_labels


def test_estimates_are_of_images_each_by_its_surest_item(work: Work) -> None:
    checkpoint = work.checkpoint()
    assert checkpoint is not None
    learner, classifier = checkpoint.manifest["learner"], load_classifier(checkpoint.folder)
    vectors, sure, n = pool_sample(work, learner, classifier)
    rows, _ = work.catalog.askable()
    images, proba = work.catalog.images_of(rows), classifier.predict_proba(work.vectors(learner).read(rows)).max(axis=1)
    assert len(rows) > len(vectors) == len(sure) == n == len(set(images.tolist())) == work.catalog.counts().unlabelled
    assert sorted(sure.tolist()) == pytest.approx(
        sorted(proba[images == image].max() for image in set(images.tolist()))
    )


def test_validation_is_measured_by_image(work: Work) -> None:
    checkpoint = work.checkpoint()
    assert checkpoint is not None
    metrics = read_object(
        work.folder.test_results / f"train_set_size_{checkpoint.manifest['n_labels']}" / "metrics.json"
    )
    assert metrics["n"] == 12
    curve = table(work.folder.test_results / "learning_curve.csv")
    assert [int(row["labels"]) for row in curve] == [6, 15, 24]


def test_predictions_have_a_row_for_each_image_with_its_surest_species_and_its_count(work: Work) -> None:
    report(work)
    rows = {path_of(row): row for row in table(work.folder.predictions) if row["Prediction"]}
    labelled = {key.path for key in work.history.labels}
    assert rows.keys() == {path for path, kind in KIND.items() if kind not in (1, 2)} - labelled
    for path, row in rows.items():
        kind = KIND[path]
        assert row["Count"] == str(N_ANIMALS.get(kind, "")), path
        if kind in (3, 4):
            assert (row["Prediction"], row["Confidence"]) == ("nothing", "1.000" if kind == 3 else "0.900")
        else:
            assert row["Prediction"] in HUES and 0 < float(row["Confidence"]) <= 1
    noted = read_published(work.folder.published)
    assert all(row["Prediction"] in noted.species(ImageKey.of(path)) for path, row in rows.items())
    user = ImageSet.open(work.pool_root(), find_templates(work.pool_root())[0])
    result = user.import_csv(work.folder.predictions)
    assert result.imported and result.unmatched == []


def test_an_empty_image_that_was_asked_for_before_the_detector_looked_is_predicted_too(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = [ImageKey.of(path) for path, kind in KIND.items() if kind == 3 and path.startswith("site")][:2]
    monkeypatch.setitem(work.history.skips, first, ("without_animal", 5))
    monkeypatch.setitem(work.history.skips, second, ("cannot_tell", 6))
    report(work)
    predicted = {path_of(row): row["Prediction"] for row in table(work.folder.predictions) if row["Prediction"]}
    assert predicted[first.path] == "nothing" and second.path not in predicted


def test_recognitions_hold_the_boxes_of_the_detector_and_our_classes_on_each_crop(work: Work) -> None:
    report(work)
    written = json.loads(work.folder.recognitions.read_text(encoding="utf-8"))
    assert written["info"]["detector"] == "md_v5a.0.0.pt"
    assert written["info"]["detector_metadata"]["megadetector_version"] == "v5a.0.0"
    numbers = {name: number for number, name in written["detection_categories"].items()}
    by_path = {image["file"]: image["detections"] for image in written["images"]}
    labelled = {key.path for key in work.history.labels}
    assert by_path.keys() == {path for path, kind in KIND.items() if kind != 9 or path not in labelled}
    predicted = {path_of(row): row["Prediction"] for row in table(work.folder.predictions) if row["Prediction"]}
    names = written["classification_categories"]
    for path, boxes in by_path.items():
        kind = KIND[path]
        if kind == 9:
            assert [box["bbox"] for box in boxes] == [[0.0, 0.0, 1.0, 1.0]]
            continue
        words = {ANIMAL: "animal", PERSON: "person", VEHICLE: "vehicle"}
        given = [(numbers[words[category]], conf, [*box]) for category, conf, box in SEEN[kind]]
        assert [(box["category"], box["conf"], box["bbox"]) for box in boxes] == given
        for (category, conf, _), box in zip(SEEN[kind], boxes, strict=True):
            is_item = kind not in (1, 2) and category == ANIMAL and conf >= 0.2
            assert ("classifications" in box) == is_item
        if "classifications" in str(boxes) and path in predicted:
            best = max((box["classifications"][0] for box in boxes if "classifications" in box), key=lambda one: one[1])
            assert names[best[0]] == predicted[path]


def test_recognitions_give_no_species_to_an_image_that_a_person_said_shows_people(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = next(key for key in work.history.labels if KIND[key.path] in (0, 5, 6, 7, 8))
    classes = dataclasses.replace(work.config.classes, person=("STAFF",))
    monkeypatch.setattr(work, "config", dataclasses.replace(work.config, classes=classes))
    monkeypatch.setitem(work.history.labels, key, Label("Staff", "person", 99))
    report(work)
    written = json.loads(work.folder.recognitions.read_text(encoding="utf-8"))
    boxes = next(image["detections"] for image in written["images"] if image["file"] == key.path)
    assert [box["bbox"] for box in boxes] == [[*box] for _, _, box in SEEN[KIND[key.path]]]
    assert not any("classifications" in box for box in boxes)


def test_counts_are_of_images_and_sequences_and_a_persons_label_counts(work: Work) -> None:
    report(work)
    found: dict[str, dict[str, str]] = {}
    for row in table(work.folder.counts):
        found.setdefault(path_of(row), {})[row["Species"]] = row["Count"]
    assert found.keys() == KIND.keys()
    for path, counts in found.items():
        kind, label = KIND[path], work.history.label_of(ImageKey.of(path))
        if kind in N_ANIMALS:
            assert sum(map(int, counts.values())) == N_ANIMALS[kind]
            assert not label or counts == {label: str(N_ANIMALS[kind])}
        elif kind == 9:
            assert [*counts.values()] == [""]
        else:
            assert counts == ({"animal": "1", "person": "1"} if kind == 1 else {"vehicle": "1"})


def test_a_report_shows_no_image_of_a_person_and_counts_those_kept_back(work: Work) -> None:
    report(work)
    page = work.folder.report.read_text(encoding="utf-8")
    assert "people or vehicles are in them" in page and "no animal was detected" in page
    assert not any(f">{path}<" in page for path, kind in KIND.items() if kind in (1, 2))


def test_without_its_detections_a_season_is_reported_anew_without_counts(
    played: tuple[Season, Any], tmp_path: Path
) -> None:
    shutil.copytree(played[0].work, tmp_path / "work")
    with closing(Work.open(tmp_path / "work")) as opened:
        report(opened)
        facts = Loop(opened).look()[0]
        assert facts.reported == facts.checkpoint > 0 and opened.folder.counts.exists()
    drop_detections(tmp_path / "work")
    with closing(Work.open(tmp_path / "work")) as opened:
        assert Loop(opened).look()[0].reported == 0
        report(opened)
        assert Loop(opened).look()[0].reported == facts.checkpoint
        assert "cut" not in read_object(opened.folder.reported) and not opened.folder.counts.exists()


def test_a_disk_that_is_full_leaves_the_old_counts_and_no_traces(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    report(work)
    before = {
        path: path.read_bytes() for path in (work.folder.counts, work.folder.recognitions, work.folder.predictions)
    }
    for path in before:

        def full(operation: Operation, path: Path = path) -> None:
            if operation.name == "replace" and operation.path == path:
                raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(failpoints, "watch", full)
        with pytest.raises(OSError, match="No space"):
            report(work)
    monkeypatch.setattr(failpoints, "watch", None)
    assert {path: path.read_bytes() for path in before} == before
    assert not list(work.folder.root.glob(".*.partial"))


def test_counting_gives_way_to_a_label_file(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("camera_trap_al.observed_pool.BLOCK_IMAGES", 10)
    checkpoint = work.checkpoint()
    assert checkpoint is not None
    images = observed(work, classify(work, checkpoint))
    assert next(images).key.path in KIND
    new = work.folder.bin / "new.csv"
    new.write_text("File,RelativePath,Species\r\nIMG_0000.JPG,,red\r\n", encoding="utf-8", newline="")
    try:
        work.inbox.files(0.0)
        with pytest.raises(GaveWay):
            list(images)
        again = observed(work, classify(work, checkpoint))
        assert len(list(again)) == 60, "what waited before it began is nothing to give way to"
    finally:
        new.unlink()


def test_a_label_spreads_to_all_animals_of_the_next_image_of_its_sequence(
    played: tuple[Season, Any], work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = work.checkpoint()
    assert checkpoint is not None
    learner = checkpoint.manifest["learner"]
    found = sequences_of(work)
    images = np.unique(found.names.key_hashes, return_inverse=True)[1].reshape(-1)
    is_timed = np.ones(len(images), dtype=bool)
    made_up = dataclasses.replace(found, times=1000 * images, numbers=images // 3, by_time=is_timed)
    monkeypatch.setattr("camera_trap_al.propagation.sequences_of", lambda work: made_up)
    monkeypatch.setattr("camera_trap_al.propagation.AGAINST", 1.0)
    everywhere = dataclasses.replace(work.config.sequences, propagate=True)
    rows, species = fit_rows(work, learner)

    def spread(**items: bool) -> dict[str, list[str]]:
        part = dataclasses.replace(work.config.items, **items)
        monkeypatch.setattr(work, "config", dataclasses.replace(work.config, sequences=everywhere, items=part))
        by_path: dict[str, list[str]] = {}
        more, names = propagated(work, learner, rows, species)
        for key, name in zip(work.catalog.keys_of(more), names, strict=True):
            by_path.setdefault(key.path, []).append(name)
        return by_path

    shared = spread(share_label=True)
    assert shared and not {ImageKey.of(path) for path in shared} & set(work.history.labels)
    for path, names in shared.items():
        assert len(names) == N_ANIMALS.get(KIND[path], 1) and len(set(names)) == 1
    assert max(map(len, shared.values())) == 3
    ranks = dict(zip(found.names.key_hashes.tolist(), images.tolist(), strict=True))
    numbers = {path: ranks[key_hash(path) % 2**64] // 3 for path in KIND}
    taught = {numbers[path]: path for path in shared}
    person = next(path for path, kind in KIND.items() if kind == 1 and numbers[path] in taught)
    with monkeypatch.context() as said:
        said.setitem(work.history.labels, ImageKey.of(person), Label("Staff", "person", 99))
        left = spread(share_label=True)
    assert left == {path: names for path, names in shared.items() if numbers[path] != numbers[person]}
    alone = spread(share_label=False)
    assert alone and {len(names) for names in alone.values()} == {1}
    assert not {KIND[path] for path in alone} & {0, 5}


@pytest.mark.parametrize("first", ["now", "embedded"])
def test_a_pool_that_is_smaller_than_the_request_is_asked_for_image_by_image(
    pictures: Path, tmp_path: Path, first: str
) -> None:
    options = {"query__batch": 1000, "query__first": first, "train__epochs": 0, "items__without_detection": "skip"}
    season = make(tmp_path / "season", pictures, boxes_of, **options)
    (request,) = season.run()
    assert Counter(KIND[key.path] for key in request) == dict.fromkeys((0, 5, 6, 7, 8, 9), 6)
    season.person()()
    assert len(season.run()) == 1 and season.placed() == "finished"
    why = season.shown()["why"]
    assert "12 images are kept back" in why and "In 12 images it saw no animal" in why


def test_one_box_around_everything_is_as_good_as_none(tmp_path: Path) -> None:
    """Squares, of which the square around such a box is the whole."""
    requests = []
    pictures = draw_pictures(tmp_path / "drawn")
    for path in sorted(pictures.rglob("*.[jJ]*")):
        Image.open(path).crop((0, 0, 24, 24)).save(path, "JPEG", quality=95)
    for name, given in (("without", None), ("with", lambda i: [(ANIMAL, 0.9, (0.0, 0.0, 1.0, 1.0))])):
        season = make(tmp_path / name, pictures, given, query__strategy="margin")
        requests.append(play(season, 3))
    assert requests[0] == requests[1]
