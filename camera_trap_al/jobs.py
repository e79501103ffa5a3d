"""What the worker does: train or fine-tune a model, and embed rows with it. One job a call, resumable, journal-free.

Imports torch inside the functions that need it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.config import Config, FinetuneConfig, LoaderConfig, TrainConfig
from camera_trap_al.core.grouping import first_of_image, n_images
from camera_trap_al.embed_jobs import FIRST_ROWS, embed_next, embed_uncovered
from camera_trap_al.errors import ModelError
from camera_trap_al.images import IMAGE_PX
from camera_trap_al.job import Job
from camera_trap_al.layout import WorkFolder
from camera_trap_al.learn.settings import ModelSettings, Tick, TrainSettings
from camera_trap_al.registry import Registry
from camera_trap_al.space import require_space_for_next
from camera_trap_al.store import atomic, embeddings, generations
from camera_trap_al.store.embeddings import RowArray
from camera_trap_al.work import catalog_options

MEASURED_IMAGES = 1000
JOB_FACTS = "job.json"
WEIGHTS = "WEIGHTS"
log = logging.getLogger(__name__)
jobs: Registry[Callable[[Job], None]] = Registry("job")


def run_job(
    folder: WorkFolder, config: Config, name: str, tick: Tick, begin: Callable[[int, int], None] = lambda n, seed: None
) -> None:
    """Do one job. What it commits: docs/architecture.md, table of jobs.

    Calls `begin` with the generation that is worked on and its seed before anything is done.

    Raises
    ------
    StopRequested
        from `tick`; what was done since the last commit is lost
    CameraTrapAlError
        it cannot be done; the text says why
    """
    if name == WEIGHTS:
        # Before the first start there is no catalogue yet.
        fetch_weights(config, tick)
        return
    catalog = Catalog.open(folder.catalog, **catalog_options(config), read_only=True)
    try:
        job = Job(folder, config, name, catalog, tick)
        number = _target(job)
        begin(number, job.seed(number))
        try:
            jobs[name](job)
        finally:
            job.cache.close()
    finally:
        catalog.close()


def _target(job: Job) -> int:
    """Return the number of the generation that a job works on."""
    if job.name == "EMBED":
        current = job.learner()
        return current.number if current else 0
    if job.name == "EMBED_NEXT":
        newest = embeddings.candidate(job.folder.embedding, job.folder.models, job.catalog_id)
        return newest.number if newest else 0
    return _next_model(job)


def _next_model(job: Job) -> int:
    return max(generations.next_number(job.folder.models), generations.next_number(job.folder.embedding))


def model_settings(config: Config) -> ModelSettings:
    """Return what a new model is to be."""
    e = config.embedding
    return ModelSettings(e.arch, e.feat_dim, e.loss, e.margin, e.selection)


def train_settings(part: TrainConfig | FinetuneConfig, loader: LoaderConfig) -> TrainSettings:
    """Return how a model is trained first, or fine-tuned."""
    return TrainSettings(
        part.epochs,
        part.lr,
        part.weight_decay,
        part.loader,
        balanced_classes=loader.classes,
        balanced_samples=loader.samples,
        layers=part.layers if isinstance(part, FinetuneConfig) else "all",
    )


def weights_file(config: Config) -> Path | None:
    """Return the file of start weights, if one is configured."""
    return Path(config.embedding.weights).absolute() if config.embedding.weights else None


@jobs.register("TRAIN")
def train_first(job: Job) -> None:
    """Make a model from start weights, trained if there are labels enough. Commits a model folder."""
    from camera_trap_al.learn.making import start_model

    rows, species = job.catalog.labelled()
    classes = sorted(set(species))
    epochs = job.config.train.epochs
    # A long training comes after the first learner, so that a person need not wait for it.
    is_time = job.learner() is not None or epochs * len(rows) <= FIRST_ROWS or _is_training_begun(job)
    labels = list(compress(species, first_of_image(job.catalog.images_of(rows)).tolist()))
    trained = is_trainable(labels, job.config.train.min_labels) and epochs > 0 and is_time
    number, draft = _draft_folder(job, parent=0, trained=trained)
    start_model(
        draft,
        model_settings(job.config),
        _first_items(job),
        classes=classes,
        pretrained=job.config.embedding.pretrained,
        weights=weights_file(job.config),
        seed=job.seed(number),
        read=job.read,
        tick=job.tick,
    )
    settings = train_settings(job.config.train, job.config.loader) if trained else None
    _finish(job, number, draft, parent=0, settings=settings, rows=rows, species=species)


def fetch_weights(config: Config, tick: Tick) -> None:
    """Make sure that the start weights of a first model are on this computer. Commits: the file in torchvision's cache."""
    from camera_trap_al.learn.backbones import build_network
    from camera_trap_al.learn.weights import load_start_weights

    settings = model_settings(config)
    network = build_network(settings.arch, settings.feat_dim, seed=0)
    pretrained, weights = config.embedding.pretrained, weights_file(config)
    load_start_weights(network, settings.arch, pretrained=pretrained, weights=weights, tick=tick)


@jobs.register("FINETUNE")
def finetune(job: Job) -> None:
    """Train the current learner's model on. Commits a model folder."""
    from camera_trap_al.learn.making import continue_model

    parent = job.learner()
    if parent is None:
        raise ModelError("There is no learner to fine-tune.", hint="It is made first.")
    rows, species = job.catalog.labelled()
    classes = sorted(set(species))
    number, draft = _draft_folder(job, parent=parent.number, trained=True)
    parent_folder = generations.folder_of(job.folder.models, parent.number)
    continue_model(draft, parent_folder, classes=classes, seed=job.seed(number))
    settings = train_settings(job.config.finetune, job.config.loader)
    _finish(job, number, draft, parent=parent.number, settings=settings, rows=rows, species=species)


def is_trainable(species: Sequence[str], min_labels: int) -> bool:
    """Return whether labels are enough to train a network: `min_labels`, two classes of two images or more."""
    counts = np.unique(list(species), return_counts=True)[1] if species else np.zeros(0)
    return len(species) >= min_labels and int((counts >= 2).sum()) >= 2


def _draft_folder(job: Job, *, parent: int, trained: bool) -> tuple[int, Path]:
    """Return the number and hidden folder of the next model; a draft of the same job goes on, any other is discarded."""
    number = _next_model(job)
    require_space_for_next(job.folder.models, job.config.daemon.min_free_mb)
    for leftover in job.folder.models.glob(".gen-*"):
        if leftover != generations.hidden_folder_of(job.folder.models, number):
            atomic.discard_folder(leftover)
    draft = generations.hidden_folder_of(job.folder.models, number)
    facts = _draft_facts(job, number, parent=parent, trained=trained)
    if draft.is_dir() and not _is_resumable(draft, facts):
        atomic.discard_folder(draft)
    if not draft.is_dir():
        atomic.make_folder(draft)
        atomic.replace_json(draft / JOB_FACTS, facts)
    return number, draft


def _draft_facts(job: Job, number: int, *, parent: int, trained: bool) -> dict[str, Any]:
    return {
        "job": job.name,
        "parent": parent,
        "seed": job.seed(number),
        "trained": trained,
        "px": job.config.cache.px,
        "journal": job.catalog.mark,
        "settings": model_settings(job.config).as_facts(),
    }


def _is_training_begun(job: Job) -> bool:
    """Return whether there is a draft of a first model that is being trained."""
    number = _next_model(job)
    draft = generations.hidden_folder_of(job.folder.models, number)
    return _is_resumable(draft, _draft_facts(job, number, parent=0, trained=True))


def _is_resumable(draft: Path, facts: dict[str, Any]) -> bool:
    try:
        noted = json.loads((draft / JOB_FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(noted, dict) and {"px": IMAGE_PX, **noted, "journal": 0} == {**facts, "journal": 0}


def _finish(
    job: Job,
    number: int,
    draft: Path,
    *,
    parent: int,
    settings: TrainSettings | None,
    rows: RowArray,
    species: list[str],
) -> None:
    from camera_trap_al.learn.data import PixelMemory
    from camera_trap_al.learn.making import finish_model
    from camera_trap_al.learn.model_folder import read_facts
    from camera_trap_al.learn.training import train

    begun = json.loads((draft / JOB_FACTS).read_text(encoding="utf-8"))
    items = job.catalog.items(rows, job.folders)
    if settings is not None:
        names = list(read_facts(draft).classes)
        usable = [i for i, name in enumerate(species) if name in names]
        labels = np.array([names.index(species[i]) for i in usable], dtype=np.int64)
        read = PixelMemory(job.read, job.read.keeps)
        train(draft, settings, [items[i] for i in usable], labels, read=read, tick=job.tick)
    finish_model(draft, _first_items(job), read=job.read, tick=job.tick)
    generations.commit(
        job.folder.models,
        number,
        {
            "kind": "model",
            "parent": parent,
            "trained": settings is not None,
            "seed": begun["seed"],
            "journal": begun["journal"],
            "n_labels": n_images(job.catalog.images_of(rows)),
            "px": begun.get("px", IMAGE_PX),
            "job": job.name,
        },
    )
    log.info("model %d is ready (%s)", number, "trained" if settings else "start weights as they came")


def _first_items(job: Job) -> list[Any]:
    """Return the images that a model is measured and checked on; in a season of damaged images only some can be read."""
    rows = job.rows_in_order()[:MEASURED_IMAGES]
    if len(rows) == 0:
        raise ModelError("None of the images can be read.", hint="See data/quarantine.csv.")
    return job.catalog.items(rows, job.folders)


jobs.register("EMBED_NEXT")(embed_next)
jobs.register("EMBED")(embed_uncovered)
