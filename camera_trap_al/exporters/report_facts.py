"""What a report shows, as records: numbers and words that were collected elsewhere, nothing that must be looked up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CurvePoint:
    """What was known with so many labels: fractions in [0, 1], None where it was not measured.

    `estimated`, between `low` and `high`, is of images without a label; the others are of validation images.
    """

    labels: int
    accuracy: float | None = None
    macro_f1: float | None = None
    estimated: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ClassFacts:
    """One class: fractions in [0, 1]; images it was measured on and predicted for, labels it was learned from."""

    name: str
    precision: float
    recall: float
    images: int
    predicted: int
    labels: int


@dataclass(frozen=True)
class Bin:
    """The images whose predictions were from `low` to `high` sure: how many, how sure on average, how many of them right.

    The last two are fractions in [0, 1].
    """

    low: float
    high: float
    images: int
    sure: float
    right: float


@dataclass(frozen=True)
class Quality:
    """How well images are recognised.

    Parameters
    ----------
    how : on what this was measured, in a sentence
    images, accuracy, macro_f1, error : of these images; `error` is the expected calibration error
    classes : those that occur, in the order of `matrix`
    matrix : counts by true class, then by predicted class
    bins : those that hold images, by confidence
    """

    how: str
    images: int
    accuracy: float
    macro_f1: float
    error: float
    classes: tuple[ClassFacts, ...]
    matrix: tuple[tuple[int, ...], ...]
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Share:
    """The labels at one site, and how many images there are."""

    name: str
    labels: int
    images: int


@dataclass(frozen=True)
class Days:
    """Labels by the day, month or year (`unit`) in which their images were taken, in order; `undated` have no such time."""

    unit: str
    counts: tuple[tuple[str, int], ...]
    undated: int


@dataclass(frozen=True)
class Example:
    """One image as a small picture (PNG): what it was said to show, and what is predicted, with its probability."""

    png: bytes
    width: int
    height: int
    path: str
    truth: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class Doubt:
    """A label that is contradicted by what is predicted without it."""

    path: str
    given: str
    looks_like: str
    probability: float


@dataclass(frozen=True)
class Name:
    """A typed name that is no class yet, of how many images, and what else it may mean."""

    name: str
    images: int
    like: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """All that a report shows. Where a part is empty, `why` says why, by the name of the part.

    Parameters
    ----------
    title : the name of the work folder
    as_of : when the program last said how it is, or ""
    counts : what is counted, and the number, as text
    todo : what a person can do now, a sentence
    problems, advice : sentences
    doubts_of : what `doubts` were compared with, a sentence
    """

    title: str
    as_of: str = ""
    counts: tuple[tuple[str, str], ...] = ()
    todo: str = ""
    problems: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    quality: Quality | None = None
    sites: tuple[Share, ...] = ()
    days: Days | None = None
    best: tuple[Example, ...] = ()
    worst: tuple[Example, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    doubts_of: str = ""
    names: tuple[Name, ...] = ()
    why: tuple[tuple[str, str], ...] = ()

    def reason(self, part: str) -> str:
        """Return why a part is empty, or ""."""
        return dict(self.why).get(part, "")
