"""What Timelapse and other programs read of us: the selector CSV, the request, labels.csv and the predictions CSV."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import re
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from camera_trap_al.core.records import ImageKey
from camera_trap_al.core.spreadsheets import safe_cell
from camera_trap_al.errors import HELD, FileHeldError
from camera_trap_al.labels.lines import BLOCK_LINES, LINE_END, LabelLines, SelectorLines, cell
from camera_trap_al.labels.prediction_fields import CONFIDENCE, COUNT, PREDICTION, PredictionFields
from camera_trap_al.store import atomic
from camera_trap_al.store.json_files import read_object

FINISHED = "finished"
COLUMNS = 3
LONGEST_HEADER = 1 << 16
NEW_AFTER_S = 30.0
NO_RIGHT_AFTER_S = 600.0
BOTH = PredictionFields()
NOTHING = ""
NOT_COUNTED = -1
CONFIDENCES = tuple(b"%.3f\r\n" % (n / 1000) for n in range(1001))
_digests: dict[Path, tuple[tuple[int, int], str]] = {}
log = logging.getLogger(__name__)


class Predictions(NamedTuple):
    """What a checkpoint says of n images: (n,) int64 key hashes, (n,) numbers of classes, (n,) probabilities in [0, 1].

    `counts` are (n,) how many animals a detector saw, `NOT_COUNTED` where it did not look; None where it looked at none.
    """

    key_hashes: npt.NDArray[np.int64]
    species: npt.NDArray[np.integer[Any]]
    confidence: npt.NDArray[np.float32]
    classes: Sequence[str]
    counts: npt.NDArray[np.int64] | None = None


class Selector:
    """The selector, and `label_request.json`, which names the round that it shows.

    While another program holds the selector so that it cannot be replaced, the same content goes into a second file, from
    30 s on; that one is removed when the selector itself shows the round. Since when is known in memory only.

    Parameters
    ----------
    path, new, request : the selector, the file that stands in for it, and `label_request.json`
    clock : monotonic seconds
    """

    def __init__(self, path: Path, new: Path, request: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path, self.new, self._request, self._clock = path, new, request, clock
        self._held_since_s: float | None = None

    def show(
        self, listed: Callable[[], SelectorLines], keys: Collection[ImageKey], round_: int | str, why: str = ""
    ) -> None:
        """Select `keys` among the images that `listed` returns. Commits: `label_request.json`.

        A selector, or the file that stands in for it, into which somebody wrote columns of their own, which may be labels,
        is kept in the folder of the request first. Raises `FileHeldError` while the selector cannot be replaced, even if
        the other file could be written.
        """
        for path in (self.path, self.new):
            self._keep_foreign_columns(path)
        try:
            write_selector(self.path, listed(), keys)
        except OSError as error:
            if error.errno not in HELD:
                raise
            now = self._clock()
            self._held_since_s = now if self._held_since_s is None else self._held_since_s
            held_s = now - self._held_since_s
            if held_s >= NEW_AFTER_S:
                write_selector(self.new, listed(), keys)
                write_request(self._request, self.new, round_=round_, keys=keys, why=why)
            raise self._held_error(held_s) from error
        self._held_since_s = None
        write_request(self._request, self.path, round_=round_, keys=keys, why=why)
        if not self.new.exists():
            return
        try:
            atomic.discard_file(self.new)
        except OSError as error:
            log.warning("request: %s is not needed any more and cannot be removed: %s", self.new, error.strerror)

    @property
    def is_held(self) -> bool:
        """Whether another program held the selector when it was last to be replaced."""
        return self._held_since_s is not None

    def placed(self, kept_back: Collection[ImageKey] = ()) -> int | str:
        """Return the round that the selector itself shows, else 0; so too where it shows what is to be kept back."""
        return read_placed(self._request, self.path, kept_back)

    def shown(self, kept_back: Collection[ImageKey] = ()) -> int | str:
        """Return the round that the selector or the file that stands in for it shows, else 0; as `placed`."""
        return self.placed(kept_back) or read_placed(self._request, self.new, kept_back)

    def _keep_foreign_columns(self, path: Path) -> None:
        try:
            if not path.is_file():
                return
            with path.open("rb") as file:
                is_ours = len(re.split(rb"[,;\t]", file.readline(LONGEST_HEADER))) <= COLUMNS
                data = b"" if is_ours else path.read_bytes()
        except OSError:
            return
        if is_ours:
            return
        kept = self._request.with_name(f"selector-{hashlib.sha256(data).hexdigest()[:12]}.csv")
        if kept.exists():
            return  # a selector that is held is shown again and again
        atomic.replace_bytes(kept, data)
        log.warning(
            "request: somebody wrote into %s, which is replaced now; what it held is kept as %s. If these are labels, put"
            " that file into new_labels_bin",
            path,
            kept,
        )

    def _held_error(self, held_s: float) -> FileHeldError:
        text = f"The selector waits: {self.path} cannot be replaced, since another program holds it."
        hint = "Close it in Excel or Timelapse; the program goes on by itself."
        if held_s >= NEW_AFTER_S:
            text += f" {self.new.name} shows the same meanwhile."
        if held_s >= NO_RIGHT_AFTER_S:
            hint = (
                "Other files can be made and renamed in that folder, so if no program holds this one, the right to delete"
                f" it (DELETE permission) is missing: remove {self.path.name} yourself."
            )
        return FileHeldError(text, hint=hint)


def write_selector(path: Path, listed: SelectorLines, selected: Collection[ImageKey]) -> None:
    """Write `File,RelativePath,Selected` for all images the tool can load; durable on return.

    Every image has a row, since Timelapse keeps the old flag of one that is left out, and a row with an empty
    RelativePath also sets each image of that name in sub-folders unless their own rows follow.
    """
    atomic.replace_file(path, lambda file: listed.write(file, selected, ["true"] * len(selected)))


def write_request(path: Path, selector: Path, *, round_: int | str, keys: Iterable[ImageKey], why: str = "") -> None:
    """Write `label_request.json`, which names the round that the selector shows; durable on return."""
    stat = selector.stat()
    request = {
        "format": 1,
        "round": round_,
        "selector": {"file": selector.name, "bytes": stat.st_size, "sha256": _sha256(selector)},
        "images": [key.path for key in keys],
    }
    atomic.replace_json(path, request | ({"why": why} if why else {}))


def read_placed(path: Path, selector: Path, kept_back: Collection[ImageKey] = ()) -> int | str:
    """Return the round that `label_request.json` names if the selector is the one noted there, else 0.

    And 0 where it names one of the images that are to be kept back.
    """
    try:
        request = read_object(path)
        noted, placed = request["selector"], request["round"]
        is_of_it = noted["file"] == selector.name and selector.stat().st_size == noted["bytes"]
        if kept_back and not {key.path for key in kept_back}.isdisjoint(request["images"]):
            return 0
        if is_of_it and _sha256(selector) == noted["sha256"]:
            return placed if isinstance(placed, int) or placed == FINISHED else 0
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return 0


def write_labels(path: Path, lines: LabelLines, images: Collection[ImageKey], species: Sequence[str]) -> None:
    """Write `path,label` for the whole pool; durable on return.

    `species` are those of `images`, each of them once; the label of all others is `unlabelled`.
    """
    cells = {name: cell(safe_cell(name)) for name in set(species)}
    atomic.replace_file(path, lambda file: lines.write(file, images, [cells[name] for name in species]))


def write_predictions(
    path: Path, listed: SelectorLines, predictions: Predictions, fields: PredictionFields = BOTH
) -> None:
    """Write `File,RelativePath` and the columns of `fields`, of which there must be one; durable on return.

    In the order of `listed`; images without a line there are left out. Those of a class that the template cannot hold have
    empty cells, and so have those of which nothing is predicted where Timelapse would take another line for theirs.
    """
    header = ",".join(("File", "RelativePath", *fields.columns))
    nothing, fields = len(predictions.classes), replace(fields, left_out=fields.left_out | {NOTHING})
    middles = [_middle(name, fields) for name in (*predictions.classes, NOTHING)]
    ends = [_ends(name, fields) for name in (*predictions.classes, NOTHING)]

    def write(file: BinaryIO) -> None:
        file.write(header.encode("utf-8") + LINE_END)
        places = listed.places(predictions.key_hashes)
        more = listed.namesakes(places[places >= 0])
        places = np.concatenate([places, more])
        numbers = np.append(predictions.species, np.full(len(more), nothing))
        confidence = np.append(predictions.confidence, np.zeros(len(more), np.float32))
        counts = (
            None if COUNT not in fields.columns else np.append(_counts(predictions), np.full(len(more), NOT_COUNTED))
        )
        order = np.argsort(places, kind="stable")[np.count_nonzero(places < 0) :]
        for start in range(0, len(order), BLOCK_LINES):
            these = order[start : start + BLOCK_LINES]
            species = numbers[these].tolist()
            thousandths = np.rint(confidence[these] * 1000).astype(np.int64).tolist()
            lines = zip(listed.beginnings(places[these]), species, thousandths, strict=True)
            written = [line + middles[i] + ends[i][n] for line, i, n in lines]
            if counts is not None:
                comma = b"," * (len(fields.columns) > 1)
                each = zip(written, counts[these].tolist(), strict=True)
                written = [line.removesuffix(LINE_END) + comma + _count_cell(n) + LINE_END for line, n in each]
            file.write(b"".join(written))

    atomic.replace_file(path, write)


def _counts(predictions: Predictions) -> npt.NDArray[np.int64]:
    if predictions.counts is None:
        return np.full(len(predictions.key_hashes), NOT_COUNTED, dtype=np.int64)
    return predictions.counts


def _count_cell(count: int) -> bytes:
    return b"" if count == NOT_COUNTED else b"%d" % count


def _middle(species: str, fields: PredictionFields) -> bytes:
    if PREDICTION not in fields.columns:
        return b""
    text = "" if species in fields.left_out else cell(safe_cell(species))
    return (text + "," * (CONFIDENCE in fields.columns)).encode("utf-8")


def _ends(species: str, fields: PredictionFields) -> Sequence[bytes]:
    """Return the ends of the lines of a class, by confidence in thousandths."""
    is_shown = CONFIDENCE in fields.columns and species not in fields.left_out
    return CONFIDENCES if is_shown else [LINE_END] * len(CONFIDENCES)


def write_problems(path: Path, header: list[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a list for people as CSV, with free text made safe for spreadsheets; durable on return."""
    _write_csv(path, header, ([safe_cell(str(cell)) for cell in row] for row in rows))


def _write_csv(path: Path, header: list[str], rows: Iterable[Iterable[str]]) -> None:
    def write(file: Any) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=False)
        writer = csv.writer(text, lineterminator="\r\n")
        writer.writerow(header)
        writer.writerows(rows)
        text.flush()
        text.detach()

    atomic.replace_file(path, write)


def _sha256(path: Path) -> str:
    stat = path.stat()
    stamp = (stat.st_mtime_ns, stat.st_size)
    known = _digests.get(path)
    if known is None or known[0] != stamp:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        known = _digests[path] = (stamp, digest.hexdigest())
    return known[1]
