"""The verb `import-timelapse`: labels of a Timelapse image database, shown first, then taken as label files are."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.catalog.found import POOL
from camera_trap_al.config import Config
from camera_trap_al.config_file import read_work_config
from camera_trap_al.core.decision import Decision
from camera_trap_al.core.history import History
from camera_trap_al.core.matching import KnownClasses, KnownImages, shown
from camera_trap_al.core.records import LabelRow
from camera_trap_al.errors import LabelFileError, UsageError, WorkFolderError
from camera_trap_al.labels.published import Published
from camera_trap_al.labels.timelapse_database import ImageDatabase, read_image_database
from camera_trap_al.layout import WorkFolder
from camera_trap_al.store.journal import read_journal
from camera_trap_al.taking import decide_rows, known_classes
from camera_trap_al.work import image_folders
from camera_trap_al_service.labels import SKIPS

HEADER = ("File", "RelativePath", "Species", "Confirmed", "Prediction", "DeleteFlag")
# A wish is a file of at most 64 MB, in which a backslash or a quotation mark takes two characters.
MOST_ROWS, MOST_CHARACTERS = 200_000, 12_000_000
SHOWN_SPECIES = 50
SHOWN_REASONS = 5


@dataclass(frozen=True)
class Found:
    """What a database would bring: `lines` for a person, the `texts` of the label files, `is_new` whether they bring any."""

    lines: list[str]
    texts: list[str]
    is_new: bool
    n_refused: int


def labels_in_database(root: Path, database: Path, *, with_default: bool) -> Found:
    """Say what labels a Timelapse image database would bring now, whoever asked for them. Changes nothing.

    Parameters
    ----------
    root : the work folder, started at least once
    database : the `.ddb`, which Timelapse may have open
    with_default : also take species that are the default of their field, which nobody may have looked at

    Raises
    ------
    TimelapseDatabaseError : the database cannot be read
    UsageError, WorkFolderError : it is that of other images, or there is no such file or work folder
    """
    folder, config = read_work_config(root)
    if not folder.journal.exists() or not folder.catalog.exists():
        raise WorkFolderError(f"{root} was never started, so its images are not known yet.", hint="Use `run` first.")
    found = read_image_database(database, config.labels.column)
    rows, n_default = (found.rows, 0) if with_default else found.looked_at()
    history = History.of(read_journal(folder.journal)[0])
    decision = _decide(rows, folder, config, history, database)
    lines = [
        f"{database} (Timelapse {found.version}): {found.n_rows} rows, {len(rows)} of them with an answer.",
        *_species_lines(rows, known_classes(config, history), config.classes.auto_add),
        *_outcome_lines(decision),
    ]
    if n_default:
        lines.append(_default_line(found, n_default, config.labels.column))
    is_new = bool(decision.taken or decision.skips or decision.unlabels)
    return Found(lines, list(as_label_files(rows)) if is_new else [], is_new, decision.counts["rejected"])


def as_label_files(rows: Sequence[LabelRow]) -> Iterator[str]:
    """Yield the texts of label files, as few as can be carried; all rows of one image come in the same one.

    `rows` are sorted by folder and name.
    """
    for part in _parts(rows):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\r\n")
        writer.writerow(HEADER)
        for row in part:
            writer.writerow((row.file, row.relative_path, row.species, row.confirmed, row.prediction, row.delete_flag))
        yield text.getvalue()


def _parts(rows: Sequence[LabelRow]) -> Iterator[Sequence[LabelRow]]:
    start = size = 0
    for at, row in enumerate(rows):
        is_next = at > 0 and (row.relative_path, row.file) != (rows[at - 1].relative_path, rows[at - 1].file)
        if is_next and (at - start >= MOST_ROWS or size >= MOST_CHARACTERS):
            yield rows[start:at]
            start, size = at, 0
        size += len(row.relative_path) + len(row.file) + len(row.species) + len(row.prediction)
    if start < len(rows):
        yield rows[start:]


def _decide(rows: Sequence[LabelRow], folder: WorkFolder, config: Config, history: History, database: Path) -> Decision:
    """Return what would be taken, as the wish will decide it. Raises `UsageError` where no image is one of the pool."""
    config = replace(config, labels=replace(config.labels, unrequested="accept"))
    catalog = Catalog.open(folder.catalog, read_only=True)
    try:
        images = KnownImages(catalog.pool_keys(with_missing=True), config.labels.path_alias)
        if rows and not any(images.knows(row.relative_path, row.file) for row in rows):
            raise _of_other_images(rows, config, database)
        published = Published(history.published, folder.published)
        return decide_rows(rows, config, history, catalog, published=published, images=images, asks=False)
    except LabelFileError as error:
        raise UsageError(f"Nothing was taken from {database}: {error}") from error
    finally:
        catalog.close()


def _of_other_images(rows: Sequence[LabelRow], config: Config, database: Path) -> UsageError:
    """Return the error for a database of which no answered image is known, with the setting that mends it, if one does."""
    images, here = image_folders(config)[POOL], database.absolute().parent
    alias = _alias(Path(os.path.realpath(here)), Path(os.path.realpath(images)))
    text = f"None of the {len(rows)} answered rows of {database} is of an image in {images}; the first is of"
    text += f" '{shown(_path(rows[0]))}'. Nothing was taken."
    if not alias:
        return UsageError(text, hint="Name the .ddb of these images. If they are new here, let `run` find them first.")
    above = images if alias.startswith("=") else here
    return UsageError(
        f"{text} Its folder, {here}, is not the folder of images, so the paths in it begin elsewhere ({above}).",
        hint=f'Set labels.path_alias = ["{shown(alias)}"] in config.toml, then import again.',
    )


def _alias(here: Path, images: Path) -> str:
    """Return the `labels.path_alias` for a database in a folder above or below that of the images, else ""."""
    if here != images and images.is_relative_to(here):
        return f"{images.relative_to(here).as_posix()}="
    if here != images and here.is_relative_to(images):
        return f"={here.relative_to(images).as_posix()}"
    return ""


def _species_lines(rows: Iterable[LabelRow], classes: KnownClasses, auto_add: bool) -> Iterator[str]:
    """Yield one line for each species, the most frequent first, and what it means here."""
    counts = Counter(row.species for row in rows if row.species)
    listed = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    for species, n in listed[:SHOWN_SPECIES]:
        yield f"{n:>9}  {shown(species)}{_meaning(species, classes, auto_add)}"
    if len(listed) > SHOWN_SPECIES:
        rest = listed[SHOWN_SPECIES:]
        yield f"{sum(n for _, n in rest):>9}  of {len(rest)} further species"


def _meaning(species: str, classes: KnownClasses, auto_add: bool) -> str:
    match = classes.match(species)
    if match.kind == "class":
        return "" if match.is_exact else f"  (the class {match.name})"
    if match.kind == "skip":
        return "  (cannot be told)"
    if match.kind == "unlabel":
        return "  (takes labels back)"
    if match.kind == "reserved":
        return "  (a word that is never a class)"
    if auto_add:
        return "  (no class yet)"
    near = classes.suggest(species)
    return f"  (no class of this project{f'; did you mean {near[0]}?' if near else ''})"


def _outcome_lines(decision: Decision) -> Iterator[str]:
    """Yield what would be taken, what is left out, and why rows are refused."""
    counts = decision.counts
    confirmed = sum(label.provenance == "confirmed" for label in decision.taken)
    parts = [f"{counts['accepted']} of images without a label", f"{counts['corrected']} that change one"]
    parts += [f"{confirmed} of them confirmed predictions"] if confirmed else []
    known = f" {counts['unchanged']} are known already." if counts["unchanged"] else ""
    yield f"{_count(len(decision.taken), 'label')} would be taken: {', '.join(parts)}.{known}"
    if decision.new_classes:
        yield f"New classes: {', '.join(map(shown, decision.new_classes))}."
    skips = Counter(skip.reason for skip in decision.skips)
    if skips:
        reasons = ", ".join(f"{SKIPS.get(reason, reason)}: {n}" for reason, n in sorted(skips.items()))
        yield f"{_count(sum(skips.values()), 'image')} would be left out of requests ({reasons})."
    if decision.unlabels:
        yield f"{_count(len(decision.unlabels), 'label')} would be taken back."
    if counts["rejected"]:
        yield f"{_count(counts['rejected'], 'row')} would be refused, such as:"
        examples = {rejection.text: rejection for rejection in reversed(decision.rejections)}
        for rejection in list(reversed(examples.values()))[:SHOWN_REASONS]:
            yield f"  {rejection.path}: {rejection.text}"
    yield from decision.warnings


def _default_line(found: ImageDatabase, n: int, column: str) -> str:
    names = " or ".join(f"'{shown(name)}'" for name in sorted(found.defaults))
    held = [f"{column} is {names}"] if names else []
    held += ["Confirmed is on"] if found.is_confirmed_before else []
    return (
        f"Left out: {_count(n, 'row')} whose {', or whose '.join(held)}, which is what the field holds before anybody looks at"
        " an image. If they were looked at, --with-default takes them too."
    )


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _path(row: LabelRow) -> str:
    return f"{row.relative_path}/{row.file}" if row.relative_path else row.file
