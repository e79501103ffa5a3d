"""Steps that bring labels in: which files of the bin need something, what is good of each, and the answer to it."""

from __future__ import annotations

import functools
import gc
import hashlib
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.catalog.found import POOL, TRAIN, VALIDATION
from camera_trap_al.config import Config
from camera_trap_al.core.decision import Decision, Publications, journal_fields
from camera_trap_al.core.history import History
from camera_trap_al.core.intake import IntakeSettings, decide
from camera_trap_al.core.matching import KnownClasses, KnownImages
from camera_trap_al.core.records import ImageKey, LabelRow, Notice, Rejection
from camera_trap_al.errors import LabelFileError, UsageError
from camera_trap_al.labels import receipts
from camera_trap_al.labels.inbox import BinFile, PrivateCopy, printable_name, take_private_copy
from camera_trap_al.labels.published import Published
from camera_trap_al.labels.species_csv import read_species_csv
from camera_trap_al.store import atomic
from camera_trap_al.work import Work, image_folders

log = logging.getLogger(__name__)


class BinFiles(NamedTuple):
    """Names of the label files now in the bin that still need something."""

    unanswered: tuple[str, ...] = ()
    untaken: tuple[str, ...] = ()
    unsettled: tuple[str, ...] = ()


def bin_files(work: Work) -> BinFiles:
    """Return which label files have no receipt yet, which were not read yet, and which may still be growing."""
    needs: dict[str, list[str]] = {"unanswered": [], "untaken": [], "unsettled": []}
    try:
        files = work.inbox.files(time.monotonic())
        bin_folder, reports = work.folder.bin, work.folder.reports if work.folder.reports.is_dir() else None
    except OSError as error:
        log.debug("the bin cannot be listed: %s", error)
        return BinFiles()
    taken, remarks = _taken(work), _remarks(work)
    waiting = []
    for file in files:
        receipt = receipts.read_receipt(bin_folder, reports, file.name) or {}
        need = _need(work, file, taken.get((printable_name(file.name), file.mtime_ns)), receipt, remarks)
        if need:
            needs[need].append(file.name)
            waiting.append(file)
    work.inbox.keep_waiting(waiting if needs["unanswered"] or needs["untaken"] else [])
    return BinFiles(*(tuple(needs[name]) for name in BinFiles._fields))


def _need(
    work: Work, file: BinFile, taken: Taken | None, receipt: Mapping[str, Any], remarks: Mapping[int, list[Any]]
) -> str:
    is_of_this_file = receipt.get("mtime_ns") == file.mtime_ns
    if taken is not None and work.inbox.digest(file) in ("", taken.sha256):
        is_whole = is_of_this_file and (receipt.get("sha256"), receipt.get("seq")) == taken
        return "" if is_whole and receipt.get("remarks") == remarks.get(taken.seq, []) else "unanswered"
    # A receipt that names a journal line which is not there (an older journal was put back) is no evidence.
    is_copy = receipt.get("verdict") == "already_known" and (receipt.get("seq") or 0) <= work.journal.end
    if is_of_this_file and work.inbox.digest(file) in ("", receipt["sha256"]) and (receipt["seq"] is None or is_copy):
        return ""
    return "untaken" if file.is_settled else "unsettled"


class Taken(NamedTuple):
    """What the journal knows of a label file that was taken."""

    sha256: str
    seq: int


def _taken(work: Work) -> dict[tuple[str, int], Taken]:
    """Return the label files that were taken, by name and mtime; the newest line counts."""
    files = work.history.taken.items()
    return work.cached(
        "taken", work.journal.end, lambda: {(name, time): Taken(sha256, seq) for (name, sha256, time), seq in files}
    )


def _remarks(work: Work) -> Mapping[int, list[dict[str, Any]]]:
    return work.cached("remarks", work.journal.end, work.history.remarks)


def answer(work: Work, name: str) -> None:
    """Write receipt and report of a label file that was taken. Commits: the receipt."""
    file = work.inbox.last_seen(name)
    taken = _taken(work).get((printable_name(name), file.mtime_ns)) if file else None
    if taken is None:
        return
    receipt = receipts.receipt_from_line(work.journal.lines[taken.seq - 1], _remarks(work).get(taken.seq, []))
    receipts.write_receipt(work.folder.bin, work.folder.reports, name, receipt)


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Keep Python from looking for garbage among a million labels, of which all are kept: a fifth of their time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_no_garbage()
def take_labels(work: Work, name: str) -> None:
    """Read a settled label file and take what is good of it.

    Commits: one journal line, or the receipt of a file without a good row. A file that is gone or changed is left for
    another turn.
    """
    file = work.inbox.last_seen(name)
    if file is None or not file.is_settled:
        return
    copy = take_private_copy(file, work.folder.intake)
    if copy is None:
        work.inbox.keep_waiting([])  # the next turn looks what became of it
        raise LabelFileError(f"{printable_name(name)} changed while it was read.", hint="It is read when it is quiet.")
    receipt = _receipt_without_reading(work, copy)
    if receipt is None:
        try:
            if copy.refusal is not None:
                raise copy.refusal
            decision = decide_file(
                copy.path,
                work.config,
                work.history,
                work.catalog,
                published=published(work),
                notices=copy.notices,
                images=known_images(work),
            )
        except LabelFileError as error:
            receipt = receipts.receipt_of_error(copy, error, _now(), len(work.history.awaited()))
        else:
            if decision.is_good:
                fields = journal_fields(decision)
                del decision  # a million labels are held once, not twice
                journal_labels(work, copy, fields)
                return
            receipt = receipts.receipt_of_decision(copy, decision, _now())
    receipts.write_receipt(work.folder.bin, work.folder.reports, name, receipt)
    log.info("labels: %s: %s", copy.name, receipts.verdict_in_words(receipt))


def journal_labels(work: Work, copy: PrivateCopy, fields: dict[str, Any], **more: str) -> None:
    """Take what was decided of a label file. Commits: a journal line."""
    number = work.history.newest_round()
    facts = {"name": copy.name, "sha256": copy.sha256, "mtime_ns": copy.mtime_ns, "round": number, **more}
    work.append("labels", facts | fields)
    log.info(
        "labels: took %d of %d rows from %s (round %d); %d of the request are left",
        len(fields["rows"]),
        fields["answer"]["counts"]["rows"],
        copy.name,
        number,
        fields["answer"]["requested_left"],
    )


def import_labels(work: Work, wish: str, text: str) -> str:
    """Take labels of images whether they were asked for or not; return a sentence that says what was taken.

    The text, with the columns File, RelativePath and the label column, goes into the bin as a label file of its own, so
    that it has a receipt, and can be undone. Commits: one journal line that names the wish. Raises `UsageError` where
    nothing of it can be used.
    """
    data = text.encode("utf-8")
    digest = hashlib.sha256(data).hexdigest()
    copy = PrivateCopy(work.folder.intake / f"{digest}.csv", f"imported-{digest[:12]}.csv", digest, 0)
    atomic.replace_bytes(copy.path, data)
    config = replace(work.config, labels=replace(work.config.labels, unrequested="accept", column="Species"))
    try:
        decision = decide_file(
            copy.path,
            config,
            work.history,
            work.catalog,
            published=published(work),
            images=known_images(work),
            asks=False,
        )
    except LabelFileError as error:
        raise UsageError(f"Nothing was taken: {error}") from error
    receipt = receipts.receipt_of_decision(copy, decision, _now())
    said = receipts.verdict_in_words(receipt)
    if not decision.is_good:
        reasons = dict.fromkeys(row["text"] for row in receipt["rejected"][:3])
        raise UsageError(" ".join([f"Nothing was taken: {said}", *reasons]))
    path = work.folder.bin / copy.name
    with atomic.permitted(work.folder.bin):
        atomic.replace_bytes(path, data)
    journal_labels(work, replace(copy, mtime_ns=path.stat().st_mtime_ns), journal_fields(decision), wish=wish)
    return f"{said} See {path.name}.report.txt beside it in {work.folder.bin}; it is number {work.journal.end}."


def _receipt_without_reading(work: Work, copy: PrivateCopy) -> dict[str, Any] | None:
    """Return the receipt of a file whose content is known and which is not read again, else None.

    The same content with the same time under another name is a copy. Two or more known contents with new times at once
    are a copied or restored folder.
    """
    seqs = {(sha256, mtime_ns): seq for (_, sha256, mtime_ns), seq in work.history.taken.items()}
    known = seqs.get((copy.sha256, copy.mtime_ns))
    if known is not None:
        return receipts.receipt_of_known(copy, work.journal.lines[known - 1], _now())
    by_content = {sha256: seq for (_, sha256, _), seq in work.history.taken.items()}
    if copy.sha256 not in by_content:
        return None
    others = _restored_with(work, copy, set(by_content))
    if not others:
        return None
    return receipts.receipt_of_restored(copy, work.journal.lines[by_content[copy.sha256] - 1], _now(), others)


def _restored_with(work: Work, copy: PrivateCopy, contents: set[str]) -> list[list[Any]]:
    """Return (name, time) of the label files that came back together with a known one, with known content and new times.

    Files of the same restored folder that have their receipts already name those that came with them.
    """
    taken = _taken(work)
    found: list[list[Any]] = []
    for file in work.inbox.scan(time.monotonic()):
        name = printable_name(file.name)
        if name == copy.name or (name, file.mtime_ns) in taken:
            continue
        receipt = receipts.read_receipt(work.folder.bin, work.folder.reports, file.name) or {}
        if receipt.get("mtime_ns") == file.mtime_ns:
            came_together = [copy.name, copy.mtime_ns] in receipt["restored_with"]
        else:
            other = take_private_copy(file, work.folder.intake)
            came_together = other is not None and other.sha256 in contents and other.sha256 != copy.sha256
        if came_together:
            found.append([name, file.mtime_ns])
    return found


def known_images(work: Work) -> KnownImages:
    """Return the images of the pool, kept from call to call while the pool is the same."""
    aliases = work.config.labels.path_alias
    stamp = (work.catalog.fact("pool_version", 0), aliases)
    return work.cached("known images", stamp, lambda: KnownImages(work.catalog.pool_keys(with_missing=True), aliases))


def published(work: Work) -> Published:
    """Return what was ever published as predictions."""
    return Published(work.history.published, work.folder.published)


def decide_file(
    path: Path,
    config: Config,
    history: History,
    catalog: Catalog,
    *,
    published: Publications,
    images: KnownImages,
    notices: tuple[Notice, ...] = (),
    requested: Set[ImageKey] | None = None,
    asks: bool = True,
) -> Decision:
    """Return what would be taken of a label file now. Changes nothing. Raises `LabelFileError`.

    `published` is asked what may be confirmed; `requested` are the images that count as asked for, by default those of all
    requests; `asks` as in `IntakeSettings`.
    """
    source = read_species_csv(path, column=config.labels.column, knows=images.knows)
    rows = itertools.chain(notices, source.rows)
    return decide_rows(
        rows, config, history, catalog, published=published, images=images, requested=requested, asks=asks
    )


def known_classes(config: Config, history: History) -> KnownClasses:
    """Return the classes that a label may name, and the words that are none."""
    return KnownClasses(
        history.classes,
        skip_words=config.labels.skip_words,
        reserved=config.classes.reserved,
        unlabel_token=config.labels.unlabel_token,
    )


def decide_rows(
    rows: Iterable[LabelRow | Rejection | Notice],
    config: Config,
    history: History,
    catalog: Catalog,
    *,
    published: Publications,
    images: KnownImages,
    requested: Set[ImageKey] | None = None,
    asks: bool = True,
) -> Decision:
    """Return what would be taken of such rows now, as `decide_file` of a label file. Raises `LabelFileError`."""
    awaited = history.awaited()
    return decide(
        rows,
        images=images,
        classes=known_classes(config, history),
        requested=history.requested if requested is None else requested,
        awaited=awaited,
        current=history.label_of,
        published=published,
        settings=IntakeSettings(
            "accept" if config.labels.unrequested == "accept" else "ignore",
            config.classes.auto_add,
            config.classes.auto_add_min,
            asks,
        ),
        not_pool=_is_elsewhere(config, catalog),
        unavailable=frozenset(catalog.unusable(awaited)),
        waiting=history.waiting,
    )


def _is_elsewhere(config: Config, catalog: Catalog) -> Callable[[ImageKey], bool]:
    """Return a test of keys of no pool image: of the training or validation folder, named from there or from above it?"""
    folders = image_folders(config)
    parent = folders[POOL].parent
    names = {folder.name for kind, folder in folders.items() if kind in (TRAIN, VALIDATION) and folder.parent == parent}
    labelled = functools.cache(lambda: frozenset(catalog.keys_of(catalog.live_rows(TRAIN, VALIDATION).tolist())))
    return lambda key: key.relative_path.partition("/")[0] in names or key in labelled()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
