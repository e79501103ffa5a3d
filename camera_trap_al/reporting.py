"""Collects what `report.html` shows, from summaries and samples, and writes it: a projection, of which nothing is ever read."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from camera_trap_al.advice import read_advice
from camera_trap_al.auditing import Judged, audit_seed, judge_labels, suspects_among, worst_of
from camera_trap_al.calibrating import read_numbers
from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.config import Config
from camera_trap_al.core.grouping import NO_TIME, best_in_order, first_of_image, n_images, rank_within
from camera_trap_al.core.history import History
from camera_trap_al.core.new_names import spelled_alike
from camera_trap_al.engine import shared
from camera_trap_al.errors import UsageError
from camera_trap_al.exporters.report_facts import CurvePoint, Days, Doubt, Example, Name, Report, Share
from camera_trap_al.exporters.report_page import SECTIONS, report_page
from camera_trap_al.giving_way import give_way
from camera_trap_al.layout import WorkFolder
from camera_trap_al.learn.classifier import load_classifier
from camera_trap_al.learn.evaluate import CURVE
from camera_trap_al.reading import decode_limits
from camera_trap_al.report_pictures import Candidate, examples_of, is_one_of, is_private_class, may_be_shown
from camera_trap_al.report_quality import Measured, quality_of
from camera_trap_al.sequences import Sequences, sequences_of
from camera_trap_al.store import atomic, generations
from camera_trap_al.store.embeddings import Vectors
from camera_trap_al.store.json_files import read_object
from camera_trap_al.work import Work, image_folders

# Of more validation images, so many are looked at.
MOST_MEASURED = 20_000
MOST_EXAMPLES = 12
MOST_DOUBTS, MOST_NAMES, MOST_SITES = 25, 25, 40
# With labels on more days they are counted by month; of more months, by year.
MOST_UNITS = 92
UNITS = (("day", "D"), ("month", "M"), ("year", "Y"))
TOP_SITE = "(in no folder)"
OTHER_SITES = "(other sites)"
NOT_STARTED = "The program was not started yet."
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@dataclass(frozen=True)
class Source:
    """What a report is made from.

    Parameters
    ----------
    checkpoint : the newest classifier, or None
    learner : number of its learner, or of the current one; 0 without any
    vectors : gives the embeddings of a learner
    sequences : gives those of all images to label
    tick : called now and then; what it raises ends the report before anything is written
    """

    folder: WorkFolder
    config: Config
    history: History
    catalog: Catalog
    checkpoint: generations.Generation | None
    learner: int
    vectors: Callable[[int], Vectors]
    sequences: Callable[[], Sequences]
    tick: Callable[[], None] = lambda: None

    @classmethod
    def of(cls, work: Work) -> Source:
        """Return what the open work folder of a daemon gives; the report gives way to label files and wishes."""
        checkpoint, learner = work.checkpoint(), work.learner()
        number = checkpoint.manifest["learner"] if checkpoint else learner.number if learner else 0
        return cls(
            work.folder,
            work.config,
            work.history,
            work.catalog,
            checkpoint,
            number,
            work.vectors,
            lambda: sequences_of(work),
            give_way(work),
        )


def write_report(source: Source, status: Mapping[str, Any] | None = None) -> None:
    """Write `report.html`, whole or not at all; by default with the status that lies in the work folder.

    Raises `ModelError` where an embedding or classifier cannot be used, `OSError`, and what `source.tick` raises.
    """
    if status is None:
        status = _status_in(source.folder)
    atomic.replace_bytes(source.folder.report, report_page(collect(source, status)))


def write_first_report(folder: WorkFolder, status: Mapping[str, Any]) -> None:
    """Write the `report.html` of a work folder in which the program never ran."""
    why = tuple((part, NOT_STARTED) for part, _, _ in SECTIONS)
    atomic.replace_bytes(folder.report, report_page(replace(_begun(folder, status), why=why)))


def collect(source: Source, status: Mapping[str, Any]) -> Report:
    """Return what a report of these sources shows."""
    judged, why_not = _judge(source)
    measured, why_unmeasured = _measured(source, judged, why_not)
    rows, species = source.catalog.labelled()
    places = np.flatnonzero(first_of_image(source.catalog.images_of(rows)))
    rows, species = rows[places], [species[i] for i in places.tolist()]
    sites, days, why_no_days = _places_and_days(source, rows)
    doubts, compared = _doubts(source, judged) if judged else ((), why_not)
    best, worst = _examples(source, measured) if measured else ((), ())
    curve = _curve(source.folder)
    advice = read_advice(source.folder).get("words", [])
    why = {
        "enough": "How much is recognised is estimated once there is a classifier.",
        "curve": "Nothing was measured yet: that takes a classifier, and validation images or labelled images that were drawn"
        " at random.",
        **dict.fromkeys(("classes", "confusion", "reliability"), why_unmeasured),
        **dict.fromkeys(("sites", "days"), why_no_days),
        "examples": why_unmeasured
        or "None of the images can be shown: they cannot be read now, or a person or a vehicle may be in them.",
        "doubts": compared,
        "names": "Every name that was typed is a class, or needs none.",
        "pictures": "Images that may show a person or a vehicle are never shown here.",
    }
    return replace(
        _begun(source.folder, status),
        counts=_counts(source, len(rows)),
        advice=tuple(advice),
        curve=curve,
        quality=quality_of(measured, source.history.classes, Counter(species)) if measured else None,
        sites=sites,
        days=days,
        best=best,
        worst=worst,
        doubts=doubts,
        doubts_of=compared,
        names=_names(source),
        why=tuple(why.items()),
    )


def _begun(folder: WorkFolder, status: Mapping[str, Any]) -> Report:
    at, todo, problems = status.get("at"), status.get("hint"), status.get("problems")
    return Report(
        title=folder.root.name,
        as_of=at.replace("T", " ").rstrip("Z") if isinstance(at, str) and _TIME.fullmatch(at) else "",
        todo=todo if isinstance(todo, str) else "",
        problems=tuple(said for said in problems if isinstance(said, str)) if isinstance(problems, list) else (),
    )


def _status_in(folder: WorkFolder) -> dict[str, Any]:
    try:
        return read_object(folder.status)
    except (OSError, ValueError):
        return {}


def _counts(source: Source, n_labels: int) -> tuple[tuple[str, str], ...]:
    history, counts = source.history, source.catalog.counts()
    numbers = [
        ("Images without a label", counts.unlabelled),
        ("Images with a label", counts.labelled),
        ("Images that need none, such as those nobody can tell", counts.skipped),
        ("Images of the training folder", counts.train),
        ("Images for validation", counts.validation),
        ("Images that cannot be read", counts.quarantined),
        ("Images that are missing", counts.missing),
        ("Images that Timelapse does not show", counts.not_listed),
        ("Images that are kept back, since people or vehicles are in them", counts.private),
        ("Images that are left out, since no animal was detected", counts.without_animal),
        ("Classes", len(history.classes)),
        ("Rounds asked for", history.newest_round()),
    ]
    if history.open_round(source.config.query.min_answered):
        numbers.append(("Images of this round that still want a label", len(history.awaited())))
    rows = [(what, f"{n:,}") for what, n in numbers if n or not what.startswith("Images that")]
    if source.checkpoint is None:
        return (*rows, ("Classifier", "none yet"))
    learned = int(source.checkpoint.manifest["n_labels"])
    rows += [("Network in use", f"number {source.learner}"), ("Classifier", f"number {source.checkpoint.number}")]
    rows.append(("Labels that it learned from", f"{learned:,} of {n_labels:,}"))
    return tuple(rows)


def _judge(source: Source) -> tuple[Judged | None, str]:
    """Return what is predicted of labels without them, or why there is nothing to compare."""
    if not source.learner:
        return None, "The images are not embedded yet, so labels cannot be compared."
    seed = audit_seed(source.config, source.history)
    try:
        vectors = source.vectors(source.learner)
        return judge_labels(source.catalog, vectors, source.sequences, seed, samples=True, tick=source.tick), ""
    except UsageError as error:
        return None, str(error)


def _measured(source: Source, judged: Judged | None, why_not: str) -> tuple[Measured | None, str]:
    """Return predictions of images whose class is known and which they were not learned from, or why there are none."""
    if source.checkpoint is not None and source.config.validation.enabled:
        rows, species = source.catalog.validation()
        vectors = source.vectors(source.learner)
        good = np.flatnonzero(vectors.usable(rows))[:MOST_MEASURED]
        if len(good):
            classifier = load_classifier(source.checkpoint.folder)
            proba = classifier.predict_proba(read_numbers(vectors, rows[good], source.catalog))
            best = best_in_order(source.catalog.images_of(rows[good]), proba.max(axis=1))
            good, proba, n = good[best], proba[best], n_images(source.catalog.images_of(rows))
            how = f"Measured on {len(good):,} of {n:,} validation images, from which nothing is learned."
            truth = tuple(species[i] for i in good.tolist())
            return Measured(rows[good], truth, tuple(classifier.classes), proba, how), ""
    lacks = (
        "The validation images are not in use" if source.config.data.validation else "There are no validation images"
    )
    if judged is None:
        return None, f"{lacks}, so nothing was measured. {why_not}"
    at = np.flatnonzero(judged.left.judged)
    if not len(at):
        return None, f"{lacks}, and each class was seen at one time only, so nothing was measured."
    how = (
        f"{lacks}, so {len(at):,} of {judged.n_labels:,} labels were predicted without themselves, by a"
        " simple classifier learned from the others. Images that are asked for are harder than most: on all images it is"
        " usually better than this."
    )
    truth = tuple(judged.species[i] for i in at.tolist())
    return Measured(judged.rows[at], truth, judged.left.classes, judged.left.proba[at], how), ""


def _places_and_days(source: Source, rows: np.ndarray) -> tuple[tuple[Share, ...], Days | None, str]:
    """Return the labels of images to label by site and by day; `rows` are one for each labelled image."""
    if not len(rows):
        return (), None, "No image has a label yet."
    found = source.sequences()
    places, there = found.places(rows)
    places = places[there]
    if not len(places):
        return (), None, "Only images of the training folder have labels yet."
    n_folders = len(found.names.folder_names)
    labels = np.bincount(found.names.folders[places], minlength=n_folders)
    is_first = first_of_image(source.catalog.images_of(found.names.rows))
    images = np.bincount(found.names.folders[is_first], minlength=n_folders)
    by_site: dict[str, list[int]] = {}
    for n, folder in enumerate(found.names.folder_names):
        site = by_site.setdefault(folder.split("/")[0] or TOP_SITE, [0, 0])
        site[0] += int(labels[n])
        site[1] += int(images[n])
    ranked = sorted(
        (Share(name, *counts) for name, counts in by_site.items()), key=lambda s: (-s.labels, -s.images, s.name)
    )
    rest = ranked[MOST_SITES:]
    if rest:
        ranked = [*ranked[:MOST_SITES], Share(OTHER_SITES, sum(s.labels for s in rest), sum(s.images for s in rest))]
    times = found.times[places]
    known = times[times != NO_TIME]
    if not len(known):
        return tuple(ranked), None, "None of the labelled images says when it was taken, or none was read yet."
    return tuple(ranked), _by_unit(known, len(times) - len(known)), ""


def _by_unit(times: np.ndarray, undated: int) -> Days:
    moments = times.astype("datetime64[ms]")
    counted = ((unit, np.unique(moments.astype(f"datetime64[{code}]"), return_counts=True)) for unit, code in UNITS)
    unit, (names, counts) = next(
        found for found in counted if found[0] == UNITS[-1][0] or len(found[1][0]) <= MOST_UNITS
    )
    return Days(unit, tuple(zip(names.astype(str).tolist(), counts.tolist(), strict=True)), undated)


def _doubts(source: Source, judged: Judged) -> tuple[tuple[Doubt, ...], str]:
    """Return the labels that are contradicted most, and in a sentence what was compared."""
    places, _ = suspects_among(judged)
    top, people = 2 * MOST_DOUBTS, source.config.classes.person
    found = worst_of(judged, source.catalog, source.history, empty=source.config.classes.empty, top=top)
    listed: list[Doubt] = []
    hidden = 0
    for place, one in zip(places[:top].tolist(), found.worst, strict=True):
        if len(listed) == MOST_DOUBTS:
            break
        named = _named(judged.left.classes, judged.left.proba[place], people)
        if not may_be_shown(one.given, named, people):
            hidden += 1
            continue
        path = one.path if one.key is not None else f"(training) {one.path}"
        listed.append(Doubt(path, one.given, one.looks_like, one.probability))
    compared = (
        f"{found.n_judged:,} of {found.n_labels:,} labels were compared with what is predicted without them:"
        f" {found.n_contradicted:,} are contradicted, {found.n_likely:,} of them so clearly that they are probably wrong."
    )
    if hidden:
        compared += f" {hidden:,} are not named here: a person or a vehicle may be in the image."
    return tuple(listed), compared


def _named(classes: Sequence[str], proba: np.ndarray, people: Sequence[str]) -> dict[str, float]:
    """Return the probabilities of the classes that show people or vehicles."""
    named = zip(classes, proba, strict=True)
    return {name: float(p) for name, p in named if is_one_of(people, name) or is_private_class(name)}


def _examples(source: Source, measured: Measured) -> tuple[tuple[Example, ...], ...]:
    """Return the surest right and the surest wrong predictions as pictures, each class or pair of classes in its turn."""
    decoders = shared(decode_limits(source.config), source.config.images.processes)
    folders = {kind: str(path) for kind, path in image_folders(source.config).items()}
    picked = []
    for wanted in (True, False):
        candidates = _in_turns(measured, source.config.classes.person, np.flatnonzero(measured.is_right == wanted))
        picked.append(examples_of(candidates, MOST_EXAMPLES, source.catalog, folders, decoders, source.tick))
    return tuple(picked)


def _in_turns(measured: Measured, people: Sequence[str], places: np.ndarray) -> Iterator[Candidate]:
    sure = measured.proba.max(axis=1)
    places = places[np.argsort(-sure[places], kind="stable")]
    pairs = measured.true_columns[places] * len(measured.classes) + measured.predicted[places]
    for place in places[np.argsort(rank_within(pairs), kind="stable")].tolist():
        truth, predicted = measured.truth[place], measured.classes[int(measured.predicted[place])]
        if may_be_shown(truth, _named(measured.classes, measured.proba[place], people), people):
            yield Candidate(int(measured.rows[place]), truth, predicted, float(sure[place]))


def _names(source: Source) -> tuple[Name, ...]:
    config, history = source.config, source.history
    known = (*history.classes, *config.labels.skip_words, *config.classes.reserved)
    waiting = sorted(Counter(history.waiting.values()).items(), key=lambda found: (-found[1], found[0]))[:MOST_NAMES]
    return tuple(Name(name, n, tuple(k for k in known if spelled_alike(name, k))[:3]) for name, n in waiting)


def _curve(folder: WorkFolder) -> tuple[CurvePoint, ...]:
    """Return the points of `learning_curve.csv`; none where it is not there or cannot be read."""
    try:
        with (folder.test_results / CURVE).open(encoding="utf-8", newline="") as file:
            points = [
                CurvePoint(
                    int(row["labels"]),
                    _fraction(row["accuracy"]),
                    _fraction(row["macro_f1"]),
                    _fraction(row["estimated_accuracy"]),
                    _fraction(row["estimated_low"]),
                    _fraction(row["estimated_high"]),
                )
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return ()
    return tuple(sorted(points, key=lambda point: point.labels))


def _fraction(cell: str) -> float | None:
    value = float(cell) if cell else None
    return None if value is None or not 0 <= value <= 1 else value
