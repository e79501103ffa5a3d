"""What the verb `predict` does: images and detections through an export, into the format that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from camera_trap_al.config_sequences import SequencesConfig
from camera_trap_al.core.matching import folded
from camera_trap_al.core.observed import Detection, DetectorInfo, Named, ObservedImage
from camera_trap_al.core.records import ImageKey
from camera_trap_al.errors import UsageError
from camera_trap_al.exporters.certainty import is_sure
from camera_trap_al.exporters.predictions import UNKNOWN, Columns, write_csv, write_timelapse_csv, write_unreadable
from camera_trap_al.importers.detections import Detections
from camera_trap_al.importers.reading import read_detections
from camera_trap_al.learn.observing import observe
from camera_trap_al.learn.predict import IMAGE_EXTENSIONS, ExportedModel, find_images, open_export
from camera_trap_al.store import atomic
from camera_trap_al_service.predict_outputs import check_out

DETECTION_THRESHOLD = 0.2
EMPTY = "empty"
EMPTY_NAMES = (EMPTY, "blank")
# A class may be called `unknown`, but none is called this.
NO_NAME = ""

Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Asked:
    """What is asked of `predict` beside export, images and place; None for the default.

    Parameters
    ----------
    form : a name of `predict_verb.FORMS`
    probabilities : with a column for each class
    min_confidence : a species with a lower probability is `unknown`
    detections : file of a detector
    detection_threshold : boxes from this confidence on count
    padding : of the squares that are cut out, as `core.crops` has it
    time_zone : of the cameras' clocks, such as `+02:00`
    sort_into : folder for copies of the images by species
    link : hard links in place of copies
    """

    form: str = "csv"
    probabilities: bool = False
    min_confidence: float | None = None
    detections: Path | None = None
    detection_threshold: float | None = None
    padding: float | None = None
    time_zone: str | None = None
    sort_into: Path | None = None
    link: bool = False


@dataclass(frozen=True)
class Predicted:
    """What became of a folder.

    Parameters
    ----------
    n : how many images were classified, or looked at by the detector alone
    unreadable : (path relative to the folder, why) of each that was not
    unreadable_csv : the list of the latter, or None where all could be read
    lines : all that a person should know
    """

    n: int
    unreadable: tuple[tuple[str, str], ...]
    unreadable_csv: Path | None
    lines: tuple[str, ...]


def predict(
    export: Path, images: Path, out: Path, asked: Asked, bar: Callable[[str], Progress] = lambda what: lambda a, b: None
) -> Predicted:
    """Classify a folder of images, or one image, and write what is asked for.

    Images that cannot be read are no reason to stop: they are listed in `OUT.unreadable.csv`, which is removed where there
    are none. `bar` returns what is called with (done, total) images of a part of the work.

    Raises
    ------
    UsageError
        There is nothing to classify, options do not go together, or `out` holds something else.
    ModelError
        The export cannot be used.
    DetectionFileError
        The file of detections cannot be used.
    """
    _check_options(asked)
    check_out(asked.form, out)
    root = images if images.is_dir() else images.parent
    if asked.sort_into is not None:
        from camera_trap_al.exporters.sorting import check_apart

        check_apart(asked.sort_into, root)
    model = open_export(export)
    keys, problems = find_images(images)
    if not keys and not problems:
        raise UsageError(f"There are no images in {images}.", hint=f"Read are: {', '.join(sorted(IMAGE_EXTENSIONS))}.")
    seen = _Seen(asked, root, keys, out)
    run = _Run(model, root, keys, problems, seen, asked, out)
    done = run.predicted(run.write(bar("classifying")))
    return replace(done, lines=(*done.lines, *run.others(bar("sorting"))))


def _check_options(asked: Asked) -> None:
    without = {
        "--probabilities": asked.probabilities and asked.form != "csv" and "--format csv",
        "--time-zone": asked.time_zone is not None and asked.form != "camtrap-dp" and "--format camtrap-dp",
        "--detection-threshold": asked.detection_threshold is not None and not asked.detections and "--detections",
        "--padding": asked.padding is not None and not asked.detections and "--detections",
        "--link": asked.link and asked.sort_into is None and "--sort-into",
    }
    for option, needed in without.items():
        if needed:
            raise UsageError(f"{option} does nothing without {needed}.", hint="Leave one out, or give both.")


class _Seen:
    """What the detector said, as far as it counts; without a file of detections it said nothing of any image."""

    def __init__(self, asked: Asked, root: Path, keys: Sequence[ImageKey], out: Path) -> None:
        self.file = asked.detections
        self.threshold = DETECTION_THRESHOLD if asked.detection_threshold is None else asked.detection_threshold
        self.found: Detections | None = None
        if self.file is None:
            return
        if out.exists() and self.file.exists() and out.samefile(self.file):
            raise UsageError(f"{out} is the file of detections itself.", hint="Name another file to write.")
        self.found = read_detections(self.file, root)
        self._n_known = sum(key in self.found for key in keys)
        self._n_silent = sum(key in self.found and self.found.of(key) is None for key in keys)
        self._n_keys = len(keys)
        if keys and not self._n_known:
            raise UsageError(
                f"{self.file} names no image of {root}: it has, for example, {next(iter(self.found)).path}; the folder has"
                f" {keys[0].path}.",
                hint="Give the folder that the detector was started in.",
            )

    def all_of(self, key: ImageKey) -> tuple[Detection, ...] | None:
        return None if self.found is None else self.found.of(key)

    def of(self, key: ImageKey) -> tuple[Detection, ...] | None:
        """Return the boxes of an image that count."""
        found = self.all_of(key)
        return None if found is None else tuple(d for d in found if d.confidence >= self.threshold)

    def detector(self) -> DetectorInfo | None:
        return None if self.found is None else self.found.info

    def lines(self) -> list[str]:
        """Return what a person should know of how file and folder fit together."""
        if self.found is None:
            return []
        lines = []
        n_other = len(self.found) - self._n_known
        if n_other:
            lines.append(f"{n_other} images that {self.file} names are not in the folder, and are left out")
        whole = self._n_keys - self._n_known + self._n_silent
        if whole:
            lines.append(
                f"{whole} images have no detections in {self.file}; they were classified whole, without a count"
            )
        for why, n, first in self.found.left_out():
            lines.append(f"{self.file}: {n} times {why}" + (f", such as in {first}" if first else ""))
        return lines


class _Run:
    """One pass over the images, and what is kept of it for what is written afterwards."""

    def __init__(
        self,
        model: ExportedModel,
        root: Path,
        keys: Sequence[ImageKey],
        problems: list[tuple[ImageKey, str]],
        seen: _Seen,
        asked: Asked,
        out: Path,
    ) -> None:
        self._model, self._root, self._keys, self._seen, self._asked, self._out = model, root, keys, seen, asked, out
        self._problems = list(problems)
        self._counts = asked.form == "csv" and seen.found is not None
        self._kept: list[ObservedImage] = []
        self._n = self._n_private = self._n_empty = 0
        self._empty = next((name for name in model.classes if folded(name) in EMPTY_NAMES), EMPTY)

    def write(self, on_progress: Progress) -> list[str]:
        """Classify and write; return lines that say what."""
        write = {
            "csv": self._write_csv,
            "timelapse": self._write_timelapse,
            "megadetector": self._write_recognitions,
            "camtrap-dp": self._write_package,
        }[self._asked.form]
        remarks = write(self._observed(on_progress))
        n_classified = self._n - self._n_private - self._n_empty
        lines = [f"Classified {n_classified} images; see {self._out}"]
        if n_classified < self._n:
            lines.append(
                f"Not classified: {self._n_empty} images without an animal, and {self._n_private} with a person or a vehicle"
            )
        return [*lines, *self._seen.lines(), *remarks]

    def _observed(self, on_progress: Progress) -> Iterator[ObservedImage]:
        with_times = self._counts or self._asked.form == "camtrap-dp"
        padding = 1.0 if self._asked.padding is None else self._asked.padding
        for image in observe(
            self._model,
            self._root,
            self._keys,
            self._seen.of,
            padding=padding,
            with_times=with_times,
            on_progress=on_progress,
        ):
            if image.problem:
                self._problems.append((image.key, image.problem))
            else:
                self._n += 1
                self._n_private += image.is_private
                self._n_empty += not image.is_private and not image.named
            if self._counts or self._asked.sort_into is not None:
                self._kept.append(_briefly(image))
            yield image

    def _write_csv(self, images: Iterator[ObservedImage]) -> list[str]:
        classes = self._model.classes if self._asked.probabilities else ()
        write_csv(self._out, map(self._if_sure, images), self._columns(classes))
        return []

    def _write_timelapse(self, images: Iterator[ObservedImage]) -> list[str]:
        write_timelapse_csv(self._out, map(self._if_sure, images), self._columns(()))
        names = "Prediction, Confidence and Count" if self._seen.found is not None else "Prediction and Confidence"
        return [f"Timelapse takes it if the template has the fields {names}"]

    def _columns(self, classes: Sequence[str]) -> Columns:
        return Columns(self._seen.found is not None, classes, self._empty)

    def _write_recognitions(self, images: Iterator[ObservedImage]) -> list[str]:
        from camera_trap_al.exporters.recognitions import write_recognitions

        written = write_recognitions(
            self._out,
            (self._with_all_boxes(self._if_sure(image, NO_NAME)) for image in images),
            self._model.classes,
            detector=self._seen.detector(),
            classifier=self._model.name,
            written_at=datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
            empty=self._empty,
        )
        lines = []
        if written.left_out:
            lines.append(f"{written.left_out} images of which nothing is known are not in it")
        if self._seen.found is None:
            lines.append(
                "Warning: its boxes are whole images. Importing it in Timelapse replaces the recognitions that these images"
                " have there, such as MegaDetector's boxes; to keep those, give them by --detections"
            )
        return lines

    def _with_all_boxes(self, image: ObservedImage) -> ObservedImage:
        """Return an image with the boxes that do not count, too: they are the user's own."""
        everything = self._seen.all_of(image.key)
        if everything is None:
            return image
        those_that_count = iter(image.detections or ())
        threshold = self._seen.threshold
        return replace(
            image, detections=tuple(next(those_that_count) if d.confidence >= threshold else d for d in everything)
        )

    def _if_sure(self, image: ObservedImage, name: str = UNKNOWN) -> ObservedImage:
        """Return an image whose species, and those of its boxes, have this name where they are too uncertain."""
        least = self._asked.min_confidence
        if least is None:
            return image
        boxes = image.detections
        if boxes is not None:
            boxes = tuple(replace(d, named=_sure(d.named, least, name)) for d in boxes)
        return replace(image, detections=boxes, named=_sure(image.named, least, name))

    def _write_package(self, images: Iterator[ObservedImage]) -> list[str]:
        from camera_trap_al.exporters.camtrap_dp import PackageFacts, write_package

        detector = self._seen.detector()
        facts = PackageFacts(
            classifier=self._model.name,
            written_at=datetime.now(timezone.utc),
            detector="" if detector is None else detector.name or "unknown detector",
            time_zone=self._asked.time_zone or "",
            empty=self._empty,
            unknown=UNKNOWN,
            min_confidence=self._asked.min_confidence or 0.0,
        )
        return list(write_package(self._out, images, self._model.classes, facts).remarks)

    def others(self, on_progress: Progress) -> list[str]:
        """Write what goes beside: counts, and images sorted into folders."""
        lines = []
        if self._counts:
            from camera_trap_al.exporters.counts import write_counts

            beside = self._out.with_name(f"{self._out.name}.counts.csv")
            gap_s, least = SequencesConfig().gap_s, self._asked.min_confidence or 0.0
            n = write_counts(beside, self._kept, gap_s, min_confidence=least)
            lines.append(f"Counted animals in {n} sequences; see {beside}")
        if self._asked.sort_into is not None:
            lines += self._sort(self._asked.sort_into, on_progress)
        return lines

    def _sort(self, folder: Path, on_progress: Progress) -> list[str]:
        from camera_trap_al.exporters.sorting import sort_into

        least = self._asked.min_confidence or 0.0
        found = sort_into(
            folder,
            self._root,
            self._kept,
            min_confidence=least,
            link=self._asked.link,
            empty=self._empty,
            on_progress=on_progress,
        )
        n = sum(found.by_folder.values())
        each = ", ".join(f"{name} {count}" for name, count in found.by_folder.items())
        lines = [f"Sorted {n} images into {folder}: {each}"]
        if found.left_out:
            lines.append(
                f"{len(found.left_out)} images are in none of them: they cannot be read, or are no longer there"
            )
        if found.why_copied:
            lines.append(f"{found.n_copied} images were copied, since links cannot be made there: {found.why_copied}")
        return lines

    def predicted(self, lines: Sequence[str]) -> Predicted:
        """List the images that could not be read beside what was written, and return what became of all."""
        beside = self._out.with_name(f"{self._out.name}.unreadable.csv")
        problems = sorted(self._problems)
        if not problems:
            atomic.discard_file(beside)
            return Predicted(self._n, (), None, tuple(lines))
        write_unreadable(beside, problems)
        unreadable = tuple((key.path, problem) for key, problem in problems)
        said = f"{len(problems)} files cannot be read; see {beside}"
        return Predicted(self._n, unreadable, beside, (*lines, said))


def _sure(named: tuple[Named, ...], least: float, name: str) -> tuple[Named, ...]:
    if not named or is_sure(named[0], least):
        return named
    return (Named(name, named[0].probability), *named)


def _briefly(image: ObservedImage) -> ObservedImage:
    """Return what counts and folders need of an image, since that is kept for all of them."""
    boxes = image.detections
    if boxes is not None:
        boxes = tuple(Detection(d.category, d.confidence, named=d.named[:1]) for d in boxes)
    return replace(image, detections=boxes, named=image.named[:1])
