"""Rows of one label file against what is known → labels taken, corrected, ignored, refused, and why."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from camera_trap_al.core.decision import COUNTS, KEPT_REJECTIONS, Decision, Publications, Skip, TakenLabel
from camera_trap_al.core.matching import (
    KnownClasses,
    KnownImages,
    RootShift,
    class_name_problem,
    folded,
    shown,
)
from camera_trap_al.core.new_names import NewName, joined_names, weigh_names
from camera_trap_al.core.records import ImageKey, LabelRow, Notice, Rejection
from camera_trap_al.core.spreadsheets import unguarded
from camera_trap_al.errors import LabelFileError

_SUGGESTIONS = 200  # rows that get one; a file of a million wrong rows must not take hours
_EXAMPLES = 3
_LINES_NAMED = 20
_NONE: Mapping[ImageKey, str] = MappingProxyType({})


@dataclass(frozen=True)
class IntakeSettings:
    """How label files are taken (options `labels.unrequested`, `classes.auto_add` and `classes.auto_add_min`).

    `asks` is whether a new name that may be another spelling is asked about: names that come from a list of classes are not.
    """

    unrequested: Literal["ignore", "accept"] = "ignore"
    auto_add: bool = False
    auto_add_min: int = 3
    asks: bool = True


def decide(
    rows: Iterable[LabelRow | Rejection | Notice],
    *,
    images: KnownImages,
    classes: KnownClasses,
    requested: AbstractSet[ImageKey],
    awaited: Collection[ImageKey],
    current: Callable[[ImageKey], str | None],
    published: Publications,
    settings: IntakeSettings,
    not_pool: Callable[[ImageKey], bool] = lambda key: False,
    unavailable: AbstractSet[ImageKey] = frozenset(),
    waiting: Mapping[ImageKey, str] = _NONE,
) -> Decision:
    """Decide what a label file brings. Reads each row once and keeps only what it brings.

    Parameters
    ----------
    rows : what a reader says of the file: rows, rows it cannot use, things to know
    requested : images that any request ever named
    awaited : images of the open request that are neither labelled nor skipped
    current : image → its label now, or None
    published : image → every species that we ever published as its prediction
    not_pool : image that is none of `images` → whether it belongs to a training or validation folder
    unavailable : images that are missing or quarantined now; their labels are kept, with a warning
    waiting : image → the name that an earlier file gave it, which is no class yet

    Raises
    ------
    LabelFileError
        every path lies in the same wrong folder; or what `rows` raises
    """
    intake = _Intake(images, classes, requested, published, settings, not_pool, unavailable, waiting)
    for row in rows:
        intake.take(row)
    intake.refuse_shifted_root()
    return intake.decision(awaited, current)


class _Said:
    """What rows of one kind say of images: the first row's class, and all rows of images named more than once."""

    def __init__(self) -> None:
        self.species: dict[ImageKey, str] = {}
        self.more: dict[ImageKey, list[tuple[int, str]]] = {}
        self._lines = array("q")

    def add(self, key: ImageKey, species: str, line: int) -> None:
        if key in self.species:
            self.more.setdefault(key, []).append((line, species))
        else:
            self.species[key] = species
            self._lines.append(line)

    def __iter__(self) -> Iterator[tuple[ImageKey, int, str, Sequence[tuple[int, str]]]]:
        """Yield each image with line and class of one row, and the other rows of the image."""
        for (key, species), line in zip(self.species.items(), self._lines, strict=True):
            yield key, line, species, self.more.get(key, ())


class _Intake:
    """The rows of one file, added up."""

    def __init__(
        self,
        images: KnownImages,
        classes: KnownClasses,
        requested: AbstractSet[ImageKey],
        published: Publications,
        settings: IntakeSettings,
        not_pool: Callable[[ImageKey], bool],
        unavailable: AbstractSet[ImageKey],
        waiting: Mapping[ImageKey, str],
    ) -> None:
        self.images, self.classes, self.requested = images, classes, requested
        self.published, self.settings = published, settings
        self.not_pool, self.unavailable, self.waiting = not_pool, unavailable, waiting
        self.counts = dict.fromkeys(COUNTS, 0)
        self.rejections: list[Rejection] = []
        self.notices: list[str] = []
        self.seen: dict[str, tuple[int, list[str]]] = {}
        self.n_normalised = 0
        self.normalised: dict[tuple[str, str], None] = {}
        self.labels, self.confirmed = _Said(), _Said()
        self.unlabels, self.cannot_tell, self.withdrawn = Counter[ImageKey](), Counter[ImageKey](), Counter[ImageKey]()
        self.unknown: list[tuple[LabelRow, ImageKey]] = []
        self.named: dict[ImageKey, set[str]] = {}
        self.shift = RootShift(images)
        self.n_known = 0

    def take(self, row: LabelRow | Rejection | Notice) -> None:
        """Take in what the reader says next."""
        if isinstance(row, Notice):
            self.notices.append(row.text)
            return
        self.counts["rows"] += 1
        if isinstance(row, Rejection):
            self.reject(row)
            return
        is_blank = not row.species or row.species.isspace()
        if is_blank and not _is_true(row.confirmed) and not _is_true(row.delete_flag):
            self.counts["blank"] += 1
            if not self.n_known and self.images.knows(row.relative_path, row.file):
                self.n_known += 1
            return
        key = self.image(row)
        if key is None:
            return
        if self.settings.unrequested == "ignore" and key not in self.requested:
            self.counts["unrequested"] += 1
            return
        if not is_blank:
            self.label(row, key)
        elif _is_true(row.confirmed):
            self.confirm(row, key)
        else:
            self.withdrawn[key] += 1

    def image(self, row: LabelRow) -> ImageKey | None:
        """Return the image of a row, or None after rejecting the row."""
        key, code, note, named = self.images.match(row.relative_path, row.file)
        if key is None:
            self.refuse_path(row, code, named)
            return None
        self.n_known += 1
        if note:
            self.see(note, _path(row))
        if key in self.unavailable:
            self.see("unavailable", key.path)
        return key

    def label(self, row: LabelRow, key: ImageKey) -> None:
        """Take in a row with a Species."""
        match = self.classes.match(row.species)
        if match.kind == "class":
            if not match.is_exact:
                self.normalise(row.species, match.name)
            if _is_true(row.delete_flag):
                self.see("delete_flag", key.path)
            self.labels.add(key, match.name, row.line)
        elif match.kind == "skip":
            self.cannot_tell[key] += 1
        elif match.kind == "unlabel":
            self.unlabels[key] += 1
        elif match.kind == "reserved":
            self.refuse(row, "reserved_word", f"'{shown(row.species)}' cannot be a label")
        elif self.settings.auto_add and self.may_be_class(row.species):
            self.unknown.append((row, key))
        else:
            self.refuse_unknown_species(row)

    def confirm(self, row: LabelRow, key: ImageKey) -> None:
        """Take in a row without a Species whose Confirmed is true."""
        match = self.classes.match(unguarded(row.prediction))
        if match.kind == "class" and match.name in self.published.get(key, frozenset()):
            self.confirmed.add(key, match.name, row.line)
        else:
            named = f"the prediction '{shown(row.prediction)}' was never ours for this image"
            text = named if row.prediction.strip() else "there is no prediction to confirm"
            self.refuse(row, "stale_confirmation", text)

    def refuse_shifted_root(self) -> None:
        """Raise if no row names a known image, and all would with one folder more or less before them."""
        alias = self.shift.alias() if not self.n_known else ""
        if not alias:
            return
        extra, _, missing = alias.partition("=")
        text = f"All paths start with '{shown(extra)}/'" if extra else f"All paths lack '{shown(missing)}/' before them"
        raise LabelFileError(
            f"{text}; nothing was taken. Was the Timelapse template saved one folder level up or down?",
            code="shifted_root",
            hint=f'Set labels.path_alias = ["{shown(alias)}"], then put the file in again.',
        )

    def decision(self, awaited: Collection[ImageKey], current: Callable[[ImageKey], str | None]) -> Decision:
        """Return the outcome; `take` must not be called again."""
        new_classes = self.add_classes()
        taken: list[TakenLabel] = []
        skips = self.settle(self.labels, current, taken) + self.settle(self.confirmed, current, taken)
        stronger: list[Container[ImageKey]] = [self.labels.species, self.confirmed.species]
        unlabels = self.rest(self.unlabels, stronger, "unlabelled")
        cannot_tell = self.rest(self.cannot_tell, [*stronger, self.unlabels], "skipped")
        withdrawn = self.rest(self.withdrawn, [*stronger, self.unlabels, self.cannot_tell], "skipped")
        skips += [Skip(key, "cannot_tell") for key in cannot_tell] + [Skip(key, "withdrawn") for key in withdrawn]
        stronger += [self.unlabels, self.cannot_tell, self.withdrawn]
        waiting = [
            (key, min(names))
            for key, names in self.named.items()
            if len(names) == 1 and current(key) is None and not any(key in said for said in stronger)
        ]
        skips += [Skip(key, "new_name") for key, _ in waiting]
        left = set(awaited).difference((t.key for t in taken), (skip.key for skip in skips))
        return Decision(
            taken=tuple(taken),
            skips=tuple(skips),
            unlabels=tuple(unlabels),
            new_classes=new_classes,
            waiting=tuple(waiting),
            rejections=tuple(sorted(self.rejections, key=lambda r: r.line)),
            warnings=tuple(self.warnings()),
            normalised=tuple(self.normalised),
            n_normalised=self.n_normalised,
            counts=self.counts,
            requested_left=len(left),
        )

    def may_be_class(self, text: str) -> bool:
        """Return whether a word that is no class could be one; "?" and the like could not."""
        has_letter, problem = any(c.isalnum() for c in text), class_name_problem(text.strip(), self.classes.reserved)
        return has_letter and not problem and not self.classes.parts(text)

    def add_classes(self) -> tuple[str, ...]:
        """Turn names into classes; the images of those that do not become one yet wait for that."""
        joined = joined_names({*self.waiting.values(), *(row.species for row, _ in self.unknown)}, self.classes.names)
        typed = ((key, row.species) for row, key in self.unknown if folded(row.species) not in joined)
        waiting = {key: name for key, name in self.waiting.items() if key not in self.labels.species}
        least, asks = self.settings.auto_add_min, self.settings.asks
        names = weigh_names(typed, waiting, self.classes.words, least=least, asks=asks)
        for row, key in self.unknown:
            fold = folded(row.species)
            if fold in joined:
                self.refuse_unknown_species(row, joined[fold])
                continue
            found = names[fold]
            if not found.is_class:
                self.named.setdefault(key, set()).add(found.name)
                self.refuse_new_name(row, found)
                continue
            if row.species != found.name:
                self.normalise(row.species, found.name)
            self.labels.add(key, found.name, row.line)
        return tuple(found.name for found in names.values() if found.is_class)

    def settle(self, said: _Said, current: Callable[[ImageKey], str | None], taken: list[TakenLabel]) -> list[Skip]:
        """Compare what rows say with each other and with the labels there are; return images with several species."""
        is_confirmed = said is self.confirmed
        conflicts = []
        for key, line, species, more in said:
            if is_confirmed and key in self.labels.species:
                self.counts["duplicates"] += 1 + len(more)
                continue
            if more and any(name != species for _, name in more):
                conflicts.append(Skip(key, "several_species"))
                self.reject_several(key, sorted([(line, species), *more]))
                continue
            was = current(key)
            self.counts["duplicates"] += len(more)
            if was == species:
                self.counts["unchanged"] += 1
            elif was is not None and is_confirmed:
                text = f"the image has the label '{shown(was)}', which a confirmation does not change"
                self.reject(Rejection(line, shown(key.path), "", "stale_confirmation", text))
            else:
                self.counts["accepted" if was is None else "corrected"] += 1
                taken.append(TakenLabel(key, species, was, "confirmed" if is_confirmed else "oracle"))
        return conflicts

    def rest(self, rows: Counter[ImageKey], stronger: list[Container[ImageKey]], name: str) -> list[ImageKey]:
        """Return the images of `rows` of which nothing stronger was said, counting each once under `name`."""
        fresh = [key for key in rows if not any(key in said for said in stronger)]
        self.counts[name] += len(fresh)
        self.counts["duplicates"] += rows.total() - len(fresh)
        return fresh

    def refuse_path(self, row: LabelRow, code: str, named: ImageKey | None) -> None:
        """Reject a row whose image is not known."""
        is_elsewhere = named is not None and self.not_pool(named)
        self.shift.add(None if is_elsewhere else named)
        if is_elsewhere:
            self.refuse(row, "not_in_pool", _PATH_TEXTS["not_in_pool"])
        elif named is None:
            self.refuse(row, "bad_path", _PATH_TEXTS["bad_path"] if row.file else "the row names no file")
        else:
            nearest = self.images.nearest(named) if self.has_time_to_suggest and code == "unknown_image" else ""
            self.refuse(row, code, _PATH_TEXTS[code], (nearest,) if nearest else ())

    @property
    def has_time_to_suggest(self) -> bool:
        return len(self.rejections) < _SUGGESTIONS

    def refuse_unknown_species(self, row: LabelRow, parts: tuple[str, ...] = ()) -> None:
        """Reject a row whose Species is no class, or joins the classes `parts`."""
        parts = parts or (self.classes.parts(row.species) if self.has_time_to_suggest else ())
        suggest = parts or (self.classes.suggest(row.species) if self.has_time_to_suggest else ())
        text = f"'{shown(row.species)}' is not a class" + ("; give one class for each image" if parts else "")
        self.refuse(row, "unknown_species", text, suggest)

    def refuse_new_name(self, row: LabelRow, found: NewName) -> None:
        """Reject, for now, a row whose name is no class yet."""
        too_few = f"{found.images} of the {self.settings.auto_add_min} images that it takes are named so"
        why = "it may be another spelling" if found.like else too_few
        self.refuse(row, "new_name", f"'{shown(row.species)}' is no class yet: {why}", found.like)

    def reject_several(self, key: ImageKey, rows: list[tuple[int, str]]) -> None:
        """Reject the rows of one image that name different species."""
        lines = ", ".join(str(line) for line, _ in rows[:_LINES_NAMED]) + (" …" if len(rows) > _LINES_NAMED else "")
        names = " and ".join(f"'{shown(name)}'" for name in dict.fromkeys(name for _, name in rows[:_LINES_NAMED]))
        self.reject(
            Rejection(rows[0][0], shown(key.path), "", "several_species", f"lines {lines} say {names} of one image"),
            len(rows),
        )

    def refuse(self, row: LabelRow, code: str, text: str, suggest: tuple[str, ...] = ()) -> None:
        if len(self.rejections) < KEPT_REJECTIONS:
            self.reject(Rejection(row.line, shown(_path(row)), shown(row.species), code, text, suggest))
        else:
            self.counts["rejected"] += 1

    def reject(self, rejection: Rejection, rows: int = 1) -> None:
        self.counts["rejected"] += rows
        if len(self.rejections) < KEPT_REJECTIONS:
            self.rejections.append(rejection)

    def normalise(self, text: str, name: str) -> None:
        self.n_normalised += 1
        if len(self.normalised) < _EXAMPLES:
            self.normalised[shown(text), name] = None

    def see(self, what: str, example: str) -> None:
        count, examples = self.seen.get(what, (0, []))
        self.seen[what] = (count + 1, [*examples, shown(example)] if count < _EXAMPLES else examples)

    def warnings(self) -> Iterator[str]:
        """Yield what a person should know of the rows that were taken."""
        yield from self.notices
        for what, text in _WARNINGS.items():
            if what in self.seen:
                count, examples = self.seen[what]
                yield text.format(rows="1 row" if count == 1 else f"{count} rows", examples=", ".join(examples))
        if self.counts["unrequested"] and self.counts["unrequested"] + self.counts["blank"] == self.counts["rows"]:
            yield "None of the labelled images was asked for; such labels are ignored (labels.unrequested)."


_PATH_TEXTS = {
    "unknown_image": "no image of the pool has this path",
    "not_in_pool": "the image has its class from a folder",
    "bad_path": "the path is not a path below the folder of images",
    "ambiguous_image": "several images have this path but for upper and lower case",
}
_WARNINGS = {
    "case": "{rows}: the path has other upper and lower case than the image ({examples}).",
    "path_in_file": "{rows}: the column File holds a folder too ({examples}).",
    "unavailable": "{rows}: the image is missing or cannot be read now; its label is kept ({examples}).",
    "delete_flag": "{rows}: the image is marked for deletion in Timelapse; its label is kept ({examples}).",
}


def _is_true(cell: str) -> bool:
    return bool(cell) and cell.strip().casefold() == "true"


def _path(row: LabelRow) -> str:
    path = f"{row.relative_path}/{row.file}" if row.relative_path else row.file
    return path.replace("\\", "/")
