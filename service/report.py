"""The verb `report`: one page that says how the work stands. Works beside a running daemon, and writes nothing else."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.config import Config
from camera_trap_al.config_file import read_work_config
from camera_trap_al.core.history import History
from camera_trap_al.layout import WorkFolder
from camera_trap_al.reporting import Source, write_first_report, write_report
from camera_trap_al.sequences import Sequences, sequences_in
from camera_trap_al.store import embeddings, generations
from camera_trap_al.store.journal import read_journal
from camera_trap_al.work import catalog_options
from camera_trap_al_service.reading import read_status

# A running daemon may remove what is being read, or write the page, at the same moment.
ATTEMPTS = 3


def report(root: Path) -> str:
    """Write `report.html`; return a sentence that says where it is.

    Raises `WorkFolderError` for a folder that is none of ours, `ModelError` where a network's files cannot be used.
    """
    folder, config = read_work_config(root)
    status = read_status(root)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _write(folder, config, status)
            break
        except (FileNotFoundError, FileExistsError):
            if attempt == ATTEMPTS:
                raise
    return f"Wrote {folder.report}; open it in a browser. It needs no network."


def _write(folder: WorkFolder, config: Config, status: dict[str, Any]) -> None:
    if not folder.journal.exists() or not folder.catalog.exists():
        write_first_report(folder, status)
        return
    history = History.of(read_journal(folder.journal)[0])
    catalog = Catalog.open(folder.catalog, **catalog_options(config), read_only=True)
    try:
        write_report(_source(folder, config, history, catalog), status)
    finally:
        catalog.close()


def _source(folder: WorkFolder, config: Config, history: History, catalog: Catalog) -> Source:
    catalog_id = str(catalog.fact("catalog_id", ""))

    @functools.cache
    def vectors(learner: int) -> embeddings.Vectors:
        path = generations.folder_of(folder.embedding, learner)
        mark = embeddings.made_by(folder.models, learner, catalog_id)
        return embeddings.Vectors(path, mark, embeddings.read_scaler(path))

    @functools.cache
    def sequences() -> Sequences:
        return sequences_in(catalog, config.sequences.gap_s)

    checkpoint = _checkpoint(folder)
    current = embeddings.current_learner(folder.embedding, folder.models, catalog_id)
    learner = checkpoint.manifest["learner"] if checkpoint else current.number if current else 0
    return Source(folder, config, history, catalog, checkpoint, learner, vectors, sequences)


def _checkpoint(folder: WorkFolder) -> generations.Generation | None:
    """Return the newest classifier whose network is still there."""
    newest = generations.newest(folder.checkpoints)
    if newest is None:
        return None
    learner = generations.folder_of(folder.embedding, newest.manifest["learner"])
    return newest if generations.identity(learner) == newest.manifest["learner_id"] else None
