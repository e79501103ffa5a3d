"""What the worker does: train or fine-tune a model, and embed rows with it. One job a call, resumable, journal-free.

Imports torch inside the functions that need it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.catalog.found import POOL, TRAIN, VALIDATION
from camera_trap_al.config import Config, FinetuneConfig, LoaderConfig, TrainConfig
from camera_trap_al.core.acquisition import key_priority
from camera_trap_al.core.durations import in_time
from camera_trap_al.core.seeds import seed_from
from camera_trap_al.errors import ModelError
from camera_trap_al.layout import WorkFolder
from camera_trap_al.learn.classifier import fit_classifier
from camera_trap_al.learn.settings import SAVED, ModelSettings, Progress, Tick, TrainSettings
from camera_trap_al.reading import ImageReader
from camera_trap_al.registry import Registry
from camera_trap_al.space import require_space, require_space_for_next
from camera_trap_al.store import atomic, embeddings, generations
from camera_trap_al.store.embeddings import RowArray, Vectors
from camera_trap_al.work import image_folders

if TYPE_CHECKING:
    from camera_trap_al.learn.embedding import Embedder

FIRST_POOL_ROWS = 20_000
REFERENCE_CANDIDATES = 64
JOB_FACTS = "job.json"
WEIGHTS = "WEIGHTS"
log = logging.getLogger(__name__)
jobs: Registry[Callable[[Job], None]] = Registry("job")


class Job:
    """What a job may read: catalogue and settings; and where it writes: models and embeddings."""

    def __init__(self, folder: WorkFolder, config: Config, name: str, catalog: Catalog, tick: Tick) -> None:
        self.folder, self.config, self.name, self.catalog, self.tick = folder, config, name, catalog, tick
        self.folders = {kind: str(path) for kind, path in image_folders(config).items()}
        self.read = ImageReader(config, self.folders, catalog.fact("top", []))

    @property
    def catalog_id(self) -> str:
        """Which catalogue the rows are of."""
        return str(self.catalog.fact("catalog_id"))

    def learner(self) -> generations.Generation | None:
        """Return the current learner."""
        return embeddings.current_learner(self.folder.embedding, self.folder.models, self.catalog_id)

    def mark(self, number: int) -> str:
        """Return what shards of model `number` are marked with."""
        return embeddings.made_by(self.folder.models, number, self.catalog_id)

    @property
    def identity(self) -> str:
        """What all seeds come from."""
        return str(self.config.daemon.seed or self.catalog.fact("identity"))

    def seed(self, number: int) -> int:
        """Return the seed of model `number`."""
        return seed_from(self.identity, "model", number)


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
    catalog = Catalog.open(folder.catalog, roots=list(image_folders(config)), read_only=True)
    try:
        job = Job(folder, config, name, catalog, tick)
        number = _target(job)
        begin(number, job.seed(number))
        jobs[name](job)
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
    trained = is_trainable(species, job.config.train.min_labels) and job.config.train.epochs > 0
    number, draft = _draft_folder(job, parent=0, trained=trained)
    start_model(
        draft,
        model_settings(job.config),
        _all_items(job),
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
    facts = {
        "job": job.name,
        "parent": parent,
        "seed": job.seed(number),
        "trained": trained,
        "journal": job.catalog.mark,
    }
    facts["settings"] = model_settings(job.config).as_facts()
    if draft.is_dir() and not _is_resumable(draft, facts):
        atomic.discard_folder(draft)
    if not draft.is_dir():
        atomic.make_folder(draft)
        atomic.replace_json(draft / JOB_FACTS, facts)
    return number, draft


def _is_resumable(draft: Path, facts: dict[str, Any]) -> bool:
    try:
        noted = json.loads((draft / JOB_FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(noted, dict) and {**noted, "journal": 0} == {**facts, "journal": 0}


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
        train(draft, settings, [items[i] for i in usable], labels, read=PixelMemory(job.read), tick=job.tick)
    finish_model(draft, _reference_items(job, rows), read=job.read, tick=job.tick)
    generations.commit(
        job.folder.models,
        number,
        {
            "kind": "model",
            "parent": parent,
            "trained": settings is not None,
            "seed": begun["seed"],
            "journal": begun["journal"],
            "n_labels": len(rows),
            "job": job.name,
        },
    )
    log.info("model %d is ready (%s)", number, "trained" if settings else "start weights as they came")


def _all_items(job: Job) -> list[Any]:
    return job.catalog.items(job.catalog.live_rows(TRAIN, VALIDATION, POOL), job.folders)


def _reference_items(job: Job, rows: RowArray) -> list[Any]:
    every = job.catalog.live_rows(TRAIN, POOL, VALIDATION)
    rng = np.random.default_rng(job.seed(0))
    drawn = rng.permutation(every)[:REFERENCE_CANDIDATES]
    return job.catalog.items(drawn, job.folders)


@jobs.register("EMBED_NEXT")
def embed_next(job: Job) -> None:
    """Embed what a candidate needs to become current. Commits shards, then scaler, verdict and manifest."""
    newest = embeddings.candidate(job.folder.embedding, job.folder.models, job.catalog_id)
    if newest is None:
        raise ModelError("There is no model to embed with.", hint="It is made first.")
    current = job.learner()
    folder = generations.folder_of(job.folder.embedding, newest.number)
    rows = _needed_rows(job, None if current is None else Vectors(current.folder, job.mark(current.number)))
    require_space_for_next(job.folder.embedding, job.config.daemon.min_free_mb)
    _embed(job, newest, folder, rows)
    vectors = Vectors(folder, job.mark(newest.number))
    readable = rows[~np.isin(rows, np.array(sorted(vectors.unreadable), dtype=np.int64))]
    if len(readable) == 0:
        raise ModelError("None of the images can be read.", hint="See data/quarantine.csv.")
    scaler = embeddings.fit_scaler(vectors.blocks(readable), normalize=job.config.embedding.normalize)
    verdict = _verdict(job, current, Vectors(folder, job.mark(newest.number), scaler))
    facts = {"kind": "learner", "model": newest.number, "made_by": job.mark(newest.number), **verdict}
    embeddings.commit_learner(folder, scaler, facts)
    if verdict["kept_back"]:
        log.info(
            "model %d is kept back: accuracy %.3f, now %.3f", newest.number, verdict["accuracy"], verdict["current"]
        )
    else:
        log.info("model %d is current", newest.number)


@jobs.register("EMBED")
def embed_uncovered(job: Job) -> None:
    """Embed rows that the current learner lacks, labelled ones first. Commits a shard at a time."""
    current = job.learner()
    if current is None:
        raise ModelError("There is no learner.", hint="It is made first.")
    labelled, _ = job.catalog.labelled()
    rest = job.catalog.live_rows(TRAIN, VALIDATION, POOL)
    ordered = np.concatenate([labelled, rest[~np.isin(rest, labelled)]])
    model = generations.Generation(
        current.number, generations.folder_of(job.folder.models, current.number), current.manifest
    )
    _embed(job, model, current.folder, ordered)


def _needed_rows(job: Job, current: Vectors | None) -> RowArray:
    """Return the rows that a candidate must embed: all that the current learner has, or enough for a first one."""
    every = job.catalog.live_rows(TRAIN, VALIDATION, POOL)
    labelled, _ = job.catalog.labelled()
    if current is not None:
        return every[current.covers(every) | np.isin(every, labelled)]
    rows, hashes = job.catalog.askable()
    order = np.argsort(key_priority(hashes, seed_from(job.identity, "first rows")), kind="stable")
    first = np.concatenate([job.catalog.live_rows(TRAIN, VALIDATION), labelled, rows[order[:FIRST_POOL_ROWS]]])
    needed: RowArray = np.unique(first)
    return needed


def _embed(job: Job, model: generations.Generation, folder: Path, rows: RowArray) -> None:
    from camera_trap_al.learn.embedding import Embedder, embed_items

    mark = job.mark(model.number)
    if embeddings.is_foreign(folder, mark):
        atomic.discard_folder(folder)
    missing = rows[~Vectors(folder, mark).covers(rows)]
    if len(missing) == 0:
        return
    embedder: Embedder = Embedder(model.folder, batch_size=job.config.embedding.batch_size)
    total, started = len(missing), time.monotonic()
    log.info("Extracting embedding... (%d images)", total)
    for start in range(0, total, embeddings.SHARD_ROWS):
        part = missing[start : start + embeddings.SHARD_ROWS]
        require_space(folder, job.config.daemon.min_free_mb)

        def tick(progress: Progress, start: int = start) -> None:
            job.tick(Progress(progress.phase, start + progress.done, total))

        items = job.catalog.items(part, job.folders)
        job.read.take_hashes()
        vectors, problems = embed_items(embedder, items, read=job.read, tick=tick)
        embeddings.write_shard(folder, part, vectors, problems, mark, hashes=job.read.take_hashes())
        job.tick(Progress(SAVED, start + len(part), total))
    log.info("Finished extracting embedding (%d images in %s)", total, in_time(time.monotonic() - started))


def _verdict(job: Job, current: generations.Generation | None, candidate: Vectors) -> dict[str, Any]:
    """Return whether a candidate is kept back, with both accuracies on the validation images where they were measured."""
    promoted = {"kept_back": False}
    if current is None or job.config.finetune.promote == "always":
        return promoted
    now = Vectors(current.folder, job.mark(current.number), embeddings.read_scaler(current.folder))
    rows, truth = job.catalog.validation()
    labelled, species = job.catalog.labelled()
    usable = candidate.covers(labelled) & now.covers(labelled)
    measured = candidate.covers(rows) & now.covers(rows)
    names = [s for s, good in zip(species, usable, strict=True) if good]
    if not measured.any() or len(set(names)) < 2:
        return promoted
    wanted = [t for t, good in zip(truth, measured, strict=True) if good]
    scores = [_accuracy(v, labelled[usable], names, rows[measured], wanted, job.seed(0)) for v in (candidate, now)]
    return {"kept_back": scores[0] < scores[1], "accuracy": scores[0], "current": scores[1]}


def _accuracy(
    vectors: Vectors, rows: RowArray, species: list[str], test: RowArray, truth: list[str], seed: int
) -> float:
    classifier = fit_classifier(vectors.read(rows), species, seed)
    best = classifier.predict_proba(vectors.read(test)).argmax(axis=1)
    return float(np.mean([classifier.classes[b] == t for b, t in zip(best, truth, strict=True)]))
