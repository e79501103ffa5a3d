"""Steps that keep the catalogue level with folders, journal and shards."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from camera_trap_al.catalog.found import POOL
from camera_trap_al.catalog.scan import KINDS, Scan
from camera_trap_al.catalog.sightings import Answer
from camera_trap_al.config import Config
from camera_trap_al.core.durations import in_time
from camera_trap_al.core.records import ImageKey
from camera_trap_al.errors import ImagesOfflineError, ModelError, TemplateError
from camera_trap_al.facts import noted_settings, pending_shards, unregistered_classes
from camera_trap_al.images import hash_file
from camera_trap_al.jobs import model_settings
from camera_trap_al.labels.template import find_templates, read_template
from camera_trap_al.store import embeddings, generations, shards
from camera_trap_al.work import Work, image_folders, is_online

LONGEST_GAP_S = 3600.0
TOP_ENTRIES = 1000
log = logging.getLogger(__name__)


def catalogue(work: Work) -> None:
    """Take in one slice of a scan. Commits: SQL transactions.

    Raises `ImagesOfflineError` where a folder of images cannot be listed; the scan starts afresh then.
    """
    folders = image_folders(work.config)
    if work.scan is None:
        work.scan = Scan(
            work.catalog,
            folders,
            hash_file=hash_file,
            tool=work.config.labels.tool,
            leave_out=work.folder.root,
            allow_formula=work.config.selector.allow_formula_names,
            top_images=work.config.selector.top_images,
        )
        work.scan_took_s = 0.0
        if not work.catalog.fact("scan_facts", {}) and is_online(folders[POOL], []):
            log.info("scan: looking for images in %s", ", ".join(str(folder) for folder in folders.values()))
    started = time.monotonic()
    try:
        ended = work.scan.run_slice()
    except OSError as error:
        work.scan, work.scan_ended_s = None, time.monotonic()
        raise ImagesOfflineError(
            f"The folder {error.filename or folders[POOL]} cannot be listed: {error.strerror or error}.",
            hint="Is the disk or share connected? The program goes on by itself when it is back.",
        ) from error
    work.scan_took_s += time.monotonic() - started
    if ended:
        _end_scan(work, work.scan, folders)


def _end_scan(work: Work, scan: Scan, folders: dict[str, Path]) -> None:
    elapsed_s = _since_last_scan(work)
    work.scan, work.scan_ended_s = None, time.monotonic()
    if not is_online(folders[POOL], work.catalog.fact("top", [])):
        raise ImagesOfflineError(f"The folder {folders[POOL]} does not answer.", hint="Is the disk or share connected?")
    before, known_away = work.catalog.fact("scan_facts", {}), work.catalog.fact("away", [])
    away = scan.finish(elapsed_s)
    top = _top_entries(folders[POOL])
    if top and POOL not in away:
        work.catalog.note("top", top)
    for kind in away.keys() - known_away:
        log.warning(
            "scan: %.0f %% of the images known in %s were not there; nothing was given up. Is a disk or share away? If they"
            " were removed on purpose, run `camera-trap-al rescan --gone`",
            100 * away[kind],
            folders[kind],
        )
    if scan.changed or before != work.catalog.fact("scan_facts"):
        _say_what_is_there(work, scan, folders)


def _since_last_scan(work: Work) -> float:
    """Return the seconds since a scan ended: by this process's own clock, else by the computer's, which may be wrong."""
    if work.scan_ended_s > float("-inf"):
        return time.monotonic() - work.scan_ended_s
    now = time.time()
    return min(max(now - float(work.catalog.fact("scan_ended", now)), 0.0), LONGEST_GAP_S)


def _say_what_is_there(work: Work, scan: Scan, folders: dict[str, Path]) -> None:
    counts = work.catalog.counts()
    log.info(
        "scan: %d images to label, %d to train on, %d for validation (%d new or changed), in %s",
        counts.unlabelled + counts.labelled + counts.skipped,
        counts.train,
        counts.validation,
        scan.changed,
        in_time(work.scan_took_s),
    )
    for kind, tally in scan.tallies.items():
        for what, n in sorted(tally.counts.items()):
            log.info("scan: %s: %d %s, such as %s", folders[kind], n, KINDS[what], tally.examples[what][0])
    if counts.altered:
        log.warning("scan: %d images changed after they were labelled; see %s", counts.altered, work.folder.altered)


def _top_entries(root: Path) -> list[str]:
    try:
        with os.scandir(root) as listing:
            return sorted(entry.name for entry in listing)[:TOP_ENTRIES]
    except OSError:
        return []


def register(work: Work) -> None:
    """Note new classes and changed settings. Commits: a journal line each."""
    names = unregistered_classes(work)
    if names:
        work.append("classes", {"names": names, "from": "folders and configuration"})
        log.info("classes: %s", ", ".join(names))
        _warn_of_menu(work)
    _warn_of_folders(work)
    settings = noted_settings(work)
    if work.history.settings != settings:
        # Settings of 0.1.0 name no limits.
        if {**_limits(Config().flat()), **_limits(work.history.settings)} != _limits(settings):
            n = work.catalog.retry_damaged()
            log.info("images: other limits apply now; %d damaged images are tried again", n)
        work.append("config", {"settings": settings})


def _limits(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of which images are refused."""
    no_limits = {"images.processes"}
    return {name: value for name, value in settings.items() if name.startswith("images.") and name not in no_limits}


def _warn_of_menu(work: Work) -> None:
    """Warn of classes that Timelapse cannot offer, since its template was made before."""
    try:
        templates = find_templates(work.pool_root())
        species = read_template(templates[0]).field("Species") if templates else None
    except TemplateError as error:
        log.warning("template: %s", error)
        return
    missing = sorted(set(work.history.classes) - set(species.choices)) if species and species.choices else []
    if missing:
        log.warning(
            "template: the Species menu of %s lacks %s; close Timelapse, then `camera-trap-al template %s --add-classes`",
            templates[0],
            ", ".join(missing),
            work.folder.root,
        )


def _warn_of_folders(work: Work) -> None:
    left_out = sorted(set(work.catalog.folder_classes()) - set(work.history.classes))
    if left_out:
        log.warning("classes: the folders %s are no classes: their names are reserved or taken; rename them", left_out)


def warn_of_unused_settings(work: Work) -> None:
    """Warn of settings of the network that differ from those it was made with, which count."""
    model = work.newest_model()
    if model is None or not (model.manifest["trained"] or work.config.train.epochs == 0):
        return
    made_with = json.loads((model.folder / "model.json").read_text(encoding="utf-8"))["settings"]
    for name, value in model_settings(work.config).as_facts().items():
        if made_with.get(name) != value:
            log.warning(
                "embedding.%s = %s is not used: the network was made with %s (to make a new one, stop the program and"
                " remove the folder models)",
                name,
                value,
                made_with.get(name),
            )


def project(work: Work) -> None:
    """Take journal lines into the catalogue. Commits: one SQL transaction that moves the mark."""
    history = work.history

    def answer_of(key: ImageKey) -> Answer:
        label, skip = history.labels.get(key), history.skips.get(key)
        if label is not None:
            return label.species, None, label.seq
        return None, skip[0] if skip else None, skip[1] if skip else 0

    answers = ((key, answer_of(key)) for key in work.unprojected)
    work.catalog.project(answers, history.end, identity=history.identity)
    work.unprojected = []


def absorb(work: Work) -> None:
    """Take what the next new shard says of its images into the catalogue. Commits: one SQL transaction."""
    learner, name = pending_shards(work)[0]
    folder = generations.folder_of(work.folder.embedding, learner)
    try:
        shard = shards.read_shard_facts(folder, name)
    except ModelError:
        shards.set_aside(folder, name)
        raise
    if not embeddings.is_of_catalog(shard.made_by, work.catalog_id):
        # The catalogue was made anew meanwhile, and these are rows of the old one.
        shards.set_aside(folder, name)
        return
    work.catalog.absorb(f"{folder.name}/{name}", shard.problems, shard.hashes, shard.times)
    if shard.problems:
        log.warning("images: %d of %d cannot be used; see data/quarantine.csv", len(shard.problems), len(shard.rows))
