"""The verb `template`: make a Timelapse template where there is none, say whether one can be used, add classes to its menu."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from camera_trap_al.catalog.found import POOL, TRAIN, VALIDATION
from camera_trap_al.config import Config
from camera_trap_al.config_file import read_work_config
from camera_trap_al.core.history import History
from camera_trap_al.core.matching import class_name_problem, folded, nfc
from camera_trap_al.errors import TemplateError, UsageError
from camera_trap_al.labels.template import find_templates, make_template, read_template
from camera_trap_al.labels.template_classes import MENU, add_choices
from camera_trap_al.layout import TEMPLATE, WorkFolder
from camera_trap_al.store.journal import read_journal
from camera_trap_al.work import image_folders
from camera_trap_al_service.doctor_template import lacking, menu_findings, template_findings
from camera_trap_al_service.findings import PROBLEM, Finding, class_folders, finding_line


def check_or_make(root: Path) -> tuple[list[str], bool]:
    """Make the template of a work folder, or say whether the one that is there can be used, which is not changed.

    Returns
    -------
    Lines for a person, and whether Timelapse can open the template and its exports can be read

    Raises
    ------
    UsageError, WorkFolderError : the work folder or the folder of images cannot be used
    TemplateError : no template can be written
    """
    folder, config, images, classes = _looked_at(root)
    templates = find_templates(images)
    if not templates:
        return place_template(images, folder.root, menu(classes, config)), True
    found, of_menu = examine(templates, config, classes)
    is_usable = all(finding.level != PROBLEM for finding in found)
    can = "It can be used." if is_usable else "It cannot be used as it is; nothing was changed."
    return [f"The Timelapse template {templates[0]}:", *template_lines(found, of_menu), can], is_usable


def add_classes(root: Path) -> list[str]:
    """Add the classes to the species menu that it lacks; make a template where there is none. Return lines for a person.

    Raises
    ------
    UsageError, WorkFolderError : the work folder or the folder of images cannot be used, or it holds several templates
    TemplateError : the template cannot be used, or seems to be open; nothing was changed
    """
    folder, config, images, classes = _looked_at(root)
    templates = find_templates(images)
    if not templates:
        return place_template(images, folder.root, menu(classes, config))
    if len(templates) > 1:
        names = ", ".join(path.name for path in templates)
        raise UsageError(
            f"There are {len(templates)} templates in {images}: {names}. Nothing was changed.",
            hint="Keep the one that Timelapse opens, and move the others away.",
        )
    column, path = config.labels.column, templates[0]
    field = read_template(path).field(column)
    if field is not None and field.type == "Note":
        return [f"{column} in {path} is a Note, into which any name can be typed; nothing was changed."]
    lacks = lacking(field.choices, classes) if field is not None and field.type == MENU else sorted(classes)
    if not lacks:
        return [f"The {column} menu of {path} offers all {len(classes)} classes already; nothing was changed."]
    backup = add_choices(path, column, lacks)
    return [
        f"Added to the {column} menu of {path}: {', '.join(lacks)}.",
        f"What it was before is {backup.name} beside it.",
        "Timelapse shows them when it opens the images again, without a question. If it or its Template Editor was open all"
        " the while, which cannot be seen from here, close it without changing the template.",
    ]


def place_template(images: Path, work: Path, items: list[str]) -> list[str]:
    """Make a template in the folder of images, or in the work folder where that cannot be; return lines that say so.

    Raises `TemplateError` where neither can be written.
    """
    try:
        make_template(images / TEMPLATE, items)
        return [f"Made the Timelapse template {images / TEMPLATE}."]
    except (TemplateError, OSError) as error:
        beside = work.absolute() / TEMPLATE
        make_template(beside, items)
        return [f"The template could not be put into {images} ({error}).", f"It is in {beside}: copy it there."]


def menu(classes: Collection[str], config: Config) -> list[str]:
    """Return the items of the species menu: the classes, then the words for 'cannot tell'; nothing without any class."""
    if not classes:
        return []
    return [*sorted(classes), *(word for word in config.labels.skip_words if word not in classes)]


def examine(templates: list[Path], config: Config, classes: Collection[str]) -> tuple[list[Finding], list[Finding]]:
    """Return what is to be said of the first of these templates, and of its species menu."""
    found = template_findings(templates, config.labels.column)
    try:
        template = read_template(templates[0])
    except TemplateError:
        return found, []
    return found, menu_findings(template, config, classes)


def template_lines(found: list[Finding], of_menu: list[Finding]) -> list[str]:
    """Return what `examine` found as lines for a person."""
    named = [("template", finding) for finding in found] + [("species", finding) for finding in of_menu]
    return [f"  {finding_line(name, finding)}" for name, finding in named]


def _looked_at(root: Path) -> tuple[WorkFolder, Config, Path, set[str]]:
    """Return paths and configuration of a work folder, its folder of images, and its classes."""
    folder, config = read_work_config(root)
    images = image_folders(config)[POOL]
    if not images.is_dir():
        raise UsageError(
            f"The folder of images {images} is not there.",
            hint="Connect its disk or share; or, if it was moved, name its new place with `camera-trap-al relocate`.",
        )
    return folder, config, images, _classes(folder, config)


def _classes(folder: WorkFolder, config: Config) -> set[str]:
    """Return every class that is known by configuration, folders and journal, one spelling of each."""
    named = config.classes.named()
    if folder.journal.exists():
        named += History.of(read_journal(folder.journal)[0]).classes
    for kind, images in image_folders(config).items():
        if kind in (TRAIN, VALIDATION) and images.is_dir():
            named += sorted(nfc(name).strip() for name in class_folders(images))
    good = [name for name in named if class_name_problem(name, config.classes.reserved) is None]
    return set({folded(name): name for name in reversed(good)}.values())
