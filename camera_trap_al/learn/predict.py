"""A folder of images through an export, to a CSV: streamed, with onnxruntime alone."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from camera_trap_al.core.records import ImageKey
from camera_trap_al.core.spreadsheets import is_safe_name, safe_cell
from camera_trap_al.engine import shared, usable_cores
from camera_trap_al.errors import ImageUnreadableError, ModelError, UsageError
from camera_trap_al.images import IMAGE_PX
from camera_trap_al.learn.onnx_files import check_self_contained, open_session
from camera_trap_al.learn.pace import MOST_LANES
from camera_trap_al.store import atomic
from camera_trap_al.store.json_files import read_object

MANIFEST, MODEL, CLASSES = "manifest.json", "model.onnx", "classes.json"
MANIFEST_FORMAT = 1
IMAGE_EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
SKIPPED_FOLDERS = frozenset({"backups", "deletedfiles"})
COLUMNS = ("RelativePath", "File", "Species", "Confidence")
PROBLEM_COLUMNS = ("RelativePath", "File", "Problem")
PROBABILITY_PREFIX = "p_"
UNKNOWN = "unknown"
UNSAFE_NAME = "A spreadsheet could run the name as a formula, or it holds a control character; rename it (unsafe_name)."
DECIMALS = 4
BATCH_IMAGES = 4
DECODE_THREADS = 8
CHUNK_IMAGES = 32
# Chunks decoded ahead of the network: 6 MB each.
READ_AHEAD = 3

FloatArray = npt.NDArray[np.float32]
OnProgress = Callable[[int, int], object]


@dataclass(frozen=True)
class PredictSummary:
    """What became of a folder: `n` images classified, and (path relative to the folder, why) of each that was not.

    `unreadable_csv` is the list of the latter, or None where all could be read.
    """

    n: int
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    unreadable_csv: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """One image: its (k,) probabilities, or None and the reason in `problem`."""

    key: ImageKey
    proba: FloatArray | None
    problem: str = ""


class ExportedModel:
    """An export that was verified and can classify images.

    Attributes
    ----------
    classes : names of the columns of its probabilities
    at_once : so many images keep all cores at work
    """

    def __init__(self, model: bytes, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        lanes = min(usable_cores(), MOST_LANES)
        self.at_once = lanes * BATCH_IMAGES
        self._session = open_session(model, threads=1)
        self._input = self._session.get_inputs()[0].name
        self._lanes = ThreadPoolExecutor(lanes, thread_name_prefix="network")

    def probabilities(self, images: npt.NDArray[np.uint8]) -> FloatArray:
        """Return the (n, k) float32 probabilities of (n, 256, 256, 3) uint8 images.

        The network always gets batches of one size, filled up with black, so that an image's neighbours, or their
        number, change nothing.
        """
        parts = [images[start : start + BATCH_IMAGES] for start in range(0, len(images), BATCH_IMAGES)]
        empty = np.zeros((0, len(self.classes)), dtype=np.float32)
        return np.concatenate([empty, *self._lanes.map(self._run, parts)])

    def _run(self, part: npt.NDArray[np.uint8]) -> FloatArray:
        batch = np.zeros((BATCH_IMAGES, *part.shape[1:]), dtype=np.uint8)
        batch[: len(part)] = part
        proba: FloatArray = self._session.run(None, {self._input: batch})[0][: len(part)]
        return proba


def open_export(folder: Path) -> ExportedModel:
    """Open an export for classifying.

    Raises
    ------
    ModelError
        It is no export of this program, incomplete, damaged, being rewritten, or of a newer format.
    """
    manifest = _read_manifest(folder)
    classes = _classes(_read_verified(folder, CLASSES, manifest), folder / CLASSES)
    model = _read_verified(folder, MODEL, manifest)
    check_self_contained(model, str(folder / MODEL))
    try:
        return ExportedModel(model, classes)
    # onnxruntime raises classes of its own that share no base.
    except Exception as error:
        raise ModelError(f"onnxruntime cannot open {folder / MODEL} ({error}).", hint="Update onnxruntime.") from error


def _classes(data: bytes, path: Path) -> list[str]:
    try:
        classes = json.loads(data)
    except (ValueError, RecursionError):
        classes = None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ModelError(f"{path} is no list of class names.", hint="Export again.")
    return classes


def predict_folder(
    export_dir: Path,
    images: Path,
    out: Path,
    *,
    probabilities: bool = False,
    min_confidence: float | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> PredictSummary:
    """Classify all images below a folder, or one image, and write a CSV; durable on return.

    The CSV has `RelativePath` (`/` between folders, empty for the top folder), `File`, `Species` and `Confidence`, and
    with `probabilities` then one column `p_NAME` for each class, in the order of the export's `classes.txt`. Rows are
    sorted by folder, then file. Probabilities have four decimals. A species that a spreadsheet would take for a formula
    gets a leading `'`. Images that cannot be read are no reason to stop: they are listed in another CSV beside it
    (`OUT.unreadable.csv`: RelativePath, File, Problem), which is removed where there are none.

    Parameters
    ----------
    export_dir : an `export/` folder
    images : a folder of any depth, or a file. Hidden folders, and `Backups` and `DeletedFiles` of Timelapse, are left
        out; links to folders are not followed.
    out : the CSV, replaced whole; its folder must be there
    min_confidence : a species with a lower probability is given as `unknown`; in [0, 1], None for never
    on_progress : called with (done, total) images

    Raises
    ------
    ModelError
        The export cannot be used.
    UsageError
        There is nothing to classify, or `out` is a folder or holds something else than predictions.
    """
    _check_out(out)
    model = open_export(export_dir)
    keys, problems = find_images(images)
    if not keys and not problems:
        raise UsageError(f"There are no images in {images}.", hint=f"Read are: {', '.join(sorted(IMAGE_EXTENSIONS))}.")
    n_found = len(keys) + sum(1 for key, _ in problems if key.file)
    root = images if images.is_dir() else images.parent
    outcomes = classify(model, root, keys, on_progress)
    header = [*COLUMNS, *(f"{PROBABILITY_PREFIX}{name}" for name in (model.classes if probabilities else ()))]

    def rows() -> Iterator[list[str]]:
        for outcome in outcomes:
            if outcome.proba is None:
                problems.append((outcome.key, outcome.problem))
            else:
                yield _row(outcome.key, outcome.proba, model.classes, min_confidence, probabilities=probabilities)

    atomic.replace_file(out, lambda file: _write_csv(file, header, rows()))
    return _summary(out, n_found, sorted(problems))


def _check_out(out: Path) -> None:
    """Raise `UsageError` unless `out` is new or holds predictions, which may be replaced."""
    if out.is_dir():
        raise UsageError(f"{out} is a folder.", hint="Name the CSV file to write, such as predictions.csv.")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"There is no folder {out.absolute().parent}.", hint="Make it first, or name another file.")
    if out.exists():
        with out.open("rb") as file:
            if not file.read(64).removeprefix(b"\xef\xbb\xbf").startswith(b",".join(c.encode() for c in COLUMNS)):
                raise UsageError(f"{out} holds something else than predictions.", hint="Name another file.")


def find_images(images: Path) -> tuple[list[ImageKey], list[tuple[ImageKey, str]]]:
    """Return the images of a folder, sorted, and, with the reason, what of it cannot be listed.

    A file counts whatever its extension. Raises `UsageError` if there is no such folder or file.
    """
    if images.is_file():
        return [ImageKey("", images.name)], []
    if not images.is_dir():
        raise UsageError(f"There is no folder or image {images}.", hint="Check the path.")
    keys: list[ImageKey] = []
    problems: list[tuple[ImageKey, str]] = []
    folders = [""]
    while folders:
        relative = folders.pop()
        try:
            with os.scandir(images / relative) as entries:
                for entry in entries:
                    if _is_folder(entry):
                        folders.append(f"{relative}/{entry.name}".lstrip("/"))
                    elif Path(entry.name).suffix.lower() in IMAGE_EXTENSIONS and not entry.name.startswith("."):
                        key = ImageKey(relative, entry.name)
                        if is_safe_name(os.fsencode(key.path).decode("utf-8", "replace")):
                            keys.append(key)
                        else:
                            problems.append((key, UNSAFE_NAME))
        except OSError as error:
            problems.append((ImageKey(relative, ""), f"The folder cannot be listed ({error.strerror or error})."))
    return sorted(keys), problems


def classify(
    model: ExportedModel, root: Path, keys: Sequence[ImageKey], on_progress: OnProgress = lambda done, total: None
) -> Iterator[Outcome]:
    """Yield an outcome for each image below `root`, in the order given; memory does not grow with their number."""
    size = max(CHUNK_IMAGES, model.at_once)
    with ThreadPoolExecutor(DECODE_THREADS, thread_name_prefix="decode") as pool:
        decoded = _read_ahead(pool, root, keys, READ_AHEAD * size)
        try:
            for start in range(0, len(keys), size):
                part = [next(decoded) for _ in keys[start : start + size]]
                yield from _classify_chunk(model, part)
                on_progress(start + len(part), len(keys))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


Decoded = tuple[ImageKey, "npt.NDArray[np.uint8] | None", str]


def _read_ahead(pool: ThreadPoolExecutor, root: Path, keys: Iterable[ImageKey], ahead: int) -> Iterator[Decoded]:
    waiting: deque[Future[Decoded]] = deque()
    for key in keys:
        waiting.append(pool.submit(_decode, root, key))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _decode(root: Path, key: ImageKey) -> Decoded:
    try:
        return key, shared().read(root / key.path, px=IMAGE_PX).pixels, ""
    except ImageUnreadableError as error:
        return key, None, str(error)
    except OSError as error:
        return key, None, f"The file cannot be read ({error.strerror or error})."


def _classify_chunk(model: ExportedModel, part: Sequence[Decoded]) -> Iterator[Outcome]:
    pixels = [array for _, array, _ in part if array is not None]
    if pixels:
        results = iter(model.probabilities(np.stack(pixels)))
    for key, array, problem in part:
        yield Outcome(key, None if array is None else next(results), problem)


def _row(
    key: ImageKey, proba: FloatArray, classes: Sequence[str], min_confidence: float | None, *, probabilities: bool
) -> list[str]:
    best = int(proba.argmax())
    confidence = round(float(proba[best]), DECIMALS)
    is_sure = min_confidence is None or confidence >= min_confidence
    species = safe_cell(classes[best]) if is_sure else UNKNOWN
    each = [f"{value:.{DECIMALS}f}" for value in proba] if probabilities else []
    return [key.relative_path, key.file, species, f"{confidence:.{DECIMALS}f}", *each]


def _summary(out: Path, n: int, problems: Sequence[tuple[ImageKey, str]]) -> PredictSummary:
    beside = out.with_name(f"{out.name}.unreadable.csv")
    if not problems:
        atomic.discard_file(beside)
        return PredictSummary(n)
    rows = [[safe_cell(cell) for cell in (key.relative_path, key.file, problem)] for key, problem in problems]
    atomic.replace_file(beside, lambda file: _write_csv(file, PROBLEM_COLUMNS, rows))
    n_images = sum(1 for key, _ in problems if key.file)
    return PredictSummary(n - n_images, [(key.path, problem) for key, problem in problems], beside)


def _write_csv(file: BinaryIO, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    # File names that are no valid Unicode (Linux) are written as the bytes they are.
    text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(header)
    writer.writerows(rows)
    text.flush()
    text.detach()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith(".") or entry.name.lower() in SKIPPED_FOLDERS:
        return False
    return entry.is_dir(follow_symlinks=False)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    foreign = f"{folder} is not an export of this program"
    hint = "Give the folder `export` of a work folder."
    try:
        manifest = read_object(path)
    except FileNotFoundError as error:
        raise ModelError(f"{foreign}: it has no {MANIFEST}.", hint=hint) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error}).", hint="Export again.") from error
    if manifest.get("kind") != "export" or not isinstance(manifest.get("files"), dict):
        raise ModelError(f"{foreign}: {MANIFEST} says nothing of an export.", hint=hint)
    if manifest.get("format") != MANIFEST_FORMAT:
        text = f"{path} is of format {manifest.get('format')}; this version reads format {MANIFEST_FORMAT}."
        raise ModelError(text, hint="Update the program.")
    return manifest


def _read_verified(folder: Path, name: str, manifest: dict[str, Any]) -> bytes:
    """Return the bytes of a file, which are those that the manifest names."""
    try:
        data = (folder / name).read_bytes()
        noted = manifest["files"][name]["sha256"]
    except (OSError, KeyError, TypeError) as error:
        raise ModelError(f"{folder / name} is missing: the export is incomplete.", hint="Export again.") from error
    if hashlib.sha256(data).hexdigest() != noted:
        raise ModelError(
            f"{folder / name} is not the file that {MANIFEST} names: it is damaged, or being rewritten right now.",
            hint="Try again in a minute; if that does not help, export again.",
        )
    return data
