"""Checks of the Timelapse template, of its Species menu, and of what else Timelapse finds in the image folder."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Collection, Sequence
from pathlib import Path

from camera_trap_al.catalog.found import POOL
from camera_trap_al.config import Config
from camera_trap_al.core.matching import folded
from camera_trap_al.errors import CameraTrapAlError
from camera_trap_al.labels.template import NEEDED_FIELDS, OPTIONAL_FIELDS, Template, find_templates, read_template
from camera_trap_al_service.findings import Case, Finding, note, ok, problem

LONGEST_PATH = 259
JOURNAL_ENDING = "-journal"
TYPES = {"FixedChoice": "Choice", "Note": "Note", "Flag": "Flag", "Counter": "Counter"}
EXPORTED = ("File", "RelativePath")
PREDICTED = ("Prediction", "Confidence")
SHOWN_NAMES = 20
PICTURE_ENDINGS = (".jpg", ".jpeg")


def check_template(case: Case) -> list[Finding]:
    """The image folder has one template that Timelapse opens, with the fields that are needed."""
    root = _image_root(case)
    if root is None:
        return []
    templates = find_templates(root)
    if not templates:
        fields = f"{case.config.labels.column} (Choice) and Selected (Flag)"
        text = f"there is no Timelapse template (.tdb) in {root}."
        return [problem(text, f"Make one in Timelapse's Template Editor with the fields {fields}, and save it there.")]
    found = template_findings(templates, case.config.labels.column)
    return found or [ok(f"{templates[0].name} has the fields that are needed")]


def template_findings(templates: Sequence[Path], column: str) -> list[Finding]:
    """Return what is wrong with the template of an image folder, the first of those that are there.

    `column` is the data label of the field that holds the species. Nothing to say is said by no finding.
    """
    found = _place_problems(templates[0])
    if len(templates) > 1:
        names = ", ".join(path.name for path in templates)
        found.append(
            note(
                f"there are {len(templates)} templates in {templates[0].parent}: {names}.",
                "Keep one; move the others away.",
            )
        )
    try:
        template = read_template(templates[0])
    except CameraTrapAlError as error:
        return [*found, problem(Exception.__str__(error), error.hint)]
    return found + _field_problems(template, column)


def _place_problems(path: Path) -> list[Finding]:
    found = []
    if path.suffix != ".tdb":
        found.append(problem(f"Timelapse does not open {path.name}.", f"Rename it to {path.stem}.tdb, in lower case."))
    if len(str(path)) + len(JOURNAL_ENDING) > LONGEST_PATH:
        text = f"the path of {path.name} is too long for Timelapse."
        found.append(
            problem(text, "Move the image folder nearer to the top of its drive, then name it with `relocate`.")
        )
    if path.parent == Path(path.anchor):
        text = f"{path.name} lies at the top of a drive, where Timelapse does not open it."
        found.append(problem(text, "Put the images and the template into a folder, then name it with `relocate`."))
    attributes = getattr(path.parent.stat(), "st_file_attributes", 0)
    if attributes & getattr(stat, "FILE_ATTRIBUTE_HIDDEN", 0):
        text = f"the folder {path.parent} is hidden, so Timelapse does not open its template."
        found.append(problem(text, "Take that attribute away in the folder's properties."))
    if not os.access(path, os.W_OK):
        text = f"{path.name} is write-protected, and Timelapse writes into it when it opens it."
        found.append(problem(text, "Take the write protection away."))
    return found


def _field_problems(template: Template, column: str) -> list[Finding]:
    found = []
    needed = {column if name == "Species" else name: types for name, types in NEEDED_FIELDS.items()}
    editor = "in Timelapse's Template Editor"
    for name, types in needed.items():
        field = template.field(name)
        kinds = " or ".join(TYPES[kind] for kind in types)
        if field is None:
            other = next((f.data_label for f in template.fields if f.data_label.casefold() == name.casefold()), "")
            text = f"the template has no field with the data label {name}" + (f", only {other}." if other else ".")
            way = (
                f", or set column = {json.dumps(other)} under [labels] in config.toml"
                if other and name == column
                else ""
            )
            found.append(problem(text, f"Add one, a {kinds}, {editor}{way}."))
        elif field.type not in types:
            text = f"the field {name} is of the type {field.type}."
            found.append(problem(text, f"Make it a {kinds} {editor}."))
    species, selected = template.field(column), template.field("Selected")
    if species is not None and species.default.strip():
        text = (
            f"{column} has the default value '{species.default}', which labels every image before anybody looks at it."
        )
        found.append(problem(text, f"Empty its default value {editor}, and {column} of images that nobody labelled."))
    if selected is not None and selected.default.strip().lower() == "true":
        text = "Selected is on by default, so images that are not asked for are shown as well."
        found.append(problem(text, f"Set its default value to false {editor}."))
    missing = [name for name in PREDICTED if template.field(name) is None]
    if missing:
        lost = "is not written" if len(missing) == len(PREDICTED) else "has no such column"
        text = f"the template has no {' and no '.join(missing)}, so timelapse_predictions.csv {lost}."
        found.append(note(text, f"To see predictions, add {' and '.join(missing)} as Notes {editor}."))
    for name, types in OPTIONAL_FIELDS.items():
        field = template.field(name)
        if field is not None and field.type not in types:
            text = (
                f"the field {name} is of the type {field.type}, so it cannot hold what this program means by that name."
            )
            found.append(
                note(text, f"Make it a {TYPES[types[0]]}, or give your own field another data label {editor}.")
            )
    found += _confirmed_problems(template, editor)
    for name in (*EXPORTED, column):
        field = template.field(name)
        if field is not None and not field.is_exported:
            text = f"{name} is left out of exported files, so no label can be read from them."
            found.append(problem(text, f"Tick its export {editor}."))
    return found


def _confirmed_problems(template: Template, editor: str) -> list[Finding]:
    """Return why a prediction cannot be confirmed, or is by nobody."""
    confirmed, prediction = template.field("Confirmed"), template.field("Prediction")
    if confirmed is None or confirmed.type not in OPTIONAL_FIELDS["Confirmed"]:
        return []
    if confirmed.default.strip().lower() == "true":
        text = "Confirmed is on by default, which confirms every prediction before anybody looks at it."
        return [problem(text, f"Set its default value to false {editor}, and Confirmed off in images not looked at.")]
    hidden = [field.data_label for field in (confirmed, prediction) if field is not None and not field.is_exported]
    if prediction is not None and hidden:
        text = f"{' and '.join(hidden)} is left out of exported files, so what is confirmed there is not taken."
        return [note(text, f"Tick its export {editor}.")]
    return []


def check_species(case: Case) -> list[Finding]:
    """The Species menu and the classes of the project are the same."""
    template, column = _readable_template(case), case.config.labels.column
    choices = _menu(template, column) if template is not None else None
    if template is None or choices is None:
        return []
    found = menu_findings(template, case.config, case.classes())
    return found or [ok(f"the {column} menu offers all {len(choices)} names that are needed")]


def menu_findings(template: Template, config: Config, classes: Collection[str]) -> list[Finding]:
    """Return what the species menu lacks or has too much; nothing for one that has all, or where names are typed."""
    column, part = config.labels.column, config.labels
    choices = _menu(template, column)
    if choices is None:
        return []
    words = {folded(word) for word in (*part.skip_words, part.unlabel_token)}
    known = {folded(name) for name in classes}
    lacks = lacking(choices, classes)
    more = sorted(name for name in choices if folded(name) not in known | words)
    found = []
    if lacks:
        text = f"the {column} menu lacks the classes {_listed(lacks)}, so they cannot be chosen."
        found.append(
            problem(text, "Close Timelapse, then `camera-trap-al template WORK --add-classes` adds them to its list.")
        )
    if more and not config.classes.auto_add:
        text = f"the {column} menu offers {_listed(more)}, which are no classes: such answers are refused."
        fix = "Add them to names under [classes] in config.toml and start again, or take them out of the menu."
        found.append(problem(text, fix))
    elif more:
        text = f"the {column} menu offers {_listed(more)}, which become classes once they are chosen often enough."
        found.append(note(text, "Nothing to do."))
    return found


def lacking(choices: Collection[str], classes: Collection[str]) -> list[str]:
    """Return the classes that a menu does not offer in any spelling that is understood, sorted."""
    offered = {folded(name) for name in choices}
    return sorted(name for name in classes if folded(name) not in offered)


def _menu(template: Template, column: str) -> tuple[str, ...] | None:
    species = template.field(column)
    return species.choices if species is not None and species.type == "FixedChoice" else None


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more


def check_timelapse(case: Case) -> list[Finding]:
    """What else Timelapse finds in the image folder."""
    root = _image_root(case)
    if root is None:
        return []
    with os.scandir(root) as entries:
        names = [entry.name for entry in entries]
    found = []
    databases = sorted(name for name in names if name.lower().endswith(".ddb"))
    templates = find_templates(root)
    if templates and not databases:
        text = "Timelapse has not opened the images yet."
        found.append(note(text, f"In Timelapse: File > Load template, images…, and choose {templates[0]}."))
    if len(databases) > 1:
        text = f"there are {len(databases)} image databases: {', '.join(databases)}; Timelapse asks which to use."
        found.append(note(text, "Always choose the same one, or move the others away."))
    shortcuts = sorted(name for name in names if name.lower().endswith(".lnk"))
    if shortcuts:
        text = f"Timelapse takes images from where the shortcut {shortcuts[0]} leads, and this program does not."
        found.append(problem(text, "Remove the shortcut, or put the images themselves there."))
    if case.folder.root.is_relative_to(root):
        pictures = sorted(p.name for p in _pictures_in(case.folder.root))
        if pictures:
            text = f"Timelapse takes pictures in the work folder for images of yours, such as {pictures[0]}."
            found.append(problem(text, "Move them out of the work folder."))
    if "backups" in (name.lower() for name in names):
        found.append(ok("Timelapse's folder Backups is left out, by Timelapse and by this program"))
    if databases and not found:
        found.append(ok(f"Timelapse has opened the images ({databases[0]})"))
    return found


def _pictures_in(work: Path) -> list[Path]:
    folders = [work, *(path for path in work.iterdir() if path.is_dir() and not path.name.startswith("."))]
    return [path for folder in folders for path in folder.iterdir() if path.suffix.lower() in PICTURE_ENDINGS]


def _image_root(case: Case) -> Path | None:
    seen = case.seen.get(POOL)
    return None if seen is None or seen.error else seen.folder


def _readable_template(case: Case) -> Template | None:
    root = _image_root(case)
    try:
        templates = find_templates(root) if root is not None else []
        return read_template(templates[0]) if templates else None
    except CameraTrapAlError:
        return None
