"""Names and combinations of options that can work together, checked before anything is begun."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from camera_trap_al.catalog.found import POOL, TRAIN, VALIDATION
from camera_trap_al.config import Config
from camera_trap_al.core.matching import clashing_names, class_name_problem
from camera_trap_al.errors import UsageError
from camera_trap_al.jobs import model_settings, train_settings
from camera_trap_al.learn.heads import AUTO, heads
from camera_trap_al.strategies import strategies


def check_choices(config: Config) -> None:
    """Raise `UsageError` for a name or combination of options that cannot work."""
    if not config.data.unlabelled:
        raise UsageError(
            "No folder of images to label is named.", hint="Name it with --unlabelled, or in data.unlabelled."
        )
    strategies.check(config.query.strategy)
    if config.classifier.head != AUTO:
        heads.check(config.classifier.head)
    model_settings(config).check()
    train_settings(config.train, config.loader).check()
    train_settings(config.finetune, config.loader).check()
    _check_batches(config)
    clashes = clashing_names(config.classes.named())
    if [pair for pair in clashes if pair[0] != pair[1]]:
        raise UsageError(f"The classes {clashes[0]} differ only in upper and lower case or accents.", hint="Keep one.")
    for name in config.classes.named():
        problem = class_name_problem(name, config.classes.reserved)
        if problem:
            raise UsageError(f"The class '{name}' cannot be used: {problem}.", hint="Choose another name.")
    if config.items.without_detection == "empty" and not config.classes.empty:
        raise UsageError(
            "items.without_detection is 'empty', and classes.empty names no class to predict then.",
            hint="Name your class for images without an animal in classes.empty, or choose 'skip'.",
        )
    if config.embedding.weights and not Path(config.embedding.weights).is_file():
        raise UsageError(
            f"The file of start weights {config.embedding.weights} does not exist.", hint="Correct embedding_weights."
        )
    if config.query.first == "wait" and not config.data.train:
        raise UsageError(
            'With query.first = "wait" nothing is asked before there is a classifier, and without a training folder there'
            " never is one.",
            hint='Name a folder with --train, or use query.first = "now".',
        )


def _check_batches(config: Config) -> None:
    loaders = {"train.loader": config.train.loader, "finetune.loader": config.finetune.loader}
    balanced = [key for key, loader in loaders.items() if loader == "balanced"]
    if balanced and config.loader.samples < 2 and config.embedding.loss != "softmax":
        raise UsageError(
            f'With {balanced[0]} = "balanced" and loader.samples = 1 no batch holds two images of one class, so the loss'
            f" {config.embedding.loss} teaches nothing.",
            hint='Set loader.samples to 2 or more (10 is usual), or the loader to "single", or the loss to "softmax".',
        )


def check_folders(folders: Mapping[str, Path], work: Path) -> None:
    """Raise `UsageError` for folders of images that are not there, overlap, or lie around the work folder."""
    flags = {TRAIN: "--train", VALIDATION: "--validation", POOL: "--unlabelled"}
    for kind, folder in folders.items():
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "does not exist"
            raise UsageError(f"{folder} {what}.", hint=f"Correct {flags[kind]}.")
    resolved = {kind: folder.resolve() for kind, folder in folders.items()}
    for kind, folder in resolved.items():
        for other, outer in resolved.items():
            if kind != other and (folder == outer or outer in folder.parents):
                raise UsageError(
                    f"{folders[kind]} ({flags[kind]}) lies in {folders[other]} ({flags[other]}), so its images would count"
                    " twice.",
                    hint="Move one of them out of the other.",
                )
        if work.resolve() == folder or work.resolve() in folder.parents:
            raise UsageError(f"The work folder {work} holds the images in {folder}.", hint="Name another work folder.")
        if kind != POOL and folder in work.resolve().parents:
            raise UsageError(
                f"The work folder {work} lies in {folder}, where each folder is a class.",
                hint="Name another work folder.",
            )
