"""The verb `audit`: labels that predictions contradict, as a table and as a selector. Works beside a running daemon."""

from __future__ import annotations

from pathlib import Path

from camera_trap_al.auditing import Audit, Suspect, audit_seed, judge_labels, worst_of
from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.config import Config
from camera_trap_al.config_file import read_work_config
from camera_trap_al.core.history import History
from camera_trap_al.core.matching import shown
from camera_trap_al.errors import UsageError, WorkFolderError
from camera_trap_al.labels.lines import SelectorLines
from camera_trap_al.labels.timelapse import write_selector
from camera_trap_al.layout import WorkFolder
from camera_trap_al.sequences import sequences_in
from camera_trap_al.store import atomic, embeddings, generations
from camera_trap_al.store.journal import read_journal
from camera_trap_al.work import catalog_options

TOP = 50
NAME_COLUMNS, PATH_COLUMNS = 20, 44


def audit(root: Path, top: int = TOP) -> list[str]:
    """Compare labels with what is predicted without them, write the `top` worst as a selector; return lines for a person.

    Writes `timelapse_audit.csv`, or removes it where no label is contradicted; nothing else. Raises `WorkFolderError`
    where nothing was ever started, `UsageError` where there is too little to compare.
    """
    folder, config = read_work_config(root)
    if not folder.journal.exists() or not folder.catalog.exists():
        raise WorkFolderError(f"{root} was never started, so it has no labels yet.", hint="Use `run` first.")
    history = History.of(read_journal(folder.journal)[0])
    catalog = Catalog.open(folder.catalog, **catalog_options(config), read_only=True)
    try:
        found = find_worst(folder, config, history, catalog, top)
        selected = [suspect.key for suspect in found.worst if suspect.key is not None]
        if selected:
            write_selector(folder.audit, SelectorLines(catalog.pool_keys(listed_only=True)), selected)
        elif folder.audit.exists():
            atomic.discard_file(folder.audit)
    finally:
        catalog.close()
    return [*table(found), *_what_to_do(folder, found, len(selected))]


def find_worst(folder: WorkFolder, config: Config, history: History, catalog: Catalog, top: int) -> Audit:
    """Return the labels that are contradicted most. Raises `UsageError` where there is too little to compare."""
    learner = embeddings.current_learner(folder.embedding, folder.models, str(catalog.fact("catalog_id", "")))
    if learner is None:
        raise UsageError(
            "The images are not embedded yet, so labels cannot be compared.", hint="Let `run` go on first."
        )
    mark = embeddings.made_by(folder.models, learner.number, str(catalog.fact("catalog_id", "")))
    vectors = embeddings.Vectors(
        generations.folder_of(folder.embedding, learner.number), mark, embeddings.read_scaler(learner.folder)
    )
    seed, gap_s = audit_seed(config, history), config.sequences.gap_s
    judged = judge_labels(catalog, vectors, lambda: sequences_in(catalog, gap_s), seed)
    return worst_of(judged, catalog, history, empty=config.classes.empty, top=top)


def table(found: Audit) -> list[str]:
    """Return the worst labels as lines, those that look empty apart from those that look like another species."""
    what = "left out burst by burst" if found.by == "group" else "left out a few at a time"
    lines = [
        f"{found.n_judged} of {found.n_labels} labels were compared with what is predicted without them ({what}):"
        f" {found.n_contradicted} are contradicted, {found.n_likely} of them so clearly that they are probably wrong."
    ]
    for looks_empty, title in ((True, "Images that look empty"), (False, "Images that look like another species")):
        part = [(n, suspect) for n, suspect in enumerate(found.worst, 1) if suspect.looks_empty is looks_empty]
        if part:
            head = f"{'rank':>6}  {'image':<{PATH_COLUMNS}}{'label':<{NAME_COLUMNS}}"
            lines += [f"{title}:", f"{head}{'looks like':<{NAME_COLUMNS}}{'sure':>6}"]
            lines += [_line(n, suspect) for n, suspect in part]
    return lines


def _line(rank: int, suspect: Suspect) -> str:
    path = shown(suspect.path) if suspect.key is not None else f"(training) {shown(suspect.path)}"
    names = f"{shown(suspect.given):<{NAME_COLUMNS - 1}} {shown(suspect.looks_like):<{NAME_COLUMNS - 1}}"
    return f"{rank:>6}  {path:<{PATH_COLUMNS - 1}} {names} {100 * suspect.probability:>4.0f} %"


def _what_to_do(folder: WorkFolder, found: Audit, n_selected: int) -> list[str]:
    if not found.worst:
        return ["No label is contradicted."]
    lines = []
    if n_selected:
        lines.append(
            f"Wrote {folder.audit}, which selects {n_selected} images: import it in Timelapse, correct Species where it is"
            f" wrong, export them into {folder.bin}. Then import {folder.selector.name} again, whose selection it took away."
        )
    n_training = sum(suspect.key is None for suspect in found.worst)
    if n_training:
        lines.append(f"{n_training} are in the training folder: move them to the folder of the right class.")
    n_foreign = sum(suspect.key is not None and not suspect.was_asked for suspect in found.worst)
    if n_foreign:
        lines.append(
            f"{n_foreign} were never asked for, such as imported labels: another label for them is taken only with"
            ' labels.unrequested = "accept".'
        )
    return lines
